//! The guarantees of the HTTP interfaces.

mod currencies;
mod idempotency;
mod lists;
mod orders;
mod overload;
mod repeated_writes;
mod requests;
mod strange_text;
mod streams;
