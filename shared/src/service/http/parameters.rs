//! Refuses query parameters that a route does not have. A misspelt filter would otherwise return everything, other people's
//! data included.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use serde_json::Value;

use crate::service::problem::Problem;

/// The query parameters of each route in an OpenAPI document.
#[derive(Debug, Clone)]
pub(super) struct DeclaredParameters(Arc<HashMap<(Method, String), Vec<String>>>);

impl DeclaredParameters {
    pub fn of(document: &Value) -> Self {
        let mut declared = HashMap::new();
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in item.as_object().into_iter().flatten() {
                let Ok(method) = method.to_uppercase().parse() else { continue };
                let parameters = operation["parameters"].as_array().into_iter().flatten();
                let names = parameters.filter(|parameter| parameter["in"] == "query");
                let names = names.filter_map(|parameter| parameter["name"].as_str().map(str::to_owned));
                declared.insert((method, path.clone()), names.collect());
            }
        }
        Self(Arc::new(declared))
    }

    /// Checks a query against the route's declaration. A route that is not in the document, such as `/metrics`, takes any.
    fn check(&self, method: &Method, route: &str, query: &[(String, String)]) -> Result<(), Problem> {
        let method = if method == Method::HEAD { Method::GET } else { method.clone() };
        let Some(known) = self.0.get(&(method, route.to_owned())) else { return Ok(()) };
        let Some((unknown, _)) = query.iter().find(|(name, _)| !known.contains(name)) else { return Ok(()) };
        let has = if known.is_empty() {
            "no query parameters".to_owned()
        } else {
            format!("the query parameters {}", known.join(", "))
        };
        Err(Problem::bad_request(format!(
            "query: `{}` is unknown; {route} has {has}",
            unknown.escape_debug()
        )))
    }
}

pub(super) async fn only_declared(
    State(declared): State<DeclaredParameters>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    // Most requests have no query, and need no look.
    if request.uri().query().is_some()
        && let Some(route) = request.extensions().get::<MatchedPath>()
        && let Ok(Query(query)) = Query::<Vec<(String, String)>>::try_from_uri(request.uri())
    {
        declared.check(request.method(), route.as_str(), &query)?;
    }
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_parameter_that_the_route_does_not_have_is_named() {
        let declared = DeclaredParameters::of(&json!({"paths": {
            "/orders": {"get": {"parameters": [
                {"name": "status", "in": "query"}, {"name": "cursor", "in": "query"}, {"name": "Prefer", "in": "header"},
            ]}, "post": {}},
        }}));
        let check = |method, route, name: &str| {
            let problem = declared.check(&method, route, &[(name.to_owned(), String::new())]).err()?;
            assert_eq!(problem.status, 400);
            problem.detail
        };
        assert_eq!(check(Method::GET, "/orders", "status"), None);
        assert_eq!(check(Method::GET, "/metrics", "name"), None);
        let unknown = "query: `state` is unknown; /orders has the query parameters status, cursor";
        assert_eq!(check(Method::GET, "/orders", "state").as_deref(), Some(unknown));
        assert_eq!(check(Method::HEAD, "/orders", "state").as_deref(), Some(unknown));
        assert!(check(Method::GET, "/orders", "Prefer").is_some(), "a header is no query parameter");
        let none = "query: `status` is unknown; /orders has no query parameters";
        assert_eq!(check(Method::POST, "/orders", "status").as_deref(), Some(none));
    }
}
