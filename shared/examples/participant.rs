//! A participant of another service's saga. It carries out a command and its undo, each once per step of the saga, and
//! answers with an event on its own topic. Any service may consume the event, and the coordinator takes it as the answer.
//! A business refusal is an answer too. After a technical error the command is repeated or parked.
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

const COMMANDS: &str = "airline.commands";
const EVENTS: &str = "airline.events";

/// The command. It is answered with [`SeatReserved`] or [`SeatRefused`].
#[derive(Serialize, Deserialize)]
struct ReserveSeat {
    flight: String,
}

impl Message for ReserveSeat {
    const TYPE: &'static str = "airline.reserve_seat.v1";
    const TOPIC: &'static str = COMMANDS;
}

impl Command for ReserveSeat {
    type Reply = SeatReserved;
    type Refusal = SeatRefused;
}

/// The undo of the command. It cannot be refused.
#[derive(Serialize, Deserialize)]
struct ReleaseSeat {}

impl Message for ReleaseSeat {
    const TYPE: &'static str = "airline.release_seat.v1";
    const TOPIC: &'static str = COMMANDS;
}

impl Command for ReleaseSeat {
    type Reply = SeatReleased;
    type Refusal = Never;
}

#[derive(Serialize, Deserialize)]
struct SeatReserved {
    flight: String,
    number: i32,
}

impl Message for SeatReserved {
    const TYPE: &'static str = "airline.seat_reserved.v1";
    const TOPIC: &'static str = EVENTS;
}

impl Event for SeatReserved {}

/// The reason of a refusal is the member `code`.
#[derive(Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
enum SeatRefused {
    FullyBooked,
}

impl Message for SeatRefused {
    const TYPE: &'static str = "airline.seat_refused.v1";
    const TOPIC: &'static str = EVENTS;
}

impl Event for SeatRefused {}

#[derive(Serialize, Deserialize)]
struct SeatReleased {}

impl Message for SeatReleased {
    const TYPE: &'static str = "airline.seat_released.v1";
    const TOPIC: &'static str = EVENTS;
}

impl Event for SeatReleased {}

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
                Some(number) => Answer::done(SeatReserved { flight: flight.clone(), number }),
                None => Answer::refused(SeatRefused::FullyBooked),
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
        Ok(tasks.iter().map(|_| Answer::done(SeatReleased {})).collect())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = env::var("DATABASE_URL")?.parse()?;
    let db = DbOptions::new("airline").connect(options);
    shared::migrations::apply(&db).await?;
    let create = "create table if not exists public.seat (
                      flight text not null, number integer not null, booking text, primary key (flight, number));
                  insert into public.seat (flight, number) values ('AM1', 1) on conflict do nothing";
    sqlx::raw_sql(create).execute(&mut db.connect().await?).await?;

    let kafka = Kafka::new(env::var("KAFKA_BROKERS")?);
    let retention = std::time::Duration::from_secs(7 * 24 * 3600);
    let topics = [COMMANDS, EVENTS, "airline.parked"];
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
