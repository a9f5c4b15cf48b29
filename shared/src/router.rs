//! Which handler takes which type of message.

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
        uow: &'a mut UnitOfWork,
        messages: &'a [&'a Incoming],
    ) -> BoxFuture<'a, Result<(), Fault>>;
}

/// Something that runs beside the consumer until it is told to stop, such as the calls of an external dependency.
pub(crate) type Worker = Box<dyn FnOnce(Db, CancellationToken) -> BoxFuture<'static, ()> + Send>;

/// The messages that a service takes, each with its handler. It is built by one chain:
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
    /// Topics with events: of these, types that nobody here takes are passed over.
    event_topics: BTreeSet<String>,
    pub(crate) versions: Versions,
    workers: Mutex<Vec<(&'static str, Worker)>>,
    /// The external dependencies that handlers call, by name.
    #[cfg(feature = "saga")]
    pub(crate) dependencies: std::collections::BTreeMap<&'static str, Arc<Dependency>>,
}

impl MessageRouter {
    /// A router without any handler.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what runs beside the consumer for the commands of this type.
    #[cfg(feature = "saga")]
    pub(crate) fn add_worker(&mut self, command: &'static str, worker: Worker) {
        self.workers.get_mut().unwrap_or_else(PoisonError::into_inner).push((command, worker));
    }

    /// What is to run beside the consumer. Taken once: a second call finds nothing.
    pub(crate) fn take_workers(&self) -> Vec<(&'static str, Worker)> {
        std::mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives the messages of these types, each with its topic, to one handler. It sees those of one key in the order
    /// in which they were written to their topic. On these topics nothing is passed over: a message whose type nobody here
    /// takes is parked, since somebody may wait for an answer.
    ///
    /// # Panics
    /// If one of the types has a handler already.
    #[must_use]
    pub fn on<T: AsRef<str>>(self, types: &[(&'static str, T)], handler: Arc<dyn BatchHandler>) -> Self {
        let types = types.iter().map(|(kind, topic)| (*kind, topic.as_ref().to_owned(), false));
        self.register(types.collect(), handler)
    }

    /// As [`MessageRouter::on`], for events: on these topics a message whose type nobody here takes is passed over.
    ///
    /// # Panics
    /// If one of the types has a handler already.
    #[must_use]
    pub fn events<T: AsRef<str>>(self, types: &[(&'static str, T)], handler: Arc<dyn BatchHandler>) -> Self {
        let types = types.iter().map(|(kind, topic)| (*kind, topic.as_ref().to_owned(), true));
        self.register(types.collect(), handler)
    }

    /// Gives messages to a handler: each type with its topic, and whether that is a topic of events.
    pub(crate) fn register(
        mut self,
        types: Vec<(&'static str, String, bool)>,
        handler: Arc<dyn BatchHandler>,
    ) -> Self {
        let index = self.handlers.len();
        self.handlers.push(handler);
        for (kind, topic, has_events) in types {
            let before = self.routes.insert(kind, index);
            assert!(before.is_none(), "two handlers for {kind}");
            self.versions.add(kind);
            if has_events {
                self.event_topics.insert(topic.clone());
            }
            self.topics.insert(topic);
        }
        self
    }

    /// Takes a previous version too: its messages are cast up to `New` before any handler sees them. The handler for
    /// `New` is registered before.
    ///
    /// ```
    /// # use shared::router::MessageRouter;
    /// # use shared::envelope::Message;
    /// # fn with<PricedV1: Message, PricedV2: Message>(router: MessageRouter, up: fn(PricedV1) -> PricedV2) -> MessageRouter {
    /// router.upcast::<PricedV1, PricedV2>(up)
    /// # }
    /// ```
    #[must_use]
    pub fn upcast<Old: Message, New: Message>(mut self, up: fn(Old) -> New) -> Self {
        assert!(self.routes.contains_key(New::TYPE), "no handler for {} yet", New::TYPE);
        assert!(!self.routes.contains_key(Old::TYPE), "{} has a handler of its own", Old::TYPE);
        self.versions.upcast(up);
        self.topics.insert(Old::TOPIC.to_owned());
        self
    }

    /// The topics to subscribe to.
    pub fn topics(&self) -> impl Iterator<Item = &str> + '_ {
        self.topics.iter().map(String::as_str)
    }

    /// The types that have a handler, sorted.
    pub fn types(&self) -> Vec<&'static str> {
        let mut types: Vec<&'static str> = self.routes.keys().copied().collect();
        types.sort_unstable();
        types
    }

    pub(crate) fn route(&self, kind: &str) -> Option<usize> {
        self.routes.get(kind).copied()
    }

    /// Whether the inbox must remember a message of this type.
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

    /// The handler that takes a type.
    ///
    /// # Errors
    /// If none does. It will not be better next time.
    pub(crate) fn handler_of(&self, kind: &str) -> Result<&dyn BatchHandler, Fault> {
        let index = self.route(kind).ok_or_else(|| Fault::permanent(format!("no handler for {kind}")))?;
        Ok(self.handler(index))
    }

    /// Whether a message can be passed over unread: an event that this service does not listen to. On other topics nothing
    /// may be passed over, since somebody may wait for an answer. An event that it does listen to is not passed over
    /// because it comes in another version.
    pub(crate) fn passes_over(&self, topic: &str, kind: &str) -> bool {
        self.event_topics.contains(topic) && !self.routes.contains_key(kind) && !self.versions.know(kind)
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
