//! The messages that a service has committed to its outbox, per minute and topic. The figures come from the remaining
//! rows and from the receipts of truncated ones.

use std::sync::LazyLock;

use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection};

use super::unsent::IS_SENT;

/// How long receipts are kept, in days. It is longer than topics keep their records.
const KEPT_DAYS: i32 = 14;

crate::row! {
    /// The messages that were committed in one minute for one topic.
    #[derive(Debug, Serialize)]
    #[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
    #[serde(rename_all = "camelCase")]
    pub struct OutboxLine {
        /// The minute in which the transactions began, in UTC, as a prefix of the envelopes' timestamps:
        /// `2026-11-21T10:07`.
        pub minute: String,
        /// The topic without the installation's prefix.
        pub topic: String,
        /// The number of messages.
        pub rows: i64,
        /// The number of messages that the broker has not acknowledged, by the relay's checkpoint.
        pub unsent: i64,
        /// The age of the oldest unacknowledged message, in seconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub oldest_unsent_seconds: Option<f64>,
        /// All positions, combined by exclusive or. It is text, because many programs limit JSON numbers to 2^53.
        pub positions: String,
    }
}

/// Returns the lines of the last `minutes`, and older lines that have unsent messages.
///
/// It must be one statement, because truncation ignores snapshots. A statement takes its locks before its snapshot,
/// so that it sees either a slot or the slot's receipt. It must not run in an older snapshot; see
/// [`crate::db::Db::scan`].
///
/// # Errors
/// Fails if the database does not answer.
pub async fn list(db: &mut PgConnection, minutes: i32) -> Result<Vec<OutboxLine>, sqlx::Error> {
    static LIST: LazyLock<String> = LazyLock::new(|| {
        format!(
            r#"select to_char(minute at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI') as minute, topic,
                      sum(rows)::bigint as rows, sum(unsent)::bigint as unsent,
                      extract(epoch from clock_timestamp() - min(oldest))::double precision as oldest_unsent_seconds,
                      bit_xor(positions_xor)::text as positions
               from (select date_trunc('minute', created_at) as minute, topic, count(*) as rows,
                            count(*) filter (where not sent) as unsent, min(created_at) filter (where not sent) as oldest,
                            bit_xor(position) as positions_xor
                     from (select o.created_at, o.topic, o.position, coalesce({IS_SENT}, false) as sent
                           from outbox o left join relay_checkpoint c on c.shard = o.shard) as kept
                     group by 1, 2
                     union all
                     select minute, topic, rows, 0, null, positions_xor from outbox_receipt
                     where minute >= now() - make_interval(mins => $1)) as line
               where minute >= now() - make_interval(mins => $1) or unsent > 0
               group by line.minute, topic order by line.minute, topic"#
        )
    });
    sqlx::query_as(LIST.as_str()).bind(minutes).fetch_all(db).await
}

/// Saves the figures of a slot in the transaction that truncates it, and deletes old receipts.
pub(crate) async fn save_receipt(db: &mut PgConnection, slot: &str) -> Result<(), sqlx::Error> {
    // The slot's name comes from this crate, so it is safe in SQL.
    sqlx::query(AssertSqlSafe(format!(
        "insert into outbox_receipt as receipt (minute, topic, rows, positions_xor)
         select date_trunc('minute', created_at), topic, count(*), bit_xor(position) from {slot} group by 1, 2
         on conflict on constraint outbox_receipt_pkey do update
         set rows = receipt.rows + excluded.rows, positions_xor = receipt.positions_xor # excluded.positions_xor"
    )))
    .execute(&mut *db)
    .await?;
    sqlx::query("delete from outbox_receipt where minute < now() - make_interval(days => $1)")
        .bind(KEPT_DAYS)
        .execute(db)
        .await?;
    Ok(())
}
