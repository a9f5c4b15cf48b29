//! Inventory: keeps the products, their stock, and the reservations of orders.
//!
//! - Consumes `inventory.reserve_stock.v1`, `inventory.release_stock.v1`, `inventory.commit_stock.v1` and
//!   `inventory.restock_order.v1`.
//! - Publishes `inventory.reserved.v1`, `inventory.reservation_refused.v1`, `inventory.released.v1`,
//!   `inventory.committed.v1`, `inventory.restocked.v1`, `inventory.stock_low.v1` and `product.updated.v1` on
//!   `inventory.events`.
//! - Owns the tables `product`, `reservation` and `stock_entry`.

pub mod config;
pub mod domain;
pub mod handlers;
pub mod routes;
pub mod store;

use std::sync::LazyLock;
use std::time::Duration;

use shared::kafka::Topic;
use shared::service::{App, Service};
use sqlx::migrate::Migrator;

pub use self::config::Config;

static MIGRATIONS: LazyLock<Migrator> = shared::migrations!("migrations": "0001_stock", "0002_restock");

/// The inventory service.
#[derive(Debug)]
pub struct Inventory;

impl App for Inventory {
    const NAME: &'static str = "inventory";
    const PORT: u16 = 8083;
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
        service.consume(handlers::router());
        Ok(())
    }
}
