//! What a transaction knows of the steps that it is about: looked up once for a whole batch, and written once at its end.

use std::collections::{HashMap, HashSet};

use sqlx::PgConnection;

use super::{Record, StepKey, store};

/// The recorded outcomes of steps, and those that the transaction will leave.
#[derive(Default)]
pub(crate) struct StepOutcomes {
    records: HashMap<StepKey, Record>,
    /// What is new and has to be written.
    new: Vec<StepKey>,
    /// Whether everything that the batch is about was looked up with its claims.
    complete: bool,
    /// Steps that are open, and were asked for again.
    pub asked_again: Vec<StepKey>,
}

impl StepOutcomes {
    /// What is on record of all steps of a batch.
    pub fn looked_up(found: Vec<store::Found>) -> Self {
        let records = found.into_iter().map(Record::from).map(|record| (record.key.clone(), record));
        Self { records: records.collect(), complete: true, ..Self::default() }
    }

    /// Looks up what is on record of these steps, unless that is known.
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

    /// What is on record of a step.
    pub fn get(&self, step: &StepKey) -> Option<&Record> {
        self.records.get(step)
    }

    /// Records an outcome of a step that has none. It is written when the transaction commits.
    pub fn add(&mut self, record: Record) {
        self.new.push(record.key.clone());
        self.records.insert(record.key.clone(), record);
    }

    /// What is to be written.
    pub fn new_records(&self) -> Vec<&Record> {
        self.new.iter().filter_map(|step| self.records.get(step)).collect()
    }
}
