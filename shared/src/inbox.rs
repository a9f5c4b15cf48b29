//! The inbox: a message takes effect in the transaction that claims its id, and in no other. A handler that notices a
//! repetition by what it has written itself may do without ([`crate::consumer::BatchHandler::is_idempotent`]).
//!
//! [`Claimed`] is that transaction. It has no public constructor: the consumer makes one for a batch of claimed
//! messages, [`crate::db::Db::write`] makes one for a request. A handler gets `&mut Claimed`, so that it can neither
//! write without a claim nor commit half of a batch.

use std::borrow::Cow;
use std::collections::HashSet;

use sqlx::types::Json;
use sqlx::{AssertSqlSafe, FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::db::{Db, NOW, Tx, hash};
use crate::envelope::{Cause, Command, Event, Message};
use crate::fault::Fault;
use crate::outbox::{self, AppendError, Attributes, Row};
use crate::retention::Retention;
use crate::steps::{self, Book, StepKey};

/// A transaction that holds the locks of its aggregates and collects the messages that it will leave in the outbox.
///
/// Dropped without [`Claimed::commit`], nothing of it has happened.
pub struct Claimed {
    tx: Tx,
    db: Db,
    now: OffsetDateTime,
    keys: HashSet<String>,
    /// What is on record of the steps that this is about, and what will be.
    pub(crate) steps: Book,
    outbox: Vec<Row>,
    after_commit: Vec<Box<dyn FnOnce() + Send>>,
}

impl Claimed {
    /// For a request that comes from outside.
    pub(crate) async fn begin(db: Db, keys: &[String]) -> Result<Self, sqlx::Error> {
        let (tx, now) = locked(&db, keys).await?;
        Ok(Self::new(tx, db, now, keys, Book::default()))
    }

    /// For a batch of messages: claims them.
    pub(crate) async fn claim(
        db: Db,
        keys: &[String],
        asked: &Asked<'_>,
    ) -> Result<(Self, Claims), sqlx::Error> {
        let (mut tx, now) = locked(&db, keys).await?;
        let found = claim(&mut tx, keys, asked).await?;
        let book = Book::looked_up(found.outcomes.map_or_else(Vec::new, |Json(outcomes)| outcomes));
        let claims = Claims {
            new: found.new.into_iter().collect(),
            parked: found.parked.into_iter().collect(),
            settled: found.settled.into_iter().collect(),
        };
        Ok((Self::new(tx, db, now, keys, book), claims))
    }

    fn new(tx: Tx, db: Db, now: OffsetDateTime, keys: &[String], steps: Book) -> Self {
        let keys = keys.iter().cloned().collect();
        Self { tx, db, now, keys, steps, outbox: Vec::new(), after_commit: Vec::new() }
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

    /// Looks up what is on record of these steps, unless that was done with the claims.
    pub(crate) async fn look_up(&mut self, steps: &[StepKey]) -> Result<(), sqlx::Error> {
        self.steps.look_up(&mut self.tx, steps).await
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

    /// Ends the transaction without any effect.
    ///
    /// # Errors
    /// If the database does not answer; then too it has no effect.
    pub async fn abandon(self) -> Result<(), sqlx::Error> {
        self.tx.end().await
    }

    /// Writes the collected messages and outcomes, commits, and wakes the relay. Handlers can't call it: they don't own the
    /// transaction.
    ///
    /// # Errors
    /// If the database does not answer. Whether the commit took place is then unknown; the claim tells on retry.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        let records = self.steps.new_records();
        if records.is_empty() {
            outbox::insert(&mut self.tx, &self.outbox).await?;
        } else if self.outbox.is_empty() {
            steps::insert(&mut self.tx, &records).await?;
        } else {
            outbox::insert_with_steps(&mut self.tx, &self.outbox, &records).await?;
        }
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

/// What a batch of messages wants to know before it is handled.
pub(crate) struct Asked<'a> {
    /// The ids that the inbox is to remember.
    pub ids: &'a [Uuid],
    /// Those that it is not, because their handler notices a repetition by itself.
    pub others: &'a [Uuid],
    /// The steps of which an outcome may be on record.
    pub steps: &'a [StepKey],
}

/// What of a batch is to be handled.
pub(crate) struct Claims {
    /// Ids that had no effect yet, and have it now or never.
    pub new: HashSet<Uuid>,
    /// Keys that wait for an operator.
    pub parked: HashSet<String>,
    /// Those of the other ids that were parked once, and replayed or skipped since.
    pub settled: HashSet<Uuid>,
}

#[derive(FromRow)]
struct Found {
    new: Vec<Uuid>,
    parked: Vec<String>,
    settled: Vec<Uuid>,
    outcomes: Option<Json<Vec<steps::Found>>>,
}

/// Claims message ids, says which of the keys are parked, and looks up outcomes of steps. The caller holds the keys'
/// locks; they are taken by an earlier statement, because this one must see what their former holders have committed.
async fn claim(db: &mut PgConnection, keys: &[String], asked: &Asked<'_>) -> Result<Found, sqlx::Error> {
    // Most batches have nothing to claim or no steps, and then need not pay for the other half.
    let claiming = match asked.ids {
        [] => "with claimed as (select null::uuid as message_id where $2::uuid[] is null)",
        _ => {
            "with claimed as (
                 insert into inbox (message_id) select * from unnest($2::uuid[])
                 on conflict do nothing returning message_id)"
        }
    };
    let outcomes = match asked.steps {
        [] => "(select null::json where $4::uuid[] is null and $5::text[] is null and $6::text[] is null)",
        _ => {
            "(select json_agg(found)
              from (select saga_id, step, direction, message_id, status, outcome::text
                    from unnest($4::uuid[], $5::text[], $6::text[]) as asked (saga_id, step, direction)
                    join step_outcome using (saga_id, step, direction)) as found)"
        }
    };
    let statement = format!(
        "{claiming}
         select array(select message_id from claimed) as new,
                array(select distinct key from parked where status = 'parked' and key = any($1)) as parked,
                array(select message_id from parked where status <> 'parked' and message_id = any($3)) as settled,
                {outcomes} as outcomes"
    );
    let mut ids = asked.ids.to_vec();
    ids.sort_unstable();
    let (sagas, names, directions) = steps::columns(asked.steps);
    sqlx::query_as(AssertSqlSafe(statement))
        .bind(keys)
        .bind(ids)
        .bind(asked.others)
        .bind(sagas)
        .bind(names)
        .bind(directions)
        .fetch_one(db)
        .await
}

/// Claims one id outside a batch. Whether it was free.
pub(crate) async fn claim_one(db: &mut PgConnection, id: Uuid) -> Result<bool, sqlx::Error> {
    let claimed = sqlx::query("insert into inbox (message_id) values ($1) on conflict do nothing")
        .bind(id)
        .execute(db)
        .await?;
    Ok(claimed.rows_affected() == 1)
}
