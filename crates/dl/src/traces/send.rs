//! Requests of OTLP over HTTP. <https://opentelemetry.io/docs/specs/otlp/#otlphttp>

use std::time::{Duration, Instant};

use deltalakedb::config::OtlpSettings;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use prost::Message;
use reqwest_otlp::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest_otlp::{Client, Response, StatusCode, redirect};
use tokio::sync::watch;

/// How often a batch is sent at most.
const ATTEMPTS: u32 = 4;
/// The first pause between two attempts; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause that a receiver may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// An answer is read so far, bytes.
const LONGEST_ANSWER: usize = 64 * 1_024;
/// So much of a receiver's text is told, characters.
const LONGEST_TEXT: usize = 200;

/// A batch that was not taken, or not as a whole.
pub(super) struct Lost {
    pub(super) why: String,
    /// How many of its spans; none: all.
    pub(super) rejected: Option<u64>,
}

/// What one attempt gave.
enum Failed {
    /// It may be sent again, after this time if the receiver says one.
    ForNow(String, Option<Duration>),
    Finally(Lost),
}

/// Sends batches.
pub(super) struct Sender {
    client: Client,
    url: String,
    timeout: Duration,
    resource: ResourceAttributesWithSchema,
    end: watch::Receiver<Option<Instant>>,
}

impl Sender {
    /// # Errors
    /// What is wrong with the settings; no secret.
    pub(super) fn new(
        settings: OtlpSettings,
        resource: &Resource,
        end: watch::Receiver<Option<Instant>>,
    ) -> Result<Sender, String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        for (name, value) in settings.headers() {
            let (Ok(header), Ok(mut value)) =
                (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
            else {
                return Err(format!("logging.otlp.headers: the header {name} cannot be sent"));
            };
            value.set_sensitive(true);
            headers.insert(header, value);
        }
        let client = Client::builder()
            .default_headers(headers)
            .user_agent(concat!("dl/", env!("CARGO_PKG_VERSION")))
            // Headers with secrets go to the receiver that is named, and to no other.
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|error| format!("cannot make a client: {}", plain(error)))?;
        Ok(Sender {
            client,
            url: settings.url,
            timeout: settings.timeout,
            resource: resource.into(),
            end,
        })
    }

    /// Sends a batch, again if the receiver wants that. Once the process ends nothing is sent again.
    ///
    /// # Errors
    /// What was lost, and why.
    pub(super) async fn send(&self, batch: Vec<SpanData>) -> Result<(), Lost> {
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let mut pause = FIRST_PAUSE;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let (why, wanted) = match self.attempt(body.clone()).await {
                Ok(()) => return Ok(()),
                Err(Failed::Finally(lost)) => return Err(lost),
                Err(Failed::ForNow(why, wanted)) => (why, wanted),
            };
            if attempts >= ATTEMPTS || self.end.borrow().is_some() {
                return Err(Lost { why, rejected: None });
            }
            let wait = wanted.unwrap_or(pause).min(LONGEST_PAUSE);
            pause *= 2;
            let mut end = self.end.clone();
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // One attempt more, without the pause.
                _ = end.wait_for(Option::is_some) => {}
            }
        }
    }

    async fn attempt(&self, body: Vec<u8>) -> Result<(), Failed> {
        let mut end = self.end.clone();
        let deadline = async {
            // The sender of the moment lives as long as this thread is of use.
            let at = end.wait_for(Option::is_some).await.ok().and_then(|at| *at);
            if let Some(at) = at {
                tokio::time::sleep_until(at.into()).await;
            }
        };
        let work = tokio::time::timeout(self.timeout, self.request(body));
        tokio::select! {
            answer = work => answer.unwrap_or_else(|_| {
                let seconds = self.timeout.as_secs_f64();
                Err(Failed::ForNow(format!("{} did not answer within {seconds} s", self.url), None))
            }),
            () = deadline => {
                let why = format!("{} did not answer before this process ended", self.url);
                Err(Failed::Finally(Lost { why, rejected: None }))
            }
        }
    }

    async fn request(&self, body: Vec<u8>) -> Result<(), Failed> {
        let answer = self.client.post(&self.url).body(body).send().await;
        let answer = answer.map_err(|error| {
            Failed::ForNow(format!("{} cannot be reached: {}", self.url, plain(error)), None)
        })?;
        let status = answer.status();
        if status.is_success() {
            return self.taken(answer).await;
        }
        let wanted = answer
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs);
        let why = format!("{} answered {status}{}", self.url, advice(status));
        match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Err(Failed::ForNow(why, wanted)),
            _ => Err(Failed::Finally(Lost { why, rejected: None })),
        }
    }

    /// Looks whether all was taken.
    async fn taken(&self, mut answer: Response) -> Result<(), Failed> {
        let mut body = Vec::new();
        while let Ok(Some(part)) = answer.chunk().await {
            if body.len() + part.len() > LONGEST_ANSWER {
                // It was taken, whatever more there is to say.
                return Ok(());
            }
            body.extend_from_slice(&part);
        }
        let answer = ExportTraceServiceResponse::decode(body.as_slice());
        let partial = answer.ok().and_then(|answer| answer.partial_success);
        let Some(partial) = partial else { return Ok(()) };
        let rejected = u64::try_from(partial.rejected_spans).unwrap_or(0);
        let text: String =
            partial.error_message.chars().filter(|c| !c.is_control()).take(LONGEST_TEXT).collect();
        if rejected == 0 {
            if !text.is_empty() {
                tracing::warn!(target: "dl::traces", text, "the receiver of traces says");
            }
            return Ok(());
        }
        let why = format!("{} took all but {rejected} spans of a request: {text}", self.url);
        Err(Failed::Finally(Lost { why, rejected: Some(rejected) }))
    }
}

/// What to do about an answer.
fn advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            ": look at logging.otlp.headers (OTEL_EXPORTER_OTLP_HEADERS)"
        }
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            ": logging.otlp.endpoint is the base of a receiver, without /v1/traces; traces_endpoint is all of it"
        }
        status if status.is_redirection() => ": name the address that it redirects to",
        _ => "",
    }
}

/// An error of the client and its causes, without the URL.
fn plain(error: reqwest_otlp::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
