//! The inbox: what a claim of message ids holds, and what it lets go.

use local::Signal;
use rdkafka::message::OwnedHeaders;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::harness::Suite;

/// An id as it was made some days ago.
fn made_days_ago(days: u32) -> Uuid {
    let now = shared::envelope::new_id().as_u128();
    Uuid::from_u128(now - (u128::from(days) * 86_400_000 << 80))
}

impl Suite {
    /// Sends an event to order, whose timeline has a row for each that took effect.
    async fn tell_order(&self, key: Uuid, id: Uuid) {
        let body = json!({
            "id": id, "type": "payment.authorized.v1", "source": "payment", "subject": key, "dataVersion": "1.0.0",
            "timestamp": "2026-11-21T10:00:00Z", "correlationId": key, "data": {},
        });
        let topic = self.kafka().name("payment.events");
        self.send(&topic, key.to_string().as_bytes(), body.to_string().as_bytes(), OwnedHeaders::new()).await;
    }

    /// Sends events so that order takes them together.
    async fn tell_order_at_once(&mut self, key: Uuid, ids: &[Uuid]) {
        self.process("order").signal(Signal::STOP);
        // A fetch that waits at the broker is answered with this one alone; the others come with the next.
        self.tell_order(key, shared::envelope::new_id()).await;
        for id in ids {
            self.tell_order(key, *id).await;
        }
        self.process("order").signal(Signal::CONT);
    }

    async fn effects(&self, id: Uuid) -> i64 {
        self.number("order", &format!("select count(*) from order_timeline where message_id = '{id}'")).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_comes_again_in_its_batch_or_later_has_one_effect() {
    let mut suite = Suite::start().await;
    let (key, twice, once) =
        (shared::envelope::new_id(), shared::envelope::new_id(), shared::envelope::new_id());
    suite.tell_order_at_once(key, &[twice, once, twice]).await;
    suite.caught_up("order").await;
    assert_eq!((suite.effects(twice).await, suite.effects(once).await), (1, 1));
    suite.tell_order(key, twice).await;
    suite.caught_up("order").await;
    assert_eq!(suite.effects(twice).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_older_than_the_inbox_remembers_is_parked_and_a_younger_one_is_handled_once() {
    let suite = Suite::start().await;
    let (key, stale, later) = (shared::envelope::new_id(), made_days_ago(15), shared::envelope::new_id());
    suite.tell_order(key, stale).await;
    suite.tell_order(key, later).await;
    // Its day has no partition here, and never had one.
    let (other_key, young) = (shared::envelope::new_id(), made_days_ago(13));
    suite.tell_order(other_key, young).await;
    suite.tell_order(other_key, young).await;
    suite.caught_up("order").await;
    assert_eq!(suite.effects(stale).await, 0, "it may have been handled and forgotten");
    assert_eq!(suite.effects(later).await, 0, "its key is parked");
    assert_eq!(suite.effects(young).await, 1);
    let parked = suite.texts("order", "select reason from parked order by id").await;
    assert_eq!(parked.len(), 2, "{parked:?}");
    assert!(parked[0].starts_with("stale: "), "{parked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_whose_action_may_have_been_forgotten_is_parked_and_not_answered_as_done() {
    let suite = Suite::start().await;
    let saga = made_days_ago(15);
    let body = json!({
        "id": shared::envelope::new_id(), "type": "payment.void_payment.v1", "source": "orchestrator", "subject": saga,
        "dataVersion": "1.0.0", "timestamp": "2026-11-21T10:00:00Z", "correlationId": saga,
        "data": {"orderId": saga}, "metadata": {"step": "authorize_payment", "direction": "undo"},
    });
    let topic = suite.kafka().name("payment.commands");
    suite.send(&topic, saga.to_string().as_bytes(), body.to_string().as_bytes(), OwnedHeaders::new()).await;
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
        .until("order to wait for a claim", async |suite| {
            waiting(&mut suite.connect("order").await, other_than).await.is_some()
        })
        .await;
    waiting(&mut suite.connect("order").await, other_than).await.expect("it still waits")
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_in_another_order_do_not_deadlock_and_are_free_again_when_rolled_back() {
    let mut suite = Suite::start().await;
    let key = shared::envelope::new_id();
    let (low, high) = (shared::envelope::new_id(), shared::envelope::new_id());
    let claim = "insert into inbox (message_id) values ($1) on conflict do nothing";
    // Another replica has claimed the lower id, in a transaction that stays open.
    let mut replica = suite.connect("order").await;
    // Far less than the second after which the server breaks a deadlock by itself.
    sqlx::raw_sql("begin; set local lock_timeout = '100ms'").execute(&mut replica).await.expect("begun");
    sqlx::query(claim).bind(low).execute(&mut replica).await.expect("claimed");
    // The consumer gets the higher one first, and must not hold it while it waits for the lower one.
    suite.tell_order_at_once(key, &[high, low]).await;
    let first = until_waiting(&suite, 0).await;
    let claimed = sqlx::query(claim).bind(high).execute(&mut replica).await.expect("claimed without a wait");
    assert_eq!(claimed.rows_affected(), 1);
    // The consumer's transaction breaks, and the batch is tried again.
    suite.execute("order", &format!("select pg_terminate_backend({first})")).await;
    until_waiting(&suite, first).await;
    sqlx::raw_sql("rollback").execute(&mut replica).await.expect("rolled back");
    suite.caught_up("order").await;
    assert_eq!((suite.effects(low).await, suite.effects(high).await), (1, 1));
}
