//! A complete saga of two steps in one file. A trip needs a room, which can be freed again, and a payment, which is
//! final. The first trip's card is declined, so its room becomes free again. The second trip is paid.
//! Coordinator and participants share one process here to keep the example short. In production each is a service.
//!
//! ```sh
//! DATABASE_URL=postgres://postgres@127.0.0.1:8090/postgres KAFKA_BROKERS=127.0.0.1:8091 cargo run -p shared --example saga
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::env;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::consumer::Consumer;
use shared::db::{Db, DbOptions};
use shared::envelope::{Cause, Command, Event, Message, Never, new_id};
use shared::fault::Fault;
use shared::housekeeper::Housekeeper;
use shared::kafka::{Kafka, Topic};
use shared::relay::Relay;
use shared::router::MessageRouter;
use shared::saga::coordinator::Coordinator;
use shared::saga::engine::Refusal;
use shared::saga::participant::{Answer, CommandHandler, Task};
use shared::saga::plan::{Definition, Plan, Saga};
use shared::saga::registry::Registry;
use shared::unit_of_work::UnitOfWork;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Declares messages. Each has a Rust type, a type name and a topic.
macro_rules! messages {
    ($($message:ident { $($member:ident: $kind:ty),* } = $name:literal on $topic:literal;)*) => {
        $(
            #[derive(Serialize, Deserialize)]
            struct $message { $($member: $kind),* }

            impl Message for $message {
                const TYPE: &'static str = $name;
                const TOPIC: &'static str = $topic;
            }
        )*
    };
}

messages! {
    TripRequested { traveller: String, card: String } = "trip.requested.v1" on "trip.events";
    BookRoom { traveller: String } = "hotel.book_room.v1" on "travel.commands";
    FreeRoom { room: i32 } = "hotel.free_room.v1" on "travel.commands";
    PayTrip { card: String } = "bank.pay_trip.v1" on "travel.commands";
    ConfirmTrip { room: i32 } = "trip.confirm_trip.v1" on "travel.commands";
    RejectTrip { reason: String } = "trip.reject_trip.v1" on "travel.commands";

    // The answers to the commands. Any service may consume them, and the coordinator does.
    RoomBooked { room: i32 } = "hotel.room_booked.v1" on "travel.events";
    RoomRefused { code: Reason } = "hotel.room_refused.v1" on "travel.events";
    RoomFreed { room: i32 } = "hotel.room_freed.v1" on "travel.events";
    TripPaid {} = "bank.trip_paid.v1" on "travel.events";
    PaymentRefused { code: Reason } = "bank.payment_refused.v1" on "travel.events";
    TripConfirmed { room: i32 } = "trip.confirmed.v1" on "travel.events";
    TripRejected { reason: String } = "trip.rejected.v1" on "travel.events";
}

/// The reasons of refusals. In JSON they are texts, such as `no_room`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reason {
    NoRoom,
    CardDeclined,
}

impl Event for TripRequested {}
impl Event for RoomBooked {}
impl Event for RoomRefused {}
impl Event for RoomFreed {}
impl Event for TripPaid {}
impl Event for PaymentRefused {}
impl Event for TripConfirmed {}
impl Event for TripRejected {}

impl Command for BookRoom {
    type Reply = RoomBooked;
    type Refusal = RoomRefused;
}

impl Command for FreeRoom {
    type Reply = RoomFreed;
    type Refusal = Never;
}

impl Command for PayTrip {
    type Reply = TripPaid;
    type Refusal = PaymentRefused;
}

impl Command for ConfirmTrip {
    type Reply = TripConfirmed;
    type Refusal = Never;
}

impl Command for RejectTrip {
    type Reply = TripRejected;
    type Refusal = Never;
}

/// The saga: its memory and its plan.
#[derive(Serialize, Deserialize)]
struct BookTrip {
    trip: TripRequested,
    room: i32,
}

impl Saga for BookTrip {
    const NAME: &'static str = "book_trip";
    const VERSION: i32 = 1;

    fn plan() -> Definition<Self> {
        Plan::begin()
            .step(|saga: &Self| BookRoom { traveller: saga.trip.traveller.clone() })
            .on_reply(|saga, booked| saga.room = booked.room)
            .undo(|saga| FreeRoom { room: saga.room })
            .pivot(|saga| PayTrip { card: saga.trip.card.clone() })
            .then(|saga| ConfirmTrip { room: saga.room })
            .or_else(|_, refusal: &Refusal| RejectTrip { reason: refusal.code.clone() })
    }
}

/// The participants: the hotel, the bank, and the list of trips.
struct Travel;

impl CommandHandler<BookRoom> for Travel {
    async fn handle(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<BookRoom>],
    ) -> Result<Vec<Answer<BookRoom>>, Fault> {
        let mut answers = Vec::with_capacity(tasks.len());
        for task in tasks {
            let room: Option<i32> = sqlx::query_scalar(
                "update room set guest = $1
                 where number in (select number from room where guest is null limit 1 for update) returning number",
            )
            .bind(&task.command.traveller)
            .fetch_optional(uow.db())
            .await?;
            answers.push(match room {
                Some(room) => Answer::done(RoomBooked { room }),
                None => Answer::refused(RoomRefused { code: Reason::NoRoom }),
            });
        }
        Ok(answers)
    }
}

impl CommandHandler<FreeRoom> for Travel {
    async fn handle(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<FreeRoom>],
    ) -> Result<Vec<Answer<FreeRoom>>, Fault> {
        let rooms: Vec<i32> = tasks.iter().map(|task| task.command.room).collect();
        sqlx::query("update room set guest = null where number = any($1)")
            .bind(rooms)
            .execute(uow.db())
            .await?;
        Ok(tasks.iter().map(|task| Answer::done(RoomFreed { room: task.command.room })).collect())
    }
}

impl CommandHandler<PayTrip> for Travel {
    async fn handle(
        &self,
        _: &mut UnitOfWork,
        tasks: &[Task<PayTrip>],
    ) -> Result<Vec<Answer<PayTrip>>, Fault> {
        // For a bank that is called over the network, implement `ExternalCall` instead.
        let pay = |task: &Task<PayTrip>| match task.command.card.as_str() {
            "good" => Answer::done(TripPaid {}),
            _ => Answer::refused(PaymentRefused { code: Reason::CardDeclined }),
        };
        Ok(tasks.iter().map(pay).collect())
    }
}

/// Records the final status of a trip.
async fn end(uow: &mut UnitOfWork, trip: &str, status: &str) -> Result<(), Fault> {
    sqlx::query("insert into trip (id, status) values ($1, $2)")
        .bind(trip)
        .bind(status)
        .execute(uow.db())
        .await?;
    Ok(())
}

impl CommandHandler<ConfirmTrip> for Travel {
    async fn handle(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<ConfirmTrip>],
    ) -> Result<Vec<Answer<ConfirmTrip>>, Fault> {
        let mut answers = Vec::with_capacity(tasks.len());
        for Task { subject, command: ConfirmTrip { room }, .. } in tasks {
            end(uow, subject, &format!("confirmed: room {room}")).await?;
            answers.push(Answer::done(TripConfirmed { room: *room }));
        }
        Ok(answers)
    }
}

impl CommandHandler<RejectTrip> for Travel {
    async fn handle(
        &self,
        uow: &mut UnitOfWork,
        tasks: &[Task<RejectTrip>],
    ) -> Result<Vec<Answer<RejectTrip>>, Fault> {
        let mut answers = Vec::with_capacity(tasks.len());
        for Task { subject, command: RejectTrip { reason }, .. } in tasks {
            end(uow, subject, &format!("rejected: {reason}")).await?;
            answers.push(Answer::done(TripRejected { reason: reason.clone() }));
        }
        Ok(answers)
    }
}

/// Requests a trip. The event begins a saga with the id of the trip.
async fn request(db: &Db, traveller: &str, card: &str) -> Result<Uuid, Fault> {
    let trip = new_id();
    let key = trip.to_string();
    let mut uow = db.write(std::slice::from_ref(&key)).await?;
    let requested = TripRequested { traveller: traveller.to_owned(), card: card.to_owned() };
    uow.publish(&key, &Cause::request(trip, None), &requested)?;
    uow.commit().await?;
    Ok(trip)
}

/// Waits for the end of a trip and returns its final status.
async fn outcome(db: &Db, trip: Uuid) -> Result<String, sqlx::Error> {
    loop {
        let status = sqlx::query_scalar("select status from trip where id = $1")
            .bind(trip.to_string())
            .fetch_optional(&mut *db.read().await?)
            .await?;
        match status {
            Some(status) => return Ok(status),
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Requests two trips, one after the other, and prints how they ended.
async fn book_trips(db: &Db) -> Result<(), Fault> {
    // There is one room. It is free for Bob only because Ada's card was declined.
    let declined = request(db, "Ada", "bad").await?;
    println!("Ada's trip was {}", outcome(db, declined).await?);
    let paid = request(db, "Bob", "good").await?;
    println!("Bob's trip was {}", outcome(db, paid).await?);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = env::var("DATABASE_URL")?.parse()?;
    let db = DbOptions::new("travel").connect(options);
    shared::migrations::apply_with_sagas(&db).await?;
    let create = "create table if not exists public.room (number integer primary key, guest text);
                  create table if not exists public.trip (id text primary key, status text not null);
                  insert into public.room (number) values (7) on conflict (number) do update set guest = null";
    sqlx::raw_sql(create).execute(&mut db.connect().await?).await?;
    let kafka = Kafka::new(env::var("KAFKA_BROKERS")?);
    let retention = Duration::from_secs(7 * 24 * 3600);
    let topics = ["trip.events", "travel.commands", "travel.events", "saga.events", "travel.parked"];
    let topics = topics.map(|name| Topic { name: name.to_owned(), partitions: 4, retention });
    kafka.create_topics(&topics).await?;

    let registry = Arc::new(Registry::default().with::<BookTrip>());
    let coordinator = Coordinator::new(db.clone(), registry, "saga.events")
        .begin_on(|trip: TripRequested| BookTrip { trip, room: 0 });
    let timers = coordinator.timers();
    let travel = Arc::new(Travel);
    let router = MessageRouter::new()
        .sagas(coordinator)
        .command::<BookRoom>(&travel)
        .command::<FreeRoom>(&travel)
        .command::<PayTrip>(&travel)
        .command::<ConfirmTrip>(&travel)
        .command::<RejectTrip>(&travel);
    let consumer = Consumer::new(db.clone(), kafka.clone(), "travel", Arc::new(router));

    // After the last trip, everything stops that publishes messages: the consumer and the timers. The relay stops after
    // them, so that it also sends their last messages.
    let (stop, stop_relay) = (CancellationToken::new(), CancellationToken::new());
    let trips = async {
        let booked = book_trips(&db).await;
        stop.cancel();
        booked
    };
    let publishers = async {
        let ended = tokio::join!(trips, consumer.run(stop.clone()), timers.run(stop.clone()));
        stop_relay.cancel();
        ended
    };
    let ((booked, consumed, ()), (), ()) = tokio::join!(
        publishers,
        Relay::new(db.clone(), kafka).run(stop_relay.clone()),
        Housekeeper::new(db.clone()).run(stop.clone())
    );
    consumed?;
    booked.map_err(|fault| fault.to_string().into())
}
