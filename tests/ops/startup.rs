//! What a service must find before it works: a database and topics of its own, a server that is new enough, sessions, and a
//! clock that is right.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;

use reqwest::StatusCode;
use serde_json::Value;

use crate::harness::clock::Clock;
use crate::harness::pooler::Pooler;
use crate::harness::sql::connect;
use crate::harness::{NUMBER, Process, Setup, Suite, order};

/// A service with the suite's settings, except for these.
fn start(suite: &Suite, service: &str, others: &[(&'static str, String)]) -> (Process, std::path::PathBuf) {
    let count = NUMBER.fetch_add(1, Ordering::Relaxed);
    let log = suite.log(&format!("{service}-stranger"), count as usize);
    let mut settings = vec![
        ("DATABASE_URL", suite.database_url(service)),
        ("KAFKA_BROKERS", suite.servers.kafka_brokers()),
        ("TOPIC_PREFIX", format!("{}.", suite.name)),
        ("INSTANCE", "stranger".to_owned()),
    ];
    settings.retain(|(name, _)| others.iter().all(|(other, _)| name != other));
    settings.extend(others.iter().cloned());
    (Process::start(service, None, &settings, &log), log)
}

fn read(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

/// Returns what `/readyz` says, once it says `part`.
async fn not_ready(suite: &Suite, process: &Process, part: &str) -> String {
    let url = format!("http://127.0.0.1:{}/readyz", process.port);
    let mut said = String::new();
    let seen = std::sync::Mutex::new(&mut said);
    suite
        .until(&format!("/readyz to say `{part}`"), async |suite| {
            let Ok(answer) = suite.client.get(&url).send().await else { return false };
            let status = answer.status();
            let text = answer.text().await.unwrap_or_default();
            let found = text.contains(part);
            assert!(!found || status == StatusCode::SERVICE_UNAVAILABLE, "{status}: {text}");
            **seen.lock().expect("not poisoned") = text;
            found
        })
        .await;
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_on_another_ones_database_ends_and_says_whose_it_is() {
    let mut suite = Suite::start().await;
    let own = suite.database_url("order");
    let tables = "select count(*) from pg_class where relkind in ('r', 'p', 'S')";
    let before = suite.number("order", tables).await;
    for service in ["payment", "inventory"] {
        let (mut stranger, log) = start(&suite, service, &[("DATABASE_URL", own.clone())]);
        assert_eq!(stranger.end().await.code(), Some(1));
        let said = read(&log);
        assert!(said.contains("belongs to the service order") && said.contains("DATABASE_URL"), "{said}");
        // Neither may its migrations change anything.
        let migrated = Command::new(env!("CARGO_BIN_EXE_amends"))
            .args(["serve", service, "--migrate", "--database-url", &own])
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&migrated.stderr);
        assert!(!migrated.status.success() && said.contains("belongs to the service order"), "{said}");
    }
    assert_eq!(suite.number("order", tables).await, before);
    // The rightful owner is not disturbed, and finds its database again after a restart.
    suite.crash("order");
    suite.ready("order").await;
    let placed = suite.place(&order()).await;
    assert_eq!(suite.settled(placed).await["status"], "confirmed");
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_installation_on_the_same_topics_is_refused_until_they_are_released() {
    let mut suite = Suite::with(Setup { only: Some("payment"), ..Setup::default() }).await;
    let admin = suite.servers.admin_url();
    let database = format!("{}_second", suite.name);
    let create = format!("create database {database}");
    sqlx::query(sqlx::AssertSqlSafe(create)).execute(&mut connect(&admin).await).await.expect("a database");
    let url = suite.servers.postgres_url(&database, "postgres");
    let amends = |arguments: &[&str]| {
        let ran = Command::new(env!("CARGO_BIN_EXE_amends")).args(arguments).output().expect("it runs");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };
    amends(&["serve", "payment", "--migrate", "--database-url", &url]);

    let (mut second, log) = start(&suite, "payment", &[("DATABASE_URL", url.clone())]);
    assert_eq!(second.end().await.code(), Some(1));
    let said = read(&log);
    assert!(said.contains("TOPIC_PREFIX") && said.contains("amends topics release payment"), "{said}");

    // The first database is gone for good, says the operator.
    assert_eq!(suite.process("payment").stop().await.code(), Some(0));
    let (brokers, prefix) = (suite.servers.kafka_brokers(), format!("{}.", suite.name));
    let release = ["topics", "release", "payment", "--kafka-brokers", &brokers, "--topic-prefix", &prefix];
    assert!(amends(&release).contains("no longer belong"), "the release");
    let (second, _log) = start(&suite, "payment", &[("DATABASE_URL", url)]);
    let ready = format!("http://127.0.0.1:{}/readyz", second.port);
    suite
        .until("the second database to have the topics", async |suite| {
            suite.client.get(&ready).send().await.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    suite.launch("payment");
    assert_eq!(suite.process("payment").end().await.code(), Some(1), "the first one comes too late");
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_database_can_not_be_used_is_in_the_log_and_in_the_answers() {
    let suite = Suite::with(Setup { only: Some("inventory"), ..Setup::default() }).await;
    let admin = suite.servers.admin_url();
    let role = format!("{}_nobody", suite.name);
    let create = format!("create role {role} nologin");
    sqlx::query(sqlx::AssertSqlSafe(create)).execute(&mut connect(&admin).await).await.expect("a role");
    let nobody = local::free_port().expect("a free port");
    for (url, words) in [
        (suite.servers.postgres_url("no_such_database", "postgres"), "no_such_database"),
        (suite.servers.postgres_url("postgres", &role), "not permitted to log in"),
        (format!("postgres://postgres@127.0.0.1:{nobody}/inventory"), "onnection refused"),
    ] {
        let (process, log) = start(&suite, "inventory", &[("DATABASE_URL", url)]);
        not_ready(&suite, &process, words).await;
        let said = read(&log);
        assert_eq!(said.matches(words).count(), 1, "once for a while, by one of the tasks: {said}");
        let asked = suite.client.get(format!("http://127.0.0.1:{}/products", process.port)).send().await;
        let answer = asked.expect("an answer");
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let problem: Value = answer.json().await.expect("JSON");
        assert_eq!(problem["type"], "/problems/unavailable");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(words)), "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_session_mode_is_used_and_one_in_transaction_mode_is_refused() {
    let mut suite = Suite::start().await;
    let (Some(sessions), Some(transactions)) =
        (Pooler::start(&suite, "session"), Pooler::start(&suite, "transaction"))
    else {
        return;
    };
    let url = |pooler: &Pooler, service: &str| {
        format!("postgres://postgres@127.0.0.1:{}/{}_{service}", pooler.port, suite.name)
    };
    let (mut refused, log) = start(&suite, "payment", &[("DATABASE_URL", url(&transactions, "payment"))]);
    assert_eq!(refused.end().await.code(), Some(1));
    assert!(read(&log).contains("a pooler in transaction mode"), "{}", read(&log));

    let pooled = url(&sessions, "order");
    assert_eq!(suite.process("order").stop().await.code(), Some(0));
    suite.set("DATABASE_URL", Some(pooled));
    suite.launch("order");
    suite.set("DATABASE_URL", None);
    suite.ready("order").await;
    let placed = suite.place(&order()).await;
    assert_eq!(suite.settled(placed).await["status"], "confirmed");
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_clock_is_wrong_takes_nothing() {
    let suite = Suite::start().await;
    let clock = Clock::new(&suite.name);
    let settings = |instance: &str| [&clock.settings()[..], &[("INSTANCE", instance.to_owned())]].concat();
    clock.set(-20 * 24 * 3600);
    let (wrong, log) = start(&suite, "order", &settings("wrong"));
    let said = not_ready(&suite, &wrong, "the clock of this process").await;
    assert!(said.contains(" 1727") || said.contains(" 1728"), "the difference in seconds: {said}");
    let url = format!("http://127.0.0.1:{}/orders", wrong.port);
    let refused = suite.client.post(url).json(&order()).send().await.expect("an answer");
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "{}", read(&log));
    // The other replica goes on without it.
    let placed = suite.place(&order()).await;
    assert_eq!(suite.settled(placed).await["status"], "confirmed");

    // Once the clock is set, it takes part.
    clock.set(0);
    let ready = format!("http://127.0.0.1:{}/readyz", wrong.port);
    suite
        .until("the replica to be ready", async |suite| {
            suite.client.get(&ready).send().await.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    // A clock that goes wrong while the service runs ends it.
    let mut moved = wrong;
    clock.set(20 * 24 * 3600);
    assert_eq!(moved.end().await.code(), Some(1));
    assert!(read(&log).contains("the clock of this process"), "{}", read(&log));
    suite.comes_to_rest().await;
}
