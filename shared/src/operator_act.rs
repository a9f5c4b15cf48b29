//! What operators have done: who, why, and to what. An act is recorded in the transaction that carries it out.

use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

/// An act of an operator.
#[derive(Debug)]
pub(crate) struct Act<'a> {
    /// The identity of the act. Acts are ordered by it.
    pub id: Uuid,
    /// What was done, as a name for programs.
    pub act: &'static str,
    /// The name of the operator.
    pub by: &'a str,
    /// Why the operator did it.
    pub reason: &'a str,
    /// What it was done to.
    pub detail: Value,
}

crate::row! {
    /// An act on record.
    #[derive(Debug)]
    pub struct ActRow {
        /// The identity of the act.
        pub id: Uuid,
        /// The time of the act.
        pub at: OffsetDateTime,
        /// What was done, as a name for programs.
        pub act: String,
        /// The name of the operator.
        pub by: String,
        /// Why the operator did it.
        pub reason: String,
        /// What it was done to.
        pub detail: Json<Value>,
    }
}

/// Records an act. A further part of an act on record replaces its detail.
pub(crate) async fn record(db: &mut PgConnection, act: &Act<'_>) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into operator_act (id, act, by, reason, detail) values ($1, $2, $3, $4, $5)
         on conflict (id) do update set detail = excluded.detail",
    )
    .bind(act.id)
    .bind(act.act)
    .bind(act.by)
    .bind(act.reason)
    .bind(Json(&act.detail))
    .execute(db)
    .await?;
    Ok(())
}

/// Returns acts, the newest first, before the act `before`. Returns at most `limit` acts.
///
/// # Errors
/// Fails if the database does not answer.
pub async fn list(
    db: &mut PgConnection,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<ActRow>, sqlx::Error> {
    sqlx::query_as(
        "select id, at, act, by, reason, detail from operator_act where id < $1 order by id desc limit $2",
    )
    .bind(before.unwrap_or(Uuid::max()))
    .bind(limit)
    .fetch_all(db)
    .await
}
