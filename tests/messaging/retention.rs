//! What is forgotten in time, and what is not.

use std::process::Command;

use reqwest::StatusCode;
use serde_json::Value;
use shared::db::DEFAULT_SCHEMA;
use shared::migrations::CORE;
use sqlx::Connection;

use crate::harness::{Setup, Suite, order};

const PARTITIONS: &str = "select relname::text from pg_inherits join pg_class on oid = inhrelid
    where inhparent = 'inbox'::regclass order by relname";

async fn under_key(suite: &Suite, key: &str) -> Value {
    let url = format!("{}/orders", suite.url("order"));
    let answer = suite.client.post(url).header("Idempotency-Key", key).json(&order()).send().await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    answer.json::<Value>().await.expect("JSON")["id"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_is_forgotten_and_nothing_else() {
    let mut suite = Suite::start().await;
    assert_eq!(suite.texts("order", PARTITIONS).await.len(), 5, "today, three days to come, and the default");
    let (forgotten, remembered) = (under_key(&suite, "old").await, under_key(&suite, "young").await);
    suite
        .execute(
            "order",
            "create table today as select (now() at time zone 'UTC')::date as day;
             update idempotency_key set created_at = now() - interval '25 hours' where key = 'old';
             select inbox_add_day(day - 20), inbox_add_day(day - 10) from today;
             insert into inbox select inbox_floor(day - 20) from today union all select inbox_floor(day - 10) from today;
             -- Ids that say no time, more than one statement deletes.
             insert into inbox (message_id, received_at)
             select gen_random_uuid(), now() - interval '20 days' from generate_series(1, 1500);
             insert into inbox select 'ffffffff-ffff-4fff-8fff-ffffffffffff'::uuid;
             -- A day to come without its partition, and an id from a clock that is ahead.
             do $$ begin execute 'drop table inbox_' || to_char((select day + 2 from today), 'YYYYMMDD'); end $$;
             insert into inbox select inbox_floor(day + 2) from today;
             insert into step_outcome (saga_id, step, direction, type, message_id, status, recorded_at)
             select inbox_floor(day - age), step, 'do', 'test.v1', gen_random_uuid(), status,
                    now() - recorded * interval '1 day'
             from today, (values (20, 'old', 'done', 20), (20, 'open', 'pending', 20), (20, 'late', 'done', 1),
                                 (10, 'young', 'done', 10)) as row (age, step, status, recorded);",
        )
        .await;
    suite.crash("order");
    suite.ready("order").await;
    // The last that a pass does.
    suite
        .until("the old key to be forgotten", async |suite| {
            suite.number("order", "select count(*) from idempotency_key where key = 'old'").await == 0
        })
        .await;

    let ids = async |day: &str| {
        suite
            .number(
                "order",
                &format!("select count(*) from inbox, today where message_id = inbox_floor({day})"),
            )
            .await
    };
    assert_eq!((ids("day - 20").await, ids("day - 10").await, ids("day + 2").await), (0, 1, 1));
    let moved = "select (to_regclass('inbox_' || to_char(day + 2, 'YYYYMMDD')) = i.tableoid)::int::bigint
                 from today, inbox i where message_id = inbox_floor(day + 2)";
    assert_eq!(suite.number("order", moved).await, 1, "it is in the partition of its day");
    let partitions = suite.texts("order", PARTITIONS).await;
    assert_eq!(partitions.len(), 6, "five, and the one of ten days ago: {partitions:?}");
    assert_eq!(suite.number("order", "select count(*) from inbox_other").await, 1);
    let steps =
        suite.texts("order", "select step from step_outcome where type = 'test.v1' order by step").await;
    assert_eq!(steps, ["late", "open", "young"]);
    assert_ne!(under_key(&suite, "old").await, forgotten, "the key begins a new order");
    assert_eq!(under_key(&suite, "young").await, remembered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_was_off_for_weeks_goes_on_and_makes_its_days_again() {
    let mut suite = Suite::start().await;
    suite.kill9("payment");
    suite
        .execute(
            "payment",
            "do $$ declare name text; begin
                 for name in select inhrelid::regclass from pg_inherits
                             where inhparent = 'inbox'::regclass and inhrelid <> 'inbox_other'::regclass
                 loop execute 'drop table ' || name; end loop;
             end $$",
        )
        .await;
    suite.launch("payment");
    suite.confirmed(&order()).await;
    assert!(
        suite.number("payment", "select count(*) from inbox_other").await >= 2,
        "today's ids have no day"
    );
    suite.until("the days to come", async |suite| suite.texts("payment", PARTITIONS).await.len() >= 3).await;
    let records = suite.records();
    suite.send_again(&records).await;
    suite.caught_up("payment").await;
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inbox_of_the_release_before_is_taken_over() {
    let suite = Suite::with(Setup { only: Some("payment"), ..Setup::default() }).await;
    suite.execute("payment", &format!("create database {}_before", suite.name)).await;
    let mut db = suite.connect("before").await;
    let scripts: Vec<&str> = CORE.scripts().map(|(_, _, sql)| sql).collect();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "create schema {DEFAULT_SCHEMA}; set search_path = {DEFAULT_SCHEMA}"
    )))
    .execute(&mut db)
    .await
    .expect("a schema");
    let apply = async |db: &mut sqlx::PgConnection, script: &str| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(script)).execute(db).await.expect("a migration");
    };
    apply(&mut db, scripts[0]).await;
    sqlx::raw_sql(
        "insert into inbox select uuidv7(-age * interval '1 day') from unnest(array[0, 5, 13, 35, 40]) as age
         union all select gen_random_uuid()",
    )
    .execute(&mut db)
    .await
    .expect("ids");
    let ids = "select array_agg(message_id order by message_id) from inbox";
    let before: Vec<uuid::Uuid> = sqlx::query_scalar(ids).fetch_one(&mut db).await.expect("ids");
    for script in &scripts[1..] {
        apply(&mut db, script).await;
    }
    let after: Vec<uuid::Uuid> = sqlx::query_scalar(ids).fetch_one(&mut db).await.expect("ids");
    assert_eq!(after, before);
    let without_day: i64 =
        sqlx::query_scalar("select count(*) from inbox_other").fetch_one(&mut db).await.expect("a number");
    assert_eq!(without_day, 3, "those of 35 and 40 days ago, and the one that says no time");
    db.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_is_missing_below_the_newest_is_noticed() {
    let suite = Suite::with(Setup { only: Some("payment"), ..Setup::default() }).await;
    suite.execute("payment", "update _core_migrations set success = false where version = 2").await;
    let answer =
        suite.client.get(format!("{}/readyz", suite.url("payment"))).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let said: Value = answer.json().await.expect("JSON");
    let check = said["checks"]
        .as_array()
        .and_then(|checks| checks.iter().find(|check| check["name"] == "migrations"));
    assert_eq!(
        check.map(|check| &check["detail"]),
        Some(&"core/0002 not applied: run the service with --migrate".into())
    );
    suite.execute("payment", "update _core_migrations set success = true where version = 2").await;
    suite.ready("payment").await;
}

#[test]
fn a_memory_shorter_than_the_topics_is_refused_at_the_start() {
    let ended = Command::new(env!("CARGO_BIN_EXE_amends"))
        .args(["serve", "order"])
        .env("DATABASE_URL", "postgres://order@127.0.0.1:1/order")
        .env("INBOX_RETENTION", "7d")
        .output()
        .expect("it runs");
    assert_eq!(ended.status.code(), Some(64));
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(
        said.contains("INBOX_RETENTION is 7.0 days, but the topics keep messages for 7.0 days"),
        "{said}"
    );
}
