//! The inbox: what a claim of message ids holds, and what it lets go.

use serde_json::json;
use shared::envelope::{Message, new_id};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::harness::commands::{Asked, made_days_ago, say};
use crate::harness::toy::Toy;
use crate::loyalty::messages::NoteVisit;

/// A message whose handler would do it again. Only the inbox keeps its id to one effect.
fn visit(member: Uuid, id: Uuid) -> Asked {
    say(id, member, &NoteVisit { shop: "the one at the station".to_owned() })
}

impl Toy {
    /// Sends visits of a member so that the service takes them together.
    async fn tell(&self, member: Uuid, ids: &[Uuid]) {
        let visits: Vec<Asked> = ids.iter().map(|id| visit(member, *id)).collect();
        self.send_together(&visits).await;
    }

    /// How often the service has noted each of these visits of a member.
    async fn noted<const N: usize>(&self, member: Uuid, ids: [Uuid; N]) -> [i64; N] {
        // What is about one member keeps its order, so with this one all before it are done.
        let last = new_id();
        self.tell(member, &[last]).await;
        self.until("the last visit to be noted", async || self.caused_by(last).await == 1).await;
        let mut counts = [0; N];
        for (counted, id) in counts.iter_mut().zip(ids) {
            *counted = self.caused_by(id).await;
        }
        counts
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_comes_again_in_its_batch_or_later_has_one_effect() {
    let toy = Toy::start().await;
    let (member, twice, once) = (new_id(), new_id(), new_id());
    toy.tell(member, &[twice, once, twice]).await;
    assert_eq!(toy.noted(member, [twice, once]).await, [1, 1]);
    toy.tell(member, &[twice]).await;
    assert_eq!(toy.noted(member, [twice, once]).await, [1, 1]);

    // Nothing is handled behind a parked message, and there too an id has one place.
    let (parked, twice, once) = (new_id(), new_id(), new_id());
    let key = parked.to_string();
    toy.produce(NoteVisit::TOPIC, &key, b"this is not an envelope").await;
    toy.parked_messages(&key, 1).await;
    toy.tell(parked, &[twice, once, twice]).await;
    toy.parked_messages(&key, 3).await;
    let ids = "select message_id::text from parked where message_id is not null order by id";
    assert_eq!(toy.texts(ids).await, [twice.to_string(), once.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_older_than_the_inbox_remembers_is_parked_and_a_younger_one_is_handled_once() {
    let toy = Toy::start().await;
    let (member, stale, later) = (new_id(), made_days_ago(15), new_id());
    toy.tell(member, &[stale, later]).await;
    // Its day has no partition here, and never had one.
    let (other, young) = (new_id(), made_days_ago(13));
    toy.tell(other, &[young]).await;
    toy.tell(other, &[young]).await;
    assert_eq!(toy.noted(other, [young]).await, [1]);

    let key = member.to_string();
    toy.parked_messages(&key, 2).await;
    let ids = toy.texts("select message_id::text from parked order by id").await;
    assert_eq!(ids, [stale.to_string(), later.to_string()], "it may have been handled, and its key waits");
    let reasons = toy.texts("select reason from parked order by id").await;
    assert!(reasons[0].starts_with("stale: the message is older"), "{reasons:?}");
    // An operator, who has looked whether it was handled, has it handled.
    let (status, answer) = toy.retry(&key).await;
    assert_eq!((status, &answer["replayed"]), (200, &json!(2)), "{answer}");
    assert_eq!(toy.noted(member, [stale, later]).await, [1, 1]);
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
    let (member, low, high) = (new_id(), new_id(), new_id());
    let claim = "insert into inbox (message_id) values ($1) on conflict do nothing";
    // Another replica has claimed the lower id, in a transaction that stays open.
    let mut replica = toy.connect().await;
    // Far less than the second after which the server breaks a deadlock by itself.
    sqlx::raw_sql("begin; set local lock_timeout = '100ms'").execute(&mut replica).await.expect("begun");
    sqlx::query(claim).bind(low).execute(&mut replica).await.expect("claimed");
    // The consumer gets the higher one first, and must not hold it while it waits for the lower one.
    toy.tell(member, &[high, low]).await;
    let first = until_waiting(&toy, 0).await;
    let claimed = sqlx::query(claim).bind(high).execute(&mut replica).await.expect("claimed without a wait");
    assert_eq!(claimed.rows_affected(), 1);
    // The consumer's transaction breaks, and the batch is tried again.
    toy.execute(&format!("select pg_terminate_backend({first})")).await;
    until_waiting(&toy, first).await;
    sqlx::raw_sql("rollback").execute(&mut replica).await.expect("rolled back");
    assert_eq!(toy.noted(member, [low, high]).await, [1, 1]);
}
