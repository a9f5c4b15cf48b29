//! The connections of the core's pool.

use shared::db::{DbOptions, Pooled};
use shared::fault::{Class, Fault};
use sqlx::{Connection, Executor, PgConnection};

use super::harness::place::Place;

async fn names(db: &mut Pooled) -> Result<Vec<String>, Fault> {
    Ok(sqlx::query_scalar("select name from thing").fetch_all(&mut **db).await?)
}

/// A release may change the type of a column while the release before still runs. Its prepared statements fail then.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_plan_is_stale_is_not_used_again() {
    let place = Place::new(&[]).await;
    let url = place.database_url();
    let mut owner = PgConnection::connect(&url).await.expect("PostgreSQL answers");
    owner
        .execute("create table thing (name text); insert into thing values ('lamp')")
        .await
        .expect("a table");
    let db = DbOptions::new("things").connections(5).connect(url.parse().expect("a URL"));

    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(db.read().await.expect("a connection"));
    }
    for connection in &mut open {
        assert_eq!(names(connection).await.expect("names"), ["lamp"]);
    }
    drop(open);
    owner.execute("alter table thing alter column name type varchar(20)").await.expect("another type");

    let failed = names(&mut db.read().await.expect("a connection")).await.expect_err("the plan is stale");
    assert_eq!(failed.class(), Class::Retry, "{failed}");
    // All five at once, so that none is left out.
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(db.read().await.expect("a connection"));
    }
    for connection in &mut open {
        assert_eq!(names(connection).await.expect("names"), ["lamp"]);
    }
}
