//! The inbox: a message takes effect in the transaction that claims its id, and in no other.
//!
//! [`Claimed`] is that transaction. It has no public constructor: the consumer makes one for a batch of claimed
//! messages, [`crate::db::Db::write`] makes one for a request. A handler gets `&mut Claimed`, so that it can neither
//! write without a claim nor commit half of a batch.

use std::borrow::Cow;
use std::collections::HashSet;

use sqlx::{PgConnection, Postgres, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::db::{Db, hash};
use crate::envelope::{Cause, Command, Event, Message};
use crate::fault::Fault;
use crate::outbox::{self, AppendError, Attributes, Row};
use crate::retention::Retention;

/// A transaction that holds the locks of its aggregates and collects the messages that it will leave in the outbox.
///
/// Dropped without [`Claimed::commit`], nothing of it has happened.
pub struct Claimed {
    tx: Transaction<'static, Postgres>,
    db: Db,
    now: OffsetDateTime,
    keys: HashSet<String>,
    outbox: Vec<Row>,
    after_commit: Vec<Box<dyn FnOnce() + Send>>,
}

impl Claimed {
    pub(crate) async fn begin(
        mut tx: Transaction<'static, Postgres>,
        db: Db,
        keys: &[String],
    ) -> Result<Self, sqlx::Error> {
        // The database's clock, so that all replicas of a service have the same one.
        let now = lock(&mut tx, keys).await?;
        let keys = keys.iter().cloned().collect();
        Ok(Self { tx, db, now, keys, outbox: Vec::new(), after_commit: Vec::new() })
    }

    /// The connection of this transaction.
    pub fn db(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// The service that writes, as messages have it in `source`.
    pub(crate) fn source(&self) -> &'static str {
        self.db.source()
    }

    /// When the transaction began, by the database's clock.
    pub fn now(&self) -> OffsetDateTime {
        self.now
    }

    pub(crate) fn retention(&self) -> Retention {
        self.db.retention()
    }

    /// Locks further aggregates until the end of the transaction. To keep clear of deadlocks, lock orders first and
    /// products after them; within one call the order does not matter.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn lock(&mut self, keys: impl IntoIterator<Item = String>) -> Result<(), sqlx::Error> {
        let more: Vec<String> = keys.into_iter().filter(|key| !self.keys.contains(key)).collect();
        if !more.is_empty() {
            lock(&mut self.tx, &more).await?;
            self.keys.extend(more);
        }
        Ok(())
    }

    /// Appends an event about the aggregate `key`, and returns the message's id.
    ///
    /// # Errors
    /// If the key's lock is not held (its order could not be kept), or if the message is larger than
    /// [`crate::envelope::MAX_MESSAGE_BYTES`].
    pub fn publish<E: Event>(&mut self, key: &str, cause: &Cause, event: &E) -> Result<Uuid, Fault> {
        self.publish_with(key, cause, event, Attributes::default())
    }

    /// [`Claimed::publish`] with the aggregate's version.
    ///
    /// # Errors
    /// As [`Claimed::publish`].
    pub fn publish_version<E: Event>(
        &mut self,
        key: &str,
        cause: &Cause,
        event: &E,
        version: i64,
    ) -> Result<Uuid, Fault> {
        self.publish_with(key, cause, event, Attributes { sequence: Some(version), ..Attributes::default() })
    }

    /// Appends a command about the aggregate `key`.
    ///
    /// # Errors
    /// As [`Claimed::publish`].
    pub fn send<C: Command>(
        &mut self,
        key: &str,
        cause: &Cause,
        command: &C,
        attributes: Attributes,
    ) -> Result<Uuid, Fault> {
        self.publish_with(key, cause, command, attributes)
    }

    pub(crate) fn publish_with<M: Message>(
        &mut self,
        key: &str,
        cause: &Cause,
        message: &M,
        attributes: Attributes,
    ) -> Result<Uuid, Fault> {
        let (id, body) = outbox::encode(self.db.source(), key, self.now, cause, message, attributes)?;
        self.append(M::TYPE, M::TOPIC, key, cause, body)?;
        Ok(id)
    }

    /// Appends a command whose type is known only at run time, as a saga's plan has them.
    ///
    /// # Errors
    /// As [`Claimed::publish`].
    pub fn send_erased(
        &mut self,
        key: &str,
        cause: &Cause,
        command: &ErasedCommand,
        attributes: Attributes,
    ) -> Result<Uuid, Fault> {
        let kind = (command.kind, command.data_version);
        let (id, body) =
            outbox::encode_as(self.db.source(), key, self.now, cause, kind, &command.data, attributes)?;
        self.append(command.kind, command.topic, key, cause, body)?;
        Ok(id)
    }

    pub(crate) fn append(
        &mut self,
        kind: &'static str,
        topic: impl Into<Cow<'static, str>>,
        key: &str,
        cause: &Cause,
        body: Vec<u8>,
    ) -> Result<(), AppendError> {
        if !self.keys.contains(key) {
            return Err(AppendError::NotLocked { kind, key: key.to_owned() });
        }
        self.outbox.push(Row {
            shard: self.db.shard(key),
            topic: topic.into(),
            key: key.to_owned(),
            traceparent: cause.traceparent.clone(),
            body,
        });
        Ok(())
    }

    /// Runs `then` once the transaction is committed, and never if it is not.
    pub fn after_commit(&mut self, then: impl FnOnce() + Send + 'static) {
        self.after_commit.push(Box::new(then));
    }

    /// Writes the collected messages, commits, and wakes the relay. Handlers can't call it: they don't own the
    /// transaction.
    ///
    /// # Errors
    /// If the database does not answer. Whether the commit took place is then unknown; the claim tells on retry.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        outbox::insert(&mut self.tx, &self.outbox).await?;
        self.tx.commit().await?;
        if !self.outbox.is_empty() {
            self.db.wake_relay();
        }
        for then in self.after_commit {
            then();
        }
        Ok(())
    }
}

/// A command without its Rust type.
#[derive(Clone)]
pub struct ErasedCommand {
    /// See [`Message::TYPE`].
    pub kind: &'static str,
    /// See [`Message::TOPIC`].
    pub topic: &'static str,
    /// See [`Message::DATA_VERSION`].
    pub data_version: &'static str,
    /// The command as JSON.
    pub data: Box<serde_json::value::RawValue>,
}

/// Takes the keys' locks in one order, so that two batches about the same orders can't deadlock. When the transaction
/// began.
async fn lock(db: &mut PgConnection, keys: &[String]) -> Result<OffsetDateTime, sqlx::Error> {
    let mut hashes: Vec<i64> = keys.iter().map(|key| hash(key)).collect();
    hashes.sort_unstable();
    hashes.dedup();
    sqlx::query_scalar(
        "select now() from (select count(pg_advisory_xact_lock(hash)) from unnest($1::bigint[]) as key (hash)) as held",
    )
    .bind(hashes)
    .fetch_one(db)
    .await
}

/// What of a batch is to be handled.
pub(crate) struct Claims {
    /// Ids that had no effect yet, and have it now or never.
    pub new: HashSet<Uuid>,
    /// Keys that wait for an operator.
    pub parked: HashSet<String>,
}

/// Claims message ids, and says which of the keys are parked. The caller holds the keys' locks; they are taken by an
/// earlier statement, because this one must see what their former holders have committed.
pub(crate) async fn claim(
    db: &mut PgConnection,
    ids: &[Uuid],
    keys: &[String],
) -> Result<Claims, sqlx::Error> {
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    let (new, parked): (Vec<Uuid>, Vec<String>) = sqlx::query_as(
        "with claimed as (
             insert into inbox (message_id) select * from unnest($1::uuid[])
             on conflict do nothing returning message_id)
         select array(select message_id from claimed),
                array(select distinct key from parked where status = 'parked' and key = any($2))",
    )
    .bind(sorted)
    .bind(keys)
    .fetch_one(db)
    .await?;
    Ok(Claims { new: new.into_iter().collect(), parked: parked.into_iter().collect() })
}
