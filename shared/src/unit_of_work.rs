//! The unit of work: one transaction with the locks of its aggregates, what the inbox has claimed, and the messages that it
//! will leave in the outbox.
//!
//! A handler never creates one. The consumer passes one in, with the batch's message ids already claimed; a request gets one
//! from [`Db::write`]. Since a handler gets `&mut UnitOfWork`, it can neither write without a claim nor commit half of a
//! batch. (The pattern: Martin Fowler, "Unit of Work".)

use std::collections::HashSet;

use serde::Serialize;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::db::{Db, NOW, Tx, hash};
use crate::envelope::Cause;
use crate::inbox::{self, Asked, Claims};
use crate::outbox::{self, AppendError, Draft, Row};
use crate::step_outcome::StepOutcomes;
#[cfg(feature = "saga")]
use crate::{retention::Retention, step_outcome::StepKey};

/// A transaction that holds the locks of its aggregates and collects the messages that it will leave in the outbox.
///
/// If it is dropped without [`UnitOfWork::commit`], it has no effect.
pub struct UnitOfWork {
    tx: Tx,
    db: Db,
    now: OffsetDateTime,
    keys: HashSet<String>,
    /// What is on record of the steps that this is about, and what will be.
    pub(crate) steps: StepOutcomes,
    outbox: Vec<Row>,
    after_commit: Vec<Box<dyn FnOnce() + Send>>,
}

impl Db {
    /// Begins a write about the aggregates with these keys, for a request that comes from outside. It waits for other
    /// writes about the same keys.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn write(&self, keys: &[String]) -> Result<UnitOfWork, sqlx::Error> {
        let (tx, now) = locked(self, keys).await?;
        Ok(UnitOfWork::new(tx, self.clone(), now, keys, StepOutcomes::default()))
    }
}

impl UnitOfWork {
    /// For a batch of messages: claims them.
    pub(crate) async fn claim(
        db: Db,
        keys: &[String],
        asked: &Asked<'_>,
    ) -> Result<(Self, Claims), sqlx::Error> {
        let (mut tx, now) = locked(&db, keys).await?;
        let answer = inbox::claim(&mut tx, keys, asked).await?;
        let outcomes =
            StepOutcomes::looked_up(answer.outcomes.map_or_else(Vec::new, |Json(outcomes)| outcomes));
        let claims = Claims {
            new: answer.new.into_iter().collect(),
            parked: answer.parked.into_iter().collect(),
            resolved: answer.resolved.into_iter().collect(),
        };
        Ok((Self::new(tx, db, now, keys, outcomes), claims))
    }

    fn new(tx: Tx, db: Db, now: OffsetDateTime, keys: &[String], steps: StepOutcomes) -> Self {
        let keys = keys.iter().cloned().collect();
        Self { tx, db, now, keys, steps, outbox: Vec::new(), after_commit: Vec::new() }
    }

    /// The connection of this transaction.
    pub fn db(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// The service that writes, as messages have it in `source`.
    pub fn source(&self) -> &'static str {
        self.db.source()
    }

    /// When the transaction began, by the database's clock.
    pub fn now(&self) -> OffsetDateTime {
        self.now
    }

    pub(crate) fn parked_topic(&self) -> &str {
        self.db.parked_topic()
    }

    /// Locks further aggregates until the end of the transaction. To keep clear of deadlocks, lock kinds of aggregates always
    /// in the same order, for example orders first and products after them; within one call the order does not matter.
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

    /// Appends a message about the aggregate `key`, and returns the message's id. An event or a command is given as
    /// `&message`; [`Draft`] adds the aggregate's version or metadata. The message is written when the unit of work commits.
    ///
    /// # Errors
    /// If the key's lock is not held (its order could not be kept), or if the message is larger than
    /// [`crate::envelope::MAX_MESSAGE_BYTES`].
    pub fn publish<'m, D: Serialize + ?Sized + 'm>(
        &mut self,
        key: &str,
        cause: &Cause,
        message: impl Into<Draft<'m, D>>,
    ) -> Result<Uuid, AppendError> {
        let draft = message.into();
        if !self.keys.contains(key) {
            return Err(AppendError::NotLocked { kind: draft.kind(), key: key.to_owned() });
        }
        let (id, row) = draft.encode(&self.db, key, self.now, cause)?;
        self.outbox.push(row);
        Ok(id)
    }

    /// Runs `then` once the transaction is committed, and never if it is not.
    pub fn after_commit(&mut self, then: impl FnOnce() + Send + 'static) {
        self.after_commit.push(Box::new(then));
    }

    /// Rolls the transaction back and keeps its connection.
    ///
    /// # Errors
    /// If the database does not answer. The transaction has no effect then either.
    pub async fn abandon(self) -> Result<(), sqlx::Error> {
        self.tx.end().await
    }

    /// Writes the collected messages and outcomes, commits, and wakes the relay. Handlers can't call it: they don't own the
    /// transaction.
    ///
    /// # Errors
    /// If the database does not answer. Whether the commit took place is then unknown; the claim tells on retry.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        outbox::insert(&mut self.tx, &self.outbox, &self.steps.new_records()).await?;
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

/// What participants of sagas need beside the rest.
#[cfg(feature = "saga")]
impl UnitOfWork {
    /// Looks up what is on record of these steps, unless that was done with the claims.
    pub(crate) async fn look_up(&mut self, steps: &[StepKey]) -> Result<(), sqlx::Error> {
        self.steps.look_up(&mut self.tx, steps).await
    }

    pub(crate) fn retention(&self) -> Retention {
        self.db.retention()
    }

    pub(crate) fn instance(&self) -> &str {
        self.db.instance()
    }

    pub(crate) fn reply_topic(&self) -> &str {
        self.db.reply_topic()
    }
}

/// Up to here locks are spelled out one by one.
const FEW: usize = 8;

/// Begins a transaction with the keys' locks, which costs one round trip. When it began, by the database's clock, so that
/// all replicas of a service have the same one.
async fn locked(db: &Db, keys: &[String]) -> Result<(Tx, OffsetDateTime), sqlx::Error> {
    let hashes: Vec<String> = hashes(keys).iter().map(i64::to_string).collect();
    let lock = match hashes.len() {
        0 => String::new(),
        // The list is evaluated from left to right, and there is next to nothing to plan.
        1..=FEW => format!(", pg_advisory_xact_lock({})", hashes.join("), pg_advisory_xact_lock(")),
        _ => format!(
            " from (select count(pg_advisory_xact_lock(hash)) from unnest('{{{}}}'::bigint[]) as key (hash)) as held",
            hashes.join(",")
        ),
    };
    let begin = format!("begin read write; select {NOW}{lock}");
    Tx::begin(db, begin).await
}

/// Takes further locks.
async fn lock(db: &mut PgConnection, keys: &[String]) -> Result<(), sqlx::Error> {
    sqlx::query("select count(pg_advisory_xact_lock(hash)) from unnest($1::bigint[]) as key (hash)")
        .bind(hashes(keys))
        .execute(db)
        .await?;
    Ok(())
}

/// The keys' locks in one order, so that two batches about the same orders can't deadlock.
fn hashes(keys: &[String]) -> Vec<i64> {
    let mut hashes: Vec<i64> = keys.iter().map(|key| hash(key)).collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}
