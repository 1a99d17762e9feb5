//! What each request passes: its id, its host, its deadline, its line in the log.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, REFERRER_POLICY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::auth::Keys;
use crate::problem::Failed;
use crate::state::{Caller, Service, request_id};

/// The id of a request, in its answer and in the log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Names by which a service may be called.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    names: Vec<String>,
    any: bool,
}

impl Hosts {
    pub(crate) fn new(allowed: &[String], bound: SocketAddr) -> Hosts {
        let mut names: Vec<String> =
            ["localhost", "127.0.0.1", "::1"].into_iter().map(str::to_owned).collect();
        names.push(bound.ip().to_string());
        names.extend(allowed.iter().map(|name| name.to_ascii_lowercase()));
        Hosts { any: allowed.iter().any(|name| name == "*"), names }
    }

    /// Whether a request is to one of them. `host` is its header, or the authority of its URL.
    fn know(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        self.any || self.names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// What each request passes.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) service: Service,
    pub(crate) hosts: Hosts,
    /// None if nobody is asked.
    pub(crate) keys: Option<Arc<Keys>>,
}

/// What anybody may ask: whether the service works, and what it is.
const OPEN: [&str; 3] = ["/health", "/ready", "/openapi.json"];

/// Answers a request, within its time.
pub(crate) async fn pass(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = request_id(request.headers());
    let peer = request.extensions().get::<SocketAddr>().copied();
    let method = request.method().clone();
    // The pattern of the route: a table's name is nobody's label.
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = route.unwrap_or_else(|| "none".to_owned());
    let mut caller =
        Caller { address: peer.map(|peer| peer.ip().to_string()), ..Caller::default() };
    let mut user = String::new();

    let mut answer = if is_known(&gate.hosts, &request) {
        let limit = gate.service.settings().deadline;
        let answered = async {
            if let Some(keys) = &gate.keys
                && !OPEN.contains(&request.uri().path())
            {
                match keys.who(gate.service.db(), request.headers()).await {
                    Ok(known) => {
                        user.clone_from(&known.principal.name);
                        caller.principal = Some(known.principal);
                    }
                    Err(failed) => return failed.into_response(),
                }
            }
            request.extensions_mut().insert(caller);
            next.run(request).await
        };
        match tokio::time::timeout(limit, answered).await {
            Ok(answer) => answer,
            Err(_) => Failed::late(None).into_response(),
        }
    } else {
        let text = "this service is not known by the name of the request's Host header: its operator allows it \
                    with --allow-host";
        Failed::new(StatusCode::MISDIRECTED_REQUEST, "unknown_host", text).into_response()
    };

    let status = answer.status().as_u16();
    let ms = begun.elapsed().as_secs_f64() * 1_000.0;
    let from = peer.map(|peer| peer.ip().to_string()).unwrap_or_default();
    tracing::info!(%method, route, status, ms, request_id = id, from, user, "request");
    let headers = answer.headers_mut();
    if status == StatusCode::UNAUTHORIZED.as_u16() {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    answer
}

fn is_known(hosts: &Hosts, request: &Request) -> bool {
    let mut named = request.headers().get_all(HOST).iter();
    match (named.next(), named.next(), request.uri().authority()) {
        (Some(host), None, _) => host.to_str().is_ok_and(|host| hosts.know(host)),
        (None, None, Some(authority)) => hosts.know(authority.as_str()),
        _ => false,
    }
}
