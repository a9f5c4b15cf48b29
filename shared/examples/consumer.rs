//! An idempotent consumer. It grants points for the sales that another service publishes. Each sale counts once, even
//! if its record is delivered several times: the points and the claim of the message's id are one transaction.
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
    // A message that fails permanently is parked in the database. A copy of it goes to the topic `points.parked`.
    kafka.create_topics(&[topic(SaleMade::TOPIC), topic("points.parked")]).await?;

    let router = MessageRouter::new().event::<SaleMade>(&Arc::new(Points));
    let consumer = Consumer::new(db.clone(), kafka.clone(), "points", Arc::new(router));

    // Ctrl-C stops the consumer first. The relay stops after it, so that it also sends the messages of the last batch.
    let (stop, stop_relay) = (CancellationToken::new(), CancellationToken::new());
    let consume = async {
        let consumed = consumer.run(stop.clone()).await;
        stop.cancel();
        stop_relay.cancel();
        consumed
    };
    let interrupt = async {
        // The wait also ends if the consumer fails.
        stop.run_until_cancelled(tokio::signal::ctrl_c()).await;
        stop.cancel();
    };
    let (consumed, (), (), ()) = tokio::join!(
        consume,
        Relay::new(db.clone(), kafka).run(stop_relay.clone()),
        Housekeeper::new(db).run(stop.clone()),
        interrupt
    );
    Ok(consumed?)
}
