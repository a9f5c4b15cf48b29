//! The guarantees of the HTTP interfaces.

mod idempotency;
mod orders;
mod overload;
mod requests;
