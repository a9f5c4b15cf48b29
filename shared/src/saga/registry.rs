//! Saga definitions by name and version, without their Rust types.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::envelope::{Direction, ErasedCommand};
use crate::fault::{Class, Classified};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::saga::engine::{Kind, Refusal, Shape};
use crate::saga::plan::{Definition, Saga};

/// This process lacks a definition with which an unfinished saga began.
#[derive(Debug, thiserror::Error)]
#[error("this orchestrator has no definition {name}@{version}")]
pub struct UnknownDefinition {
    /// The name of the definition.
    pub name: String,
    /// The version of the definition.
    pub version: i32,
}

impl Classified for UnknownDefinition {
    fn class(&self) -> Class {
        // The next release may have it. Until then its key waits, and no other one does.
        Class::Permanent
    }
}

/// The definitions of a coordinator.
#[derive(Default)]
pub struct Registry {
    deadline: Option<Duration>,
    definitions: HashMap<(&'static str, i32), Arc<dyn AnyDefinition>>,
}

impl Registry {
    /// Creates an empty registry. If `deadline` is set, it replaces the deadlines of all steps in the added plans.
    pub fn new(deadline: Option<Duration>) -> Self {
        Self { deadline, definitions: HashMap::new() }
    }

    /// Adds a definition.
    ///
    /// # Panics
    /// Panics if two steps of the plan have the same name. A reply identifies its step by name, so the second step
    /// would wait for ever.
    #[must_use]
    pub fn with<S: Saga>(mut self) -> Self {
        let definition = Typed::<S>::new(self.deadline);
        if let Some((name, first, second)) = definition.shape.same_name() {
            panic!(
                "the plan of {}@{} has two steps `{name}`, number {} and number {}; give one of them its own command",
                S::NAME,
                S::VERSION,
                first + 1,
                second + 1
            );
        }
        self.definitions.insert((S::NAME, S::VERSION), Arc::new(definition));
        self
    }

    /// Returns the definition with this name and version.
    ///
    /// # Errors
    /// Fails if the registry does not have it.
    pub fn find(&self, name: &str, version: i32) -> Result<&Arc<dyn AnyDefinition>, UnknownDefinition> {
        let found = self.definitions.iter().find(|((n, v), _)| *n == name && *v == version);
        found
            .map(|(_, definition)| definition)
            .ok_or_else(|| UnknownDefinition { name: name.to_owned(), version })
    }

    /// Returns the topics on which the steps of all definitions are answered.
    pub fn answer_topics(&self) -> BTreeSet<&'static str> {
        let mut topics = BTreeSet::new();
        for definition in self.definitions.values() {
            for step in 0..definition.shape().steps.len() {
                topics.extend([Direction::Do, Direction::Undo].map(|way| definition.answers(step, way)));
            }
        }
        topics
    }

    /// Returns the steps behind which every definition has nothing left to do. Nobody waits for their answers.
    pub fn last_steps(&self) -> HashSet<&'static str> {
        let (mut last, mut earlier) = (HashSet::new(), HashSet::new());
        for definition in self.definitions.values() {
            let steps = &definition.shape().steps;
            let business = steps.iter().filter(|step| !matches!(step.kind, Kind::Closing | Kind::Cancelling));
            let end = business.map(|step| step.group).max().unwrap_or_default();
            for step in steps {
                let set = if step.group >= end { &mut last } else { &mut earlier };
                set.insert(step.name);
            }
        }
        last.retain(|step| !earlier.contains(step));
        last
    }

    /// Returns the names and versions of all definitions.
    pub fn versions(&self) -> Vec<(String, i32)> {
        self.definitions.keys().map(|(name, version)| ((*name).to_owned(), *version)).collect()
    }
}

/// A definition without its Rust type.
pub trait AnyDefinition: Send + Sync {
    /// Returns the part of the plan that the engine needs.
    fn shape(&self) -> &Shape;
    /// Returns the hash of the plan's fingerprint. It changes when the plan changes.
    fn hash(&self) -> &str;
    /// Returns the topic on which the answers of a step are believed.
    fn answers(&self, step: usize, direction: Direction) -> &'static str;
    /// Opens a saga with this memory, which is JSON.
    ///
    /// # Errors
    /// Fails if the memory cannot be read.
    fn open(&self, data: &str) -> Result<Box<dyn OpenSaga>, serde_json::Error>;
}

/// The memory of a saga while inputs are applied.
pub trait OpenSaga: Send + Sync {
    /// Returns the command of a step in this direction. Only the closing step uses the refusal.
    ///
    /// # Errors
    /// Fails if the command cannot be written as JSON.
    fn command(
        &self,
        step: usize,
        direction: Direction,
        refusal: &Refusal,
    ) -> Result<ErasedCommand, serde_json::Error>;
    /// Stores a step's reply in the memory. Returns whether the plan keeps replies of this step.
    ///
    /// # Errors
    /// Fails if the reply does not have the expected type.
    fn on_reply(&mut self, step: usize, reply: &RawValue) -> Result<bool, serde_json::Error>;
    /// Returns the memory as JSON.
    ///
    /// # Errors
    /// Fails if the memory cannot be written as JSON.
    fn data(&self) -> Result<String, serde_json::Error>;
}

struct Typed<S> {
    definition: Arc<Definition<S>>,
    shape: Shape,
    hash: String,
}

impl<S: Saga> Typed<S> {
    fn new(deadline: Option<Duration>) -> Self {
        let definition = S::plan();
        let digest = Sha256::digest(definition.fingerprint().as_bytes());
        let hash = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let mut shape = definition.shape();
        if let Some(deadline) = deadline {
            shape.steps.iter_mut().for_each(|step| step.deadline = deadline);
        }
        Self { definition: Arc::new(definition), shape, hash }
    }
}

impl<S: Saga> AnyDefinition for Typed<S> {
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn hash(&self) -> &str {
        &self.hash
    }

    fn answers(&self, step: usize, direction: Direction) -> &'static str {
        self.definition.answers(step, direction)
    }

    fn open(&self, data: &str) -> Result<Box<dyn OpenSaga>, serde_json::Error> {
        let saga: S = serde_json::from_str(data)?;
        Ok(Box::new(OpenTyped { saga, definition: Arc::clone(&self.definition) }))
    }
}

struct OpenTyped<S> {
    saga: S,
    definition: Arc<Definition<S>>,
}

impl<S: Saga> OpenSaga for OpenTyped<S> {
    fn command(
        &self,
        step: usize,
        direction: Direction,
        refusal: &Refusal,
    ) -> Result<ErasedCommand, serde_json::Error> {
        self.definition.command(&self.saga, step, direction, refusal)
    }

    fn on_reply(&mut self, step: usize, reply: &RawValue) -> Result<bool, serde_json::Error> {
        self.definition.on_reply(&mut self.saga, step, reply)
    }

    fn data(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&self.saga)
    }
}
