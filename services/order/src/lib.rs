//! Order: takes orders and customers over HTTP, and keeps what happens to every order.
//!
//! - Consumes the commands `order.confirm_order.v1`, `order.reject_order.v1` and `order.cancel_order.v1` of the order
//!   saga, and `order.return_order.v1` and `order.refuse_return.v1` of the return saga. Consumes `product.updated.v1`
//!   for its prices. Consumes the events of all services for the timeline: `order.confirmed.v1`, `order.rejected.v1`,
//!   `order.cancelled.v1`, `order.returned.v1`, `order.return_refused.v1`, `inventory.reserved.v1`,
//!   `inventory.reservation_refused.v1`, `inventory.released.v1`, `inventory.committed.v1`, `inventory.restocked.v1`,
//!   `payment.authorized.v1`, `payment.declined.v1`, `payment.voided.v1`, `payment.captured.v1`,
//!   `payment.capture_declined.v1`, `payment.refunded.v1`, `payment.refund_declined.v1`, `shipping.booked.v1`, `shipping.booking_refused.v1`, `shipping.cancelled.v1`,
//!   `shipping.stopped.v1`, `shipping.stop_refused.v1`, `shipping.resumed.v1`, `shipping.dispatched.v1`,
//!   `shipping.delivered.v1`, `notification.sent.v1`, `notification.failed.v1`, `saga.stuck.v1`,
//!   `saga.cancellation_refused.v1`, `saga.compensating.v1`, `saga.compensated.v1` and `saga.completed.v1`. The events of a
//!   dispatch and a delivery also change the status of a confirmed order, and a refused cancellation is kept with its order.
//! - Publishes `order.created.v1`, `order.confirmed.v1`, `order.rejected.v1`, `order.cancellation_requested.v1`,
//!   `order.cancelled.v1`, `order.return_requested.v1`, `order.returned.v1` and `order.return_refused.v1` on
//!   `order.events`, and `customer.updated.v1` on `customer.events`.
//! - Owns the tables `orders`, `order_timeline`, `product`, `idempotency_key` and `customer`.

mod admission;
pub mod config;
pub mod domain;
pub mod handlers;
mod intake;
pub mod metrics;
pub mod order_events;
mod routes;
pub mod store;

use std::sync::LazyLock;
use std::time::Duration;

use shared::kafka::Topic;
use shared::service::{App, Service};
use sqlx::migrate::Migrator;

pub use self::config::Config;

static MIGRATIONS: LazyLock<Migrator> = shared::migrations!("migrations": "0001_orders", "0002_idempotency_key_age", "0003_timeline_by_message", "0004_after_confirmation", "0005_customers", "0006_cancellation_and_return", "0007_product_message");

/// The order service.
#[derive(Debug)]
pub struct Order;

impl App for Order {
    const NAME: &'static str = "order";
    const PORT: u16 = 8081;
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
        let events = order_events::OrderNotifier::default();
        let (intake, writer) = intake::intake(service.db().clone());
        let Config { outbox_limit, pending_limit, .. } = service.config;
        let (admission, sampler) = admission::admission(service.db().clone(), outbox_limit, pending_limit);
        let app = routes::App {
            db: service.requests_db(),
            intake,
            admission,
            events: events.clone(),
            longest_wait: service.config.longest_wait,
            stopping: service.stopping(),
        };
        service.serve(routes::router().with_state(app).into());
        service.consume(handlers::router(&events));
        let db = service.db().clone();
        service.task("order events", move |stop| events.run(db, stop));
        service.task("intake", move |stop| writer.run(stop));
        service.task("admission", move |stop| sampler.run(stop));
        let kept = service.idempotency_key_retention();
        service.prune("idempotency_key", move |db| Box::pin(store::delete_answers(db, kept)));
        Ok(())
    }
}
