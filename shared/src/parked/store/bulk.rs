//! All SQL statements about many parked messages at once.

use sqlx::{AssertSqlSafe, PgConnection};
use time::OffsetDateTime;

use crate::parked::filter::Filter;

crate::row! {
    /// Why messages are parked, and how many of them.
    #[derive(Debug)]
    pub struct CauseRow {
        /// The topic of the records, without the installation's prefix.
        pub topic: String,
        /// The type of the messages, if they could be read.
        pub kind: Option<String> = "type",
        /// The reason of the last failure.
        pub reason: String,
        /// The number of messages.
        pub messages: i64,
        /// The number of keys that they have.
        pub keys: i64,
        /// The time at which the first of them was parked.
        pub since: OffsetDateTime,
    }
}

/// The condition of a filter, with the parameters 1 to 4.
const MATCHES: &str = "($1::text is null or type = $1) and ($2::text is null or position($2 in reason) > 0)
    and ($3::text is null or topic = $3) and parked_at <= now() - $4 * interval '1 second'";

/// The first parked message of each key.
const FIRST: &str =
    "(select distinct on (key) * from (select key, id, type, topic, reason, parked_at from parked
      where status = 'parked') as waiting order by key, id) as first";

fn seconds(filter: &Filter) -> f64 {
    filter.older_than.unwrap_or_default().as_secs_f64()
}

/// Counts the selected messages by their causes.
pub(in crate::parked) async fn causes(
    db: &mut PgConnection,
    filter: &Filter,
    first_only: bool,
) -> Result<Vec<CauseRow>, sqlx::Error> {
    let of = if first_only { FIRST } else { "parked" };
    let open = if first_only { "true" } else { "status = 'parked'" };
    let count = format!(
        "select topic, type, reason, count(*) as messages, count(distinct key) as keys, min(parked_at) as since
         from {of} where {open} and {MATCHES}
         group by topic, type, reason order by messages desc, topic, type, reason limit 50"
    );
    sqlx::query_as(AssertSqlSafe(count))
        .bind(&filter.kind)
        .bind(&filter.cause)
        .bind(&filter.topic)
        .bind(seconds(filter))
        .fetch_all(db)
        .await
}

/// Returns ids and keys of selected messages, in order, behind the id `after`. Returns at most `limit` messages.
pub(in crate::parked) async fn find(
    db: &mut PgConnection,
    filter: &Filter,
    after: i64,
    limit: i64,
) -> Result<Vec<(i64, String)>, sqlx::Error> {
    let find = format!(
        "select id, key from parked where status = 'parked' and {MATCHES} and id > $5 order by id limit $6"
    );
    select(db, find, filter, after, limit).await
}

/// Returns the keys whose first message is selected, with the id of that message, in the order of those ids, behind `after`.
/// Returns at most `limit` keys.
pub(in crate::parked) async fn find_first(
    db: &mut PgConnection,
    filter: &Filter,
    after: i64,
    limit: i64,
) -> Result<Vec<(i64, String)>, sqlx::Error> {
    let find = format!("select id, key from {FIRST} where {MATCHES} and id > $5 order by id limit $6");
    select(db, find, filter, after, limit).await
}

async fn select(
    db: &mut PgConnection,
    statement: String,
    filter: &Filter,
    after: i64,
    limit: i64,
) -> Result<Vec<(i64, String)>, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(statement))
        .bind(&filter.kind)
        .bind(&filter.cause)
        .bind(&filter.topic)
        .bind(seconds(filter))
        .bind(after)
        .bind(limit)
        .fetch_all(db)
        .await
}

/// Marks those of the messages as skipped that are still parked. Returns their number. The caller has locked their keys.
pub(in crate::parked) async fn skip(
    db: &mut PgConnection,
    ids: &[i64],
    reason: &str,
    by: &str,
) -> Result<u64, sqlx::Error> {
    let skipped = sqlx::query(
        "update parked set status = 'skipped', skip_reason = $2, resolved_by = $3, resolved_at = now()
         where id = any($1) and status = 'parked'",
    )
    .bind(ids)
    .bind(reason)
    .bind(by)
    .execute(db)
    .await?;
    Ok(skipped.rows_affected())
}
