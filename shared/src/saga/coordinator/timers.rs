//! Wakes sagas at their deadlines, by the database's clock. Any number of replicas share the work: each claims some
//! due sagas for a while and skips those of the others. If a replica dies, its sagas are due again when its claim
//! expires.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::SagaInput;
use super::driver::Driver;
use crate::db::Db;
use crate::deadline::limited;
use crate::envelope::Cause;
use crate::fault::{Class, Fault};
use crate::isolate::together_or_each;
use crate::metric;
use crate::saga::engine::Input;
use crate::saga::registry::Registry;
use crate::saga::store;

const POLL_INTERVAL: Duration = Duration::from_millis(500);
const BATCH: i64 = 200;
/// How long a replica claims due sagas.
const LEASE: Duration = Duration::from_secs(30);
/// How often stuck sagas are counted, in polls.
const COUNT_EVERY: u32 = 10;

/// The reason why the timers ended.
#[derive(Debug, thiserror::Error)]
pub enum TimersError {
    /// This process lacks definitions of unfinished sagas. Those sagas would wait for ever.
    #[error(
        "sagas are in flight whose definitions this orchestrator does not have: {0}; run the release that has them"
    )]
    UnknownDefinitions(String),
}

/// Returns the definitions of unfinished sagas that this process does not have, each with an example.
async fn unknown_definitions(db: &Db, registry: &Registry) -> Result<Vec<String>, sqlx::Error> {
    let in_flight = store::definitions_in_flight(&mut *db.read().await?).await?;
    Ok(in_flight
        .into_iter()
        .filter(|(name, version, hash, _)| {
            registry.find(name, *version).map_or(true, |known| known.hash() != hash)
        })
        .map(|(name, version, hash, saga)| {
            format!("{name}@{version} with the plan {hash}, for example saga {saga}")
        })
        .collect())
}

/// Wakes sagas whose deadline has passed.
pub struct Timers {
    pub(super) db: Db,
    pub(super) driver: Arc<Driver>,
}

impl Timers {
    /// Wakes due sagas until `stop`. A database that does not answer is tried again.
    ///
    /// # Errors
    /// Fails if this process lacks the definition of an unfinished saga. Such a saga would wait for ever.
    pub async fn run(self, stop: CancellationToken) -> Result<(), TimersError> {
        let (mut checked, mut polls) = (false, 0_u32);
        while stop.run_until_cancelled(tokio::time::sleep(POLL_INTERVAL)).await.is_some() {
            if !checked {
                match limited(unknown_definitions(&self.db, &self.driver.registry)).await {
                    Ok(unknown) if unknown.is_empty() => checked = true,
                    Ok(unknown) => return Err(TimersError::UnknownDefinitions(unknown.join("; "))),
                    Err(error) => {
                        warn!(%error, "the sagas in flight could not be read; the timers wait");
                        continue;
                    }
                }
            }
            polls = polls.wrapping_add(1);
            if polls.is_multiple_of(COUNT_EVERY) {
                self.count().await;
            }
            match limited(self.wake()).await {
                Ok(0) => {}
                Ok(woken) => info!(woken, "sagas with a possibly passed deadline were woken"),
                Err(fault) => warn!(%fault, "due sagas could not be claimed"),
            }
        }
        Ok(())
    }

    async fn count(&self) {
        let count = async { store::count_stuck(&mut *self.db.read().await?).await };
        match limited(count).await {
            Ok(stuck) => metric::SAGAS_STUCK.gauge(&[]).set(stuck as f64),
            Err(error) => warn!(%error, "stuck sagas could not be counted"),
        }
    }

    async fn wake(&self) -> Result<usize, Fault> {
        // Mostly no saga is due. Finding that out needs no transaction.
        if !store::is_any_due(&mut *self.db.read().await?).await? {
            return Ok(0);
        }
        let mut uow = self.db.write(&[]).await?;
        let due = store::claim_due(uow.db(), LEASE, BATCH).await?;
        uow.commit().await?;
        if due.is_empty() {
            return Ok(0);
        }
        let count = due.len();
        let wake = async |due: Vec<(Uuid, String)>| (due.clone(), self.wake_all(due).await);
        let mut failed = None;
        together_or_each(due, wake, |due, woken| match (woken, due.as_slice()) {
            (Ok(()), _) => {}
            // The failing saga stays claimed for the lease and is then tried again.
            (Err(fault), [(saga, _)]) if fault.class() == Class::Permanent => {
                error!(%saga, %fault, "a saga could not be woken");
            }
            (Err(fault), _) => failed = Some(fault),
        })
        .await;
        failed.map_or(Ok(count), Err)
    }

    async fn wake_all(&self, due: Vec<(Uuid, String)>) -> Result<(), Fault> {
        let subjects: Vec<String> = due.iter().map(|(_, subject)| subject.clone()).collect();
        let mut uow = self.db.write(&subjects).await?;
        let change = |(saga_id, subject)| SagaInput {
            saga_id,
            subject,
            cause: Cause::request(saga_id, None),
            begin: None,
            input: Input::Due,
            answer: None,
        };
        self.driver.drive(&mut uow, due.into_iter().map(change).collect()).await?;
        uow.commit().await?;
        Ok(())
    }
}
