//! Maps message types to their handlers.

mod plain;
mod versions;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

pub use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use self::versions::Versions;
#[cfg(feature = "saga")]
use crate::circuit_breaker::Dependency;
use crate::db::Db;
use crate::envelope::Message;
use crate::fault::Fault;
use crate::incoming::Incoming;
use crate::unit_of_work::UnitOfWork;

pub use self::plain::{Delivery, MessageHandler};

/// Handles a batch of messages, in their order, in the transaction that claimed them.
pub trait BatchHandler: Send + Sync + 'static {
    /// Returns whether a repeated message changes nothing. That is so if the message's id is a key of the written
    /// rows, or if the repeated change has no effect. The inbox then need not remember the message.
    fn is_idempotent(&self) -> bool {
        false
    }

    /// Returns whether the messages are not urgent, as for a read model. They may then wait briefly for others of
    /// their kind, so that one transaction handles all of them.
    fn may_wait(&self) -> bool {
        false
    }

    /// Returns whether the messages are commands of saga steps. The recorded outcomes of the steps are then looked up
    /// together with the claims.
    fn takes_steps(&self) -> bool {
        false
    }

    /// Handles the messages. If the transaction is rolled back, they are handled again, together or one by one.
    ///
    /// # Errors
    /// Fails on a technical failure, which rolls the whole batch back. A business refusal is not an error.
    fn handle<'a>(
        &'a self,
        uow: &'a mut UnitOfWork,
        messages: &'a [&'a Incoming],
    ) -> BoxFuture<'a, Result<(), Fault>>;
}

/// Work that runs beside the consumer until it is cancelled, such as the calls to an external dependency.
pub(crate) type Worker = Box<dyn FnOnce(Db, CancellationToken) -> BoxFuture<'static, ()> + Send>;

/// The messages that a service consumes, each with its handler. A router is built by one chain:
///
/// ```no_run
/// # use std::sync::Arc;
/// # use shared::router::{MessageHandler, MessageRouter};
/// # use shared::envelope::{Event, Message};
/// # fn router<OrderPlaced: Event, Recount: Message, H>(handler: Arc<H>) -> MessageRouter
/// # where H: MessageHandler<OrderPlaced> + MessageHandler<Recount> {
/// MessageRouter::new().event::<OrderPlaced>(&handler).message::<Recount>(&handler)
/// # }
/// ```
#[derive(Default)]
pub struct MessageRouter {
    handlers: Vec<Arc<dyn BatchHandler>>,
    routes: HashMap<&'static str, usize>,
    topics: BTreeSet<String>,
    /// Topics with events. Messages on them are skipped if their type has no handler.
    event_topics: BTreeSet<String>,
    /// Topics on which no message is skipped, because its sender may wait for an answer. They win over
    /// `event_topics`.
    strict_topics: BTreeSet<String>,
    pub(crate) versions: Versions,
    workers: Mutex<Vec<(&'static str, Worker)>>,
    /// The external dependencies that handlers call, by name.
    #[cfg(feature = "saga")]
    pub(crate) dependencies: std::collections::BTreeMap<&'static str, Arc<Dependency>>,
}

impl MessageRouter {
    /// Creates a router without handlers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a worker for the commands of this type.
    #[cfg(feature = "saga")]
    pub(crate) fn add_worker(&mut self, command: &'static str, worker: Worker) {
        self.workers.get_mut().unwrap_or_else(PoisonError::into_inner).push((command, worker));
    }

    /// Takes the workers that run beside the consumer. A second call returns none.
    pub(crate) fn take_workers(&self) -> Vec<(&'static str, Worker)> {
        std::mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Registers one handler for these types, each with its topic. It gets the messages of one key in the order of
    /// their topic. Messages on these topics are never skipped: a message without a handler is parked, because its
    /// sender may wait for an answer.
    ///
    /// # Panics
    /// Panics if one of the types already has a handler.
    #[must_use]
    pub fn on<T: AsRef<str>>(self, types: &[(&'static str, T)], handler: Arc<dyn BatchHandler>) -> Self {
        let types = types.iter().map(|(kind, topic)| (*kind, topic.as_ref().to_owned(), false));
        self.register(types.collect(), handler)
    }

    /// Registers one handler for these event types, each with its topic. Messages on these topics are skipped if
    /// their type has no handler, unless a command or message is consumed on the same topic.
    ///
    /// # Panics
    /// Panics if one of the types already has a handler.
    #[must_use]
    pub fn events<T: AsRef<str>>(self, types: &[(&'static str, T)], handler: Arc<dyn BatchHandler>) -> Self {
        let types = types.iter().map(|(kind, topic)| (*kind, topic.as_ref().to_owned(), true));
        self.register(types.collect(), handler)
    }

    /// Registers a handler for types, each with its topic and whether that is a topic of events.
    pub(crate) fn register(
        mut self,
        types: Vec<(&'static str, String, bool)>,
        handler: Arc<dyn BatchHandler>,
    ) -> Self {
        let index = self.handlers.len();
        self.handlers.push(handler);
        for (kind, topic, has_events) in types {
            let previous = self.routes.insert(kind, index);
            assert!(previous.is_none(), "two handlers for {kind}");
            self.versions.add(kind);
            let marked = if has_events { &mut self.event_topics } else { &mut self.strict_topics };
            marked.insert(topic.clone());
            self.topics.insert(topic);
        }
        self
    }

    /// Accepts the previous version of a message too. Its messages are converted to `New` before a handler sees them.
    /// Register the handler of `New` before.
    ///
    /// # Panics
    /// Panics if `New` has no handler, or if `Old` has a handler or a conversion of its own.
    ///
    /// ```
    /// # use shared::router::MessageRouter;
    /// # use shared::envelope::Message;
    /// # fn with<PricedV1: Message, PricedV2: Message>(router: MessageRouter, up: fn(PricedV1) -> PricedV2) -> MessageRouter {
    /// router.upcast::<PricedV1, PricedV2>(up)
    /// # }
    /// ```
    #[must_use]
    pub fn upcast<Old: Message, New: Message>(mut self, convert: fn(Old) -> New) -> Self {
        assert!(self.routes.contains_key(New::TYPE), "no handler for {} yet", New::TYPE);
        assert!(!self.routes.contains_key(Old::TYPE), "{} has a handler of its own", Old::TYPE);
        self.versions.upcast(convert);
        let strict = self.strict_topics.contains(New::TOPIC);
        let marked = if strict { &mut self.strict_topics } else { &mut self.event_topics };
        marked.insert(Old::TOPIC.to_owned());
        self.topics.insert(Old::TOPIC.to_owned());
        self
    }

    /// Returns the topics to subscribe to.
    pub fn topics(&self) -> impl Iterator<Item = &str> + '_ {
        self.topics.iter().map(String::as_str)
    }

    /// Returns the types that have a handler, sorted.
    pub fn types(&self) -> Vec<&'static str> {
        let mut types: Vec<&'static str> = self.routes.keys().copied().collect();
        types.sort_unstable();
        types
    }

    pub(crate) fn route(&self, kind: &str) -> Option<usize> {
        self.routes.get(kind).copied()
    }

    /// Returns whether the inbox must remember messages of this type.
    pub(crate) fn claims(&self, kind: &str) -> bool {
        self.route(kind).is_none_or(|index| !self.handler(index).is_idempotent())
    }

    pub(crate) fn takes_steps(&self, kind: &str) -> bool {
        self.route(kind).is_some_and(|index| self.handler(index).takes_steps())
    }

    pub(crate) fn may_wait(&self, kind: &str) -> bool {
        self.route(kind).is_some_and(|index| self.handler(index).may_wait())
    }

    pub(crate) fn handler(&self, index: usize) -> &dyn BatchHandler {
        self.handlers[index].as_ref()
    }

    /// Returns the handler of a type.
    ///
    /// # Errors
    /// Fails permanently if the type has no handler.
    pub(crate) fn handler_of(&self, kind: &str) -> Result<&dyn BatchHandler, Fault> {
        let index = self.route(kind).ok_or_else(|| Fault::permanent(format!("no handler for {kind}")))?;
        Ok(self.handler(index))
    }

    /// Returns whether a message can be skipped unread: an event that this service does not consume. On other topics
    /// no message is skipped, because its sender may wait for an answer. A consumed event is not skipped if it has
    /// another version.
    pub(crate) fn skips(&self, topic: &str, kind: &str) -> bool {
        self.event_topics.contains(topic)
            && !self.strict_topics.contains(topic)
            && !self.routes.contains_key(kind)
            && !self.versions.knows(kind)
    }

    /// Prepares a message for its handler: converts it to the current version, or refuses it with a reason. Returns
    /// `false` if the message is skipped.
    pub(crate) fn admit(&self, message: &mut Incoming) -> bool {
        if message.envelope.is_none() || self.routes.contains_key(message.kind()) {
            return true;
        }
        if self.skips(&message.topic, message.kind()) {
            return false;
        }
        if message.refused().is_none() {
            self.versions.convert(message);
        }
        true
    }
}
