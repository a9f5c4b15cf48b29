//! The step outcomes of a transaction. They are looked up once for a whole batch, and written once at its end.

use std::collections::{HashMap, HashSet};

use sqlx::PgConnection;

use super::{Record, StepKey, store};

/// The recorded outcomes of steps, and those that the transaction will record.
#[derive(Default)]
pub(crate) struct StepOutcomes {
    records: HashMap<StepKey, Record>,
    /// The steps with a new outcome that has to be written.
    new: Vec<StepKey>,
    /// Whether the claims have already looked up all steps of the batch.
    complete: bool,
    /// Open steps that were asked for again.
    pub asked_again: Vec<StepKey>,
}

impl StepOutcomes {
    /// Creates the outcomes from the records of all steps of a batch.
    pub fn looked_up(found: Vec<store::OutcomeRow>) -> Self {
        let records = found.into_iter().map(Record::from).map(|record| (record.key.clone(), record));
        Self { records: records.collect(), complete: true, ..Self::default() }
    }

    /// Looks up the records of these steps, unless they are known.
    pub async fn look_up(&mut self, db: &mut PgConnection, steps: &[StepKey]) -> Result<(), sqlx::Error> {
        if self.complete {
            return Ok(());
        }
        let unknown: HashSet<&StepKey> =
            steps.iter().filter(|step| !self.records.contains_key(step)).collect();
        let unknown: Vec<StepKey> = unknown.into_iter().cloned().collect();
        let found = store::find(db, &unknown).await?;
        self.records.extend(found.into_iter().map(|record| (record.key.clone(), record)));
        Ok(())
    }

    /// Returns the record of a step.
    pub fn get(&self, step: &StepKey) -> Option<&Record> {
        self.records.get(step)
    }

    /// Records an outcome of a step that has none. It is written when the transaction commits.
    pub fn add(&mut self, record: Record) {
        self.new.push(record.key.clone());
        self.records.insert(record.key.clone(), record);
    }

    /// Returns the records that have to be written.
    pub fn new_records(&self) -> Vec<&Record> {
        self.new.iter().filter_map(|step| self.records.get(step)).collect()
    }
}
