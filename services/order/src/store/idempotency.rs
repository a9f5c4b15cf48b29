//! Statements about the answers that were given under Idempotency-Keys.

use std::collections::HashMap;
use std::time::Duration;

use shared::unit_of_work::UnitOfWork;
use sqlx::PgConnection;
use uuid::Uuid;

shared::row! {
    /// The answer that was given under an Idempotency-Key.
    #[derive(Debug)]
    pub struct AnswerRow {
        pub key: String,
        pub request_hash: Vec<u8>,
        pub order_id: Uuid,
        pub answer: String,
    }
}

/// Returns the answers that were given under these keys, by key. The caller holds the keys' locks.
pub async fn find_answers(
    db: &mut PgConnection,
    keys: &[&str],
) -> Result<HashMap<String, AnswerRow>, sqlx::Error> {
    let rows: Vec<AnswerRow> =
        sqlx::query_as("select key, request_hash, order_id, answer from idempotency_key where key = any($1)")
            .bind(keys)
            .fetch_all(db)
            .await?;
    Ok(rows.into_iter().map(|row| (row.key.clone(), row)).collect())
}

/// Writes answers.
pub fn insert_answers(uow: &mut UnitOfWork, answers: &[AnswerRow]) {
    uow.defer(
        "insert into idempotency_key (key, request_hash, order_id, answer)
         select * from unnest($1::text[], $2::bytea[], $3::uuid[], $4::text[])",
        |parameters| {
            parameters
                .bind(answers.iter().map(|row| row.key.as_str()).collect::<Vec<_>>())
                .bind(answers.iter().map(|row| row.request_hash.as_slice()).collect::<Vec<_>>())
                .bind(answers.iter().map(|row| row.order_id).collect::<Vec<_>>())
                .bind(answers.iter().map(|row| row.answer.as_str()).collect::<Vec<_>>());
        },
    );
}

/// Deletes a batch of answers that are older than `kept`. Returns the number of rows deleted.
pub async fn delete_answers(db: &mut PgConnection, kept: Duration) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query(
        "delete from idempotency_key
         where key = any (array (select key from idempotency_key
                                 where created_at < now() - $1 * interval '1 second' order by created_at limit $2))",
    )
    .bind(kept.as_secs_f64())
    .bind(shared::housekeeper::BATCH)
    .execute(db)
    .await?;
    Ok(deleted.rows_affected())
}
