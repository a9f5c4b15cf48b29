//! A database that is set back in time: what docs/restore.md says, step by step.

use std::process::Output;

use serde_json::Value;
use tokio::process::Command;

use crate::harness::restore::Cluster;
use crate::harness::servers::backend;
use crate::harness::{Order, Suite, order};

/// So that no position is used twice.
const SKIP_POSITIONS: &str =
    "select setval('amends.outbox_position', nextval('amends.outbox_position') + 1000000000)";

impl Suite {
    async fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
        command.args(arguments).env_remove("AMENDS_URLS");
        command
            .env("KAFKA_BROKERS", self.servers.kafka_brokers())
            .env("TOPIC_PREFIX", format!("{}.", self.name));
        command.output().await.expect("it runs")
    }

    async fn succeeds(&self, arguments: &[&str]) -> String {
        let ended = self.command(arguments).await;
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(ended.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&ended.stderr));
        said
    }

    async fn fails(&self, arguments: &[&str]) -> String {
        let ended = self.command(arguments).await;
        assert!(!ended.status.success(), "{arguments:?} succeeds");
        String::from_utf8_lossy(&ended.stderr).into_owned()
    }

    async fn place_some(&self, count: usize) -> Vec<Order> {
        let mut placed = Vec::new();
        for _ in 0..count {
            placed.push(self.place(&order()).await);
        }
        placed
    }

    async fn all_confirmed(&self, orders: &[Order]) {
        for order in orders {
            assert_eq!(self.settled(*order).await["status"], "confirmed");
        }
    }

    /// Returns what `/readyz` says about the relay or the consumer, if it is not well.
    async fn is_blocked(&self, service: &'static str, name: &str) -> Option<String> {
        let url = format!("{}/readyz", self.url(service));
        let answer = self.client.get(url).send().await.ok()?;
        let answer: Value = answer.json().await.ok()?;
        let check = answer["checks"].as_array()?.iter().find(|check| check["name"] == name)?;
        (check["ok"] == false).then(|| check["detail"].as_str().unwrap_or_default().to_owned())
    }

    /// Whether a service's metrics contain this line.
    async fn shows(&self, service: &'static str, line: &str) -> bool {
        let Ok(answer) = self.client.get(format!("{}/metrics", self.url(service))).send().await else {
            return false;
        };
        answer.text().await.is_ok_and(|text| text.lines().any(|one| one == line))
    }

    /// Checks what the audit says after payment was set back. Nothing is wrong with money, stock and orders. The topics still
    /// have the messages of the transactions that payment has lost.
    async fn audit_after_payment_was_set_back(&self) {
        for number in [1, 2, 3, 4, 5, 6, 8, 9] {
            let invariant = self.invariant(number).await;
            assert_eq!(invariant["holds"], true, "{invariant}");
        }
        let outbox = self.invariant(7).await;
        assert_eq!(outbox["holds"], false, "{outbox}");
        let violations = outbox["violations"].as_array().expect("violations");
        for violation in violations {
            let said = violation.as_str().expect("a sentence");
            assert!(
                said.starts_with("payment.events, messages of payment in ")
                    && said.ends_with("were never committed"),
                "{said}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn payment_restored_from_a_dump_into_another_cluster_loses_nothing() {
    let mut suite = Suite::start().await;
    let before = suite.place_some(6).await;
    suite.all_confirmed(&before).await;
    let dump = suite.dump("payment").await;
    // The database forgets these.
    let between = suite.place_some(6).await;
    suite.all_confirmed(&between).await;
    suite.kill9("payment");
    let after = suite.place_some(6).await;

    let cluster = Cluster::start(&format!("{}-restored", suite.name));
    suite.restore("payment", &dump, &cluster).await;
    suite.execute("payment", SKIP_POSITIONS).await;
    // Local clusters may be copies of one, with the same identifier.
    suite.execute("payment", "update relay_checkpoint set system_identifier = system_identifier + 1").await;
    let rewind = ["consumer", "rewind", "--service", "payment", "--from-beginning"];
    let preview = suite.succeeds(&[&rewind[..], &["--dry-run"]].concat()).await;
    assert!(preview.contains("records would be read again"), "{preview}");
    let said = suite.succeeds(&rewind).await;
    assert!(said.contains(".payment.commands  ") && said.contains("start payment now"), "{said}");
    let again = suite.succeeds(&rewind).await;
    assert!(again.contains("nothing to read again"), "{again}");

    suite.launch("payment");
    suite
        .until("payment to say that it is blocked", async |suite| {
            suite.is_blocked("payment", "relay").await.is_some_and(|said| {
                said.contains("another database cluster")
                    && said.contains("amends relay adopt --service payment")
            })
        })
        .await;
    let urls = suite.url("payment");
    let adopt = ["relay", "adopt", "--service", "payment", "--reason", "a restore", "--urls", &urls];
    let preview = suite.succeeds(&[&adopt[..], &["--dry-run"]].concat()).await;
    assert!(
        preview.contains("would be sent, or sent again; nothing was changed (other_cluster)"),
        "{preview}"
    );
    assert!(suite.is_blocked("payment", "relay").await.is_some(), "a dry run changes nothing");
    let said = suite.succeeds(&adopt).await;
    assert!(said.contains("are sent, or sent again (other_cluster)"), "{said}");
    assert!(suite.fails(&adopt).await.contains("nothing to adopt"));
    suite.ready("payment").await;
    // Somebody who reads now would lose the work of the rewound group.
    let refused = suite.fails(&[&rewind[..], &["--wait", "0s"]].concat()).await;
    assert!(refused.contains("still has members") && refused.contains("nothing was changed"), "{refused}");

    suite.all_confirmed(&after).await;
    let last = suite.place_some(3).await;
    suite.all_confirmed(&last).await;
    suite.adds_up().await;
    suite.audit_after_payment_was_set_back().await;
}

/// A base backup keeps the identifier of its cluster, and transaction ids go on from it. So the relay needs no adoption.
#[tokio::test(flavor = "multi_thread")]
async fn payment_set_back_to_a_base_backup_loses_nothing() {
    if backend() != local::Backend::Local {
        return;
    }
    let mut suite = Suite::start().await;
    suite.kill9("payment");
    let mut cluster = Cluster::start(&format!("{}-payment", suite.name));
    suite.move_to("payment", &cluster).await;
    // Another database, and not the first one at another place.
    suite.succeeds(&["topics", "release", "payment"]).await;
    suite.launch("payment");
    suite.ready("payment").await;
    let before = suite.place_some(6).await;
    suite.all_confirmed(&before).await;
    let backup = cluster.back_up();
    // A member counts its mark up with its first batch, and then every few seconds.
    suite.crash("payment");
    let between = suite.place_some(6).await;
    suite.all_confirmed(&between).await;
    suite.kill9("payment");
    let after = suite.place_some(6).await;

    cluster.set_back(&backup);
    suite.execute("payment", SKIP_POSITIONS).await;
    // Whoever forgets the offsets is told.
    suite.launch("payment");
    suite
        .until("payment to notice that its database was set back", async |suite| {
            suite.is_blocked("payment", "consumer").await.is_some_and(|said| {
                said.contains("set back in time") && said.contains("amends consumer rewind --service payment")
            })
        })
        .await;
    let blocked = "amends_consumer_blocked{service=\"payment\",group=\"payment\"} 1";
    suite.until("the metric to tell", async |suite| suite.shows("payment", blocked).await).await;
    let commands = "select count(*) from step_outcome where recorded_at > now() - interval '1 hour'";
    let handled = suite.number("payment", commands).await;
    suite.kill9("payment");
    suite.launch("payment");
    suite
        .until("payment to notice it again", async |suite| {
            suite.is_blocked("payment", "consumer").await.is_some()
        })
        .await;
    assert_eq!(
        suite.number("payment", commands).await,
        handled,
        "it handles nothing before the offsets are set back"
    );
    // It is no member of its group, so it need not be stopped.
    let said = suite.succeeds(&["consumer", "rewind", "--service", "payment", "--by", "1h"]).await;
    assert!(said.contains(".payment.commands  "), "{said}");
    suite.ready("payment").await;
    suite.all_confirmed(&after).await;
    suite.adds_up().await;
    suite.audit_after_payment_was_set_back().await;
}

/// Order's products and notification's contacts are copies of others' data. A rewind feeds them again.
#[tokio::test(flavor = "multi_thread")]
async fn read_models_that_were_set_back_are_fed_again() {
    let mut suite = Suite::start().await;
    let dump = suite.dump("notification").await;
    let url = format!("{}/customers/ada", suite.url("order"));
    let contact = serde_json::json!({"email": "ada@example.com", "name": "Ada"});
    let put = suite.client.put(url).json(&contact).send().await.expect("an answer");
    assert!(put.status().is_success(), "{}", put.status());
    suite.read_models_are_up_to_now("notification").await;
    let known = "select count(*) from customer_contact where email = 'ada@example.com'";
    suite
        .until("the contact to be known", async |suite| suite.number("notification", known).await == 1)
        .await;
    suite.kill9("notification");

    let cluster = Cluster::start(&format!("{}-restored", suite.name));
    suite.restore("notification", &dump, &cluster).await;
    assert_eq!(suite.number("notification", known).await, 0, "the backup does not have it");
    let said = suite.succeeds(&["consumer", "rewind", "--service", "notification", "--from-beginning"]).await;
    assert!(said.contains("notification-background") && said.contains(".customer.events  "), "{said}");
    suite.launch("notification");
    suite
        .until("the contact to be known again", async |suite| suite.number("notification", known).await == 1)
        .await;
}
