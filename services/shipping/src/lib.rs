//! Shipping: books shipments with the carrier, and follows them to the customer.
//!
//! - Consumes the commands `shipping.book_shipment.v1` and `shipping.cancel_shipment.v1` of the order saga, and
//!   `shipping.stop_shipment.v1` and `shipping.resume_shipment.v1` of the return saga. Consumes `order.confirmed.v1`,
//!   which releases the order's shipment: no parcel leaves before.
//! - Publishes `shipping.booked.v1`, `shipping.booking_refused.v1`, `shipping.cancelled.v1`, `shipping.stopped.v1`,
//!   `shipping.stop_refused.v1`, `shipping.resumed.v1`, `shipping.dispatched.v1` and `shipping.delivered.v1` on
//!   `shipping.events`. Shipping learns of a dispatch and a delivery by asking the carrier, and publishes each of
//!   them once for a shipment.
//! - Owns the table `shipment`.

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
use self::domain::Pace;

static MIGRATIONS: LazyLock<Migrator> = shared::migrations!("migrations": "0001_shipments", "0002_movements");

/// The shipping service.
#[derive(Debug)]
pub struct Shipping;

impl App for Shipping {
    const NAME: &'static str = "shipping";
    const PORT: u16 = 8084;
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
        let Config { carrier_latency, dispatch_after, deliver_after, carrier_outage } =
            service.config.clone();
        let pace = Pace { dispatch_after, deliver_after };
        let carrier = gateway::Simulated::new(carrier_latency, pace).with_outage(carrier_outage);
        let (router, tracker) = handlers::router(service.db().clone(), carrier);
        service.consume(router);
        service.task("tracking", move |stop| tracker.run(stop));
        Ok(())
    }
}
