//! Applies inputs to sagas, a whole batch at once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashlink::LruCache;
use shared::fault::Fault;
use shared::inbox::Claimed;
use uuid::Uuid;

use super::Change;
use super::live::Live;
use crate::sagas::Registry;
use crate::store;

/// How many sagas in flight are remembered, with about 2 KiB each. Of others the log is read.
const REMEMBERED: usize = 8192;

/// Drives sagas, and remembers where those stand that it has driven. What it remembers may be outdated, when another
/// replica has driven a saga meanwhile; the log tells, and then the saga is read again.
pub(super) struct Driver {
    pub registry: Arc<Registry>,
    memory: Arc<Mutex<LruCache<Uuid, Live>>>,
}

impl Driver {
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry, memory: Arc::new(Mutex::new(LruCache::new(REMEMBERED))) }
    }

    /// Applies the changes in their order and writes what comes of them. The caller holds the locks of the sagas'
    /// subjects.
    pub async fn drive(&self, claimed: &mut Claimed, changes: Vec<Change>) -> Result<(), Fault> {
        let mut live = self.find(claimed, &changes).await?;
        let mut log = Vec::with_capacity(changes.len());
        for change in changes {
            if let Some(begin) = &change.begin
                && !live.contains_key(&change.saga_id)
            {
                let saga = Live::begin(&self.registry, begin, &change)?;
                saga.started(claimed, &change)?;
                live.insert(change.saga_id, saga);
            }
            let Some(saga) = live.get_mut(&change.saga_id) else {
                return Err(Fault::permanent(format!("there is no saga {} for this reply", change.saga_id)));
            };
            log.extend(saga.apply(claimed, &change)?);
        }
        let mut snapshots = Vec::new();
        for (&saga_id, saga) in &mut live {
            snapshots.extend(saga.snapshot(saga_id)?);
        }
        snapshots.sort_unstable_by_key(|snapshot| snapshot.saga_id);
        match store::save(claimed.db(), &log, &snapshots).await {
            Err(error) if store::is_outdated(&error) => return Err(Fault::retry(error)),
            saved => saved?,
        }
        let memory = Arc::clone(&self.memory);
        claimed.after_commit(move || {
            let mut memory = lock(&memory);
            for (saga_id, saga) in live.into_iter().filter(|(_, saga)| !saga.has_ended()) {
                // The locks are gone by now, so somebody may have been quicker.
                if memory.peek(&saga_id).is_none_or(|known| known.sequence() < saga.sequence()) {
                    memory.insert(saga_id, saga);
                }
            }
        });
        Ok(())
    }

    /// The sagas that the changes are about, where they exist. They are taken out of the memory: if the transaction
    /// fails they are read again.
    async fn find(&self, claimed: &mut Claimed, changes: &[Change]) -> Result<HashMap<Uuid, Live>, Fault> {
        let mut live = HashMap::with_capacity(changes.len());
        let mut unknown = HashSet::new();
        {
            let mut memory = lock(&self.memory);
            for change in changes {
                let saga_id = change.saga_id;
                if live.contains_key(&saga_id) || unknown.contains(&saga_id) {
                    continue;
                }
                match memory.remove(&saga_id) {
                    // What would write nothing would not be found out if the saga stood elsewhere in truth.
                    Some(saga) if saga.awaits(&change.input) => drop(live.insert(saga_id, saga)),
                    _ => drop(unknown.insert(saga_id)),
                }
            }
        }
        if unknown.is_empty() {
            return Ok(live);
        }
        let unknown: Vec<Uuid> = unknown.into_iter().collect();
        let rows = store::find_sagas(claimed.db(), &unknown).await?;
        let beyond = store::find_beyond(claimed.db(), &rows).await?;
        for row in rows {
            let from = beyond.partition_point(|entry| entry.saga_id < row.saga_id);
            let upto = beyond.partition_point(|entry| entry.saga_id <= row.saga_id);
            live.insert(row.saga_id, Live::load(&self.registry, row, &beyond[from..upto])?);
        }
        Ok(live)
    }
}

fn lock(memory: &Mutex<LruCache<Uuid, Live>>) -> MutexGuard<'_, LruCache<Uuid, Live>> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}
