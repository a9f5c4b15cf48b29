//! What a service has committed to its outbox, minute by minute and topic by topic: rows that are still there, and receipts
//! of those that were truncated.

use std::sync::LazyLock;

use serde::Serialize;
use sqlx::{AssertSqlSafe, FromRow, PgConnection};

use super::unsent::IS_SENT;

/// How long receipts are kept, in days: longer than topics keep their records.
const KEPT_DAYS: i32 = 14;

/// What was committed in one minute for one topic.
#[derive(Debug, Serialize, FromRow)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct OutboxLine {
    /// The minute in which the transactions began, in UTC, as the envelopes' timestamps begin: `2026-11-21T10:07`.
    pub minute: String,
    /// The topic without the installation's prefix.
    pub topic: String,
    /// The number of messages.
    pub rows: i64,
    /// The number of those that the broker has not acknowledged, as far as the relay's checkpoint says.
    pub unsent: i64,
    /// How old the oldest of those is, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_unsent_seconds: Option<f64>,
    /// All positions, combined by exclusive or. As text, since JSON's numbers end at 2^53 in many programs.
    pub positions: String,
}

/// Returns the lines of the last `minutes`, and those of earlier ones that have unsent messages.
///
/// It is one statement by purpose: truncation respects no snapshot, but a statement has its locks before its snapshot, so it
/// sees a slot or its receipt, and never neither. It must not run in a snapshot from before: see [`crate::db::Db::scan`].
///
/// # Errors
/// If the database does not answer.
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

/// Writes down what a slot has, in the transaction that truncates it, and forgets old receipts.
pub(crate) async fn save_receipt(db: &mut PgConnection, slot: &str) -> Result<(), sqlx::Error> {
    // The slot's name is our own.
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
