//! The transactional outbox: messages are rows, written in the transaction of the change that they describe.
//! The pattern is "Transactional outbox" by Chris Richardson. The relay that reads the rows is [`crate::relay`].
//!
//! Inside a [`crate::unit_of_work::UnitOfWork`], append messages with its `publish`. Inside a transaction of the
//! application's own pool, append them with [`Outbox::publish`].

mod draft;
pub mod receipts;
pub(crate) mod unsent;

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::Serialize;
use sqlx::{AssertSqlSafe, Postgres, Row as _, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::draft::{AppendError, Draft};
pub use self::unsent::{count_unsent, read_by_index};
use crate::db::{Db, NOW, Parameters, from_micros, hash, quote_ident};
use crate::envelope::Cause;
use crate::fault::{Class, Classified};

/// A message that is sent after its transaction commits.
pub(crate) struct OutboxRow {
    pub shard: i16,
    pub topic: Cow<'static, str>,
    pub key: String,
    pub traceparent: Option<String>,
    pub body: Vec<u8>,
}

/// Appends rows in their order. The caller holds the locks of all keys. Positions are drawn in the order of `order by`, so
/// that the messages of a key keep their order.
pub(crate) const INSERT: &str = "insert into outbox (shard, topic, key, traceparent, body)
     select shard, topic, key, traceparent, body
     from unnest($1::smallint[], $2::text[], $3::text[], $4::text[], $5::bytea[])
          with ordinality as row (shard, topic, key, traceparent, body, ordinal)
     order by ordinal";

/// Returns [`INSERT`] for the slot in which a transaction that began at `now` writes: the default of the column `slot`.
/// PostgreSQL need not find the partition then.
pub(crate) fn insert_at(now: OffsetDateTime) -> &'static str {
    static SLOTS: LazyLock<[String; 3]> = LazyLock::new(|| {
        [0, 1, 2].map(|slot| {
            let into = format!("insert into outbox_{slot} (slot, ");
            INSERT.replacen("insert into outbox (", &into, 1).replacen(
                "select ",
                &format!("select {slot}, "),
                1,
            )
        })
    });
    // The column's default rounds to the nearest second.
    let seconds = (now + Duration::from_millis(500)).unix_timestamp();
    let slot = (seconds / 60).rem_euclid(3);
    &SLOTS[usize::try_from(slot).unwrap_or_default()]
}

/// Binds the rows to [`INSERT`].
pub(crate) fn bind(parameters: &mut Parameters, rows: &[OutboxRow]) {
    parameters
        .bind(rows.iter().map(|row| row.shard).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.topic.as_ref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.traceparent.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.body.as_slice()).collect::<Vec<_>>());
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
        let now = from_micros(locked.try_get(0)?)?;
        let (id, row) = draft.encode(&self.db, key, now, cause)?;
        sqlx::query(AssertSqlSafe(Arc::clone(&self.insert)))
            .bind([row.shard])
            .bind([row.topic.as_ref()])
            .bind([row.key.as_str()])
            .bind([row.traceparent.as_deref()])
            .bind([row.body.as_slice()])
            .execute(&mut **tx)
            .await?;
        Ok(id)
    }

    /// Wakes the relay of this process. Call it after the commit. Without it, the relay finds the message at its next
    /// poll, within half a second.
    pub fn wake(&self) {
        self.db.wake_relay();
    }
}
