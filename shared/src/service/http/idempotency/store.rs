//! The SQL statements about the answers that were given under Idempotency-Keys.

use std::time::Duration;

use sqlx::PgConnection;

use crate::housekeeper::BATCH;
use crate::unit_of_work::UnitOfWork;

crate::row! {
    /// The answer that was given under an Idempotency-Key.
    #[derive(Debug)]
    pub(super) struct AnswerRow {
        pub request_hash: Vec<u8>,
        pub status: i16,
        pub body: Option<String>,
    }
}

/// Returns the answer that was given under this key. The caller holds the key's lock.
pub(super) async fn find(db: &mut PgConnection, key: &str) -> Result<Option<AnswerRow>, sqlx::Error> {
    sqlx::query_as("select request_hash, status, body from idempotency_answer where key = $1")
        .bind(key)
        .fetch_optional(db)
        .await
}

/// Writes an answer when the unit of work commits.
pub(super) fn insert(uow: &mut UnitOfWork, key: &str, row: &AnswerRow) {
    uow.defer(
        "insert into idempotency_answer (key, request_hash, status, body) values ($1, $2, $3, $4)",
        |parameters| {
            parameters.bind(key).bind(row.request_hash.as_slice()).bind(row.status).bind(row.body.as_deref());
        },
    );
}

/// Deletes a batch of answers that are older than `kept`. Returns the number of rows deleted.
pub(super) async fn delete(db: &mut PgConnection, kept: Duration) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query(
        "delete from idempotency_answer
         where key = any (array (select key from idempotency_answer
                                 where created_at < now() - $1 * interval '1 second' order by created_at limit $2))",
    )
    .bind(kept.as_secs_f64())
    .bind(BATCH)
    .execute(db)
    .await?;
    Ok(deleted.rows_affected())
}
