//! Maps message types to their handlers.

mod plain;
mod versions;

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

pub use futures::future::BoxFuture;
use futures::future::try_join_all;
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

    /// Returns whether nobody waits for the effect of the messages, as for a read model. A topic with such handlers only
    /// is fetched in larger batches, a fraction of a second later. Such a handler must be idempotent.
    fn is_background(&self) -> bool {
        false
    }

    /// Returns whether nobody waits for the effect of these messages, although somebody may wait for others of the handler.
    /// They may then wait briefly for more messages, so that one transaction handles all of them.
    fn may_wait(&self, _messages: &[&Incoming]) -> bool {
        self.is_background()
    }

    /// Returns whether the messages are commands of saga steps. The recorded outcomes of the steps are then looked up
    /// together with the claims.
    fn takes_steps(&self) -> bool {
        false
    }

    /// Returns whether the handler prepares messages before their transaction.
    #[doc(hidden)]
    fn prepares(&self) -> bool {
        false
    }

    /// Does work for the messages that cannot be a part of their transaction. They may still turn out to be repetitions.
    /// The result is passed to the handler with the unit of work.
    #[doc(hidden)]
    fn prepare<'a>(
        &'a self,
        _db: &'a Db,
        _messages: &'a [&'a Incoming],
    ) -> BoxFuture<'a, Result<Option<Prepared>, Fault>> {
        Box::pin(async { Ok(None) })
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

/// How soon the records of a topic are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Temper {
    /// At once.
    Prompt,
    /// When many have arrived, or a fraction of a second later.
    Background,
}

/// The handler of a message type, and the topics on which messages of the type are believed.
struct Route {
    handler: usize,
    topics: BTreeSet<String>,
}

/// What a handler has prepared before the transaction of a batch.
pub type Prepared = Box<dyn Any + Send>;

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
    routes: HashMap<&'static str, Route>,
    /// The handler of events that answer saga steps, if there is one.
    answers: Option<usize>,
    /// The topics on which saga steps are answered.
    answer_topics: BTreeSet<String>,
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
    /// What the handler of a command type can do beside handling it. The sagas know its Rust type.
    #[cfg(feature = "saga")]
    pub(crate) extensions: BTreeMap<&'static str, Box<dyn Any + Send + Sync>>,
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
        assert!(
            handler.is_idempotent() || !handler.is_background(),
            "a background handler must be idempotent, because its group may read a topic again from its beginning"
        );
        let index = self.handlers.len();
        self.handlers.push(handler);
        for (kind, topic, has_events) in types {
            let route = Route { handler: index, topics: BTreeSet::from([topic.clone()]) };
            let previous = self.routes.insert(kind, route);
            assert!(previous.is_none(), "two handlers for {kind}");
            self.versions.add(kind);
            let marked = if has_events { &mut self.event_topics } else { &mut self.strict_topics };
            marked.insert(topic.clone());
            self.topics.insert(topic);
        }
        self
    }

    /// Passes the events on these topics that answer saga steps to the handler that was registered last. Another handler
    /// may have registered for the type of such an event. It gets the event too.
    ///
    /// # Panics
    /// Panics if another handler gets the answers already.
    #[cfg(feature = "saga")]
    #[must_use]
    pub(crate) fn answers(mut self, topics: impl IntoIterator<Item = &'static str>) -> Self {
        let handler = self.handlers.len().checked_sub(1);
        assert!(self.answers.is_none(), "two coordinators in one router");
        self.answers = handler;
        for topic in topics {
            self.answer_topics.insert(topic.to_owned());
            self.event_topics.insert(topic.to_owned());
            self.topics.insert(topic.to_owned());
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
        let route = self.routes.get_mut(New::TYPE);
        let route = route.unwrap_or_else(|| panic!("no handler for {} yet", New::TYPE));
        route.topics.insert(Old::TOPIC.to_owned());
        assert!(!self.routes.contains_key(Old::TYPE), "{} has a handler of its own", Old::TYPE);
        self.versions.upcast(convert);
        let strict = self.strict_topics.contains(New::TOPIC);
        let marked = if strict { &mut self.strict_topics } else { &mut self.event_topics };
        marked.insert(Old::TOPIC.to_owned());
        self.topics.insert(Old::TOPIC.to_owned());
        self
    }

    /// Returns the topics that a member of this kind reads.
    pub(crate) fn topics_of(&self, temper: Temper) -> impl Iterator<Item = &str> + '_ {
        let background = |topic: &str| {
            let by_kind = self.routes.values().filter(move |route| route.topics.contains(topic));
            let answered = self.answer_topics.contains(topic);
            let handlers = by_kind.map(|route| route.handler).chain(self.answers.filter(|_| answered));
            let mut handlers = handlers.map(|handler| self.handler(handler));
            handlers.all(BatchHandler::is_background)
        };
        self.topics().filter(move |topic| background(topic) == (temper == Temper::Background))
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

    /// Returns the handlers of a message: mostly one, and two if an answer of a saga step is also consumed as an event.
    pub(crate) fn route(&self, message: &Incoming) -> impl Iterator<Item = usize> + use<> {
        let answers = self.answers.filter(|_| self.is_answer(message));
        let by_kind = self.routes.get(message.kind()).map(|route| route.handler);
        answers.into_iter().chain(by_kind.filter(move |&handler| Some(handler) != answers))
    }

    fn is_answer(&self, message: &Incoming) -> bool {
        message.answers_step() && self.answer_topics.contains(&message.topic)
    }

    fn handlers_of(&self, message: &Incoming) -> impl Iterator<Item = &dyn BatchHandler> {
        self.route(message).map(|handler| self.handler(handler))
    }

    /// Groups messages by their handlers. One with two handlers is in both groups.
    fn by_handler<'m>(
        &self,
        messages: impl IntoIterator<Item = &'m Incoming>,
    ) -> BTreeMap<usize, Vec<&'m Incoming>> {
        let mut groups: BTreeMap<usize, Vec<&Incoming>> = BTreeMap::new();
        for message in messages {
            for handler in self.route(message) {
                groups.entry(handler).or_default().push(message);
            }
        }
        groups
    }

    /// Has the handlers prepare the messages of a batch before its transaction. Only the first message of a key takes part,
    /// because the effect of a later one depends on it.
    pub(crate) async fn prepare(
        &self,
        db: &Db,
        batch: &[&Incoming],
    ) -> Result<HashMap<TypeId, Prepared>, Fault> {
        if !self.handlers.iter().any(|handler| handler.prepares()) {
            return Ok(HashMap::new());
        }
        let mut keys = HashSet::with_capacity(batch.len());
        let first = batch.iter().copied().filter(|message| keys.insert(message.key.as_str()));
        let groups = self.by_handler(first.filter(|message| message.refused().is_none()));
        let preparing = groups.iter().filter(|&(&handler, _)| self.handler(handler).prepares());
        let prepare = preparing.map(|(&handler, messages)| self.handler(handler).prepare(db, messages));
        let prepared = try_join_all(prepare).await?.into_iter().flatten();
        Ok(prepared.map(|prepared| ((*prepared).type_id(), prepared)).collect())
    }

    /// Returns whether the inbox must remember this message. It remembers messages without a handler too.
    pub(crate) fn claims(&self, message: &Incoming) -> bool {
        let mut handlers = self.handlers_of(message).peekable();
        handlers.peek().is_none() || handlers.any(|handler| !handler.is_idempotent())
    }

    pub(crate) fn takes_steps(&self, message: &Incoming) -> bool {
        self.handlers_of(message).any(BatchHandler::takes_steps)
    }

    pub(crate) fn may_wait(&self, batch: &[Incoming]) -> bool {
        let groups = self.by_handler(batch);
        groups.iter().all(|(&handler, messages)| self.handler(handler).may_wait(messages))
    }

    pub(crate) fn handler(&self, index: usize) -> &dyn BatchHandler {
        self.handlers[index].as_ref()
    }

    /// Handles one message.
    ///
    /// # Errors
    /// Fails permanently if the message has no handler, and as the handler does.
    pub(crate) async fn handle(&self, uow: &mut UnitOfWork, message: &Incoming) -> Result<(), Fault> {
        let mut handlers = self.handlers_of(message).peekable();
        if handlers.peek().is_none() {
            return Err(Fault::permanent(format!("no handler for {}", message.kind())));
        }
        for handler in handlers {
            uow.flush().await?;
            handler.handle(uow, &[message]).await?;
        }
        Ok(())
    }

    /// Returns whether a record can be skipped unread. On a topic with answers of saga steps, its body decides.
    pub(crate) fn skips(&self, topic: &str, kind: &str) -> bool {
        !self.answer_topics.contains(topic) && self.is_foreign(topic, kind)
    }

    /// Returns whether this service does not consume the event. On topics of commands no message is foreign, because its
    /// sender may wait for an answer. Another version of a consumed event is not foreign.
    pub(crate) fn is_foreign(&self, topic: &str, kind: &str) -> bool {
        self.event_topics.contains(topic)
            && !self.strict_topics.contains(topic)
            && !self.routes.contains_key(kind)
            && !self.versions.knows(kind)
    }

    /// Prepares a message for its handler: converts it to the current version, or refuses it with a reason. Returns
    /// `false` if the message is skipped.
    pub(crate) fn admit(&self, message: &mut Incoming) -> bool {
        if message.envelope.is_none() {
            return true;
        }
        let answer = self.is_answer(message);
        if !answer && self.is_foreign(&message.topic, message.kind()) {
            return false;
        }
        let known = self.routes.contains_key(message.kind());
        if !known && (!answer || self.versions.converts(message.kind())) && message.refused().is_none() {
            self.versions.convert(message);
        }
        if let Some(route) = self.routes.get(message.kind())
            && !route.topics.contains(&message.topic)
        {
            let topics: Vec<&str> = route.topics.iter().map(String::as_str).collect();
            message.refuse(format!(
                "the type {} belongs on {}, and is not believed on {}; find out who wrote it, and skip it",
                message.kind(),
                topics.join(" or "),
                message.topic
            ));
        }
        true
    }
}
