//! Shipping: books shipments with the carrier.
//!
//! - Takes `shipping.book_shipment.v1` and `shipping.cancel_shipment.v1`.
//! - Tells `shipping.booked.v1` and `shipping.cancelled.v1` on `shipping.events`.
//! - Owns the table `shipment`.

pub mod carrier;
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

/// The shipping service.
#[derive(Debug)]
pub struct Shipping;

impl App for Shipping {
    const NAME: &'static str = "shipping";
    const PORT: u16 = 8084;
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
        let carrier = carrier::Simulated::new(service.config.carrier_latency)
            .with_outage(service.config.carrier_outage.clone());
        let table = handlers::table(service, carrier);
        service.consume(table);
        Ok(())
    }
}
