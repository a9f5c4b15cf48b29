//! Which handler takes which type of message.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::Incoming;
use crate::fault::Fault;
use crate::inbox::Claimed;

/// A future that can be a trait object's answer.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Handles a batch of messages, in their order, in the transaction that claimed them.
pub trait BatchHandler: Send + Sync + 'static {
    /// Handles the messages. They may be redone, together or one by one, if the transaction is rolled back.
    ///
    /// # Errors
    /// A technical failure, which rolls the whole batch back. A business refusal is an answer, not an error.
    fn handle<'a>(
        &'a self,
        claimed: &'a mut Claimed,
        messages: &'a [&'a Incoming],
    ) -> BoxFuture<'a, Result<(), Fault>>;
}

/// The messages that a service takes.
#[derive(Default)]
pub struct Table {
    handlers: Vec<Arc<dyn BatchHandler>>,
    routes: HashMap<&'static str, usize>,
    topics: BTreeSet<&'static str>,
}

impl Table {
    /// A table of no messages.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the messages of these types, each with its topic, to one handler. It sees those of one key in the order
    /// in which they were written to their topic.
    ///
    /// # Panics
    /// If one of the types has a handler already.
    #[must_use]
    pub fn on(mut self, types: &[(&'static str, &'static str)], handler: Arc<dyn BatchHandler>) -> Self {
        let index = self.handlers.len();
        self.handlers.push(handler);
        for (kind, topic) in types {
            let before = self.routes.insert(kind, index);
            assert!(before.is_none(), "two handlers for {kind}");
            self.topics.insert(topic);
        }
        self
    }

    /// The topics to subscribe to.
    pub fn topics(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.topics.iter().copied()
    }

    pub(super) fn route(&self, kind: &str) -> Option<usize> {
        self.routes.get(kind).copied()
    }

    pub(super) fn handler(&self, index: usize) -> &dyn BatchHandler {
        self.handlers[index].as_ref()
    }

    /// Whether a message can be passed over unread: an event that this service does not listen to. On a topic of
    /// commands or replies nothing may be passed over, since somebody waits for an answer.
    pub(super) fn passes_over(&self, topic: &str, kind: &str) -> bool {
        topic.ends_with(".events") && !self.routes.contains_key(kind)
    }
}
