//! The actions of an operator on many parked messages at once: all of a type, with one cause, or older than some time.
//! Messages are selected by a [`Filter`]. [`survey`] says what an action would change.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

pub use super::filter::Filter;
use super::replay;
use super::store::bulk::{self as store, CauseRow};
use crate::db::Db;
use crate::envelope::new_id;
use crate::fault::{Class, Fault};
use crate::operator_act::{self, Act};
use crate::router::MessageRouter;
use crate::unit_of_work::UnitOfWork;

/// How long one request works. The next request does the rest.
const MAX_TIME: Duration = Duration::from_secs(15);
/// The number of messages that one transaction skips. It takes the lock of each of their keys.
const BATCH: i64 = 500;
/// The number of keys that are looked up at once for a retry.
const PAGE: i64 = 1000;
/// The number of keys that are retried side by side. Other work needs connections too.
const SIDE_BY_SIDE: usize = 4;

/// The operator, for the record of the act.
#[derive(Debug, Clone, Copy)]
pub struct Operator<'o> {
    /// The name of the operator.
    pub by: &'o str,
    /// Why the operator acts.
    pub reason: &'o str,
}

/// Returns the causes of the parked messages that the filter selects, the most frequent first, at most 50 of them. With
/// `first_only`, only the first message of each key counts.
///
/// # Errors
/// Fails if the database does not answer.
pub async fn survey(db: &Db, filter: &Filter, first_only: bool) -> Result<Vec<CauseRow>, sqlx::Error> {
    let mut tx = db.survey().await?;
    let causes = store::causes(&mut tx, filter, first_only).await?;
    tx.end().await?;
    Ok(causes)
}

/// The result of a skip or a retry of many messages.
#[derive(Debug, Default)]
pub struct Progress {
    /// The number of messages that were skipped or replayed.
    pub done: u64,
    /// The number of keys whose first message failed again.
    pub failed: u64,
    /// Where the next request goes on; `None` if nothing is left to do.
    pub next: Option<i64>,
}

/// Skips the messages that the filter selects, behind the id `after`. Each transaction skips some of them, and keeps their
/// number in the record of the act.
///
/// # Errors
/// Fails on a technical failure. Messages that were skipped before it stay skipped.
pub async fn skip(
    db: &Db,
    filter: &Filter,
    after: i64,
    operator: Operator<'_>,
    stopping: &CancellationToken,
) -> Result<Progress, Fault> {
    let until = Instant::now() + MAX_TIME;
    let (act, mut progress) = (new_id(), Progress { next: Some(after), ..Progress::default() });
    while let Some(after) = progress.next.filter(|_| Instant::now() < until && !stopping.is_cancelled()) {
        let found = store::find(&mut *db.read().await?, filter, after, BATCH).await?;
        progress.next = found.last().filter(|_| found.len() as i64 == BATCH).map(|(id, _)| *id);
        if found.is_empty() {
            break;
        }
        let (ids, mut keys): (Vec<i64>, Vec<String>) = found.into_iter().unzip();
        keys.sort_unstable();
        keys.dedup();
        let mut uow = db.write(&keys).await?;
        let skipped = store::skip(uow.db(), &ids, operator.reason, operator.by).await?;
        progress.done += skipped;
        record(&mut uow, act, "skip_parked", filter, operator, &progress).await?;
        uow.commit().await?;
    }
    info!(by = operator.by, skipped = progress.done, filter = %filter.as_json(), "parked messages were skipped");
    Ok(progress)
}

/// Retries the keys whose first message the filter selects, behind the id `after`: each as [`replay::retry`] does. A key that
/// fails again stays parked, and the others go on.
///
/// # Errors
/// Fails on a technical failure. Messages that were replayed before it stay replayed.
pub async fn retry(
    db: &Db,
    router: &MessageRouter,
    filter: &Filter,
    after: i64,
    operator: Operator<'_>,
    stopping: &CancellationToken,
) -> Result<Progress, Fault> {
    let until = Instant::now() + MAX_TIME;
    let mut progress = Progress { next: Some(after), ..Progress::default() };
    let mut transient = None;
    'pages: while let Some(after) = progress.next {
        let found = store::find_first(&mut *db.read().await?, filter, after, PAGE).await?;
        let more = found.len() as i64 == PAGE;
        progress.next = None;
        let tries = found.into_iter().map(|(id, key)| async move {
            if Instant::now() >= until || stopping.is_cancelled() {
                return (id, None);
            }
            (id, Some(replay::retry(db, router, &key, stopping).await))
        });
        // The order is kept, so that the next request can go on where this one has ended.
        let mut tries = stream::iter(tries).buffered(SIDE_BY_SIDE);
        let mut last = after;
        while let Some((id, tried)) = tries.next().await {
            match tried {
                None => {
                    progress.next = Some(last);
                    break 'pages;
                }
                Some(Ok(replay)) => {
                    progress.done += replay.replayed;
                    progress.failed += u64::from(replay.failed.is_some());
                }
                Some(Err(fault)) if fault.class() == Class::Permanent => {
                    warn!(%fault, "a parked key could not be retried");
                    progress.failed += 1;
                }
                Some(Err(fault)) => {
                    transient = Some(fault);
                    break 'pages;
                }
            }
            last = id;
        }
        progress.next = more.then_some(last);
    }
    let mut uow = db.write(&[]).await?;
    record(&mut uow, new_id(), "retry_parked", filter, operator, &progress).await?;
    uow.commit().await?;
    info!(by = operator.by, replayed = progress.done, failed = progress.failed, filter = %filter.as_json(), "parked keys were retried");
    transient.map_or(Ok(progress), Err)
}

async fn record(
    uow: &mut UnitOfWork,
    id: Uuid,
    act: &'static str,
    filter: &Filter,
    operator: Operator<'_>,
    progress: &Progress,
) -> Result<(), sqlx::Error> {
    let detail = json!({"filter": filter.as_json(), "messages": progress.done, "failed": progress.failed});
    let act = Act { id, act, by: operator.by, reason: operator.reason, detail };
    operator_act::record(uow.db(), &act).await
}
