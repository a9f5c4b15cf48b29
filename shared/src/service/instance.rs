//! A replica's name belongs to one process at a time.
//!
//! Two processes with one name would put each other out of the consumer group, and each would take the other's external
//! calls for those that it had begun before its own restart. So a process holds a lock of its name in the service's
//! database, in a session of its own, and does no work before it has it. PostgreSQL releases the lock as soon as the
//! process ends, so that a restarted one has it at once.
//!
//! A process that is frozen, or whose host has vanished, keeps its session. It gives no sign of life there any more, and
//! after a while another process ends that session and takes the name. If the first one comes back, it finds that out
//! before it makes a call, and ends.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Service;
use crate::db::Db;

/// The interval between two signs of life.
const SIGN_EVERY: Duration = Duration::from_secs(2);
/// How long the database may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(4);
/// A process that has given no sign of life for this long is frozen, or its host has vanished.
const SILENT_FOR: Duration = Duration::from_secs(8);
/// How long a process waits for another one of its name. It is longer than [`SILENT_FOR`], and than an ordinary stop.
const PATIENCE: Duration = Duration::from_secs(12);
const TRY_EVERY: Duration = Duration::from_millis(250);

/// Another running process has this replica's name.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "the name INSTANCE={name} is in use by another running process of {service}{place}; give each replica a name of its \
     own, or stop the other process"
)]
pub(super) struct NameTaken {
    service: &'static str,
    name: String,
    place: String,
}

/// The name of this process.
pub(super) struct InstanceName {
    db: Db,
    /// The setting; a process without it has a new name at every start, which needs no lock.
    name: Option<String>,
    held: CancellationToken,
    taken: OnceLock<NameTaken>,
}

/// A session of the database that holds the name.
struct Session {
    connection: PgConnection,
    /// The identity of the session at the server.
    id: String,
}

crate::row! {
    /// Another session that holds the name.
    struct Holder {
        pid: i32,
        id: String,
        client: Option<String>,
        since: Option<String>,
        /// For how many seconds it has given no sign of life, if this role may know that.
        silent: Option<f64>,
    }
}

impl InstanceName {
    pub fn new(db: &Db, name: Option<String>) -> Self {
        if name.is_some() {
            db.calls().set(Instant::now());
        }
        Self { db: db.clone(), name, held: CancellationToken::new(), taken: OnceLock::new() }
    }

    /// Waits until this process has its name. Returns whether that happened before a stop.
    pub async fn held(&self, stop: &CancellationToken) -> bool {
        stop.run_until_cancelled(self.held.cancelled()).await.is_some()
    }

    /// Returns an error while this process does not have its name.
    pub fn verdict(&self) -> Result<(), String> {
        if self.held.is_cancelled() { Ok(()) } else { Err("another process may have this name".to_owned()) }
    }

    /// Returns why this process had to end, if another one has its name.
    pub fn taken(&self) -> Option<NameTaken> {
        self.taken.get().cloned()
    }

    /// Holds the name until `stop`.
    ///
    /// # Errors
    /// Fails if another running process has the name.
    async fn run(&self, stop: &CancellationToken) -> Result<(), NameTaken> {
        let Some(name) = &self.name else {
            self.held.cancel();
            stop.cancelled().await;
            return Ok(());
        };
        let mut lost: Option<String> = None;
        loop {
            let acquired = stop.run_until_cancelled(self.acquire(name, lost.as_deref())).await;
            let Some(acquired) = acquired else { return Ok(()) };
            let mut session = acquired.inspect_err(|taken| drop(self.taken.set(taken.clone())))?;
            let alive = async {
                loop {
                    let asked = Instant::now();
                    let answer = tokio::time::timeout(ANSWER_LIMIT, session.connection.ping()).await;
                    if !matches!(answer, Ok(Ok(()))) {
                        return;
                    }
                    // Until then nobody takes the silence for the end of this process.
                    self.db.calls().set(asked + SILENT_FOR);
                    self.held.cancel();
                    tokio::time::sleep(SIGN_EVERY).await;
                }
            };
            if stop.run_until_cancelled(alive).await.is_none() {
                return Ok(());
            }
            info!(name, "the session that holds this replica's name was lost; the name is taken again");
            lost = Some(session.id);
        }
    }

    /// Takes the name. A process that has lost its session does not wait for another one.
    async fn acquire(&self, name: &str, lost: Option<&str>) -> Result<Session, NameTaken> {
        let (began, mut told) = (Instant::now(), false);
        loop {
            let tried = tokio::time::timeout(ANSWER_LIMIT, self.attempt(lost)).await;
            match tried {
                Ok(Ok(Ok(session))) => return Ok(session),
                Ok(Ok(Err(holder))) => {
                    if lost.is_some() || began.elapsed() > PATIENCE {
                        return Err(self.taken_by(name, &holder));
                    }
                    if !std::mem::replace(&mut told, true) {
                        warn!(
                            name,
                            session = holder.id,
                            "another process has this replica's name; waiting for its end"
                        );
                    }
                }
                // The check of the database says what is wrong.
                Ok(Err(error)) => debug!(%error, "the replica's name could not be taken"),
                Err(_) => debug!("the replica's name could not be taken: no answer"),
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    /// Tries once to take the name, in a new session. A session that gives no sign of life, and one of this process, is
    /// ended.
    async fn attempt(&self, lost: Option<&str>) -> Result<Result<Session, Holder>, sqlx::Error> {
        let mut connection = self.db.connect().await?;
        let instance = self.db.instance();
        loop {
            if let Some(id) = lock(&mut connection, instance).await? {
                return Ok(Ok(Session { connection, id }));
            }
            // It may have ended in between.
            let Some(holder) = holder(&mut connection, instance).await? else { continue };
            let silent = holder.silent.is_some_and(|silent| silent > SILENT_FOR.as_secs_f64());
            if !silent && lost != Some(&holder.id) {
                return Ok(Err(holder));
            }
            if silent {
                warn!(
                    instance,
                    session = holder.id,
                    silent = holder.silent,
                    "the process that has this replica's name gives no sign of life; its session is ended"
                );
            }
            end_session(&mut connection, holder.pid).await?;
            tokio::time::sleep(TRY_EVERY / 5).await;
        }
    }

    fn taken_by(&self, name: &str, holder: &Holder) -> NameTaken {
        let client = holder.client.as_deref().map_or_else(String::new, |client| format!(" at {client}"));
        let since = holder.since.as_deref().map_or_else(String::new, |since| format!(", since {since}"));
        let place = format!("{client}{since}");
        NameTaken { service: self.db.source(), name: name.to_owned(), place }
    }
}

/// Takes the lock of a name, unless another session has it. Returns the identity of this session.
async fn lock(db: &mut PgConnection, instance: &str) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "select case when pg_try_advisory_lock(hashtext('shared::instance'), hashtext($1))
                     then (select pid || '@' || backend_start from pg_stat_activity where pid = pg_backend_pid()) end",
    )
    .bind(instance)
    .fetch_one(db)
    .await
}

/// Returns the session that holds a name.
async fn holder(db: &mut PgConnection, instance: &str) -> Result<Option<Holder>, sqlx::Error> {
    sqlx::query_as(
        "select a.pid, a.pid || '@' || a.backend_start as id, host(a.client_addr) as client,
                to_char(a.backend_start at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') as since,
                extract(epoch from clock_timestamp() - a.state_change)::float8 as silent
         from pg_locks l join pg_stat_activity a on a.pid = l.pid
         where l.locktype = 'advisory' and l.granted and l.objsubid = 2
           and l.database = (select oid from pg_database where datname = current_database())
           and l.classid = (hashtext('shared::instance')::bigint & 4294967295)::oid
           and l.objid = (hashtext($1)::bigint & 4294967295)::oid",
    )
    .bind(instance)
    .fetch_optional(db)
    .await
}

/// Ends another session of this role.
async fn end_session(db: &mut PgConnection, pid: i32) -> Result<(), sqlx::Error> {
    sqlx::query("select pg_terminate_backend($1)").bind(pid).execute(db).await?;
    Ok(())
}

impl<C: Send + Sync + 'static> Service<C> {
    /// Holds this replica's name until everything else has stopped.
    pub(super) fn hold_name(&self) {
        let (instance, stop) = (Arc::clone(&self.instance), self.stages.relay.stop.clone());
        self.spawn(&self.stages.relay, "instance", async move { Ok(instance.run(&stop).await?) });
    }
}
