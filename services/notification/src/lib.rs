//! Notification: tells customers what became of their orders.
//!
//! - Takes `notification.notify_customer.v1`.
//! - Tells `notification.sent.v1` on `notification.events`.
//! - Owns the table `notification`.

pub mod config;
pub mod domain;
pub mod handlers;
pub mod routes;
pub mod store;

use std::time::Duration;

use shared::service::{App, Service};
use sqlx::migrate::Migrator;

pub use self::config::Config;

static MIGRATIONS: Migrator = sqlx::migrate!();

/// The notification service.
#[derive(Debug)]
pub struct Notification;

impl App for Notification {
    const NAME: &'static str = "notification";
    const PORT: u16 = 8085;
    const TOPIC_RETENTION: Duration = schemas::topics::RETENTION;
    type Config = Config;

    fn migrations() -> &'static Migrator {
        &MIGRATIONS
    }

    fn openapi() -> utoipa::openapi::OpenApi {
        routes::router().into_openapi()
    }

    fn run(service: &mut Service<Config>) -> anyhow::Result<()> {
        service.serve(routes::router().with_state(service.db().clone()).into());
        service.consume(handlers::table());
        Ok(())
    }
}
