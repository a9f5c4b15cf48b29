//! How long a request may wait for the database.

use std::time::Duration;

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;

use crate::deadline;
use crate::fault::Fault;
use crate::service::problem::Problem;

/// Answers with 503 if a route has no answer within the time that a unit of work may take, and the time that the client wants
/// to wait (`Prefer: wait=N`). A connection to the database that has fallen silent would keep the client for minutes.
pub(crate) async fn limited(request: Request, next: Next) -> Result<Response, Problem> {
    within(deadline::LIMIT, request, next).await
}

async fn within(limit: Duration, request: Request, next: Next) -> Result<Response, Problem> {
    let limit = limit + preferred_wait(request.headers()).unwrap_or_default();
    let answer = tokio::time::timeout(limit, next.run(request)).await;
    answer.map_err(|_| Fault::retry(format!("the request had no answer within {limit:?}")).into())
}

/// Reads `Prefer: wait=N` (RFC 7240). The RFC wants an unreadable preference to be ignored.
pub fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    /// A larger number is one that nobody means.
    const LONGEST: u64 = 24 * 3600;
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut wait = preferences.flat_map(|value| value.split([',', ';'])).filter_map(|preference| {
        let (name, value) = preference.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"').parse().ok())?
    });
    wait.next().map(|seconds: u64| Duration::from_secs(seconds.min(LONGEST)))
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use axum::Router;
    use axum::body::Body;
    use axum::http::{HeaderValue, StatusCode};
    use axum::routing::get;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;

    use super::*;

    #[test]
    fn the_wait_is_found_among_other_preferences() {
        let mut headers = HeaderMap::new();
        headers.insert("prefer", HeaderValue::from_static("respond-async, wait=10"));
        assert_eq!(preferred_wait(&headers), Some(Duration::from_secs(10)));
        headers.insert("prefer", HeaderValue::from_static("wait=soon"));
        assert_eq!(preferred_wait(&headers), None);
    }

    #[tokio::test]
    async fn a_route_without_an_answer_is_answered_for() {
        let routes = Router::new().route("/", get(std::future::pending::<()>));
        let limit = Duration::from_millis(50);
        let routes =
            routes.layer(axum::middleware::from_fn(move |request, next| within(limit, request, next)));
        let ask = |prefer: &str| {
            let request = Request::builder().uri("/").header("prefer", prefer).body(Body::empty());
            TowerToHyperService::new(routes.clone()).call(request.expect("a request"))
        };
        let answer = ask("").await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let waits = tokio::time::timeout(limit * 4, pin!(ask("wait=60"))).await;
        assert!(waits.is_err(), "the client wants to wait for longer");
    }
}
