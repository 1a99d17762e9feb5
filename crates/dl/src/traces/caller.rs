//! The span of a caller, by the variable `TRACEPARENT`. <https://www.w3.org/TR/trace-context/>

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// A span of another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caller {
    trace: TraceId,
    span: SpanId,
    pub(super) sampled: bool,
}

impl Caller {
    /// The one of this process, if it names this trace.
    pub(super) fn of_environment(invocation: &str) -> Option<Caller> {
        let caller = Caller::parse(&std::env::var("TRACEPARENT").ok()?)?;
        (caller.trace.to_string() == invocation).then_some(caller)
    }

    fn parse(text: &str) -> Option<Caller> {
        let mut parts = text.trim().split('-');
        let (version, trace) = (parts.next()?, parts.next()?);
        let (span, flags) = (parts.next()?, parts.next()?);
        let fine = |part: &str, length| {
            part.len() == length
                && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let right = fine(version, 2) && version != "ff" && fine(trace, 32) && fine(span, 16);
        // Later versions may have more parts, the first one has not.
        if !right || !fine(flags, 2) || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let trace = TraceId::from_hex(trace).ok().filter(|id| *id != TraceId::INVALID)?;
        let span = SpanId::from_hex(span).ok().filter(|id| *id != SpanId::INVALID)?;
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        Some(Caller { trace, span, sampled })
    }

    pub(super) fn context(self) -> SpanContext {
        let flags = TraceFlags::NOT_SAMPLED.with_sampled(self.sampled);
        SpanContext::new(self.trace, self.span, flags, true, TraceState::NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_read_as_the_standard_has_it() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let caller = Caller::parse(&format!("00-{trace}-{span}-01")).unwrap();
        assert_eq!(
            (caller.trace.to_string(), caller.span.to_string()),
            (trace.into(), span.into())
        );
        assert!(caller.sampled);
        assert!(!Caller::parse(&format!("00-{trace}-{span}-00")).unwrap().sampled);
        assert!(Caller::parse(&format!("cc-{trace}-{span}-01-what-the-future-has")).is_some());
        for wrong in [
            String::new(),
            format!("00-{trace}"),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-01-more"),
            format!("ff-{trace}-{span}-01"),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{trace}-{span}-é1"),
        ] {
            assert_eq!(Caller::parse(&wrong), None, "{wrong}");
        }
    }
}
