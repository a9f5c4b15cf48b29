//! The coordinator of sagas. Its inputs are messages that begin or cancel sagas, events that answer steps, and deadlines. All
//! inputs take one path: find the sagas, apply the inputs to each, append to their logs, and send the decisions.

mod cache;
mod driver;
mod instance;
mod operator;
mod timers;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::value::RawValue;
use uuid::Uuid;

use self::driver::Driver;
pub use self::operator::Operator;
pub use self::timers::Timers;
use crate::db::Db;
use crate::envelope::{Cause, Direction, Message, Metadata, Outcome};
use crate::fault::Fault;
use crate::incoming::Incoming;
use crate::router::{BatchHandler, MessageRouter};
use crate::saga::engine::{Input, Kind, Refusal};
use crate::saga::participant::{StepAnswered, StepFailing};
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
/// let coordinator = Coordinator::new(db, registry, "trips.events")
///     .begin_on(|booked: TripBooked| BookTrip::from(booked))
///     .cancel_on::<TripCancelled>();
/// let timers = coordinator.timers();
/// let router = MessageRouter::new().sagas(coordinator);
/// # }
/// ```
pub struct Coordinator {
    db: Db,
    driver: Arc<Driver>,
    triggers: HashMap<&'static str, Trigger>,
    topics: Vec<(&'static str, &'static str)>,
    last_steps: HashSet<&'static str>,
}

/// Makes the new saga from the message that begins it.
type BeginSaga = dyn Fn(&Incoming) -> Result<NewSaga, Fault> + Send + Sync;

/// The effect of a message type on its saga.
enum Trigger {
    Begins(Box<BeginSaga>),
    Cancels,
    /// It cancels the saga, and bars one that has not begun.
    CancelsOrBars(Box<BeginSaga>),
}

fn begin<M: Message, S: Saga>(saga: fn(M) -> S) -> Box<BeginSaga> {
    Box::new(move |message: &Incoming| {
        let data = serde_json::to_string(&saga(message.data()?))?;
        Ok(NewSaga { definition: S::NAME, version: S::VERSION, data })
    })
}

/// An input for a saga.
struct SagaInput {
    saga_id: Uuid,
    subject: String,
    cause: Cause,
    /// The new saga, if this input begins one.
    begin: Option<NewSaga>,
    input: Input,
    /// The answer of a step, if the input is one.
    answer: Option<StepAnswer>,
}

/// The answer of a step, as it came.
struct StepAnswer {
    /// The topic that it came on.
    topic: String,
    /// The data of a reply. A refusal and an error are in the input.
    reply: Option<Box<RawValue>>,
}

/// The definition and the initial memory of a new saga.
struct NewSaga {
    definition: &'static str,
    version: i32,
    data: String,
}

impl Coordinator {
    /// Creates a coordinator of these definitions. It publishes events about its sagas to the topic `events`.
    pub fn new(db: Db, registry: Arc<Registry>, events: impl Into<Arc<str>>) -> Self {
        let last_steps = registry.last_steps();
        let driver = Arc::new(Driver::new(registry, events.into()));
        Self { db, driver, triggers: HashMap::new(), topics: Vec::new(), last_steps }
    }

    /// Begins a saga on each message of type `M`. `saga` makes the initial memory from the message.
    ///
    /// # Panics
    /// Panics if the type already begins or cancels sagas.
    #[must_use]
    pub fn begin_on<M: Message, S: Saga>(self, saga: fn(M) -> S) -> Self {
        self.with::<M>(Trigger::Begins(begin(saga)))
    }

    /// Cancels a saga on each message of type `M`, as long as it can still be undone.
    ///
    /// # Panics
    /// Panics if the type already begins or cancels sagas.
    #[must_use]
    pub fn cancel_on<M: Message>(self) -> Self {
        self.with::<M>(Trigger::Cancels)
    }

    /// Does the same as [`Coordinator::cancel_on`], and also cancels a saga that has not begun. Its first message may be lost,
    /// for example with records that the broker has deleted. `saga` makes the memory of such a saga from the cancellation. It
    /// needs only what the closing step of a cancelled saga takes, because nothing else is asked. If the first message comes
    /// after all, the saga exists, and the message has no effect.
    ///
    /// # Panics
    /// Panics if the type already begins or cancels sagas, or if the plan cannot be cancelled.
    #[must_use]
    pub fn cancel_or_bar_on<M: Message, S: Saga>(self, saga: fn(M) -> S) -> Self {
        let steps = S::plan().shape().steps;
        let can_be_cancelled = steps.iter().any(|step| step.kind == Kind::Cancelling);
        assert!(can_be_cancelled, "the plan of {} has no step for a cancelled saga", S::NAME);
        self.with::<M>(Trigger::CancelsOrBars(begin(saga)))
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
        Operator { driver: Arc::clone(&self.driver) }
    }

    /// Converts a message to an input of its saga.
    fn input(&self, message: &Incoming) -> Result<SagaInput, Fault> {
        let envelope = message.envelope()?;
        let (subject, cause) = (envelope.subject.clone(), message.cause()?);
        let input =
            |saga_id, begin, input, answer| SagaInput { saga_id, subject, cause, begin, input, answer };
        Ok(match self.triggers.get(message.kind()) {
            Some(Trigger::Begins(begin)) => {
                input(envelope.correlation_id, Some(begin(message)?), Input::Started, None)
            }
            Some(Trigger::CancelsOrBars(begin)) => {
                input(envelope.correlation_id, Some(begin(message)?), Input::Cancel, None)
            }
            Some(Trigger::Cancels) => input(envelope.correlation_id, None, Input::Cancel, None),
            None => {
                let saga_id = envelope.metadata.saga_id.ok_or_else(|| incomplete("saga"))?;
                let (answered, reply) = answer_to_input(message, &envelope.metadata)?;
                let answer = StepAnswer { topic: message.topic.clone(), reply };
                input(saga_id, None, answered, Some(answer))
            }
        })
    }
}

impl BatchHandler for Coordinator {
    /// A saga begins once, by its id, and accepts each answer once. The engine's tests with repeated answers prove
    /// it.
    fn is_idempotent(&self) -> bool {
        true
    }

    /// Nobody waits for an answer while other steps of its saga are open, because nothing is decided then. Behind the last
    /// steps only the end of the saga is left.
    fn may_wait(&self, messages: &[&Incoming]) -> bool {
        let mut answered: HashMap<Uuid, HashSet<(&str, Direction)>> = HashMap::new();
        for message in messages {
            let metadata = message.envelope.as_ref().map(|envelope| &envelope.metadata);
            let Some(Metadata {
                saga_id: Some(saga_id), step: Some(step), direction: Some(direction), ..
            }) = metadata
            else {
                return false;
            };
            answered.entry(*saga_id).or_default().insert((step, *direction));
        }
        answered.iter().all(|(saga_id, answered)| {
            let last =
                answered.iter().all(|(step, way)| *way == Direction::Do && self.last_steps.contains(step));
            last || self.driver.has_open_beside(*saga_id, answered)
        })
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
    /// Registers the coordinator for the messages that begin and cancel its sagas, and for the events that answer their
    /// steps.
    ///
    /// # Panics
    /// Panics if one of the types already has a handler, or if the router has a coordinator already.
    #[must_use]
    pub fn sagas(self, coordinator: Coordinator) -> Self {
        let events = coordinator.topics.iter().map(|(kind, topic)| (*kind, (*topic).to_owned(), true));
        let types: Vec<_> = events.collect();
        let answers = coordinator.driver.registry.answer_topics();
        self.register(types, Arc::new(coordinator)).answers(answers)
    }
}

/// Converts an event that answers a step to an input. Also returns the reply if the step is done.
fn answer_to_input(message: &Incoming, metadata: &Metadata) -> Result<(Input, Option<Box<RawValue>>), Fault> {
    let step = metadata.step.clone().ok_or_else(|| incomplete("step"))?;
    let direction = metadata.direction.ok_or_else(|| incomplete("direction"))?;
    let outcome = metadata.outcome.ok_or_else(|| incomplete("outcome"))?;
    let data = match message.kind() {
        StepAnswered::TYPE => message.data::<StepAnswered>()?.result,
        _ => message.envelope()?.data.clone(),
    };
    Ok(match (outcome, direction) {
        (Outcome::Refused, Direction::Undo) => {
            return Err(Fault::permanent(format!(
                "the undo of {step} was refused, but an undo cannot be refused"
            )));
        }
        (Outcome::Refused, Direction::Do) => {
            (Input::Refused { step, refusal: Refusal::from_json(data.get())? }, None)
        }
        (Outcome::Failing, direction) => {
            let failing: StepFailing = message.data()?;
            (Input::Failing { step, direction, error: failing.error }, None)
        }
        (Outcome::Done, direction) => (Input::Done { step, direction }, Some(data)),
    })
}

fn incomplete(member: &str) -> Fault {
    Fault::permanent(format!("the event answers a step, but its metadata does not name the {member}"))
}
