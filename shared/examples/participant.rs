//! A participant of another service's saga. It carries out a command and its undo, each once per step of the saga, and
//! replies on the coordinator's topic. A business refusal is a reply. After a technical error the command is repeated
//! or parked.
//!
//! ```sh
//! DATABASE_URL=postgres://postgres@127.0.0.1:8090/postgres KAFKA_BROKERS=127.0.0.1:8091 cargo run -p shared --example participant
//! ```

use std::env;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shared::consumer::Consumer;
use shared::db::DbOptions;
use shared::envelope::{Command, Event, Message, Never};
use shared::fault::Fault;
use shared::housekeeper::Housekeeper;
use shared::kafka::{Kafka, Topic};
use shared::relay::Relay;
use shared::router::MessageRouter;
use shared::saga::participant::{Answer, CommandHandler, Task};
use shared::unit_of_work::UnitOfWork;
use tokio_util::sync::CancellationToken;

/// The command. Its reply is a [`Seat`], and its refusal a [`NoSeat`].
#[derive(Serialize, Deserialize)]
struct ReserveSeat {
    flight: String,
}

#[derive(Serialize, Deserialize)]
struct Seat {
    number: i32,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
enum NoSeat {
    FullyBooked,
}

impl Message for ReserveSeat {
    const TYPE: &'static str = "airline.reserve_seat.v1";
    const TOPIC: &'static str = "airline.commands";
}

impl Command for ReserveSeat {
    type Reply = Seat;
    type Refusal = NoSeat;
}

/// The undo of the command. It cannot be refused.
#[derive(Serialize, Deserialize)]
struct ReleaseSeat {}

impl Message for ReleaseSeat {
    const TYPE: &'static str = "airline.release_seat.v1";
    const TOPIC: &'static str = "airline.commands";
}

impl Command for ReleaseSeat {
    type Reply = ();
    type Refusal = Never;
}

/// The event about a reserved seat. Any service may consume it.
#[derive(Serialize, Deserialize)]
struct SeatReserved {
    flight: String,
    number: i32,
}

impl Message for SeatReserved {
    const TYPE: &'static str = "airline.seat_reserved.v1";
    const TOPIC: &'static str = "airline.events";
}

impl Event for SeatReserved {}

struct Airline;

impl CommandHandler<ReserveSeat> for Airline {
    async fn handle(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<ReserveSeat>],
    ) -> Result<Vec<Answer<ReserveSeat>>, Fault> {
        let mut answers = Vec::with_capacity(tasks.len());
        for task in tasks {
            let flight = &task.command.flight;
            let seat: Option<i32> = sqlx::query_scalar(
                "update seat set booking = $2
                 where (flight, number) in (select flight, number from seat where flight = $1 and booking is null
                                            order by number limit 1 for update skip locked)
                 returning number",
            )
            .bind(flight)
            .bind(&task.subject)
            .fetch_optional(uow.db())
            .await?;
            answers.push(match seat {
                Some(number) => {
                    let reserved = SeatReserved { flight: flight.clone(), number };
                    uow.publish(&task.subject, &task.cause, &reserved)?;
                    Answer::Done(Seat { number })
                }
                None => Answer::Refused(NoSeat::FullyBooked),
            });
        }
        Ok(answers)
    }
}

impl CommandHandler<ReleaseSeat> for Airline {
    async fn handle(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<ReleaseSeat>],
    ) -> Result<Vec<Answer<ReleaseSeat>>, Fault> {
        let bookings: Vec<&str> = tasks.iter().map(|task| task.subject.as_str()).collect();
        sqlx::query("update seat set booking = null where booking = any($1)")
            .bind(bookings)
            .execute(uow.db())
            .await?;
        Ok(tasks.iter().map(|_| Answer::Done(())).collect())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = env::var("DATABASE_URL")?.parse()?;
    let db = DbOptions::new("airline").reply_topic("trips.replies").connect(options);
    shared::migrations::apply(&db).await?;
    let create = "create table if not exists public.seat (
                      flight text not null, number integer not null, booking text, primary key (flight, number));
                  insert into public.seat (flight, number) values ('AM1', 1) on conflict do nothing";
    sqlx::raw_sql(create).execute(&mut db.connect().await?).await?;

    let kafka = Kafka::new(env::var("KAFKA_BROKERS")?);
    let retention = std::time::Duration::from_secs(7 * 24 * 3600);
    let topics = ["airline.commands", "airline.events", "airline.parked", "trips.replies"];
    let topics = topics.map(|name| Topic { name: name.to_owned(), partitions: 4, retention });
    kafka.create_topics(&topics).await?;

    let airline = Arc::new(Airline);
    let router = MessageRouter::new().command::<ReserveSeat>(&airline).command::<ReleaseSeat>(&airline);
    let consumer = Consumer::new(db.clone(), kafka.clone(), "airline", Arc::new(router));

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
