//! Order's HTTP interface: place an order, look at it, watch it settle.

mod audit;
mod events;
mod feed;
mod place;
mod read;

use std::time::Duration;

use shared::db::Db;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::placing::Counter;
use crate::store;
use crate::watch::Watchers;

#[derive(OpenApi)]
#[openapi(info(title = "Amends: order", description = "Place orders and see what becomes of them."))]
struct Document;

/// What the routes work with.
#[derive(Clone)]
pub(crate) struct App {
    pub db: Db,
    pub counter: Counter,
    pub watchers: Watchers,
    pub longest_wait: Duration,
    pub stopping: CancellationToken,
}

/// The routes, and their OpenAPI document.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(place::post, read::list))
        .routes(routes!(read::get))
        .routes(routes!(events::get))
        .routes(routes!(feed::get))
        .routes(routes!(read::products))
        .routes(routes!(audit::get))
}

impl App {
    /// Waits until the order has settled, or the time is up.
    pub(crate) async fn settled(&self, order: Uuid, wait: Duration) -> Result<bool, sqlx::Error> {
        let watch = self.watchers.watch(order);
        let until = async {
            loop {
                let status = store::find_status(&mut *self.db.read().await?, order).await?;
                if status.is_some_and(crate::domain::Status::is_settled) {
                    return Ok::<_, sqlx::Error>(true);
                }
                tokio::select! {
                    () = watch.changed() => {}
                    () = self.stopping.cancelled() => return Ok(false),
                }
            }
        };
        tokio::time::timeout(wait, until).await.unwrap_or(Ok(false))
    }
}
