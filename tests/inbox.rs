//! The inbox: what a claim of message ids holds, and what it lets go.

use local::Signal;
use rdkafka::message::Message;
use reqwest::Method;
use serde_json::{Value, json};
use shared::envelope::new_id;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::harness::Suite;
use crate::harness::kafka::header;
use crate::harness::parked::message;

/// An id as it was made some days ago.
fn made_days_ago(days: u32) -> Uuid {
    let now = new_id().as_u128();
    Uuid::from_u128(now - ((u128::from(days) * 86_400_000) << 80))
}

/// A command that payment answers without doing anything: the undo of an action that never came. The same step in
/// another message is answered again, so only the inbox keeps an id to one answer.
fn command(saga: Uuid, id: Uuid) -> Value {
    let mut command = message(
        "payment.void_payment.v1",
        &saga.to_string(),
        saga,
        json!({"orderId": saga, "authorizationId": "auth-1"}),
    );
    command["id"] = json!(id);
    command["metadata"] = json!({"step": id, "direction": "undo"});
    command
}

impl Suite {
    async fn tell(&self, saga: Uuid, id: Uuid) {
        let body = command(saga, id).to_string();
        self.produce("payment.commands", &saga.to_string(), body.as_bytes()).await;
    }

    /// Sends commands so that payment takes them together.
    async fn tell_at_once(&mut self, saga: Uuid, ids: &[Uuid]) {
        self.process("payment").signal(Signal::STOP);
        // A fetch that waits at the broker is answered with this one alone; the others come with the next.
        self.tell(saga, new_id()).await;
        for id in ids {
            self.tell(saga, *id).await;
        }
        self.process("payment").signal(Signal::CONT);
    }

    /// How often payment has answered each of these messages about a saga.
    async fn answers<const N: usize>(&self, saga: Uuid, ids: [Uuid; N]) -> [usize; N] {
        // Answers about one saga keep their order, so with this one all before it are there.
        let last = new_id();
        self.tell(saga, last).await;
        let count = |id: Uuid| {
            let records = self.records();
            let replies = records.iter().filter(|record| record.topic().ends_with("orchestrator.replies"));
            replies.filter(|record| header(record, "ce_causationid") == Some(id.to_string())).count()
        };
        self.until("the last command to be answered", async |_| count(last) == 1).await;
        ids.map(count)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_comes_again_in_its_batch_or_later_has_one_effect() {
    let mut suite = Suite::start().await;
    let (saga, twice, once) = (new_id(), new_id(), new_id());
    suite.tell_at_once(saga, &[twice, once, twice]).await;
    assert_eq!(suite.answers(saga, [twice, once]).await, [1, 1]);
    suite.tell(saga, twice).await;
    assert_eq!(suite.answers(saga, [twice, once]).await, [1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_older_than_the_inbox_remembers_is_parked_and_a_younger_one_is_handled_once() {
    let suite = Suite::start().await;
    let (parked, stale, later) = (new_id(), made_days_ago(15), new_id());
    suite.tell(parked, stale).await;
    suite.tell(parked, later).await;
    // Its day has no partition here, and never had one.
    let (saga, young) = (new_id(), made_days_ago(13));
    suite.tell(saga, young).await;
    suite.tell(saga, young).await;
    assert_eq!(suite.answers(saga, [young]).await, [1]);
    suite.caught_up("payment").await;
    let ids = suite.texts("payment", "select message_id::text from parked order by id").await;
    assert_eq!(ids, [stale.to_string(), later.to_string()], "it may have been handled, and its key waits");
    let reasons = suite.texts("payment", "select reason from parked order by id").await;
    assert!(reasons[0].starts_with("stale: the message is older"), "{reasons:?}");
    // Having looked whether it was, an operator has it handled.
    let (status, answer) = suite.parked(Method::POST, "payment", &parked.to_string(), &["retry"], None).await;
    assert_eq!((status, &answer["replayed"]), (200, &json!(2)), "{answer}");
    assert_eq!(suite.answers(parked, [stale, later]).await, [1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_whose_action_may_have_been_forgotten_is_parked_and_not_answered_as_done() {
    let suite = Suite::start().await;
    let saga = made_days_ago(15);
    suite.tell(saga, new_id()).await;
    suite.caught_up("payment").await;
    let parked = suite.texts("payment", "select reason from parked").await;
    assert!(parked.len() == 1 && parked[0].starts_with("stale: the saga began"), "{parked:?}");
    assert_eq!(suite.number("payment", "select count(*) from step_outcome").await, 0);
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

async fn until_waiting(suite: &Suite, other_than: i32) -> i32 {
    suite
        .until("payment to wait for a claim", async |suite| {
            waiting(&mut suite.connect("payment").await, other_than).await.is_some()
        })
        .await;
    waiting(&mut suite.connect("payment").await, other_than).await.expect("it still waits")
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_in_another_order_do_not_deadlock_and_are_free_again_when_rolled_back() {
    let mut suite = Suite::start().await;
    let (saga, low, high) = (new_id(), new_id(), new_id());
    let claim = "insert into inbox (message_id) values ($1) on conflict do nothing";
    // Another replica has claimed the lower id, in a transaction that stays open.
    let mut replica = suite.connect("payment").await;
    // Far less than the second after which the server breaks a deadlock by itself.
    sqlx::raw_sql("begin; set local lock_timeout = '100ms'").execute(&mut replica).await.expect("begun");
    sqlx::query(claim).bind(low).execute(&mut replica).await.expect("claimed");
    // The consumer gets the higher one first, and must not hold it while it waits for the lower one.
    suite.tell_at_once(saga, &[high, low]).await;
    let first = until_waiting(&suite, 0).await;
    let claimed = sqlx::query(claim).bind(high).execute(&mut replica).await.expect("claimed without a wait");
    assert_eq!(claimed.rows_affected(), 1);
    // The consumer's transaction breaks, and the batch is tried again.
    suite.execute("payment", &format!("select pg_terminate_backend({first})")).await;
    until_waiting(&suite, first).await;
    sqlx::raw_sql("rollback").execute(&mut replica).await.expect("rolled back");
    assert_eq!(suite.answers(saga, [low, high]).await, [1, 1]);
}
