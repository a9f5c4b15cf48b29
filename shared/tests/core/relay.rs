//! The relay on its own: it skips nothing, keeps the order, is taken over, and reports why it has stopped.

use std::time::{Duration, Instant};

use futures::future::join;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use sqlx::Connection;

use crate::harness::outbox::{Outbox, out_of_order};

const NONE: Duration = Duration::ZERO;

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_killed_while_rows_are_written_is_replaced_and_nothing_is_lost() {
    const ROWS: usize = 3000;
    let outbox = Outbox::new(1).await;
    let mut first = outbox.relay("first");
    outbox.led_by("first").await;
    let _second = outbox.relay("second");
    outbox.until("the second to stand by", async || outbox.said("second").contains("serving")).await;
    let kill = async {
        outbox.arrived(ROWS / 3).await;
        first.kill9();
        let killed = Instant::now();
        outbox.led_by("second").await;
        killed.elapsed()
    };
    let ((), took) = join(outbox.write_many(ROWS), kill).await;
    let arrived = outbox.arrived(ROWS).await;
    assert_eq!(out_of_order(&arrived), [""; 0]);
    assert!(took < Duration::from_secs(5), "the other one took {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_stopped_hands_over_and_nothing_is_repeated() {
    const ROWS: usize = 1000;
    let outbox = Outbox::new(1).await;
    let mut first = outbox.relay("first");
    outbox.led_by("first").await;
    let _second = outbox.relay("second");
    outbox.until("the second to stand by", async || outbox.said("second").contains("serving")).await;
    let stop = async {
        outbox.arrived(ROWS / 3).await;
        first.stop().await;
        outbox.led_by("second").await;
    };
    join(outbox.write_many(ROWS), stop).await;
    let arrived = outbox.arrived(ROWS).await;
    assert_eq!(out_of_order(&arrived), [""; 0]);
    assert_eq!(arrived.len(), ROWS, "a relay that stops in order has saved where it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_larger_than_a_batch_is_sent_in_order_and_once() {
    const ROWS: usize = 5000;
    let outbox = Outbox::new(1).await;
    outbox.write_many(ROWS).await;
    let _relay = outbox.relay("only");
    let arrived = outbox.arrived(ROWS).await;
    assert_eq!(out_of_order(&arrived), [""; 0]);
    assert_eq!(arrived.len(), ROWS);
}

/// Rows that were sent stay in front of the backlog until their slot is truncated.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_behind_rows_that_were_sent_is_sent_in_order_and_once() {
    const ROWS: usize = 2500;
    let outbox = Outbox::new(1).await;
    let mut relay = outbox.relay("first");
    outbox.write_many(ROWS).await;
    outbox.arrived(ROWS).await;
    relay.stop().await;
    outbox.write_many(ROWS).await;
    let _relay = outbox.relay("second");
    let arrived = outbox.arrived(2 * ROWS).await;
    assert_eq!(out_of_order(&arrived), [""; 0]);
    assert_eq!(arrived.len(), 2 * ROWS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_lost_its_lease_saves_nothing_more() {
    let outbox = Outbox::new(1).await;
    let _relay = outbox.relay("old");
    outbox.led_by("old").await;
    outbox.write("key", 10, NONE).await;
    outbox.arrived(1).await;
    // Another session takes the shard, and keeps its connection open.
    let mut other = outbox.connect().await;
    let taken: i64 = sqlx::query_scalar(
        "update relay_checkpoint set epoch = epoch + 1, owner = 'other', owner_pid = pg_backend_pid(),
             lease_until = clock_timestamp() + interval '1 hour' returning epoch",
    )
    .fetch_one(&mut other)
    .await
    .expect("the shard");
    let checkpoint = "select concat_ws(' ', acked_snapshot, window_snapshot, position, epoch, owner) from relay_checkpoint";
    let before = outbox.text(checkpoint).await;
    outbox.write("key", 10, NONE).await;
    outbox
        .until("the old one to notice", async || outbox.said("old").contains("lost to another relay"))
        .await;
    assert_eq!(outbox.text(checkpoint).await, before, "epoch {taken} is the other's");
    // Its connection ends, so it loses the shard.
    other.close().await.expect("closed");
    outbox.led_by("old").await;
    assert_eq!(out_of_order(&outbox.arrived(2).await), [""; 0]);
}

async fn set_max_message_bytes(outbox: &Outbox, bytes: &str) {
    let admin: AdminClient<DefaultClientContext> = outbox.kafka().client().create().expect("a client");
    let topic = outbox.topic();
    let change = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("max.message.bytes", bytes);
    let changed = admin.alter_configs([&change], &AdminOptions::new()).await.expect("an answer");
    assert!(changed.iter().all(Result::is_ok), "{changed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_broker_refuses_stops_its_shard_with_a_reason_until_it_is_taken() {
    let outbox = Outbox::new(2).await;
    set_max_message_bytes(&outbox, "4000").await;
    let relay = outbox.relay("only");
    outbox.led_by("only").await;
    outbox.write("large", 10_000, NONE).await;
    let shard = outbox.text("select shard::text from outbox where key = 'large'").await.expect("a shard");
    let stopped = "select stopped_reason from relay_checkpoint where stopped_position is not null and stopped_at is not null";
    outbox.until("the shard to stop", async || outbox.text(stopped).await.is_some()).await;
    let reason = outbox.text(stopped).await.expect("a reason");
    assert!(reason.contains(&outbox.topic()) && reason.contains("position"), "{reason}");
    // Other keys of the shard wait behind it; keys of the other shard do not.
    for number in 0..20 {
        outbox.write(&format!("small-{number}"), 10, NONE).await;
    }
    let other = format!("select count(*)::text from outbox where shard <> {shard}");
    let others: usize = outbox.text(&other).await.expect("a number").parse().expect("a number");
    assert!(others > 0, "both shards have keys");
    assert_eq!(outbox.arrived(others).await.len(), others);
    outbox
        .until("the metrics to tell", async || {
            outbox.metric(&relay, "amends_relay_stopped").await == Some(1.0)
                && outbox.metric(&relay, "amends_outbox_backlog_rows").await == Some((21 - others) as f64)
                && outbox
                    .metric(&relay, "amends_outbox_oldest_age_seconds")
                    .await
                    .is_some_and(|age| age > 0.0)
        })
        .await;
    assert!(outbox.health(&relay).await.contains(&reason), "health tells it too");
    set_max_message_bytes(&outbox, "1048588").await;
    assert_eq!(out_of_order(&outbox.arrived(21).await), [""; 0]);
    outbox.until("the shard to go on", async || outbox.text(stopped).await.is_none()).await;
    outbox
        .until("the metric to fall", async || {
            outbox.metric(&relay, "amends_relay_stopped").await == Some(0.0)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_records_are_sent_where_a_request_full_of_them_is_refused() {
    let outbox = Outbox::new(1).await;
    set_max_message_bytes(&outbox, "4000").await;
    outbox.write_many(200).await;
    let _relay = outbox.relay("only");
    assert_eq!(out_of_order(&outbox.arrived(200).await), [""; 0]);
    assert!(outbox.said("only").contains("they are sent one by one"), "a request was refused");
    let stopped = "select stopped_reason from relay_checkpoint where stopped_reason is not null";
    assert_eq!(outbox.text(stopped).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_no_message_stops_the_shard_until_it_is_deleted() {
    let outbox = Outbox::new(1).await;
    let _relay = outbox.relay("only");
    outbox.led_by("only").await;
    let nonsense =
        "insert into outbox (shard, topic, key, body) values (0, 'relayed.events', 'wrong', 'nonsense')";
    outbox.execute(nonsense).await;
    let stopped = "select stopped_reason from relay_checkpoint where stopped_reason is not null";
    outbox.until("the shard to stop", async || outbox.text(stopped).await.is_some()).await;
    outbox.write("key", 10, NONE).await;
    outbox.execute("delete from outbox where key = 'wrong'").await;
    assert_eq!(outbox.arrived(1).await.len(), 1);
    outbox.until("the shard to go on", async || outbox.text(stopped).await.is_none()).await;
}

/// Returns the slots that are not written now. One of them is the next to be truncated, even if the minute ends meanwhile.
const RESTING: &str = "(select slot from generate_series(0, 2) as slot
                       where slot <> (extract(epoch from now())::bigint / 60) % 3)";

/// Copies a row that was sent into the resting slots. How many rows there are then, before any slot can be truncated.
async fn fill_resting_slots(outbox: &Outbox) -> i64 {
    outbox.write("key", 10, NONE).await;
    let copy = format!(
        "insert into outbox (slot, shard, topic, key, body)
         select resting.slot, shard, topic, key, body from outbox, {RESTING} as resting"
    );
    let mut db = outbox.connect().await;
    sqlx::raw_sql("begin").execute(&mut db).await.expect("begun");
    sqlx::raw_sql(sqlx::AssertSqlSafe(copy)).execute(&mut db).await.expect("copies");
    let rows: i64 =
        sqlx::query_scalar("select count(*) from outbox").fetch_one(&mut db).await.expect("a number");
    sqlx::raw_sql("commit").execute(&mut db).await.expect("committed");
    rows
}

async fn rows_left(outbox: &Outbox) -> i64 {
    outbox.number("select count(*) from outbox").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_without_messages_does_not_keep_the_outbox_from_being_truncated() {
    let outbox = Outbox::new(4).await;
    let relay = outbox.relay("only");
    outbox.led_by("only").await;
    assert_eq!(fill_resting_slots(&outbox).await, 3);
    outbox.until("a slot to be truncated", async || rows_left(&outbox).await != 3).await;
    outbox
        .until("the truncation to be counted", async || {
            outbox.metric(&relay, "amends_outbox_truncations_total").await.is_some_and(|count| count >= 1.0)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_keeps_the_outbox_from_being_truncated_is_named() {
    let outbox = Outbox::new(1).await;
    let relay = outbox.relay("only");
    outbox.led_by("only").await;
    // It is there before the rows, lest they be truncated first.
    let mut long = outbox.connect().await;
    sqlx::raw_sql("begin; select count(*) from outbox").execute(&mut long).await.expect("begun");
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut long).await.expect("a pid");
    assert_eq!(fill_resting_slots(&outbox).await, 3);
    outbox
        .until("the metric to tell", async || {
            outbox
                .metric(&relay, "amends_outbox_truncation_held_back_seconds")
                .await
                .is_some_and(|seconds| seconds > 0.0)
        })
        .await;
    outbox
        .until("the metric to name it", async || {
            outbox.metric(&relay, "amends_outbox_truncation_holder_pid").await == Some(f64::from(pid))
        })
        .await;
    outbox.until("the log to name it", async || outbox.said("only").contains(&format!("pid={pid}"))).await;
    assert_eq!(rows_left(&outbox).await, 3, "nothing was truncated under it");
    sqlx::raw_sql("commit").execute(&mut long).await.expect("committed");
    outbox.until("a slot to be truncated", async || rows_left(&outbox).await != 3).await;
    outbox
        .until("the metric to fall", async || {
            outbox.metric(&relay, "amends_outbox_truncation_held_back_seconds").await == Some(0.0)
        })
        .await;
}
