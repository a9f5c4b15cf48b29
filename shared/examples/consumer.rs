//! An idempotent consumer: it grants points for every sale that another service has published, once for each, however
//! often the record comes. The points and the claim on the message's id are one transaction.
//!
//! ```sh
//! DATABASE_URL=postgres://postgres@127.0.0.1:8090/postgres KAFKA_BROKERS=127.0.0.1:8091 cargo run -p shared --example consumer
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::env;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shared::consumer::Consumer;
use shared::db::DbOptions;
use shared::envelope::{Event, Message};
use shared::fault::Fault;
use shared::housekeeper::Housekeeper;
use shared::kafka::{Kafka, Topic};
use shared::relay::Relay;
use shared::router::{Delivery, MessageHandler, MessageRouter};
use shared::unit_of_work::UnitOfWork;
use tokio_util::sync::CancellationToken;

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

struct Points;

impl MessageHandler<SaleMade> for Points {
    async fn handle(&self, uow: &mut UnitOfWork, sales: &[Delivery<SaleMade>]) -> Result<(), Fault> {
        for Delivery { message: sale, subject, .. } in sales {
            sqlx::query(
                "insert into points (customer, points) values ($1, $2)
                 on conflict (customer) do update set points = points.points + excluded.points",
            )
            .bind(&sale.customer)
            .bind(sale.amount / 100)
            .execute(uow.db())
            .await?;
            let (customer, subject) = (sale.customer.clone(), subject.clone());
            uow.after_commit(move || println!("{customer} has points for {subject}"));
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let db = DbOptions::new("points").connect(env::var("DATABASE_URL")?.parse()?);
    shared::migrations::apply(&db).await?;
    let create =
        "create table if not exists public.points (customer text primary key, points bigint not null)";
    sqlx::query(create).execute(&mut db.connect().await?).await?;

    let kafka = Kafka::new(env::var("KAFKA_BROKERS")?);
    let retention = std::time::Duration::from_secs(7 * 24 * 3600);
    let topic = |name: &str| Topic { name: name.to_owned(), partitions: 4, retention };
    // A message that fails for good is parked in the database, and a copy of it goes to `points.parked`.
    kafka.create_topics(&[topic(SaleMade::TOPIC), topic("points.parked")]).await?;

    let stop = CancellationToken::new();
    let router = MessageRouter::new().event::<SaleMade>(&Arc::new(Points));
    let consumer = Consumer::new(db.clone(), kafka.clone(), "points", Arc::new(router));
    let told = stop.clone();
    let (consumed, (), (), ()) = tokio::join!(
        consumer.run(stop.clone()),
        Relay::new(db.clone(), kafka).run(stop.clone()),
        Housekeeper::new(db).run(stop.clone()),
        async move {
            let _ = tokio::signal::ctrl_c().await;
            told.cancel();
        }
    );
    Ok(consumed?)
}
