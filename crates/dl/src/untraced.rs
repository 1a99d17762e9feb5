//! Stands in for `traces` in a `dl` without the feature `otlp`.

use deltalakedb::config::OtlpSettings;
use tracing::Span;

use crate::output::Output;

/// Nothing: this program sends no traces.
pub(crate) enum Traces {}

impl Traces {
    /// Says what to do where a receiver is named.
    pub(crate) fn start(
        settings: Option<OtlpSettings>,
        _invocation: &str,
        _watches: bool,
        out: Output,
    ) -> Option<Traces> {
        if settings.is_some() {
            out.warn(
                "a receiver of traces is named (logging.otlp.endpoint), and this `dl` was built without sending \
                 traces: build it with `--features otlp`, or unset OTEL_EXPORTER_OTLP_ENDPOINT, or set \
                 OTEL_SDK_DISABLED=true",
            );
        }
        None
    }

    pub(crate) fn root(&self, _command: &'static str) -> Span {
        match *self {}
    }

    pub(crate) fn finish(self) {
        match self {}
    }
}
