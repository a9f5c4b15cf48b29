//! Applies a batch of inputs to sagas.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::SagaInput;
use super::cache::Cache;
use super::instance::{SagaInstance, Topic};
use crate::envelope::Direction;
use crate::fault::Fault;
use crate::saga::registry::Registry;
use crate::saga::store;
use crate::unit_of_work::UnitOfWork;

/// The bytes of unfinished sagas in the cache: 8000 ordinary ones. Other sagas are read from the database.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// Drives sagas and caches their state. The cache is stale if another replica has driven a saga in the meantime. The
/// log then rejects the new entry, and the saga is read again.
pub(super) struct Driver {
    pub registry: Arc<Registry>,
    /// The topic for events about sagas.
    topic: Topic,
    cache: Arc<Mutex<Cache<SagaInstance>>>,
}

impl Driver {
    pub fn new(registry: Arc<Registry>, topic: Topic) -> Self {
        Self { registry, topic, cache: Arc::new(Mutex::new(Cache::new(CACHE_BYTES))) }
    }

    /// Applies the inputs in their order and writes the results. The caller holds the locks of the sagas' subjects.
    pub async fn drive(&self, uow: &mut UnitOfWork, inputs: Vec<SagaInput>) -> Result<(), Fault> {
        let mut sagas = self.find(uow, &inputs).await?;
        let mut log = Vec::with_capacity(inputs.len());
        for change in inputs {
            if let Some(begin) = &change.begin
                && !sagas.contains_key(&change.saga_id)
            {
                let saga = SagaInstance::begin(&self.registry, begin, &change, uow.now())?;
                sagas.insert(change.saga_id, saga);
            }
            let Some(saga) = sagas.get_mut(&change.saga_id) else {
                return Err(Fault::permanent(format!("there is no saga {} for this answer", change.saga_id)));
            };
            saga.check_sender(&change)?;
            log.extend(saga.apply(uow, &self.topic, &change)?);
        }
        let mut snapshots = Vec::new();
        for (&saga_id, saga) in &mut sagas {
            snapshots.extend(saga.snapshot(saga_id)?);
        }
        snapshots.sort_unstable_by_key(|snapshot| snapshot.saga_id);
        store::save(uow, &log, &snapshots);
        let cache = Arc::clone(&self.cache);
        uow.after_commit(move || {
            let mut cache = lock(&cache);
            for (saga_id, saga) in sagas.into_iter().filter(|(_, saga)| !saga.has_ended()) {
                // The locks are released by now, so another task may have cached a newer state.
                if cache.peek(&saga_id).is_none_or(|cached| cached.sequence() < saga.sequence()) {
                    let bytes = saga.bytes();
                    cache.insert(saga_id, saga, bytes);
                }
            }
        });
        Ok(())
    }

    /// Returns whether a saga has open steps beside those that are answered. It is `false` if the saga is not in the cache.
    pub fn has_open_beside(&self, saga_id: Uuid, answered: &HashSet<(&str, Direction)>) -> bool {
        lock(&self.cache).peek(&saga_id).is_some_and(|saga| saga.has_open_beside(answered))
    }

    /// Returns the existing sagas of the inputs. They are taken out of the cache, so that they are read again if the
    /// transaction fails.
    async fn find(
        &self,
        uow: &mut UnitOfWork,
        inputs: &[SagaInput],
    ) -> Result<HashMap<Uuid, SagaInstance>, Fault> {
        let mut sagas = HashMap::with_capacity(inputs.len());
        let mut unknown = HashSet::new();
        {
            let mut cache = lock(&self.cache);
            for change in inputs {
                let saga_id = change.saga_id;
                if sagas.contains_key(&saga_id) || unknown.contains(&saga_id) {
                    continue;
                }
                match cache.remove(&saga_id) {
                    // An input without an effect writes no log entry, so a stale cache would stay undetected. Such a
                    // saga is therefore read from the database.
                    Some(saga) if saga.awaits(&change.input) => drop(sagas.insert(saga_id, saga)),
                    _ => drop(unknown.insert(saga_id)),
                }
            }
        }
        if unknown.is_empty() {
            return Ok(sagas);
        }
        let unknown: Vec<Uuid> = unknown.into_iter().collect();
        let rows = store::find_sagas(uow.db(), &unknown).await?;
        let newer = store::find_beyond(uow.db(), &rows).await?;
        for row in rows {
            let from = newer.partition_point(|entry| entry.saga_id < row.saga_id);
            let upto = newer.partition_point(|entry| entry.saga_id <= row.saga_id);
            sagas.insert(row.saga_id, SagaInstance::load(&self.registry, row, &newer[from..upto])?);
        }
        Ok(sagas)
    }
}

fn lock(cache: &Mutex<Cache<SagaInstance>>) -> MutexGuard<'_, Cache<SagaInstance>> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}
