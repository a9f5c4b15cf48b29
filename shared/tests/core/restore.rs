//! An outbox whose transaction ids are another cluster's, or whose messages are in another number of shards.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::outbox::{Outbox, out_of_order};
use crate::harness::process::Process;

const NONE: Duration = Duration::ZERO;

/// Moves all transaction ids of the outbox to where this cluster will not be for long.
const FROM_THE_FUTURE: &str =
    "update outbox set xid = (pg_current_xact_id()::text::bigint + 1000000000)::text::xid8";
const FROM_ELSEWHERE: &str = "update relay_checkpoint set system_identifier = system_identifier + 1";

impl Outbox {
    /// Waits until a relay says everywhere that it is blocked, and why.
    async fn blocked(&self, relay: &Process, instance: &str, reason: &str) {
        let shown = format!("amends_relay_stopped{{service=\"relayed\",shard=\"0\",reason=\"{reason}\"}}");
        self.until(&format!("{instance} to be blocked by {reason}"), async || {
            self.metric(relay, &shown).await == Some(1.0)
                && self
                    .relay_check(relay)
                    .await
                    .is_some_and(|(ok, text)| !ok && text.contains("amends relay adopt --service relayed"))
                && self.said(instance).contains("the relay is blocked")
        })
        .await;
    }

    /// Whether the relay of a process is well, and what `/readyz` says about it. The process consumes nothing, so as a
    /// whole it is never ready.
    async fn relay_check(&self, process: &Process) -> Option<(bool, String)> {
        let (_, text) = self.get(process, "/readyz").await?;
        let answer: Value = serde_json::from_str(&text).ok()?;
        let check = answer["checks"].as_array()?.iter().find(|check| check["name"] == "relay")?;
        Some((check["ok"].as_bool()?, check["detail"].as_str().unwrap_or_default().to_owned()))
    }

    /// Asks for an adoption. Returns the status and the answer.
    async fn adopt(&self, relay: &Process, dry_run: bool) -> (u16, Value) {
        let url = format!("http://127.0.0.1:{}/relay/adoption", relay.port);
        let body = json!({"by": "the test", "reason": "a restore", "dryRun": dry_run});
        let answer = self.client.post(url).json(&body).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    /// Waits until every row is acknowledged by the checkpoint.
    async fn all_sent(&self) {
        let unsent = "select count(*) from outbox o left join relay_checkpoint c on c.shard = o.shard
            where c.window_snapshot is not null or not coalesce(pg_visible_in_snapshot(o.xid, c.acked_snapshot), false)";
        self.until("everything to be sent", async || self.number(unsent).await == 0).await;
    }
}

/// Breaks an outbox of some sent and some unsent rows, and mends it by an adoption.
async fn broken_and_adopted(sent: usize, unsent: usize, corruption: &str, reason: &str) {
    let outbox = Outbox::new(1).await;
    let mut first = outbox.relay("first");
    outbox.led_by("first").await;
    outbox.write_many(sent).await;
    outbox.all_sent().await;
    assert!(first.stop().await.success());
    outbox.write_many(unsent).await;
    let before = outbox.records().len();
    outbox.execute(corruption).await;

    let mut second = outbox.relay("second");
    outbox.blocked(&second, "second", reason).await;
    // The service goes on writing.
    outbox.write_many(50).await;
    assert_eq!(outbox.records().len(), before, "nothing is sent");
    assert!(second.stop().await.success(), "the orderly stop ends");
    assert!(outbox.said("second").contains("stopped service="), "{}", outbox.said("second"));

    let third = outbox.relay("third");
    outbox.blocked(&third, "third", reason).await;
    let (status, preview) = outbox.adopt(&third, true).await;
    assert_eq!((status, &preview["dryRun"]), (200, &json!(true)), "{preview}");
    assert_eq!(outbox.records().len(), before, "a dry run changes nothing");
    let (status, adopted) = outbox.adopt(&third, false).await;
    assert_eq!((status, &adopted["rows"]), (200, &preview["rows"]), "{adopted}");
    assert_eq!(adopted["blocked"], reason);
    let rows = adopted["rows"].as_u64().expect("a number") as usize;
    assert!(rows >= unsent + 50, "{rows} rows, and {unsent} were never sent");
    let arrived = outbox.arrived(sent + unsent + 50).await;
    assert_eq!(out_of_order(&arrived), [""; 0]);
    outbox.all_sent().await;
    outbox.write("last", 10, NONE).await;
    outbox.arrived(sent + unsent + 51).await;
    outbox.all_sent().await;
    assert_eq!(
        outbox.records().len(),
        before + rows + 1,
        "each row is sent once more, and no row without end"
    );
    outbox
        .until("the relay to be ready and the metric to fall", async || {
            outbox.relay_check(&third).await.is_some_and(|(ok, _)| ok)
                && outbox.metric(&third, "amends_relay_stopped").await == Some(0.0)
        })
        .await;
    let (status, again) = outbox.adopt(&third, false).await;
    assert_eq!((status, &again["type"]), (409, &json!("/problems/relay-not-blocked")), "{again}");
    assert_eq!(
        outbox
            .texts(
                "select adopted_by || ', ' || reason || ', ' || blocked || ', ' || rows from relay_adoption"
            )
            .await,
        [format!("the test, a restore, {reason}, {rows}")]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_another_cluster_blocks_the_relay_until_the_outbox_is_adopted() {
    broken_and_adopted(100, 40, FROM_ELSEWHERE, "other_cluster").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_another_cluster_block_the_relay_until_the_outbox_is_adopted() {
    broken_and_adopted(100, 40, FROM_THE_FUTURE, "foreign_rows").await;
}

/// With more rows than fit into a batch the relay reads by windows, which do not show such rows.
#[tokio::test(flavor = "multi_thread")]
async fn many_rows_of_another_cluster_without_a_checkpoint_are_neither_sent_without_end_nor_passed_over() {
    let corruption = format!("{FROM_THE_FUTURE}; delete from relay_checkpoint");
    broken_and_adopted(500, 2200, &corruption, "foreign_rows").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn few_rows_of_another_cluster_without_a_checkpoint_are_neither_sent_without_end_nor_passed_over() {
    let corruption = format!("{FROM_THE_FUTURE}; delete from relay_checkpoint");
    broken_and_adopted(20, 20, &corruption, "foreign_rows").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_was_deleted_costs_repetitions_only() {
    let outbox = Outbox::new(1).await;
    let mut first = outbox.relay("first");
    outbox.led_by("first").await;
    outbox.write_many(300).await;
    outbox.all_sent().await;
    first.kill9();
    let before = outbox.records().len();
    outbox.write_many(100).await;
    let rows = outbox.number("select count(*) from outbox").await as usize;
    outbox.execute("delete from relay_checkpoint").await;
    let _second = outbox.relay("second");
    assert_eq!(out_of_order(&outbox.arrived(400).await), [""; 0]);
    outbox.all_sent().await;
    assert_eq!(outbox.records().len(), before + rows);
}

/// Rows that become another cluster's while a relay sends.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_at_work_notices_rows_of_another_cluster() {
    let outbox = Outbox::new(1).await;
    let relay = outbox.relay("only");
    outbox.led_by("only").await;
    outbox.write_many(30).await;
    outbox.all_sent().await;
    let before = outbox.records().len();
    outbox.execute(FROM_THE_FUTURE).await;
    outbox.blocked(&relay, "only", "foreign_rows").await;
    assert_eq!(outbox.records().len(), before, "nothing is sent again");
    let (status, adopted) = outbox.adopt(&relay, false).await;
    assert_eq!((status, &adopted["rows"]), (200, &json!(30)), "{adopted}");
    outbox.until("all to be sent again", async || outbox.records().len() == before + 30).await;
    outbox.all_sent().await;
}

/// A transaction that is open during an adoption has a lower id than the adoption, and commits its message later.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_commits_after_an_adoption_is_not_skipped() {
    let outbox = Outbox::new(1).await;
    outbox.write_many(10).await;
    outbox.execute(FROM_THE_FUTURE).await;
    let relay = outbox.relay("only");
    outbox.blocked(&relay, "only", "foreign_rows").await;
    let mut open = outbox.connect().await;
    sqlx::raw_sql("begin; select pg_current_xact_id()")
        .execute(&mut open)
        .await
        .expect("an open transaction");
    let (status, adopted) = outbox.adopt(&relay, false).await;
    assert_eq!(status, 200, "{adopted}");
    outbox.all_sent().await;
    // The row that was adopted is copied as a message of its own key.
    let late = "insert into outbox (shard, topic, key, body)
        select 0, topic, 'late', convert_to(replace(convert_from(body, 'UTF8'), key, 'late'), 'UTF8')
        from outbox order by position limit 1; commit";
    sqlx::raw_sql(late).execute(&mut open).await.expect("committed");
    outbox.arrived(11).await;
}

/// Writes messages while Kafka has no relay, with one number of shards, and starts relays with another number.
async fn resharded(before: i16, after: i16) {
    let outbox = Outbox::new(before).await;
    let mut relay = outbox.relay("first");
    outbox.led_by("first").await;
    outbox.write_many(200).await;
    outbox.all_sent().await;
    assert!(relay.stop().await.success());
    outbox.write_many(300).await;

    let sent = outbox.records().len();
    let outbox = outbox.with_shards(after);
    let mut relay = outbox.relay("second");
    // The process that begins writes at once.
    outbox.write_many(300).await;
    outbox.led_by("second").await;
    assert_eq!(out_of_order(&outbox.arrived(800).await), [""; 0]);
    outbox.all_sent().await;
    let shards = outbox.texts("select shard || ' of ' || shards from relay_checkpoint order by shard").await;
    let expected: Vec<String> = (0..after).map(|shard| format!("{shard} of {after}")).collect();
    assert_eq!(shards, expected);
    assert!(outbox.records().len() - sent >= 600);
    assert!(relay.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_shards_send_what_was_written_with_more() {
    resharded(4, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_shards_send_what_was_written_with_fewer_before_what_is_written_now() {
    resharded(1, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_another_number_of_shards_sends_nothing_and_says_so() {
    let outbox = Outbox::new(1).await;
    let mut first = outbox.relay("first");
    outbox.led_by("first").await;
    let outbox = outbox.with_shards(2);
    let second = outbox.relay("second");
    outbox
        .until("the second to refuse", async || {
            outbox.relay_check(&second).await.is_some_and(|(ok, text)| {
                !ok && text.contains("OUTBOX_SHARDS=1") && text.contains("OUTBOX_SHARDS=2")
            })
        })
        .await;
    assert!(first.stop().await.success());
    outbox.led_by("second").await;
    outbox
        .until("the second to be well", async || outbox.relay_check(&second).await.is_some_and(|(ok, _)| ok))
        .await;
}
