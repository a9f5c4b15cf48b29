//! Deadlines, by the database's clock. Any number of replicas look for them and share them: each takes some for a while,
//! passing over those that another has taken. Those of a replica that dies meanwhile are due again when its time is up.

use std::sync::Arc;
use std::time::Duration;

use shared::db::Db;
use shared::envelope::Cause;
use shared::fault::{Class, Fault};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::Change;
use super::drive::Driver;
use crate::engine::Input;
use crate::sagas::Registry;
use crate::store;

const LOOK_EVERY: Duration = Duration::from_millis(500);
const BATCH: i64 = 200;
/// For how long a replica takes them.
const LEASE: Duration = Duration::from_secs(30);
/// How often stuck sagas are counted, in looks.
const COUNT_EVERY: u32 = 10;

/// Refuses to begin where a saga in flight has a definition that is not here: it would wait for ever.
async fn know_all(db: &Db, registry: &Registry) -> anyhow::Result<()> {
    let in_flight = store::definitions_in_flight(&mut *db.read().await?).await?;
    let unknown: Vec<String> = in_flight
        .into_iter()
        .filter(|(name, version, hash, _)| {
            registry.find(name, *version).map_or(true, |known| known.hash() != hash)
        })
        .map(|(name, version, hash, saga)| {
            format!("{name}@{version} with the plan {hash}, for example saga {saga}")
        })
        .collect();
    anyhow::ensure!(
        unknown.is_empty(),
        "sagas are in flight whose definitions this orchestrator does not have: {}; run the release that has them",
        unknown.join("; ")
    );
    Ok(())
}

/// Wakes sagas whose deadline has passed.
pub(crate) struct Timers {
    pub(super) db: Db,
    pub(super) driver: Arc<Driver>,
}

impl Timers {
    /// Looks until `stop`.
    ///
    /// # Errors
    /// If a saga in flight has a definition that is not here.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        know_all(&self.db, &self.driver.registry).await?;
        let mut looks = 0_u32;
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(COUNT_EVERY) {
                self.count().await;
            }
            match self.wake().await {
                Ok(0) => {}
                Ok(woken) => info!(woken, "sagas whose deadline may have passed were looked at"),
                Err(fault) => warn!(%fault, "deadlines could not be looked up"),
            }
        }
        Ok(())
    }

    async fn count(&self) {
        let counted = match self.db.read().await {
            Ok(mut db) => store::count_stuck(&mut db).await,
            Err(error) => Err(error),
        };
        match counted {
            Ok(stuck) => metrics::gauge!("amends_sagas_stuck").set(stuck as f64),
            Err(error) => warn!(%error, "stuck sagas could not be counted"),
        }
    }

    async fn wake(&self) -> Result<usize, Fault> {
        let mut claimed = self.db.write(&[]).await?;
        let due = store::claim_due(claimed.db(), LEASE, BATCH).await?;
        claimed.commit().await?;
        if due.is_empty() {
            return Ok(0);
        }
        let count = due.len();
        match self.wake_all(due.clone()).await {
            Err(fault) if fault.class() == Class::Permanent => {
                // One of them spoils it for all: each on its own. It stays taken for the lease, and is tried again then.
                for one in due {
                    let saga = one.0;
                    if let Err(fault) = self.wake_all(vec![one]).await {
                        error!(%saga, %fault, "a saga could not be woken");
                    }
                }
            }
            ended => ended?,
        }
        Ok(count)
    }

    async fn wake_all(&self, due: Vec<(Uuid, String)>) -> Result<(), Fault> {
        let subjects: Vec<String> = due.iter().map(|(_, subject)| subject.clone()).collect();
        let mut claimed = self.db.write(&subjects).await?;
        let change = |(saga_id, subject)| Change {
            saga_id,
            subject,
            cause: Cause::request(saga_id, None),
            begin: None,
            input: Input::Due,
            reply: None,
        };
        self.driver.drive(&mut claimed, due.into_iter().map(change).collect()).await?;
        claimed.commit().await?;
        Ok(())
    }
}
