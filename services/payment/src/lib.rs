//! Payment: authorizes, voids and captures cards for the order saga, and gives money back for the return saga.
//!
//! - Consumes `payment.authorize_payment.v1`, `payment.void_payment.v1`, `payment.capture_payment.v1` and
//!   `payment.refund_payment.v1`.
//! - Publishes `payment.authorized.v1`, `payment.declined.v1`, `payment.voided.v1`, `payment.captured.v1`,
//!   `payment.capture_declined.v1`, `payment.refunded.v1` and `payment.refund_declined.v1` on `payment.events`.
//! - Owns the tables `payment` and `ledger_entry`.

pub mod config;
pub mod domain;
pub mod gateway;
pub mod handlers;
pub mod routes;
pub mod store;

use std::sync::LazyLock;
use std::time::Duration;

use shared::kafka::Topic;
use shared::service::{App, Service};
use sqlx::migrate::Migrator;

pub use self::config::Config;

static MIGRATIONS: LazyLock<Migrator> = shared::migrations!("migrations": "0001_payments");

/// The payment service.
#[derive(Debug)]
pub struct Payment;

impl App for Payment {
    const NAME: &'static str = "payment";
    const PORT: u16 = 8082;
    const TOPIC_RETENTION: Duration = schemas::topics::RETENTION;
    type Config = Config;

    fn migrations() -> Option<&'static Migrator> {
        Some(&MIGRATIONS)
    }

    fn topics() -> Vec<Topic> {
        schemas::topics::all()
    }

    fn writes(topic: &str) -> bool {
        schemas::topics::writes(Self::NAME, topic)
    }

    fn openapi() -> utoipa::openapi::OpenApi {
        routes::router().into_openapi()
    }

    fn run(service: &mut Service<Config>) -> anyhow::Result<()> {
        service.serve(routes::router().with_state(service.requests_db()).into());
        let provider =
            gateway::Simulated::new(service.config.provider_latency, service.config.provider_outage.clone());
        service.consume(handlers::router(service.db().clone(), provider));
        Ok(())
    }
}
