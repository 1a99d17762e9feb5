//! Which traces are sent, and which ids they have.

use deltalakedb::config::OtlpSettings;
use opentelemetry::trace::{Link, SpanId, SpanKind, TraceContextExt, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, Sampler, SamplingDecision, SamplingResult, ShouldSample,
};

use super::caller::Caller;

/// Spans that mean something within another alone: a worker that looks for work each second would make a trace of each
/// look.
const NEVER_ALONE: [&str; 2] = ["call", "store"];

/// Which traces are sent.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    ratio: Sampler,
    /// Of the caller, where its decision counts.
    caller: Option<bool>,
}

impl Choice {
    pub(super) fn new(settings: &OtlpSettings, caller: Option<Caller>) -> Choice {
        Choice {
            ratio: Sampler::TraceIdRatioBased(settings.sample_ratio),
            caller: caller.map(|caller| caller.sampled),
        }
    }
}

impl ShouldSample for Choice {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let context = parent.map(|context| context.span().span_context().clone());
        let context = context.filter(opentelemetry::trace::SpanContext::is_valid);
        let sampled = match context {
            // Within a process a trace is sent as a whole, or not at all.
            Some(context) if !context.is_remote() => Some(context.is_sampled()),
            None if NEVER_ALONE.contains(&name) => Some(false),
            _ => self.caller,
        };
        let Some(sampled) = sampled else {
            return self.ratio.should_sample(None, trace, name, kind, attributes, links);
        };
        let decision =
            if sampled { SamplingDecision::RecordAndSample } else { SamplingDecision::Drop };
        SamplingResult { decision, attributes: Vec::new(), trace_state: TraceState::NONE }
    }
}

/// Ids of traces and spans.
#[derive(Debug)]
pub(super) struct Ids {
    /// The one trace of this process.
    trace: Option<TraceId>,
    random: RandomIdGenerator,
}

impl Ids {
    pub(super) fn new(trace: Option<&str>) -> Ids {
        let trace = trace.and_then(|id| TraceId::from_hex(id).ok());
        Ids { trace, random: RandomIdGenerator::default() }
    }
}

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        self.trace.unwrap_or_else(|| self.random.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        self.random.new_span_id()
    }
}
