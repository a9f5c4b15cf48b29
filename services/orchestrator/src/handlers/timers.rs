//! Deadlines, by the database's clock. Any number of replicas may look for them: the orders' locks let one at a time.

use std::sync::Arc;
use std::time::Duration;

use shared::db::Db;
use shared::envelope::Cause;
use shared::fault::Fault;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::drive::{Change, drive};
use crate::engine::Input;
use crate::sagas::Registry;
use crate::store;

const LOOK_EVERY: Duration = Duration::from_millis(500);
const BATCH: i64 = 200;

/// Wakes sagas whose deadline has passed, until `stop`.
pub async fn wake_due(db: Db, registry: Arc<Registry>, stop: CancellationToken) -> anyhow::Result<()> {
    while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
        match wake(&db, &registry).await {
            Ok(0) => {}
            Ok(woken) => info!(woken, "sagas whose deadline may have passed were looked at"),
            Err(fault) => warn!(%fault, "deadlines could not be looked up"),
        }
    }
    Ok(())
}

async fn wake(db: &Db, registry: &Registry) -> Result<usize, Fault> {
    let due = store::find_due(&mut *db.read().await?, BATCH).await?;
    if due.is_empty() {
        return Ok(0);
    }
    let subjects: Vec<String> = due.iter().map(|(_, subject)| subject.clone()).collect();
    let mut claimed = db.write(&subjects).await?;
    let change = |(saga_id, subject): (_, String)| Change {
        saga_id,
        subject,
        cause: Cause::request(saga_id, None),
        begin: None,
        input: Input::Due,
        reply: None,
    };
    let changes: Vec<Change> = due.into_iter().map(change).collect();
    let count = changes.len();
    drive(&mut claimed, registry, changes).await?;
    claimed.commit().await?;
    Ok(count)
}
