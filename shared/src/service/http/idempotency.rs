//! `Idempotency-Key`: a write that is repeated under its key has its effect once.
//!
//! The key, a hash of the request and the answer are written in the transaction of the write. A second request with the key
//! waits for the lock of the key, and then gets the first one's answer. A request that was refused writes nothing, so its
//! repetition is decided anew.

mod store;

use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use self::store::AnswerRow;
use super::declared_json;
use super::json::{self, Texts};
use crate::db::Db;
use crate::service::problem::Problem;
use crate::unit_of_work::UnitOfWork;

const HEADER: &str = "idempotency-key";

/// The longest key, in characters.
const MAX_CHARS: usize = 255;

/// The `Idempotency-Key` of a request, if it has one. An unusable key gives a problem with 400.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(pub Option<String>);

impl IdempotencyKey {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut keys = headers.get_all(HEADER).iter();
        let Some(key) = keys.next() else { return Ok(Self(None)) };
        let printable = |key: &str| key.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        match key.to_str().map(str::trim) {
            Ok(key) if keys.next().is_none() && (1..=MAX_CHARS).contains(&key.len()) && printable(key) => {
                Ok(Self(Some(key.to_owned())))
            }
            _ => Err(Problem::bad_request(format!(
                "a request has one Idempotency-Key, of 1 to {MAX_CHARS} printable ASCII characters"
            ))),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Self::of(&parts.headers)
    }
}

/// Returns the lock that a write under this key holds.
pub fn lock_of(key: &str) -> String {
    format!("idempotency-key/{key}")
}

/// Returns a hash that identifies a request: its target, for example `POST /a`, and its body. The order of the body's members
/// does not matter, because `Value` keeps them sorted.
pub fn request_hash(target: &str, body: &Value) -> Vec<u8> {
    Sha256::new().chain_update(target).chain_update(body.to_string()).finalize().to_vec()
}

/// The refusal of a key that was used for another request.
pub fn reused(detail: impl Into<String>) -> Problem {
    let title = "The Idempotency-Key was used for another request";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "/problems/idempotency-key-reused", title).detail(detail)
}

/// Marks an answer, by its headers, as that of an earlier request.
pub fn mark_replayed(headers: &mut HeaderMap) {
    headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
}

/// Deletes a batch of answers that are older than `kept`. Returns the number of rows deleted.
pub(crate) async fn prune(db: &mut PgConnection, kept: Duration) -> Result<u64, sqlx::Error> {
    store::delete(db, kept).await
}

/// The JSON body of a write that may be repeated under an `Idempotency-Key`. The body is read as [`super::Body`] reads it.
#[derive(Debug)]
pub struct Repeatable<T> {
    /// The body.
    pub body: T,
    /// Has the write's effect once.
    pub once: Once,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Repeatable<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let IdempotencyKey(key) = IdempotencyKey::of(request.headers())?;
        let target = key.is_some().then(|| target(request.method(), request.uri()));
        let bytes = declared_json(request).await?;
        let body = json::parse(&bytes, Texts::OneLine)?;
        let attempt = match key.zip(target) {
            Some((key, target)) => {
                let value: Value = json::parse(&bytes, Texts::OneLine)?;
                Some(Attempt { key, request_hash: request_hash(&target, &value) })
            }
            None => None,
        };
        Ok(Self { body, once: Once(attempt) })
    }
}

fn target(method: &Method, uri: &Uri) -> String {
    format!("{method} {}\n", uri.path_and_query().map_or(uri.path(), |target| target.as_str()))
}

/// A write that has its effect once. Without a key, it has its effect each time.
#[derive(Debug)]
pub struct Once(Option<Attempt>);

#[derive(Debug)]
struct Attempt {
    key: String,
    request_hash: Vec<u8>,
}

/// Whether the request is the first one with its key.
pub enum Begun {
    /// It is, or it has no key. The unit of work holds the locks of its aggregates.
    First(Box<UnitOfWork>),
    /// It is not. Nothing is to be written.
    Repeated(Recorded),
}

/// The answer that the first request got.
#[derive(Debug)]
pub struct Recorded {
    status: StatusCode,
    body: Option<String>,
}

impl Once {
    /// Begins the write about the aggregates with these keys. It waits for other requests with the same key.
    ///
    /// # Errors
    /// Fails if the key was used for another request, or if the database does not answer.
    pub async fn begin(&self, db: &Db, aggregates: &[String]) -> Result<Begun, Problem> {
        let Some(attempt) = &self.0 else { return Ok(Begun::First(Box::new(db.write(aggregates).await?))) };
        let mut uow = db.write(&[aggregates, &[lock_of(&attempt.key)]].concat()).await?;
        let Some(row) = store::find(uow.db(), &attempt.key).await? else {
            return Ok(Begun::First(Box::new(uow)));
        };
        uow.abandon().await?;
        if row.request_hash != attempt.request_hash {
            return Err(reused(
                "it belongs to a request with another path or body; use a new key for a new request",
            ));
        }
        let status = u16::try_from(row.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        Ok(Begun::Repeated(Recorded { status: status.unwrap_or(StatusCode::OK), body: row.body }))
    }

    /// Commits the write with its answer, which repetitions get too.
    ///
    /// # Errors
    /// Fails if the database does not answer. It is then unknown whether the commit took place; the repetition shows it.
    pub async fn commit(
        self,
        mut uow: UnitOfWork,
        status: StatusCode,
        answer: &impl Serialize,
    ) -> Result<Response, Problem> {
        let body = serde_json::to_string(answer)?;
        self.record(&mut uow, status, Some(&body));
        uow.commit().await?;
        Ok(response(status, body))
    }

    /// Commits the write. Repetitions write nothing, and answer with the present state.
    ///
    /// # Errors
    /// Fails as [`Once::commit`] does.
    pub async fn commit_without_answer(self, mut uow: UnitOfWork) -> Result<(), Problem> {
        self.record(&mut uow, StatusCode::OK, None);
        Ok(uow.commit().await?)
    }

    fn record(self, uow: &mut UnitOfWork, status: StatusCode, body: Option<&str>) {
        if let Some(Attempt { key, request_hash }) = self.0 {
            let status = i16::try_from(status.as_u16()).unwrap_or_default();
            store::insert(uow, &key, &AnswerRow { request_hash, status, body: body.map(str::to_owned) });
        }
    }
}

impl IntoResponse for Recorded {
    fn into_response(self) -> Response {
        let mut response = response(self.status, self.body.unwrap_or_default());
        mark_replayed(response.headers_mut());
        response
    }
}

fn response(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use serde_json::json;

    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Receipt {
        quantity: i64,
    }

    fn key(values: &[&[u8]]) -> Result<Option<String>, u16> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_bytes(value).expect("a value"));
        }
        IdempotencyKey::of(&headers).map(|key| key.0).map_err(|problem| problem.status)
    }

    #[test]
    fn a_key_is_printable_ascii() {
        assert_eq!(key(&[]), Ok(None));
        assert_eq!(key(&[b" a key \t"]), Ok(Some("a key".to_owned())));
        let longest = "k".repeat(MAX_CHARS);
        assert_eq!(key(&[longest.as_bytes()]), Ok(Some(longest.clone())));
        for wrong in [&b""[..], b" ", b"a\tb", b"\x80", "ß".as_bytes(), format!("{longest}k").as_bytes()] {
            assert_eq!(key(&[wrong]), Err(400), "{wrong:?}");
        }
        assert_eq!(key(&[b"one", b"two"]), Err(400), "nobody knows which of the two counts");
    }

    async fn read(method: Method, path: &str, body: &str) -> Vec<u8> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(HEADER, "k")
            .body(Body::from(body.to_owned()))
            .expect("a request");
        let Repeatable { body, once } =
            Repeatable::<Receipt>::from_request(request, &()).await.expect("valid");
        assert!(body.quantity > 0);
        once.0.expect("a key").request_hash
    }

    #[tokio::test]
    async fn a_request_is_known_by_its_method_path_and_body() {
        let first = read(Method::POST, "/a?b=1", r#"{"quantity":1}"#).await;
        assert_eq!(read(Method::POST, "/a?b=1", "{ \"quantity\" : 1 }").await, first);
        for other in [
            read(Method::PUT, "/a?b=1", r#"{"quantity":1}"#),
            read(Method::POST, "/a?b=2", r#"{"quantity":1}"#),
            read(Method::POST, "/b?b=1", r#"{"quantity":1}"#),
            read(Method::POST, "/a?b=1", r#"{"quantity":2}"#),
        ] {
            assert_ne!(other.await, first);
        }
    }

    #[test]
    fn the_order_of_members_does_not_matter() {
        let (one, other) = (json!({"a": 1, "b": 2}), json!({"b": 2, "a": 1}));
        assert_eq!(request_hash("POST /a\n", &one), request_hash("POST /a\n", &other));
    }
}
