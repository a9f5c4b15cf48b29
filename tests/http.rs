//! What the HTTP interfaces promise.

mod idempotency;
mod orders;
mod overload;
mod requests;
