//! Notification: sends customers notices about their orders by mail. Without a mail server it keeps the notices, to
//! be read over HTTP.
//!
//! - Consumes `notification.notify_customer.v1`, and `customer.updated.v1` for the addresses of customers.
//! - Publishes `notification.sent.v1` and `notification.failed.v1` on `notification.events`.
//! - Owns the tables `notification` and `customer_contact`.
//!
//! A notice goes to the address in the command, else to the customer's own address. With neither it is kept. If the
//! mail server refuses a mail for good, the notice has failed, and the command is done all the same.
//!
//! A mail goes out at least once. If the service is killed after it sent a mail and before it recorded that, it
//! sends the mail again with the same `Message-ID`.

pub mod config;
pub mod domain;
pub mod gateway;
pub mod handlers;
pub mod routes;
pub mod store;

use std::sync::LazyLock;
use std::time::Duration;

use shared::kafka::Topic;
use shared::service::secret::Secret;
use shared::service::{App, Service};
use sqlx::migrate::Migrator;

pub use self::config::Config;

static MIGRATIONS: LazyLock<Migrator> =
    shared::migrations!("migrations": "0001_notifications", "0002_mail", "0003_contact_message");

/// The notification service.
#[derive(Debug)]
pub struct Notification;

impl App for Notification {
    const NAME: &'static str = "notification";
    const PORT: u16 = 8085;
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
        let Config { smtp_url, mail_from } = &service.config;
        let mail_server = |url: &str| gateway::Smtp::new(url, mail_from.clone());
        let smtp = Secret::parse(smtp_url.as_ref(), "NOTIFICATION_SMTP_URL", mail_server)?;
        service.consume(handlers::router(service.db().clone(), smtp));
        Ok(())
    }
}
