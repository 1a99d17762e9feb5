//! Traces: what this process does, as spans, sent to a receiver of OpenTelemetry (OTLP over HTTP).
//!
//! A command is one trace, of the id that its log lines have. A command that watches for months would make a trace
//! without an end: there, each piece of work (a table that is published, a pass of maintenance) is a trace of its own.

mod caller;
mod choice;
mod queue;
mod send;

use std::time::Duration;

use deltalakedb::config::OtlpSettings;
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::output::Output;
use caller::Caller;
use choice::{Choice, Ids};
use queue::Queue;

/// How long the end of the process waits for the last spans at most.
const DEADLINE: Duration = Duration::from_secs(2);

/// What sends the traces of this process.
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    caller: Option<Caller>,
    watches: bool,
}

impl Traces {
    /// Begins to collect. None: no receiver is named. `watches`: whether the command goes on until it is told to stop.
    pub(crate) fn start(
        settings: Option<OtlpSettings>,
        invocation: &str,
        watches: bool,
        out: Output,
    ) -> Option<Traces> {
        let settings = settings?;
        let caller = if watches { None } else { Caller::of_environment(invocation) };
        let ids = Ids::new((!watches).then_some(invocation));
        let choice = Choice::new(&settings, caller.filter(|_| settings.parent_based));
        let own = [
            ("service.name", settings.service_name.clone()),
            ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("service.instance.id", invocation.to_owned()),
            ("telemetry.sdk.name", "opentelemetry".to_owned()),
            ("telemetry.sdk.language", "rust".to_owned()),
        ];
        // Those that the user names go before ours, but for the name, which has a key of its own.
        let own = own.into_iter().filter(|(name, _)| {
            !settings.resource_attributes.iter().any(|(given, _)| given == name)
        });
        let attributes = own.map(|(name, value)| KeyValue::new(name, value));
        let given = settings.resource_attributes.iter();
        let given = given.map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
        let resource = Resource::builder_empty().with_attributes(attributes.chain(given)).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Queue::start(settings, resource.clone(), out))
            .with_id_generator(ids)
            .with_sampler(choice)
            .with_resource(resource)
            .build();
        Some(Traces { provider, caller, watches })
    }

    /// What makes spans of the spans of `tracing`: of those of our crates alone, and of no event. So the exporter's own
    /// HTTP calls make none, and no text of a log line leaves by this way.
    pub(crate) fn layer<S>(&self, is_ours: fn(&str) -> bool) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("deltalakedb"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(move |metadata| {
                metadata.is_span() && is_ours(metadata.target())
            }))
    }

    /// The span of the whole command; none if it watches.
    pub(crate) fn root(&self, command: &'static str) -> Span {
        if self.watches {
            return Span::none();
        }
        let span = tracing::trace_span!(
            "dl",
            command,
            exit_code = tracing::field::Empty,
            otel.status_code = tracing::field::Empty
        );
        if let Some(caller) = self.caller {
            // Fails where the span is not collected: then it has no parent either.
            let _ = span.set_parent(Context::new().with_remote_span_context(caller.context()));
        }
        span
    }

    /// Sends what is there, within a deadline.
    pub(crate) fn finish(self) {
        // What is not sent by then is lost, and has been told of.
        let _ = self.provider.shutdown_with_timeout(DEADLINE);
    }
}

/// Trace and span that a log line belongs to, if it belongs to one.
pub(crate) fn current() -> Option<(String, String)> {
    let context = Context::current();
    let span = context.span();
    let context = span.span_context();
    context.is_valid().then(|| (context.trace_id().to_string(), context.span_id().to_string()))
}
