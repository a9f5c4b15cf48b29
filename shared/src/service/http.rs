//! The common parts of all HTTP interfaces: the server with its bounds, extractors that reject with problems,
//! `Idempotency-Key`, the trace of a request, event streams, and answers for unknown paths, methods and parameters.

mod address;
pub mod idempotency;
mod json;
mod parameters;
mod patience;
mod refusals;
pub(crate) mod server;
mod strict;

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::path::ErrorKind;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, MatchedPath, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tracing::Instrument;

use self::json::Texts;
use self::parameters::DeclaredParameters;
pub(crate) use self::patience::limited;
pub use self::patience::preferred_wait;
use self::refusals::{Refusal, refused};
use crate::service::problem::{Invalid, Problem};
use crate::service::telemetry;
use crate::trace;

/// The largest request body, in bytes.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// How much of a body that is too large is taken and thrown away, in bytes.
const MOST_DISCARDED: usize = 4 * 1024 * 1024;
/// How long that may take.
const LONGEST_DISCARD: Duration = Duration::from_secs(2);
/// How long to wait for more of it.
const DISCARD_PAUSE: Duration = Duration::from_millis(200);
/// How long the body of a request may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A JSON body. Malformed JSON gives 400 with the position. An invalid, unknown or repeated member, and a text with a control
/// character, gives 422 with its pointer. Another media type gives 415, a body over [`MAX_BODY_BYTES`] gives 413, and one
/// that does not come in time 408.
///
/// A type that takes any member, such as [`serde_json::Value`], must check for unknown ones itself.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        read_json(request, Texts::OneLine).await.map(Self)
    }
}

/// No body, or `{}`, which many clients send instead. Anything else gives 422: its sender means something by it, and the route
/// has no use for it.
#[derive(Debug)]
pub struct NoBody;

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let body = read_body(request.into_body(), BODY_TIMEOUT).await?;
        match body.trim_ascii() {
            [] | b"{}" => Ok(Self),
            _ => Err(Problem::invalid(vec![Invalid::new("", "is not empty, and this request has no body")])),
        }
    }
}

/// A JSON body that is a message. It is a [`Body`] whose texts may have line breaks and tabs.
#[derive(Debug)]
pub(crate) struct MessageBody(pub Box<RawValue>);

impl<S: Send + Sync> FromRequest<S> for MessageBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        read_json(request, Texts::Lines).await.map(Self)
    }
}

async fn read_json<T: DeserializeOwned>(request: Request, texts: Texts) -> Result<T, Problem> {
    json::parse(&declared_json(request).await?, texts)
}

/// Reads a body that is declared as JSON.
async fn declared_json(request: Request) -> Result<Vec<u8>, Problem> {
    if !is_json(request.headers()) {
        let title = "The body must be JSON";
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "/problems/unsupported-media-type",
            title,
        )
        .detail("send it with the header `Content-Type: application/json`"));
    }
    read_body(request.into_body(), BODY_TIMEOUT).await
}

/// Reads a body of at most [`MAX_BODY_BYTES`] that comes within `longest`.
async fn read_body(body: axum::body::Body, longest: Duration) -> Result<Vec<u8>, Problem> {
    let body = async {
        let (mut chunks, mut read) = (body.into_data_stream(), Vec::new());
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| Problem::bad_request("the body is not complete"))?;
            if read.len() + chunk.len() > MAX_BODY_BYTES {
                discard(chunks).await;
                return Err(too_large());
            }
            read.extend_from_slice(&chunk);
        }
        Ok(read)
    };
    tokio::time::timeout(longest, body).await.unwrap_or_else(|_| {
        refused(Refusal::BodyTimeout, 1);
        let title = "The body did not come in time";
        Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "/problems/request-timeout", title)
            .detail(format!("a request body may take {} seconds; send it again", longest.as_secs())))
    })
}

/// Takes what is on its way of a body that is too large. A connection that is closed with unread data is reset, and the client
/// would lose the answer. A client that sends nothing is not waited for, nor one that sends for long.
async fn discard(mut chunks: axum::body::BodyDataStream) {
    let began = Instant::now();
    let mut left = MOST_DISCARDED;
    while left > 0
        && began.elapsed() < LONGEST_DISCARD
        && let Ok(Some(Ok(chunk))) = tokio::time::timeout(DISCARD_PAUSE, chunks.next()).await
    {
        left = left.saturating_sub(chunk.len());
    }
}

fn too_large() -> Problem {
    refused(Refusal::BodyTooLarge, 1);
    let title = "The body is too large";
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "/problems/too-large", title)
        .detail(format!("a request body may have {MAX_BODY_BYTES} bytes"))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// Query parameters. Invalid ones give a problem with 400.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::from_request_parts(parts, state).await;
        query
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|error: QueryRejection| Problem::bad_request(format!("query: {}", error.body_text())))
    }
}

/// Path parameters. Invalid ones give a problem with 400.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(value)| Self(value))
            .map_err(|error: PathRejection| Problem::bad_request(path_error_text(&error)))
    }
}

fn path_error_text(error: &PathRejection) -> String {
    let PathRejection::FailedToDeserializePathParams(failed) = error else { return error.body_text() };
    match failed.kind() {
        ErrorKind::ParseErrorAtKey { value, expected_type, .. }
        | ErrorKind::ParseErrorAtIndex { value, expected_type, .. }
        | ErrorKind::ParseError { value, expected_type } => format!("`{value}` is not a {expected_type}"),
        ErrorKind::DeserializeError { key, value, .. } => format!("`{value}` is not a valid {key}"),
        _ => error.body_text(),
    }
}

/// The trace of a request, for the messages that it causes.
#[derive(Debug, Clone, Default)]
pub struct Trace(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for Trace {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// Answers with server-sent events. A comment every fifteen seconds keeps the connection open.
///
/// The header `X-Accel-Buffering` tells nginx to pass each event on at once. Without it a client would see nothing until
/// the end of the stream.
pub fn event_stream(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let events = Sse::new(events.map(Ok::<_, Infallible>));
    let alive = events.keep_alive(KeepAlive::new().interval(Duration::from_secs(15)));
    ([("x-accel-buffering", "no")], alive).into_response()
}

/// Adds the common layers and fallbacks to a service's routes. `document` is their OpenAPI document, which has the query
/// parameters of each.
pub(crate) fn finish(router: Router, document: &serde_json::Value) -> Router {
    let parameters = DeclaredParameters::of(document);
    router
        .fallback(async |uri: Uri| {
            Problem::not_found(format!("there is no route {}; /openapi.json lists the routes", uri.path()))
        })
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            let title = "The method is not allowed here";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "/problems/method-not-allowed", title)
                .detail(format!("{method} is not supported by {}", uri.path()))
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(parameters, parameters::only_declared))
        .layer(middleware::from_fn(address::without_control))
        .layer(middleware::from_fn(no_larger_than_allowed))
        .layer(middleware::from_fn(traced))
}

/// Rejects bodies that are declared as too large, before they come.
async fn no_larger_than_allowed(request: Request, next: Next) -> Result<Response, Problem> {
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if declared
        .and_then(|length| length.parse().ok())
        .is_some_and(|length: u64| length > MAX_BODY_BYTES as u64)
    {
        // A client that asks before it sends is on the safe side, and must not be told to go on.
        if !request.headers().contains_key(header::EXPECT) {
            discard(request.into_body().into_data_stream()).await;
        }
        return Err(too_large());
    }
    Ok(next.run(request).await)
}

async fn traced(mut request: Request, next: Next) -> Response {
    let incoming = request.headers().get(crate::cloudevents::TRACEPARENT);
    let incoming = incoming.and_then(|value| value.to_str().ok()).filter(|text| trace::is_traceparent(text));
    let incoming = incoming.map(str::to_owned);
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str);
    let span = telemetry::request_span(request.method().as_str(), route, incoming.as_deref());
    let traceparent = trace::traceparent_of(&span).or(incoming).unwrap_or_else(trace::new_traceparent);
    request.extensions_mut().insert(Trace(Some(traceparent)));
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_asks_proxies_to_pass_each_event_on_at_once() {
        let response = event_stream(futures::stream::empty());
        let headers = response.headers();
        assert_eq!(headers["x-accel-buffering"], "no");
        assert_eq!(headers["content-type"], "text/event-stream");
    }

    #[tokio::test]
    async fn a_body_that_drips_is_answered_with_408() {
        let drip = futures::stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Some((Ok::<_, Infallible>("x"), ()))
        });
        let read = read_body(axum::body::Body::from_stream(drip), Duration::from_millis(100)).await;
        let problem = read.expect_err("it takes too long");
        assert_eq!((problem.status, &*problem.kind), (408, "/problems/request-timeout"));
    }
}
