//! The program under test: it takes orders over HTTP, and carries each one out in the background.

use std::sync::Arc;

use anyhow::Context;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;

use super::steps::{Order, Store};
use crate::output::{complain, say};

/// The environment variable with the superuser's URL.
pub const SERVER: &str = "DATABASE_URL";

/// Serves orders until the process is killed. The first line of standard output is the address.
#[tokio::main]
pub async fn serve() -> anyhow::Result<()> {
    let url = std::env::var(SERVER)
        .with_context(|| format!("{SERVER} is not set; `amends bench baseline` starts this program"))?;
    let options: PgConnectOptions =
        url.parse().with_context(|| format!("{SERVER} is no URL of PostgreSQL"))?;
    let routes = Router::new().route("/orders", post(take)).with_state(Arc::new(Store::new(&options)));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say!("{}", listener.local_addr()?);
    axum::serve(listener, routes).await?;
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the yardstick is what one would write without this project: nothing watches over the task"
)]
async fn take(State(store): State<Arc<Store>>, Json(order): Json<Order>) -> (StatusCode, String) {
    if let Err(error) = store.create(&order).await {
        return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    }
    tokio::spawn(async move {
        if let Err(error) = store.carry_out(&order).await {
            complain!("{}: {error}", order.id);
        }
    });
    (StatusCode::ACCEPTED, String::new())
}
