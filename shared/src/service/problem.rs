//! Errors over HTTP, as `application/problem+json` (RFC 9457).

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use crate::fault::{Class, Classified, Fault};

/// The media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// The problem with a request, and the remedy.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// The stable identifier of the problem, `/problems/<code>`. Programs can branch on it.
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// A short text for this kind of problem.
    pub title: Cow<'static, str>,
    /// The HTTP status.
    pub status: u16,
    /// The problem with this request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The invalid members of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Invalid>,
    #[serde(skip)]
    #[schema(ignore)]
    retry_after: Option<u32>,
}

/// An invalid member of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Invalid {
    /// The position of the member, as a JSON pointer (RFC 6901) into the request's body.
    pub pointer: String,
    /// The problem with the member.
    pub detail: String,
}

impl Invalid {
    /// Creates an invalid member from its pointer and the problem with it.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

/// Returns the JSON pointer (RFC 6901) of the member `name` of the object at the pointer `parent`.
pub fn member_pointer(parent: &str, name: &str) -> String {
    format!("{parent}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// The largest number of characters of an operator's name or reason.
const MAX_OPERATOR_TEXT: usize = 500;

/// Validates the member `name` of a request, a text from an operator, and returns it without blanks around it. A text with a
/// control character was refused before.
///
/// # Errors
/// Fails if the text is blank or too long.
pub fn operator_text<'t>(name: &str, text: &'t str) -> Result<&'t str, Invalid> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > MAX_OPERATOR_TEXT {
        let detail = format!("has 1 to {MAX_OPERATOR_TEXT} characters, not all of them blank");
        return Err(Invalid::new(member_pointer("", name), detail));
    }
    Ok(text)
}

impl Problem {
    /// Creates a problem of the kind `/problems/<code>`.
    pub fn new(status: StatusCode, kind: &'static str, title: &'static str) -> Self {
        Self {
            kind: Cow::Borrowed(kind),
            title: Cow::Borrowed(title),
            status: status.as_u16(),
            detail: None,
            errors: Vec::new(),
            retry_after: None,
        }
    }

    /// Adds the problem with this request, and the remedy.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a `Retry-After` header, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Creates a 422 for a body with invalid members.
    pub fn invalid(errors: Vec<Invalid>) -> Self {
        let problem = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "/problems/invalid-request",
            "The request is not valid",
        );
        Self { errors, ..problem }
    }

    /// Creates a 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "/problems/not-found", "There is no such thing").detail(detail)
    }

    /// Creates a 400.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "/problems/bad-request", "The request can't be understood")
            .detail(detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Fault> for Problem {
    /// Logs the cause. The client only learns whether it should try again.
    fn from(fault: Fault) -> Self {
        match fault.class() {
            Class::Retry => {
                warn!(%fault, "a request could not be served");
                let title = "The service can't do this right now";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "/problems/unavailable", title)
                    .detail("nothing was changed, or the result is not known yet; try again, with the same Idempotency-Key if the request had one")
                    .retry_after(1)
            }
            Class::Permanent => {
                error!(%fault, "a request failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "/problems/internal", "The service has a fault")
            }
        }
    }
}

impl<E: Classified> From<E> for Problem {
    fn from(error: E) -> Self {
        Fault::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_says_something_and_not_too_much() {
        assert_eq!(operator_text("by", " ada "), Ok("ada"));
        for wrong in ["", " ", &"x".repeat(MAX_OPERATOR_TEXT + 1)] {
            assert_eq!(operator_text("by", wrong).expect_err("refused").pointer, "/by");
        }
    }
}
