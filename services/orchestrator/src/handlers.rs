//! What reaches the orchestrator: orders that begin a saga, replies of its steps, and deadlines. All take one way:
//! find the sagas, apply the inputs to each, append to their logs, and send what was decided.

mod drive;
mod live;
mod operator;
mod timers;

use std::sync::Arc;

use schemas::order::{CancellationRequested, OrderCreated};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use shared::consumer::{BatchHandler, BoxFuture, Incoming, Table};
use shared::db::Db;
use shared::envelope::{Cause, Direction, Message};
use shared::fault::Fault;
use shared::inbox::Claimed;
use shared::steps::{ReplyOutcome, StepReply};
use tracing::debug;
use uuid::Uuid;

use self::drive::Driver;
pub(crate) use self::operator::Operator;
pub(crate) use self::timers::Timers;
use crate::engine::{Input, Refusal};
use crate::plan::Saga;
use crate::sagas::{PlaceOrder, Registry};

/// The messages that the orchestrator takes, its timers, and who acts for operators.
pub(crate) fn all(db: Db, registry: Arc<Registry>) -> (Table, Timers, Operator) {
    let types = [
        (OrderCreated::TYPE, OrderCreated::TOPIC),
        (CancellationRequested::TYPE, CancellationRequested::TOPIC),
        (StepReply::TYPE, StepReply::TOPIC),
    ];
    let driver = Arc::new(Driver::new(registry));
    let table = Table::new().on(&types, Arc::new(Sagas { driver: Arc::clone(&driver) }));
    let operator = Operator { db: db.clone(), driver: Arc::clone(&driver) };
    (table, Timers { db, driver }, operator)
}

/// An input for a saga.
struct Change {
    saga_id: Uuid,
    subject: String,
    cause: Cause,
    /// How the saga begins, if it does.
    begin: Option<Begin>,
    input: Input,
    /// What the step replied.
    reply: Option<Box<RawValue>>,
}

/// The definition and the first memory of a new saga.
struct Begin {
    definition: &'static str,
    version: i32,
    data: String,
}

struct Sagas {
    driver: Arc<Driver>,
}

impl BatchHandler for Sagas {
    /// A saga begins once, by its id, and hears each answer once: the engine's histories with repeated answers say so.
    fn is_idempotent(&self) -> bool {
        true
    }

    fn handle<'a>(
        &'a self,
        claimed: &'a mut Claimed,
        messages: &'a [&'a Incoming],
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let changes = messages.iter().filter_map(|message| change(message).transpose());
            let changes = changes.collect::<Result<Vec<_>, _>>()?;
            self.driver.drive(claimed, changes).await
        })
    }
}

/// What a message means for its saga, if it means anything.
fn change(message: &Incoming) -> Result<Option<Change>, Fault> {
    let envelope = message.envelope()?;
    let cause = message.cause()?;
    let subject = envelope.subject.clone();
    if message.kind() == OrderCreated::TYPE {
        let order: OrderCreated = message.data()?;
        let data = serde_json::to_string(&PlaceOrder::of(order))?;
        let begin = Begin { definition: PlaceOrder::NAME, version: PlaceOrder::VERSION, data };
        let saga_id = envelope.correlation_id;
        return Ok(Some(Change {
            saga_id,
            subject,
            cause,
            begin: Some(begin),
            input: Input::Started,
            reply: None,
        }));
    }
    if message.kind() == CancellationRequested::TYPE {
        let saga_id = envelope.correlation_id;
        return Ok(Change { saga_id, subject, cause, begin: None, input: Input::Cancel, reply: None });
    }
    let reply: StepReply = message.data()?;
    let (input, reply) = match (reply.outcome, reply.direction) {
        (ReplyOutcome::Refused, Direction::Undo) => {
            return Err(Fault::permanent(format!(
                "the undo of {} was refused; an undo can't be",
                reply.step
            )));
        }
        (ReplyOutcome::Refused, Direction::Do) => {
            let refusal = refusal(reply.result.get())?;
            (Input::Refused { step: reply.step, refusal }, None)
        }
        // The step is open as before: its participant goes on trying, and an answer follows.
        (ReplyOutcome::Failing, _) => {
            let (saga, error) = (envelope.correlation_id, reply.result.get());
            debug!(%saga, step = reply.step, error, "a step gets no answer from the outside yet");
            return Ok(None);
        }
        (ReplyOutcome::Done, direction) => (Input::Done { step: reply.step, direction }, Some(reply.result)),
    };
    Ok(Some(Change { saga_id: envelope.correlation_id, subject, cause, begin: None, input, reply }))
}

/// A refusal is an object with a `code`; what else it has is the detail.
pub(crate) fn refusal(json: &str) -> Result<Refusal, Fault> {
    #[derive(Deserialize)]
    struct Wire {
        code: String,
        #[serde(flatten)]
        rest: serde_json::Map<String, Value>,
    }
    let wire: Wire = serde_json::from_str(json)?;
    let detail = (!wire.rest.is_empty()).then_some(Value::Object(wire.rest));
    Ok(Refusal { code: wire.code, detail })
}
