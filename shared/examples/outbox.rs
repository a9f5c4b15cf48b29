//! The outbox beside your own code. An axum handler writes a row through your own pool, and publishes an event in the
//! same transaction. Either both take effect or neither does.
//!
//! ```sh
//! DATABASE_URL=postgres://postgres@127.0.0.1:8090/postgres KAFKA_BROKERS=127.0.0.1:8091 cargo run -p shared --example outbox
//! curl -X POST http://127.0.0.1:3000/sales/sale-1 -H 'Content-Type: application/json' -d '{"customer":"ada","amount":1999}'
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::env;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use shared::db::DbOptions;
use shared::envelope::{Cause, Event, Message, new_id};
use shared::kafka::{Kafka, Topic};
use shared::outbox::Outbox;
use shared::relay::Relay;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

/// Your event, with its type name and its topic.
#[derive(Serialize, Deserialize)]
struct SaleMade {
    customer: String,
    amount: i64,
}

impl Message for SaleMade {
    const TYPE: &'static str = "sale.made.v1";
    const TOPIC: &'static str = "sales.events";
}

impl Event for SaleMade {}

#[derive(Clone)]
struct App {
    pool: PgPool,
    outbox: Outbox,
}

/// Your handler. It uses your pool and your SQL.
async fn sell(
    State(app): State<App>,
    Path(id): Path<String>,
    Json(sale): Json<SaleMade>,
) -> Result<StatusCode, StatusCode> {
    let made = async {
        #[expect(clippy::disallowed_methods, reason = "this is the application's own pool")]
        let mut tx = app.pool.begin().await?;
        sqlx::query("insert into sale (id, customer, amount) values ($1, $2, $3)")
            .bind(&id)
            .bind(&sale.customer)
            .bind(sale.amount)
            .execute(&mut *tx)
            .await?;
        app.outbox.publish(&mut tx, &id, &Cause::request(new_id(), None), &sale).await?;
        tx.commit().await?;
        app.outbox.wake();
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    };
    made.await.map(|()| StatusCode::CREATED).map_err(|_| StatusCode::CONFLICT)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = PgPool::connect(&env::var("DATABASE_URL")?).await?;
    let create = "create table if not exists sale (id text primary key, customer text not null, amount bigint not null)";
    sqlx::query(create).execute(&pool).await?;

    // The crate's own tables are in the schema `amends` of your database.
    let db = DbOptions::new("shop").connect_like(&pool);
    shared::migrations::apply(&db).await?;
    let kafka = Kafka::new(env::var("KAFKA_BROKERS")?);
    let retention = std::time::Duration::from_secs(7 * 24 * 3600);
    kafka.create_topics(&[Topic { name: SaleMade::TOPIC.to_owned(), partitions: 4, retention }]).await?;

    let app = App { pool, outbox: Outbox::new(&db) };
    let address = env::var("HTTP_ADDR").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(&address).await?;
    println!("listening on {}", listener.local_addr()?);
    let router = Router::new().route("/sales/{id}", post(sell)).with_state(app);

    // Ctrl-C stops the server first. The relay stops after it, so that it also sends the events of the last requests.
    let stop_relay = CancellationToken::new();
    let serve = async {
        let interrupt = async {
            let _ = tokio::signal::ctrl_c().await;
        };
        let served = axum::serve(listener, router).with_graceful_shutdown(interrupt).await;
        stop_relay.cancel();
        served
    };
    let (served, ()) = tokio::join!(serve, Relay::new(db, kafka).run(stop_relay.clone()));
    Ok(served?)
}
