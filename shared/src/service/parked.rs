//! The HTTP routes under `/parked`, which every service has.

mod routes;
mod views;

pub(super) use self::routes::{App, document, router};
