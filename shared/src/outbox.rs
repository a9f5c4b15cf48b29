//! The transactional outbox: messages are rows, written in the transaction of the change that they describe.
//! The pattern is "Transactional outbox" by Chris Richardson. The relay that reads the rows is [`crate::relay`].
//!
//! Inside a [`crate::unit_of_work::UnitOfWork`], append messages with its `publish`. Inside a transaction of the
//! application's own pool, append them with [`Outbox::publish`].

mod draft;
pub mod receipts;
pub(crate) mod unsent;

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Row as _, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::draft::{AppendError, Draft};
pub use self::unsent::{count_unsent, read_by_index};
use crate::db::{Db, NOW, PgQuery, hash, quote_ident};
use crate::envelope::Cause;
use crate::fault::{Class, Classified};
use crate::step_outcome::{self, Record};

/// A message that is sent after its transaction commits.
pub(crate) struct OutboxRow {
    pub shard: i16,
    pub topic: Cow<'static, str>,
    pub key: String,
    pub traceparent: Option<String>,
    pub body: Vec<u8>,
}

/// Positions are drawn in the order of `order by`, so that the messages of a key keep their order.
const INSERT: &str = "insert into outbox (shard, topic, key, traceparent, body)
     select shard, topic, key, traceparent, body
     from unnest($1::smallint[], $2::text[], $3::text[], $4::text[], $5::bytea[])
          with ordinality as row (shard, topic, key, traceparent, body, ordinal)
     order by ordinal";

/// Appends the rows in their order and records the outcomes of steps, with at most one statement. The caller holds
/// the locks of all their keys.
pub(crate) async fn insert(
    db: &mut PgConnection,
    rows: &[OutboxRow],
    records: &[&Record],
) -> Result<(), sqlx::Error> {
    match (rows, records) {
        ([], []) => {}
        (_, []) => {
            bind(sqlx::query(INSERT), rows).execute(db).await?;
        }
        ([], _) => step_outcome::insert(db, records).await?,
        _ => {
            let both = format!("with recorded as ({}) {INSERT}", step_outcome::insert_statement(6));
            let query = bind(sqlx::query(AssertSqlSafe(both)), rows);
            step_outcome::bind(query, records).execute(db).await?;
        }
    }
    Ok(())
}

fn bind(query: PgQuery, rows: &[OutboxRow]) -> PgQuery {
    query
        .bind(rows.iter().map(|row| row.shard).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.topic.as_ref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.traceparent.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.body.as_slice()).collect::<Vec<_>>())
}

/// The reason why a message could not be appended to the outbox.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The message is invalid.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The database did not answer or refused the statement. The transaction can only be rolled back.
    #[error("the message could not be written to the outbox")]
    Database(#[from] sqlx::Error),
}

impl Classified for PublishError {
    fn class(&self) -> Class {
        match self {
            Self::Append(error) => error.class(),
            Self::Database(error) => error.class(),
        }
    }
}

/// Appends messages inside transactions of the application's own pool. The search path of those transactions does not
/// matter.
#[derive(Clone)]
pub struct Outbox {
    db: Db,
    insert: Arc<str>,
}

impl Outbox {
    /// Creates the outbox in the core's schema of this database.
    pub fn new(db: &Db) -> Self {
        let insert = INSERT.replacen("into outbox", &format!("into {}.outbox", quote_ident(db.schema())), 1);
        Self { db: db.clone(), insert: insert.into() }
    }

    /// Appends a message about the aggregate `key` and returns the id of the message. The message is sent if the
    /// transaction commits, and only then.
    ///
    /// The transaction holds the lock of the key until it ends, so that messages of one key are sent in the order of
    /// their commits. If a transaction publishes about several keys, use the same order of keys everywhere. Otherwise
    /// two transactions may deadlock, and PostgreSQL ends one of them.
    ///
    /// # Errors
    /// Fails if the message is larger than [`crate::envelope::MAX_MESSAGE_BYTES`], if the key is unusable (see
    /// [`AppendError::Key`]), or if the database does not answer.
    pub async fn publish<'m, D: Serialize + ?Sized + 'm>(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        key: &str,
        cause: &Cause,
        message: impl Into<Draft<'m, D>>,
    ) -> Result<Uuid, PublishError> {
        let draft = message.into();
        let lock = format!("select {NOW}, pg_advisory_xact_lock($1)");
        let locked = sqlx::query(AssertSqlSafe(lock)).bind(hash(key)).fetch_one(&mut **tx).await?;
        let now: i64 = locked.try_get(0)?;
        let now = OffsetDateTime::from_unix_timestamp_nanos(i128::from(now) * 1000)
            .map_err(|error| sqlx::Error::Decode(error.into()))?;
        let (id, row) = draft.encode(&self.db, key, now, cause)?;
        bind(sqlx::query(AssertSqlSafe(Arc::clone(&self.insert))), &[row]).execute(&mut **tx).await?;
        Ok(id)
    }

    /// Wakes the relay of this process. Call it after the commit. Without it, the relay finds the message at its next
    /// poll, within half a second.
    pub fn wake(&self) {
        self.db.wake_relay();
    }
}
