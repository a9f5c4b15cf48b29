//! The HTTP routes under `/parked` and `/parked-messages`, which every service has.

mod bulk;
mod routes;
mod views;

use utoipa_axum::router::OpenApiRouter;

pub(super) use self::routes::App;

/// Returns the routes.
pub(super) fn router(app: App) -> axum::Router {
    documented().with_state(app).into()
}

/// Returns the OpenAPI document of the routes.
pub(super) fn document() -> utoipa::openapi::OpenApi {
    documented().into_openapi()
}

fn documented() -> OpenApiRouter<App> {
    routes::documented().merge(bulk::documented())
}
