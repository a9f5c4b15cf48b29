//! Which handler takes which type of message.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::Incoming;
use super::versions::Versions;
use crate::envelope::Message;
use crate::fault::Fault;
use crate::inbox::Claimed;

/// A future that can be a trait object's answer.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Handles a batch of messages, in their order, in the transaction that claimed them.
pub trait BatchHandler: Send + Sync + 'static {
    /// Whether a message that comes again changes nothing, because its id is a key of what the handler writes, or
    /// because nothing waits for it any more. The inbox then need not remember it.
    fn is_idempotent(&self) -> bool {
        false
    }

    /// Whether nobody waits for what comes of the messages, as with a read model. They may then wait a moment for others
    /// of their kind, and one transaction does for all of them.
    fn may_wait(&self) -> bool {
        false
    }

    /// Whether the messages are commands of saga steps, whose recorded outcomes are looked up with their claims.
    fn takes_steps(&self) -> bool {
        false
    }

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
    pub(super) versions: Versions,
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
            self.versions.add(kind);
            self.topics.insert(topic);
        }
        self
    }

    /// Takes a previous version too: its messages are cast up to `New` before any handler sees them. The handler for
    /// `New` is registered before.
    ///
    /// ```
    /// # use shared::consumer::Table;
    /// # use shared::envelope::Message;
    /// # fn with<PricedV1: Message, PricedV2: Message>(table: Table, up: fn(PricedV1) -> PricedV2) -> Table {
    /// table.upcast::<PricedV1, PricedV2>(up)
    /// # }
    /// ```
    #[must_use]
    pub fn upcast<Old: Message, New: Message>(mut self, up: fn(Old) -> New) -> Self {
        assert!(self.routes.contains_key(New::TYPE), "no handler for {} yet", New::TYPE);
        assert!(!self.routes.contains_key(Old::TYPE), "{} has a handler of its own", Old::TYPE);
        self.versions.upcast(up);
        self.topics.insert(Old::TOPIC);
        self
    }

    /// The topics to subscribe to.
    pub fn topics(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.topics.iter().copied()
    }

    pub(super) fn route(&self, kind: &str) -> Option<usize> {
        self.routes.get(kind).copied()
    }

    /// Whether the inbox must remember a message of this type.
    pub(super) fn claims(&self, kind: &str) -> bool {
        self.route(kind).is_none_or(|index| !self.handler(index).is_idempotent())
    }

    pub(super) fn takes_steps(&self, kind: &str) -> bool {
        self.route(kind).is_some_and(|index| self.handler(index).takes_steps())
    }

    pub(super) fn may_wait(&self, kind: &str) -> bool {
        self.route(kind).is_some_and(|index| self.handler(index).may_wait())
    }

    pub(super) fn handler(&self, index: usize) -> &dyn BatchHandler {
        self.handlers[index].as_ref()
    }

    /// The handler that takes a type.
    ///
    /// # Errors
    /// If none does. It will not be better next time.
    pub(crate) fn handler_of(&self, kind: &str) -> Result<&dyn BatchHandler, Fault> {
        let index = self.route(kind).ok_or_else(|| Fault::permanent(format!("no handler for {kind}")))?;
        Ok(self.handler(index))
    }

    /// Whether a message can be passed over unread: an event that this service does not listen to. On a topic of
    /// commands or replies nothing may be passed over, since somebody waits for an answer; and an event that it does
    /// listen to is not passed over because it comes in another version.
    pub(super) fn passes_over(&self, topic: &str, kind: &str) -> bool {
        topic.ends_with(".events") && !self.routes.contains_key(kind) && !self.versions.know(kind)
    }

    /// Makes a message ready for its handler: casts it up, or refuses it with the reason why there is none. `false`
    /// if it is passed over.
    pub(crate) fn admit(&self, message: &mut Incoming) -> bool {
        if message.envelope.is_none() || self.routes.contains_key(message.kind()) {
            return true;
        }
        if self.passes_over(&message.topic, message.kind()) {
            return false;
        }
        if message.refused().is_none() {
            self.versions.cast(message);
        }
        true
    }
}
