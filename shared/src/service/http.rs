//! The common parts of all HTTP interfaces: extractors that reject with problems, the trace of a request, and answers
//! for unknown paths and methods.

use axum::Router;
use axum::extract::path::ErrorKind;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, MatchedPath, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use serde::de::DeserializeOwned;
use tracing::Instrument;

use crate::service::problem::{Invalid, Problem};
use crate::service::telemetry;
use crate::trace;

/// The largest request body, in bytes.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// A JSON body. Malformed JSON gives 400 with the position, and an invalid member 422 with its pointer. Another media
/// type gives 415, and a body over [`MAX_BODY_BYTES`] gives 413.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let title = "The body must be JSON";
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "/problems/unsupported-media-type",
                title,
            )
            .detail("send it with the header `Content-Type: application/json`"));
        }
        let bytes = axum::body::to_bytes(request.into_body(), MAX_BODY_BYTES).await.map_err(|_| {
            let title = "The body is too large";
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "/problems/too-large", title)
                .detail(format!("a request body may have {MAX_BODY_BYTES} bytes"))
        })?;
        parse(&bytes).map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let pointer = pointer(error.path());
        let error = error.into_inner();
        if error.is_data() {
            Problem::invalid(vec![Invalid::new(pointer, without_position(&error))])
        } else {
            malformed(&error)
        }
    })?;
    json.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

fn malformed(error: &serde_json::Error) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "/problems/malformed-json", "The body is not JSON").detail(format!(
        "{} at line {}, column {}",
        without_position(error),
        error.line(),
        error.column()
    ))
}

fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => {
                pointer.push_str(&format!("/{}", key.replace('~', "~0").replace('/', "~1")))
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
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
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// Adds the common layers and fallbacks to a service's routes.
pub(crate) fn finish(router: Router) -> Router {
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
        .layer(middleware::from_fn(without_nul))
        .layer(middleware::from_fn(traced))
}

/// Rejects addresses with a NUL character. No text here contains one, and PostgreSQL cannot search for it.
async fn without_nul(request: Request, next: Next) -> Result<Response, Problem> {
    if request.uri().to_string().contains("%00") {
        return Err(Problem::bad_request("the address has a NUL character (%00)"));
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

    #[derive(Debug, serde::Deserialize)]
    struct Line {
        #[expect(dead_code, reason = "only parsed")]
        quantity: u32,
    }

    #[test]
    fn malformed_json_is_answered_with_its_position() {
        let problem = parse::<Line>(b"{\n  \"quantity\": }").expect_err("malformed");
        assert_eq!(problem.status, 400);
        assert_eq!(problem.detail.as_deref(), Some("expected value at line 2, column 15"));
    }

    #[test]
    fn a_wrong_member_is_answered_with_its_pointer() {
        let problem = parse::<Vec<Line>>(br#"[{"quantity":1},{"quantity":"two"}]"#).expect_err("wrong type");
        assert_eq!(problem.status, 422);
        assert_eq!(problem.errors[0].pointer, "/1/quantity");
        assert!(problem.errors[0].detail.contains("invalid type"), "{problem:?}");
    }

    #[test]
    fn something_behind_the_json_is_malformed() {
        assert_eq!(parse::<Line>(br#"{"quantity":1} x"#).expect_err("trailing").status, 400);
    }
}
