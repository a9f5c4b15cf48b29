//! Migrations beside a release that runs: an older one starts on newer tables, and nobody waits behind a migration.

use std::time::{Duration, Instant};

use shared::db::{Db, DbOptions};
use shared::migrations;
use sqlx::{Connection, Executor, PgConnection};

use super::harness::PATIENCE;
use super::harness::place::Place;

async fn migrated(place: &Place) -> (Db, PgConnection) {
    let url = place.database_url();
    let db = DbOptions::new("shop").connect(url.parse().expect("a URL"));
    migrations::apply(&db).await.expect("migrations");
    let mut owner = PgConnection::connect(&url).await.expect("PostgreSQL answers");
    owner.execute("set search_path = amends").await.expect("the schema");
    (db, owner)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_is_rolled_back_finds_newer_migrations_and_works_with_them() {
    let place = Place::new(&[]).await;
    let (db, mut owner) = migrated(&place).await;
    let newer = "insert into _core_migrations (version, description, success, checksum, execution_time)
                 values (9999, 'of the next release', true, 'x', 0)";
    owner.execute(newer).await.expect("a newer migration");
    migrations::apply(&db).await.expect("nothing is to be done");
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "the test waits for the task")]
async fn a_migration_that_waits_for_a_table_makes_nobody_wait_behind_it() {
    let place = Place::new(&[]).await;
    let (db, mut owner) = migrated(&place).await;
    // As before 0009, which locks the table of parked messages.
    let before = "alter table parked drop column digest;
                  alter table parked add constraint parked_once unique (topic, partition, \"offset\");
                  delete from _core_migrations where version = 9";
    owner.execute(before).await.expect("the release before");
    let mut reader = PgConnection::connect(&place.database_url()).await.expect("PostgreSQL answers");
    reader.execute("begin; select count(*) from amends.parked").await.expect("a long transaction");

    let migration = tokio::spawn(async move { migrations::apply(&db).await });
    let waits = "select exists (select from pg_locks where relation = 'parked'::regclass and not granted)";
    let until = async |owner: &mut PgConnection, wanted: bool| {
        let deadline = Instant::now() + PATIENCE;
        while sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut *owner).await.expect("an answer") != wanted
        {
            assert!(Instant::now() < deadline, "the migration never waits, or for ever");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // It waits, gives up, and waits again. Between the two others get at the table.
    until(&mut owner, true).await;
    owner.execute("select count(*) from parked").await.expect("it is this reader's turn");
    until(&mut owner, false).await;
    until(&mut owner, true).await;
    reader.execute("rollback").await.expect("an end");
    migration.await.expect("no panic").expect("the migration");
    owner.execute("select digest from parked").await.expect("the new column");
}
