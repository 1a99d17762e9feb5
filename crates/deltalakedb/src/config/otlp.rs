//! What the section `logging.otlp` says: where traces are sent to.

use std::fmt;
use std::time::Duration;

use super::model::LoggingOtlp;
use super::values::Sampler;

/// Where a receiver takes traces, below its base.
const TRACES: &str = "v1/traces";
/// What traces are known by, where nobody says.
const SERVICE: &str = "dl";

/// Where traces are sent to, and how.
#[derive(Clone, PartialEq)]
pub struct OtlpSettings {
    /// The receiver's URL for traces.
    pub url: String,
    /// Headers of each request, in small letters; secret.
    headers: Vec<(String, String)>,
    /// `service.name`
    pub service_name: String,
    /// Other attributes of the resource.
    pub resource_attributes: Vec<(String, String)>,
    /// Whether a caller's decision (`TRACEPARENT`) goes before `sample_ratio`.
    pub parent_based: bool,
    /// Share of traces that are sent, 0 to 1.
    pub sample_ratio: f64,
    /// Longest time for one request.
    pub timeout: Duration,
}

impl fmt::Debug for OtlpSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpSettings")
            .field("url", &self.url)
            .field("service_name", &self.service_name)
            .field("sample_ratio", &self.sample_ratio)
            .finish_non_exhaustive()
    }
}

impl OtlpSettings {
    /// None: no receiver is named, or nothing is to be sent.
    pub(super) fn of(otlp: &LoggingOtlp) -> Option<OtlpSettings> {
        if otlp.disabled.is_some_and(|flag| flag.0) {
            return None;
        }
        let url = match (&otlp.traces_endpoint, &otlp.endpoint) {
            (Some(whole), _) => whole.0.to_string(),
            (None, Some(base)) => {
                format!("{}/{TRACES}", base.0.as_str().trim_end_matches('/'))
            }
            (None, None) => return None,
        };
        let mut attributes = otlp.resource_attributes.clone().map_or_else(Vec::new, |list| list.0);
        let named = attributes.iter().position(|(name, _)| name == "service.name");
        let named = named.map(|at| attributes.remove(at).1);
        let service = otlp.service_name.as_ref().map(|text| text.0.clone());
        let ratio = otlp.sample_ratio.map_or(1.0, |ratio| ratio.0);
        let (parent_based, sample_ratio) = match otlp.sampler {
            None | Some(Sampler::ParentRatio) => (true, ratio),
            Some(Sampler::Ratio) => (false, ratio),
            Some(Sampler::On) => (false, 1.0),
            Some(Sampler::Off) => (false, 0.0),
            Some(Sampler::ParentOn) => (true, 1.0),
            Some(Sampler::ParentOff) => (true, 0.0),
        };
        Some(OtlpSettings {
            url,
            headers: otlp.headers.clone().map_or_else(Vec::new, |list| list.0),
            service_name: service.or(named).unwrap_or_else(|| SERVICE.to_owned()),
            resource_attributes: attributes,
            parent_based,
            sample_ratio,
            timeout: otlp.timeout.map_or(Duration::from_secs(10), |time| time.0),
        })
    }

    /// Headers of each request: names in small letters, and values. They are secrets.
    #[must_use]
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }
}
