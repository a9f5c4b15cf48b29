//! Order's HTTP interface: placing, reading and watching orders; customers.

mod cancellations;
mod customer_input;
mod customers;
mod events;
mod feed;
mod input;
mod place;
mod read;
mod returns;

use std::time::Duration;

use axum::extract::FromRef;
use shared::db::Db;
use shared::service::audit::report;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admission::Admission;
use crate::intake::OrderIntake;
use crate::order_events::OrderNotifier;
use crate::store::audit::Figures;

#[derive(OpenApi)]
#[openapi(info(title = "Amends: order", description = "Place orders, and follow them until they settle."))]
struct Document;

/// The state of the routes.
#[derive(Clone)]
pub(crate) struct App {
    pub db: Db,
    pub intake: OrderIntake,
    pub admission: Admission,
    pub events: OrderNotifier,
    pub longest_wait: Duration,
    pub stopping: CancellationToken,
}

impl FromRef<App> for Db {
    fn from_ref(app: &App) -> Self {
        app.db.clone()
    }
}

/// Returns the routes with their OpenAPI document.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(place::post, read::list))
        .routes(routes!(read::get))
        .routes(routes!(cancellations::cancel))
        .routes(routes!(returns::give_back))
        .routes(routes!(events::get))
        .routes(routes!(feed::get))
        .routes(routes!(read::products))
        .routes(routes!(customers::get, customers::put))
        .merge(report::router::<Figures, _>())
}
