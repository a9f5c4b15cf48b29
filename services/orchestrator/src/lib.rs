//! The orchestrator: drives the sagas about orders, and compensates the steps of those that can't go on.
//!
//! - Consumes `order.created.v1`, which begins the saga `place_order`, `order.return_requested.v1`, which begins the
//!   saga `return_order`, and `order.cancellation_requested.v1`. Consumes the participants' events that answer a step;
//!   their metadata has an outcome.
//! - Sends every other service its commands.
//! - Publishes `saga.compensating.v1`, `saga.stuck.v1`, `saga.cancellation_refused.v1`,
//!   `saga.completed.v1` and `saga.compensated.v1` on `orchestrator.events`.
//! - Owns the tables `saga` and `saga_log`, in the schema `amends`.

pub mod config;
pub mod handlers;
pub mod routes;
pub mod sagas;
pub mod store;

use std::sync::Arc;
use std::time::Duration;

use shared::kafka::Topic;
use shared::router::MessageRouter;
use shared::service::{App, Service};

pub use self::config::Config;

/// The orchestrator.
#[derive(Debug)]
pub struct Orchestrator;

impl App for Orchestrator {
    const NAME: &'static str = "orchestrator";
    const PORT: u16 = 8086;
    const TOPIC_RETENTION: Duration = schemas::topics::RETENTION;
    const COORDINATES_SAGAS: bool = true;
    type Config = Config;

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
        let registry = Arc::new(sagas::all(service.config.step_deadline));
        let coordinator = handlers::coordinator(service.db().clone(), Arc::clone(&registry));
        let (timers, operator) = (coordinator.timers(), coordinator.operator());
        let app = routes::App { db: service.requests_db(), registry, operator };
        service.serve(routes::router().with_state(app).into());
        service.consume(MessageRouter::new().sagas(coordinator));
        service.task("timers", async move |stop| {
            timers.run(stop).await;
            Ok(())
        });
        Ok(())
    }
}
