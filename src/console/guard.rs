//! Checks every request before it is answered, and sets the headers that protect the page.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::http_server::Peer;
use tidings_core::runtime::metrics::labels::ConsoleOutcome;

use super::Console;
use super::access::Refusal;
use super::problem::Problem;

/// How long a request may take. Live streams begin within this time, and go on.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Scripts, styles and data come from the console only, and nothing may embed it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(&str, &str); 7] = [
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("x-frame-options", "DENY"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// Refuses requests for other names, and sets the headers of all answers.
pub async fn every_request(
    State(console): State<Arc<Console>>,
    request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    let checked = console.access.check_host(request.headers(), request.uri());
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        Err(refusal) => refuse(&console, refusal, peer),
    };
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Checks site and token of a request to the API, and bounds what it takes.
pub async fn api_request(
    State(console): State<Arc<Console>>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    let caller = match console.access.check(request.headers()).await {
        Ok(caller) => caller,
        Err(refusal) => return refuse(&console, refusal, peer),
    };
    let _share = match console.request_shares.of(&caller) {
        Ok(share) => share,
        Err(problem) => {
            count(&console, ConsoleOutcome::Busy);
            return problem.into_response();
        }
    };
    request.extensions_mut().insert(caller);
    let response = match console.requests.try_acquire() {
        Ok(_permit) => match tokio::time::timeout(TIMEOUT, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Problem::NotInTime.into_response(),
        },
        Err(_) => Problem::Busy.into_response(),
    };
    let outcome = response.extensions().get().copied();
    let outcome = outcome.unwrap_or(ConsoleOutcome::Answered);
    count(&console, outcome);
    if let Some(refusal) = response.extensions().get::<Refusal>() {
        log(&console, *refusal, peer);
    }
    response
}

fn refuse(console: &Console, refusal: Refusal, peer: Option<Peer>) -> Response {
    count(
        console,
        match refusal {
            Refusal::WrongHost | Refusal::CrossSite => ConsoleOutcome::WrongHost,
            Refusal::Unauthenticated => ConsoleOutcome::Unauthenticated,
            Refusal::NotAllowed | Refusal::NotInNamespace => ConsoleOutcome::NotAllowed,
            Refusal::Unavailable => ConsoleOutcome::Failed,
        },
    );
    log(console, refusal, peer);
    Problem::Refused(refusal).into_response()
}

fn log(console: &Console, refusal: Refusal, peer: Option<Peer>) {
    let reason = refusal.to_string();
    // A pace for each reason: a sender that alternates between two gets no line for each request.
    let is_due = console.refusals.lock()[refusal as usize].is_due(&reason, Instant::now());
    if is_due {
        let peer = peer.map(|Peer(address)| address.to_string());
        tracing::warn!(
            code = codes::CONSOLE_REFUSED,
            reason,
            peer = peer.unwrap_or_default(),
            "console request refused"
        );
    }
}

fn count(console: &Console, outcome: ConsoleOutcome) {
    let requests = &console.parts.metrics.console_requests_total;
    requests.get_or_create(&outcome).inc();
}
