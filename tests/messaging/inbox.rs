//! The inbox: what a claim of message ids holds, and what it lets go.

use schemas::payment::VoidPayment;
use serde_json::json;
use shared::envelope::{Direction, new_id};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::harness::steps::{Asked, ask_as};
use crate::harness::{Setup, Suite};

/// An id as it was made some days ago.
fn made_days_ago(days: u32) -> Uuid {
    let now = new_id().as_u128();
    Uuid::from_u128(now - ((u128::from(days) * 86_400_000) << 80))
}

/// A command that payment answers without doing anything: the undo of an action that never came. The same step in
/// another message is answered again, so only the inbox keeps an id to one answer.
fn undo(saga: Uuid, id: Uuid) -> Asked {
    let command = VoidPayment { order_id: saga, authorization_id: "auth-1".to_owned() };
    ask_as(id, saga, &id.to_string(), Direction::Undo, &command)
}

impl Suite {
    /// Sends commands so that payment takes them together.
    async fn tell(&self, saga: Uuid, ids: &[Uuid]) {
        let commands: Vec<Asked> = ids.iter().map(|id| undo(saga, *id)).collect();
        self.send_together(&commands).await;
    }

    /// How often payment has answered each of these messages about a saga.
    async fn answered<const N: usize>(&self, saga: Uuid, ids: [Uuid; N]) -> [i64; N] {
        let count = async |id: Uuid| {
            let answers = "select count(*) from outbox where topic = 'orchestrator.replies'
                           and convert_from(body, 'UTF8')::json ->> 'causationId'";
            self.number("payment", &format!("{answers} = '{id}'")).await
        };
        // What is about one saga keeps its order, so with this one all before it are done.
        let last = new_id();
        self.tell(saga, &[last]).await;
        self.until("the last command to be answered", async |_| count(last).await == 1).await;
        let mut counts = [0; N];
        for (counted, id) in counts.iter_mut().zip(ids) {
            *counted = count(id).await;
        }
        counts
    }
}

async fn payment() -> Suite {
    Suite::with(Setup { only: Some("payment"), ..Setup::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_comes_again_in_its_batch_or_later_has_one_effect() {
    let suite = payment().await;
    let (saga, twice, once) = (new_id(), new_id(), new_id());
    suite.tell(saga, &[twice, once, twice]).await;
    assert_eq!(suite.answered(saga, [twice, once]).await, [1, 1]);
    suite.tell(saga, &[twice]).await;
    assert_eq!(suite.answered(saga, [twice, once]).await, [1, 1]);

    // The step's own record hides a repetition within a batch; behind a parked message nothing but the claim does.
    let (parked, twice, once) = (new_id().to_string(), new_id(), new_id());
    suite.produce("payment.commands", &parked, b"this is not an envelope").await;
    suite.parked_messages("payment", &parked, 1).await;
    suite.tell(parked.parse().expect("an id"), &[twice, once, twice]).await;
    suite.parked_messages("payment", &parked, 3).await;
    let ids = "select message_id::text from parked where message_id is not null order by id";
    assert_eq!(suite.texts("payment", ids).await, [twice.to_string(), once.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_older_than_the_inbox_remembers_is_parked_and_a_younger_one_is_handled_once() {
    let suite = payment().await;
    let (key, stale, later) = (new_id(), made_days_ago(15), new_id());
    suite.tell(key, &[stale, later]).await;
    // Its day has no partition here, and never had one.
    let (saga, young) = (new_id(), made_days_ago(13));
    suite.tell(saga, &[young]).await;
    suite.tell(saga, &[young]).await;
    assert_eq!(suite.answered(saga, [young]).await, [1]);

    let key_text = key.to_string();
    suite.parked_messages("payment", &key_text, 2).await;
    let ids = suite.texts("payment", "select message_id::text from parked order by id").await;
    assert_eq!(ids, [stale.to_string(), later.to_string()], "it may have been handled, and its key waits");
    let reasons = suite.texts("payment", "select reason from parked order by id").await;
    assert!(reasons[0].starts_with("stale: the message is older"), "{reasons:?}");
    // An operator, who has looked whether it was handled, has it handled.
    let (status, answer) = suite.retry("payment", &key_text).await;
    assert_eq!((status, &answer["replayed"]), (200, &json!(2)), "{answer}");
    assert_eq!(suite.answered(key, [stale, later]).await, [1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_whose_action_may_have_been_forgotten_is_parked_and_not_answered_as_done() {
    let suite = payment().await;
    let saga = made_days_ago(15);
    suite.tell(saga, &[new_id()]).await;
    suite.parked_messages("payment", &saga.to_string(), 1).await;
    let reasons = suite.texts("payment", "select reason from parked").await;
    assert!(reasons[0].starts_with("stale: the saga began"), "{reasons:?}");
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
    let suite = payment().await;
    let (saga, low, high) = (new_id(), new_id(), new_id());
    let claim = "insert into inbox (message_id) values ($1) on conflict do nothing";
    // Another replica has claimed the lower id, in a transaction that stays open.
    let mut replica = suite.connect("payment").await;
    // Far less than the second after which the server breaks a deadlock by itself.
    sqlx::raw_sql("begin; set local lock_timeout = '100ms'").execute(&mut replica).await.expect("begun");
    sqlx::query(claim).bind(low).execute(&mut replica).await.expect("uow");
    // The consumer gets the higher one first, and must not hold it while it waits for the lower one.
    suite.tell(saga, &[high, low]).await;
    let first = until_waiting(&suite, 0).await;
    let uow = sqlx::query(claim).bind(high).execute(&mut replica).await.expect("uow without a wait");
    assert_eq!(uow.rows_affected(), 1);
    // The consumer's transaction breaks, and the batch is tried again.
    suite.execute("payment", &format!("select pg_terminate_backend({first})")).await;
    until_waiting(&suite, first).await;
    sqlx::raw_sql("rollback").execute(&mut replica).await.expect("rolled back");
    assert_eq!(suite.answered(saga, [low, high]).await, [1, 1]);
}
