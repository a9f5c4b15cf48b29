//! The inbox: what a claim of message ids holds, and what it lets go.

use serde_json::json;
use shared::envelope::{Direction, Message, new_id};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::harness::commands::{Asked, ask_as};
use crate::harness::toy::Toy;
use crate::loyalty::messages::VoidVoucher;

/// An id as it was made some days ago.
fn made_days_ago(days: u32) -> Uuid {
    let now = new_id().as_u128();
    Uuid::from_u128(now - ((u128::from(days) * 86_400_000) << 80))
}

/// A command that the service answers without doing anything: the undo of an action that never came. The same step in
/// another message is answered again, so only the inbox keeps an id to one answer.
fn undo(saga: Uuid, id: Uuid) -> Asked {
    let command = VoidVoucher { member: saga, page: "unknown".to_owned() };
    ask_as(id, saga, &id.to_string(), Direction::Undo, &command)
}

impl Toy {
    /// Sends commands so that the service takes them together.
    async fn tell(&self, saga: Uuid, ids: &[Uuid]) {
        let commands: Vec<Asked> = ids.iter().map(|id| undo(saga, *id)).collect();
        self.send_together(&commands).await;
    }

    /// How often the service has answered each of these messages about a saga.
    async fn answered<const N: usize>(&self, saga: Uuid, ids: [Uuid; N]) -> [i64; N] {
        let count = async |id: Uuid| {
            let answers = "select count(*) from outbox where topic = 'orchestrator.replies'
                           and convert_from(body, 'UTF8')::json ->> 'causationId'";
            self.number(&format!("{answers} = '{id}'")).await
        };
        // What is about one saga keeps its order, so with this one all before it are done.
        let last = new_id();
        self.tell(saga, &[last]).await;
        self.until("the last command to be answered", async || count(last).await == 1).await;
        let mut counts = [0; N];
        for (counted, id) in counts.iter_mut().zip(ids) {
            *counted = count(id).await;
        }
        counts
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_comes_again_in_its_batch_or_later_has_one_effect() {
    let toy = Toy::start().await;
    let (saga, twice, once) = (new_id(), new_id(), new_id());
    toy.tell(saga, &[twice, once, twice]).await;
    assert_eq!(toy.answered(saga, [twice, once]).await, [1, 1]);
    toy.tell(saga, &[twice]).await;
    assert_eq!(toy.answered(saga, [twice, once]).await, [1, 1]);

    // The step's own record hides a repetition within a batch; behind a parked message nothing but the claim does.
    let (parked, twice, once) = (new_id(), new_id(), new_id());
    let key = parked.to_string();
    toy.produce(VoidVoucher::TOPIC, &key, b"this is not an envelope").await;
    toy.parked_messages(&key, 1).await;
    toy.tell(parked, &[twice, once, twice]).await;
    toy.parked_messages(&key, 3).await;
    let ids = "select message_id::text from parked where message_id is not null order by id";
    assert_eq!(toy.texts(ids).await, [twice.to_string(), once.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_older_than_the_inbox_remembers_is_parked_and_a_younger_one_is_handled_once() {
    let toy = Toy::start().await;
    let (saga, stale, later) = (new_id(), made_days_ago(15), new_id());
    toy.tell(saga, &[stale, later]).await;
    // Its day has no partition here, and never had one.
    let (other, young) = (new_id(), made_days_ago(13));
    toy.tell(other, &[young]).await;
    toy.tell(other, &[young]).await;
    assert_eq!(toy.answered(other, [young]).await, [1]);

    let key = saga.to_string();
    toy.parked_messages(&key, 2).await;
    let ids = toy.texts("select message_id::text from parked order by id").await;
    assert_eq!(ids, [stale.to_string(), later.to_string()], "it may have been handled, and its key waits");
    let reasons = toy.texts("select reason from parked order by id").await;
    assert!(reasons[0].starts_with("stale: the message is older"), "{reasons:?}");
    // An operator, who has looked whether it was handled, has it handled.
    let (status, answer) = toy.retry(&key).await;
    assert_eq!((status, &answer["replayed"]), (200, &json!(2)), "{answer}");
    assert_eq!(toy.answered(saga, [stale, later]).await, [1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_whose_action_may_have_been_forgotten_is_parked_and_not_answered_as_done() {
    let toy = Toy::start().await;
    let saga = made_days_ago(15);
    toy.tell(saga, &[new_id()]).await;
    toy.parked_messages(&saga.to_string(), 1).await;
    let reasons = toy.texts("select reason from parked").await;
    assert!(reasons[0].starts_with("stale: the saga began"), "{reasons:?}");
    assert_eq!(toy.number("select count(*) from step_outcome").await, 0);
}

/// The process at the database that waits for a lock, other than this one.
async fn waiting(db: &mut PgConnection, other_than: i32) -> Option<i32> {
    sqlx::query_scalar(
        "select pid from pg_stat_activity
         where datname = current_database() and wait_event_type = 'Lock' and pid <> $1",
    )
    .bind(other_than)
    .fetch_optional(db)
    .await
    .expect("the activity")
}

async fn until_waiting(toy: &Toy, other_than: i32) -> i32 {
    let found = std::cell::Cell::new(None);
    toy.until("the service to wait for a claim", async || {
        found.set(waiting(&mut toy.connect().await, other_than).await);
        found.get().is_some()
    })
    .await;
    found.get().expect("it was found")
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_in_another_order_do_not_deadlock_and_are_free_again_when_rolled_back() {
    let toy = Toy::start().await;
    let (saga, low, high) = (new_id(), new_id(), new_id());
    let claim = "insert into inbox (message_id) values ($1) on conflict do nothing";
    // Another replica has claimed the lower id, in a transaction that stays open.
    let mut replica = toy.connect().await;
    // Far less than the second after which the server breaks a deadlock by itself.
    sqlx::raw_sql("begin; set local lock_timeout = '100ms'").execute(&mut replica).await.expect("begun");
    sqlx::query(claim).bind(low).execute(&mut replica).await.expect("claimed");
    // The consumer gets the higher one first, and must not hold it while it waits for the lower one.
    toy.tell(saga, &[high, low]).await;
    let first = until_waiting(&toy, 0).await;
    let claimed = sqlx::query(claim).bind(high).execute(&mut replica).await.expect("claimed without a wait");
    assert_eq!(claimed.rows_affected(), 1);
    // The consumer's transaction breaks, and the batch is tried again.
    toy.execute(&format!("select pg_terminate_backend({first})")).await;
    until_waiting(&toy, first).await;
    sqlx::raw_sql("rollback").execute(&mut replica).await.expect("rolled back");
    assert_eq!(toy.answered(saga, [low, high]).await, [1, 1]);
}
