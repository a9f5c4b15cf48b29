//! The pools of connections: none of them waits for another, and a dropped transaction leaves nothing behind.

use std::time::Duration;

use shared::db::{Db, DbOptions};
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;

use crate::harness::PATIENCE;
use crate::harness::place::Place;

/// Returns a place, and its database with one connection of each kind.
async fn one_of_each() -> (Place, Db) {
    let place = Place::new(&[]).await;
    let options: PgConnectOptions = place.database_url().parse().expect("a URL");
    let db = DbOptions::new("pools").connections(1).request_connections(1).list_connections(1);
    (place, db.connect(options))
}

async fn pid(db: &mut PgConnection) -> i32 {
    sqlx::query_scalar("select pg_backend_pid()").fetch_one(db).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_requests_keep_no_message_from_being_handled() {
    let (_place, db) = one_of_each().await;
    let mut audit = db.survey().await.expect("a connection of lists");
    let full = db.for_lists().read().await.err().expect("the only one is taken");
    assert!(matches!(full, sqlx::Error::PoolTimedOut), "{full}");
    let mut request = db.for_requests().read().await.expect("a connection of requests");
    let mut message = db.write(&["key".to_owned()]).await.expect("a connection of messages");
    let pids = [pid(&mut audit).await, pid(&mut request).await, pid(message.db()).await];
    assert!(pids[0] != pids[1] && pids[1] != pids[2] && pids[0] != pids[2], "{pids:?}");
    message.abandon().await.expect("an end");
    audit.end().await.expect("an end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_transaction_is_rolled_back_and_its_connection_is_used_again() {
    let (place, db) = one_of_each().await;
    place.execute("create table thing (id int)").await;
    let mut uow = db.write(&["key".to_owned()]).await.expect("a connection");
    let before = pid(uow.db()).await;
    sqlx::query("insert into thing values (1)").execute(uow.db()).await.expect("inserted");
    drop(uow);
    // The lock is free again, or this would wait.
    let mut uow = tokio::time::timeout(PATIENCE, db.write(&["key".to_owned()])).await;
    let uow = uow.as_mut().expect("no wait").as_mut().expect("a connection");
    assert_eq!(pid(uow.db()).await, before);
    assert_eq!(place.number("select count(*) from thing").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_statement_does_not_end_is_replaced() {
    let (_place, db) = one_of_each().await;
    let mut uow = db.write(&[]).await.expect("a connection");
    let before = pid(uow.db()).await;
    let long = sqlx::query("select pg_sleep(3600)").execute(uow.db());
    assert!(tokio::time::timeout(Duration::from_millis(100), long).await.is_err(), "it runs for an hour");
    drop(uow);
    let mut next = db.read().await.expect("a new connection");
    assert_ne!(pid(&mut next).await, before);
}
