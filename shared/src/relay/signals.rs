//! Signals between relays and other processes.
//! `NOTIFY` takes a lock on the whole database at commit, so business transactions do not use it. A replica that
//! waits for a shard's lease sends the signal instead, after the commit and from the waiting connection. One signal
//! covers all commits since the previous one. A lost signal only costs the wait for the next poll.

use std::convert::Infallible;
use std::pin::Pin;

use futures::{Stream, StreamExt};
use sqlx::PgConnection;
use sqlx::postgres::PgNotification;

use super::{RelayError, prepare};
use crate::db::Db;

/// A received signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// Another process has committed messages.
    Rows,
    /// The shard's lease was released.
    Free,
}

/// The signals of one shard, received on their own connection.
pub(super) struct Signals {
    stream: Pin<Box<dyn Stream<Item = Result<PgNotification, sqlx::Error>> + Send>>,
    free: String,
}

fn rows(shard: i16) -> String {
    format!("amends_outbox_{shard}")
}

fn free(shard: i16) -> String {
    format!("amends_relay_free_{shard}")
}

impl Signals {
    pub(super) async fn of(db: &Db, shard: i16) -> Result<Self, sqlx::Error> {
        let (rows, free) = (rows(shard), free(shard));
        let listener = db.listen(&[&rows, &free]).await?;
        Ok(Self { stream: Box::pin(listener.into_stream()), free })
    }

    /// Returns the next signal. The future may be dropped while it waits.
    pub(super) async fn next(&mut self) -> Result<Signal, RelayError> {
        let notification = self.stream.next().await.ok_or(sqlx::Error::PoolClosed)??;
        Ok(if notification.channel() == self.free { Signal::Free } else { Signal::Rows })
    }
}

/// Signals to the shard's relay that there are messages.
pub(super) async fn notify_rows(db: &mut PgConnection, shard: i16) -> Result<(), sqlx::Error> {
    notify(db, &rows(shard)).await
}

/// Signals to the standby relays that the shard is free.
pub(super) async fn notify_free(db: &mut PgConnection, shard: i16) -> Result<(), sqlx::Error> {
    notify(db, &free(shard)).await
}

async fn notify(db: &mut PgConnection, channel: &str) -> Result<(), sqlx::Error> {
    sqlx::query("select pg_notify($1, '')").bind(channel).execute(db).await?;
    Ok(())
}

/// Notifies the services' relays of this process's commits, so that they need not poll. It is for a process that
/// writes but relays nothing, such as an import. Runs until it is dropped.
///
/// # Errors
/// Fails if the database does not answer.
pub async fn tell_relays(db: &Db) -> Result<Infallible, sqlx::Error> {
    let mut committed = db.relay_wakeup();
    let mut connection = db.connect().await?;
    prepare(&mut connection).await?;
    loop {
        // The sender lives in `db`.
        let _ = committed.changed().await;
        for shard in 0..db.shards() {
            notify_rows(&mut connection, shard).await?;
        }
    }
}
