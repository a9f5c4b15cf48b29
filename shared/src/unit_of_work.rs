//! The unit of work: one transaction with the locks of its aggregates, the claimed message ids, and the messages for
//! the outbox.
//!
//! A handler never creates a unit of work. The consumer passes one in, with the batch's message ids already claimed;
//! HTTP routes get theirs from [`Db::write`]. A handler only gets `&mut UnitOfWork`. It can therefore neither write
//! without a claim nor commit half of a batch. The pattern is "Unit of Work" by Martin Fowler.

use std::any::{Any, TypeId};
use std::collections::{HashMap, HashSet};

use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::db::{Db, Deferred, NOW, Parameters, Tx, hash};
use crate::envelope::Cause;
use crate::inbox::{self, ClaimRequest, Claims};
use crate::outbox::{self, AppendError, Draft, OutboxRow};
use crate::step_outcome::{self, StepOutcomes};
#[cfg(feature = "saga")]
use crate::{retention::Retention, step_outcome::StepKey};

/// A transaction that holds the locks of its aggregates and collects messages for the outbox.
///
/// If it is dropped without [`UnitOfWork::commit`], it has no effect.
pub struct UnitOfWork {
    tx: Tx,
    db: Db,
    now: OffsetDateTime,
    keys: HashSet<String>,
    /// The recorded outcomes of steps, and those that the commit will record.
    pub(crate) steps: StepOutcomes,
    outbox: Vec<OutboxRow>,
    deferred: Deferred,
    after_commit: Vec<Box<dyn FnOnce() + Send>>,
    /// What handlers have prepared before the transaction, by its type.
    prepared: HashMap<TypeId, Box<dyn Any + Send>>,
}

impl Db {
    /// Begins a write about the aggregates with these keys, for an HTTP request. It waits for other writes about the
    /// same keys.
    ///
    /// # Errors
    /// Fails if the database does not answer.
    pub async fn write(&self, keys: &[String]) -> Result<UnitOfWork, sqlx::Error> {
        let (tx, now) = begin_locked(self, keys).await?;
        Ok(UnitOfWork::new(tx, self.clone(), now, keys, StepOutcomes::default()))
    }
}

impl UnitOfWork {
    /// Begins the unit of work of a batch of messages and claims them.
    pub(crate) async fn claim(
        db: Db,
        keys: &[String],
        request: &ClaimRequest<'_>,
    ) -> Result<(Self, Claims), sqlx::Error> {
        let (tx, now, claims, outcomes) = inbox::begin(&db, &hashes(keys), keys, request).await?;
        Ok((Self::new(tx, db, now, keys, StepOutcomes::looked_up(outcomes)), claims))
    }

    fn new(tx: Tx, db: Db, now: OffsetDateTime, keys: &[String], steps: StepOutcomes) -> Self {
        Self {
            tx,
            db,
            now,
            keys: keys.iter().cloned().collect(),
            steps,
            outbox: Vec::new(),
            deferred: Deferred::default(),
            after_commit: Vec::new(),
            prepared: HashMap::new(),
        }
    }

    /// Returns the connection of this transaction.
    pub fn db(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// Returns the name of the service, which messages carry as `source`.
    pub fn source(&self) -> &'static str {
        self.db.source()
    }

    /// Returns the start of the transaction, by the database's clock.
    pub fn now(&self) -> OffsetDateTime {
        self.now
    }

    pub(crate) fn parked_topic(&self) -> &str {
        self.db.parked_topic()
    }

    /// Locks further aggregates until the end of the transaction. To avoid deadlocks, lock different kinds of
    /// aggregates always in the same order, for example orders before products. Within one call the order does not
    /// matter.
    ///
    /// # Errors
    /// Fails if the database does not answer.
    pub async fn lock(&mut self, keys: impl IntoIterator<Item = String>) -> Result<(), sqlx::Error> {
        let more: Vec<String> = keys.into_iter().filter(|key| !self.keys.contains(key)).collect();
        if !more.is_empty() {
            lock(&mut self.tx, &more).await?;
            self.keys.extend(more);
        }
        Ok(())
    }

    /// Appends a message about the aggregate `key` and returns the id of the message. Pass an event or a command as
    /// `&message`. Use [`Draft`] to add the aggregate's version or metadata. The message is written when the unit of
    /// work commits.
    ///
    /// # Errors
    /// Fails if the lock of the key is not held, because the order of the key's messages could not be kept. Fails if
    /// the message is larger than [`crate::envelope::MAX_MESSAGE_BYTES`], or if the key is unusable; see
    /// [`AppendError::Key`].
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

    /// Executes a statement later, together with others, in one round trip: before another handler runs in this
    /// transaction, and at the commit at the latest. Until then its effects are not visible. Of statements that are executed
    /// together, none sees the effects of another, so they must not change the same rows. The statement has its parameters
    /// as `$1`, `$2` and so on, and must not be terminated or begin with `with`.
    ///
    /// A failure fails the transaction when the statement is executed.
    pub fn defer(&mut self, statement: &str, bind: impl FnOnce(&mut Parameters)) {
        self.deferred.add(statement, bind);
    }

    /// Runs `then` after the transaction has committed, and never otherwise.
    pub fn after_commit(&mut self, then: impl FnOnce() + Send + 'static) {
        self.after_commit.push(Box::new(then));
    }

    /// Rolls the transaction back and returns its connection to the pool.
    ///
    /// # Errors
    /// Fails if the database does not answer. The transaction has no effect in that case either.
    pub async fn abandon(self) -> Result<(), sqlx::Error> {
        self.tx.end().await
    }

    /// Writes the collected messages and outcomes, commits, and wakes the relay. Handlers cannot call it, because
    /// they do not own the unit of work.
    ///
    /// # Errors
    /// Fails if the database does not answer. It is then unknown whether the commit took place; the claim shows it at
    /// the retry.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        let checked = self.write().await?;
        self.tx.commit(checked).await?;
        if !self.outbox.is_empty() {
            self.db.wake_relay();
        }
        for then in self.after_commit {
            then();
        }
        Ok(())
    }
}

impl UnitOfWork {
    /// Executes everything that was collected for the commit, as one statement. Returns whether there was anything.
    async fn write(&mut self) -> Result<bool, sqlx::Error> {
        let mut deferred = std::mem::take(&mut self.deferred);
        let records = self.steps.new_records();
        if !records.is_empty() {
            deferred.add(step_outcome::INSERT, |parameters| step_outcome::bind(parameters, &records));
        }
        if !self.outbox.is_empty() {
            deferred.add(outbox::insert_at(self.now), |parameters| outbox::bind(parameters, &self.outbox));
        }
        deferred.execute(&mut self.tx).await
    }

    /// Executes the deferred statements now, for a handler that needs their effects.
    pub(crate) async fn flush(&mut self) -> Result<(), sqlx::Error> {
        std::mem::take(&mut self.deferred).execute(&mut self.tx).await?;
        Ok(())
    }

    /// Adds what a handler has prepared before the transaction.
    pub(crate) fn prepare(&mut self, prepared: HashMap<TypeId, Box<dyn Any + Send>>) {
        self.prepared = prepared;
    }
}

/// Functions that only sagas and their participants need.
#[cfg(feature = "saga")]
impl UnitOfWork {
    /// Takes what a handler has prepared before the transaction.
    pub(crate) fn take_prepared<T: Any>(&mut self) -> Option<T> {
        let prepared = self.prepared.remove(&TypeId::of::<T>())?;
        prepared.downcast().ok().map(|prepared| *prepared)
    }

    /// Looks up the outcomes of these steps, unless the claims have already looked them up.
    pub(crate) async fn look_up(&mut self, steps: &[StepKey]) -> Result<(), sqlx::Error> {
        self.steps.look_up(&mut self.tx, steps).await
    }

    pub(crate) fn retention(&self) -> Retention {
        self.db.retention()
    }

    pub(crate) fn instance(&self) -> &str {
        self.db.instance()
    }
}

/// Up to this many locks are written out one by one.
const MAX_INLINE_LOCKS: usize = 8;

/// Begins a transaction with the locks of the keys, in one round trip. Returns the start of the transaction by the
/// database's clock, which all replicas share.
async fn begin_locked(db: &Db, keys: &[String]) -> Result<(Tx, OffsetDateTime), sqlx::Error> {
    let hashes: Vec<String> = hashes(keys).iter().map(i64::to_string).collect();
    let lock = match hashes.len() {
        0 => String::new(),
        // PostgreSQL evaluates the list from left to right, and planning it costs almost nothing.
        1..=MAX_INLINE_LOCKS => {
            format!(", pg_advisory_xact_lock({})", hashes.join("), pg_advisory_xact_lock("))
        }
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

/// Returns the locks of the keys in one global order, so that two batches about the same orders cannot deadlock.
fn hashes(keys: &[String]) -> Vec<i64> {
    let mut hashes: Vec<i64> = keys.iter().map(|key| hash(key)).collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}
