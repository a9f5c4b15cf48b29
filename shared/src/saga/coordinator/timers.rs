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
/// How often missing definitions are looked for, in polls. The first poll does it too.
const CHECK_EVERY: u32 = 120;

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
    /// Wakes due sagas until `stop`. A database that does not answer is tried again. Sagas whose definition this process
    /// lacks wait, and are named in the log once a minute.
    pub async fn run(self, stop: CancellationToken) {
        let mut polls = 0_u32;
        while stop.run_until_cancelled(tokio::time::sleep(POLL_INTERVAL)).await.is_some() {
            if polls.is_multiple_of(COUNT_EVERY) {
                self.count().await;
            }
            if polls.is_multiple_of(CHECK_EVERY) {
                self.check_definitions().await;
            }
            polls = polls.wrapping_add(1);
            match limited(self.wake()).await {
                Ok(0) => {}
                Ok(woken) => info!(woken, "sagas with a possibly passed deadline were woken"),
                Err(fault) => warn!(%fault, "due sagas could not be claimed"),
            }
        }
    }

    async fn check_definitions(&self) {
        match limited(unknown_definitions(&self.db, &self.driver.registry)).await {
            Ok(unknown) => {
                metric::SAGAS_WITHOUT_DEFINITION.gauge(&[]).set(unknown.len() as f64);
                for definition in unknown {
                    error!(definition, "sagas wait for a release that has their definition");
                }
            }
            Err(fault) => warn!(%fault, "the sagas in flight could not be read"),
        }
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
