//! The coordinator of sagas. Its inputs are messages that begin or cancel sagas, replies of steps, and deadlines. All
//! inputs take one path: find the sagas, apply the inputs to each, append to their logs, and send the decisions.

mod driver;
mod instance;
mod operator;
mod timers;

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::value::RawValue;
use uuid::Uuid;

use self::driver::Driver;
pub use self::operator::Operator;
pub use self::timers::{Timers, TimersError};
use crate::db::Db;
use crate::envelope::{Cause, Direction, Message};
use crate::fault::Fault;
use crate::incoming::Incoming;
use crate::router::{BatchHandler, MessageRouter};
use crate::saga::engine::{Input, Refusal};
use crate::saga::participant::{Failing, ReplyOutcome, StepReply};
use crate::saga::plan::Saga;
use crate::saga::registry::Registry;
use crate::unit_of_work::UnitOfWork;

/// Coordinates the sagas of a registry. The correlation id of the message that begins a saga becomes the saga's id.
/// Its subject becomes the saga's subject.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use shared::envelope::Message;
/// # use shared::router::MessageRouter;
/// # use shared::saga::coordinator::Coordinator;
/// # use shared::saga::plan::Saga;
/// # use shared::saga::registry::Registry;
/// # fn example<TripBooked: Message, TripCancelled: Message, BookTrip: Saga + From<TripBooked>>(db: shared::db::Db) {
/// let registry = Arc::new(Registry::default().with::<BookTrip>());
/// let coordinator = Coordinator::new(db, registry, "trips.events", "trips.replies")
///     .begin_on(|booked: TripBooked| BookTrip::from(booked))
///     .cancel_on::<TripCancelled>();
/// let timers = coordinator.timers();
/// let router = MessageRouter::new().sagas(coordinator);
/// # }
/// ```
pub struct Coordinator {
    db: Db,
    driver: Arc<Driver>,
    replies: String,
    triggers: HashMap<&'static str, Trigger>,
    topics: Vec<(&'static str, &'static str)>,
}

/// Makes the new saga from the message that begins it.
type BeginSaga = dyn Fn(&Incoming) -> Result<NewSaga, Fault> + Send + Sync;

/// The effect of a message type on its saga.
enum Trigger {
    Begins(Box<BeginSaga>),
    Cancels,
}

/// An input for a saga.
struct SagaInput {
    saga_id: Uuid,
    subject: String,
    cause: Cause,
    /// The new saga, if this input begins one.
    begin: Option<NewSaga>,
    input: Input,
    /// The reply of the step, if the input is one.
    reply: Option<Box<RawValue>>,
}

/// The definition and the initial memory of a new saga.
struct NewSaga {
    definition: &'static str,
    version: i32,
    data: String,
}

impl Coordinator {
    /// Creates a coordinator of these definitions. It publishes events about its sagas to the topic `events`, and
    /// reads the replies of steps from the topic `replies`.
    pub fn new(
        db: Db,
        registry: Arc<Registry>,
        events: impl Into<Arc<str>>,
        replies: impl Into<String>,
    ) -> Self {
        let driver = Arc::new(Driver::new(registry, events.into()));
        Self { db, driver, replies: replies.into(), triggers: HashMap::new(), topics: Vec::new() }
    }

    /// Begins a saga on each message of type `M`. `saga` makes the initial memory from the message.
    ///
    /// # Panics
    /// Panics if the type already begins or cancels sagas.
    #[must_use]
    pub fn begin_on<M: Message, S: Saga>(self, saga: fn(M) -> S) -> Self {
        let begin = move |message: &Incoming| {
            let data = serde_json::to_string(&saga(message.data()?))?;
            Ok(NewSaga { definition: S::NAME, version: S::VERSION, data })
        };
        self.with::<M>(Trigger::Begins(Box::new(begin)))
    }

    /// Cancels a saga on each message of type `M`, as long as it can still be undone.
    ///
    /// # Panics
    /// Panics if the type already begins or cancels sagas.
    #[must_use]
    pub fn cancel_on<M: Message>(self) -> Self {
        self.with::<M>(Trigger::Cancels)
    }

    fn with<M: Message>(mut self, trigger: Trigger) -> Self {
        let previous = self.triggers.insert(M::TYPE, trigger);
        assert!(previous.is_none(), "{} already begins or cancels sagas", M::TYPE);
        self.topics.push((M::TYPE, M::TOPIC));
        self
    }

    /// Returns the timers, which wake sagas whose deadlines have passed. They must run beside the consumer.
    pub fn timers(&self) -> Timers {
        Timers { db: self.db.clone(), driver: Arc::clone(&self.driver) }
    }

    /// Returns the actions of operators.
    pub fn operator(&self) -> Operator {
        Operator { db: self.db.clone(), driver: Arc::clone(&self.driver) }
    }

    /// Converts a message to an input of its saga.
    fn input(&self, message: &Incoming) -> Result<SagaInput, Fault> {
        let envelope = message.envelope()?;
        let (begin, input, reply) = match self.triggers.get(message.kind()) {
            Some(Trigger::Begins(begin)) => (Some(begin(message)?), Input::Started, None),
            Some(Trigger::Cancels) => (None, Input::Cancel, None),
            None => {
                let (input, reply) = reply_to_input(message.data()?)?;
                (None, input, reply)
            }
        };
        Ok(SagaInput {
            saga_id: envelope.correlation_id,
            subject: envelope.subject.clone(),
            cause: message.cause()?,
            begin,
            input,
            reply,
        })
    }
}

impl BatchHandler for Coordinator {
    /// A saga begins once, by its id, and accepts each answer once. The engine's tests with repeated answers prove
    /// it.
    fn is_idempotent(&self) -> bool {
        true
    }

    fn handle<'a>(
        &'a self,
        uow: &'a mut UnitOfWork,
        messages: &'a [&'a Incoming],
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let inputs = messages.iter().map(|message| self.input(message)).collect::<Result<Vec<_>, _>>()?;
            self.driver.drive(uow, inputs).await
        })
    }
}

impl MessageRouter {
    /// Registers the coordinator for the messages that begin and cancel its sagas, and for the replies of their
    /// steps.
    ///
    /// # Panics
    /// Panics if one of the types already has a handler.
    #[must_use]
    pub fn sagas(self, coordinator: Coordinator) -> Self {
        let events = coordinator.topics.iter().map(|(kind, topic)| (*kind, (*topic).to_owned(), true));
        let replies = (StepReply::TYPE, coordinator.replies.clone(), false);
        let types: Vec<_> = events.chain([replies]).collect();
        self.register(types, Arc::new(coordinator))
    }
}

/// Converts a step's reply to an input. Also returns the result if the step is done.
fn reply_to_input(reply: StepReply) -> Result<(Input, Option<Box<RawValue>>), Fault> {
    let StepReply { step, direction, outcome, result } = reply;
    Ok(match (outcome, direction) {
        (ReplyOutcome::Refused, Direction::Undo) => {
            return Err(Fault::permanent(format!(
                "the undo of {step} was refused, but an undo cannot be refused"
            )));
        }
        (ReplyOutcome::Refused, Direction::Do) => {
            (Input::Refused { step, refusal: Refusal::from_json(result.get())? }, None)
        }
        (ReplyOutcome::Failing, direction) => {
            let failing: Failing = serde_json::from_str(result.get())?;
            (Input::Failing { step, direction, error: failing.error }, None)
        }
        (ReplyOutcome::Done, direction) => (Input::Done { step, direction }, Some(result)),
    })
}
