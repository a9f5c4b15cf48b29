//! Definitions by name and version, without their Rust types: what the handlers work with.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::envelope::{Direction, ErasedCommand};
use crate::fault::{Class, Classified};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::saga::engine::{Refusal, Shape};
use crate::saga::plan::{Definition, Saga};

/// A saga in flight began with a definition that this orchestrator does not have.
#[derive(Debug, thiserror::Error)]
#[error("this orchestrator has no definition {name}@{version}")]
pub struct UnknownDefinition {
    /// The definition's name.
    pub name: String,
    /// Its version.
    pub version: i32,
}

impl Classified for UnknownDefinition {
    fn class(&self) -> Class {
        // Another replica, or the next release, may have it.
        Class::Retry
    }
}

/// The definitions that an orchestrator has.
#[derive(Default)]
pub struct Registry {
    deadline: Option<Duration>,
    definitions: HashMap<(&'static str, i32), Arc<dyn AnyDefinition>>,
}

impl Registry {
    /// An empty one. `deadline` is for every step of what is added, instead of what its plan says.
    pub fn new(deadline: Option<Duration>) -> Self {
        Self { deadline, definitions: HashMap::new() }
    }

    /// Adds a definition.
    ///
    /// # Panics
    /// If two steps of the plan have one name: a reply says by the name which step it answers, so the second would wait
    /// for ever.
    #[must_use]
    pub fn with<S: Saga>(mut self) -> Self {
        let definition = Typed::<S>::new(self.deadline);
        if let Some((name, first, second)) = definition.shape.same_name() {
            panic!(
                "the plan of {}@{} has two steps `{name}`, number {} and number {}; give one of them a command of its own",
                S::NAME,
                S::VERSION,
                first + 1,
                second + 1
            );
        }
        self.definitions.insert((S::NAME, S::VERSION), Arc::new(definition));
        self
    }

    /// The definition with this name and version.
    ///
    /// # Errors
    /// If it is not here.
    pub fn find(&self, name: &str, version: i32) -> Result<&Arc<dyn AnyDefinition>, UnknownDefinition> {
        let found = self.definitions.iter().find(|((n, v), _)| *n == name && *v == version);
        found
            .map(|(_, definition)| definition)
            .ok_or_else(|| UnknownDefinition { name: name.to_owned(), version })
    }

    /// The names and versions that it has.
    pub fn versions(&self) -> Vec<(String, i32)> {
        self.definitions.keys().map(|(name, version)| ((*name).to_owned(), *version)).collect()
    }
}

/// A definition without its type.
pub trait AnyDefinition: Send + Sync {
    /// What the engine needs to know of the plan.
    fn shape(&self) -> &Shape;
    /// Of the plan's fingerprint: it changes when the plan does.
    fn hash(&self) -> &str;
    /// A saga with this memory, which is JSON.
    ///
    /// # Errors
    /// If the memory can't be read.
    fn open(&self, data: &str) -> Result<Box<dyn OpenSaga>, serde_json::Error>;
}

/// A saga's memory, while inputs are applied.
pub trait OpenSaga: Send + Sync {
    /// The command of a step in this direction. The refusal is for the closing step.
    ///
    /// # Errors
    /// If it can't be written as JSON.
    fn command(
        &self,
        step: usize,
        direction: Direction,
        refusal: &Refusal,
    ) -> Result<ErasedCommand, serde_json::Error>;
    /// Takes a step's reply into the memory. Returns whether the saga keeps it at all.
    ///
    /// # Errors
    /// If the reply is not what the plan expects.
    fn on_reply(&mut self, step: usize, reply: &RawValue) -> Result<bool, serde_json::Error>;
    /// The memory as JSON.
    ///
    /// # Errors
    /// If it can't be written as JSON.
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

    /// A saga with this memory, which is JSON.
    ///
    /// # Errors
    /// If the memory can't be read.
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
