//! What is forgotten in time, and what is not.

use serde_json::Value;
use shared::db::DEFAULT_SCHEMA;
use shared::envelope::{Direction, new_id};
use shared::migrations::CORE;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use crate::harness::commands::{ask, outcomes, say};
use crate::harness::place::Place;
use crate::harness::process;
use crate::harness::toy::Toy;
use crate::loyalty::Loyalty;
use crate::loyalty::messages::{GrantPoints, NoteVisit, PrintVoucher};

const PARTITIONS: &str = "select relname::text from pg_inherits join pg_class on oid = inhrelid
    where inhparent = 'inbox'::regclass order by relname";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_is_forgotten_and_nothing_else() {
    let mut toy = Toy::start().await;
    assert_eq!(toy.texts(PARTITIONS).await.len(), 5, "today, three days to come, and the default");
    toy.execute(
        "create table today as select (now() at time zone 'UTC')::date as day;
         insert into offer values ('young', now() - interval '23 hours');
         -- More than one statement deletes.
         insert into offer select 'old ' || number, now() - interval '25 hours' from generate_series(1, 1500) as number;
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
                             (20, 'withdrawing', 'refused', 20),
                             (10, 'young', 'done', 10)) as row (age, step, status, recorded);
         update step_outcome set claimed_until = now() where step = 'withdrawing'",
    )
    .await;
    toy.crash();
    toy.ready().await;
    // The last that a pass does.
    let old_offers = "select count(*) from offer where name <> 'young'";
    toy.until("the old offers to be forgotten", async || toy.number(old_offers).await == 0).await;

    let ids = async |day: &str| {
        toy.number(&format!("select count(*) from inbox, today where message_id = inbox_floor({day})")).await
    };
    assert_eq!((ids("day - 20").await, ids("day - 10").await, ids("day + 2").await), (0, 1, 1));
    let moved = "select (to_regclass('inbox_' || to_char(day + 2, 'YYYYMMDD')) = i.tableoid)::int::bigint
                 from today, inbox i where message_id = inbox_floor(day + 2)";
    assert_eq!(toy.number(moved).await, 1, "it is in the partition of its day");
    let partitions = toy.texts(PARTITIONS).await;
    assert_eq!(partitions.len(), 6, "five, and the one of ten days ago: {partitions:?}");
    assert_eq!(toy.number("select count(*) from inbox_other").await, 1);
    let steps = toy.texts("select step from step_outcome where type = 'test.v1' order by step").await;
    assert_eq!(steps, ["late", "open", "withdrawing", "young"]);
    assert_eq!(toy.texts("select name from offer").await, ["young"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_was_off_for_weeks_goes_on_and_makes_its_days_again() {
    let mut toy = Toy::start().await;
    toy.process.kill9();
    toy.execute(
        "do $$ declare name text; begin
             for name in select inhrelid::regclass from pg_inherits
                         where inhparent = 'inbox'::regclass and inhrelid <> 'inbox_other'::regclass
             loop execute 'drop table ' || name; end loop;
         end $$",
    )
    .await;
    toy.launch();
    let member = new_id();
    let grant = GrantPoints { member, campaign: "spring".to_owned(), points: 2 };
    let print = PrintVoucher { member, text: "a free coffee".to_owned() };
    let visits = [new_id(), new_id()];
    let visit = |id: Uuid| say(id, member, &NoteVisit { shop: "the one at the station".to_owned() });
    toy.told(&[
        ask(member, "grant_points", Direction::Do, &grant),
        ask(member, "print_voucher", Direction::Do, &print),
        visit(visits[0]),
        visit(visits[1]),
    ])
    .await;
    toy.until("both commands to be carried out", async || toy.answers(member).await.len() == 2).await;
    let answers = toy.answers(member).await;
    assert_eq!(outcomes(&answers), [("do", "done"), ("do", "done")]);
    assert_eq!(toy.number("select count(*) from inbox_other").await, 2, "today's ids have no day");
    toy.until("the days to come", async || toy.texts(PARTITIONS).await.len() >= 3).await;
    toy.comes_to_rest().await;
    let records = toy.records();
    assert!(records.len() >= 8, "two commands, two visits, and an event about each");
    toy.send_again(&records).await;
    toy.caught_up().await;
    toy.comes_to_rest().await;
    assert_eq!(toy.answers(member).await, answers);
    assert_eq!(toy.texts("select points_left::text from campaign where name = 'spring'").await, ["998"]);
    assert_eq!(toy.number("select count(*) from print_entry").await, 1);
    for visit in visits {
        assert_eq!(toy.caused_by(visit).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inbox_of_the_release_before_is_taken_over() {
    let place = Place::new(&[]).await;
    let mut db = place.connect().await;
    let scripts: Vec<&str> = CORE.scripts().map(|(_, _, sql)| sql).collect();
    let schema = format!("create schema {DEFAULT_SCHEMA}; set search_path = {DEFAULT_SCHEMA}");
    sqlx::raw_sql(AssertSqlSafe(schema)).execute(&mut db).await.expect("a schema");
    let apply = async |db: &mut PgConnection, script: &str| {
        sqlx::raw_sql(AssertSqlSafe(script)).execute(db).await.expect("a migration");
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
    let before: Vec<Uuid> = sqlx::query_scalar(ids).fetch_one(&mut db).await.expect("ids");
    for script in &scripts[1..] {
        apply(&mut db, script).await;
    }
    let after: Vec<Uuid> = sqlx::query_scalar(ids).fetch_one(&mut db).await.expect("ids");
    assert_eq!(after, before);
    let without_day: i64 =
        sqlx::query_scalar("select count(*) from inbox_other").fetch_one(&mut db).await.expect("a number");
    assert_eq!(without_day, 3, "those of 35 and 40 days ago, and the one that says no time");
    db.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_is_missing_below_the_newest_is_noticed() {
    let toy = Toy::start().await;
    toy.execute("update _core_migrations set success = false where version = 2").await;
    let url = format!("http://127.0.0.1:{}/readyz", toy.process.port);
    // An answer may be half a second old.
    let not_ready = async || {
        let answer = toy.client.get(&url).send().await.expect("an answer");
        answer.status() == reqwest::StatusCode::SERVICE_UNAVAILABLE
    };
    toy.until("the service to notice it", not_ready).await;
    let said: Value = toy.client.get(&url).send().await.expect("an answer").json().await.expect("JSON");
    let check = said["checks"]
        .as_array()
        .and_then(|checks| checks.iter().find(|check| check["name"] == "migrations"));
    assert_eq!(
        check.map(|check| &check["detail"]),
        Some(&"core/0002 not applied: run the service with --migrate".into())
    );
    toy.execute("update _core_migrations set success = true where version = 2").await;
    toy.ready().await;
}

#[test]
fn a_memory_shorter_than_the_topics_is_refused_at_the_start() {
    let settings = [
        ("DATABASE_URL", "postgres://loyalty@127.0.0.1:1/loyalty".to_owned()),
        ("INBOX_RETENTION", "7d".to_owned()),
    ];
    let ended = process::command::<Loyalty>(&settings).output().expect("it runs");
    assert_eq!(ended.status.code(), Some(64));
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(
        said.contains("INBOX_RETENTION is 7.0 days, but the topics keep messages for 7.0 days"),
        "{said}"
    );
}
