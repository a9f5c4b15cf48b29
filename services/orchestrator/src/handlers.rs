//! What reaches the orchestrator: orders that begin a saga, replies of its steps, and deadlines. All take one way:
//! find the sagas, apply the inputs to each, append to their logs, and send what was decided.

mod drive;
mod live;
mod operator;
mod timers;

use std::sync::Arc;

use schemas::order::{CancellationRequested, OrderCreated, ReturnRequested};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use shared::consumer::{BatchHandler, BoxFuture, Incoming, Table};
use shared::db::Db;
use shared::envelope::{Cause, Direction, Message};
use shared::fault::Fault;
use shared::inbox::Claimed;
use shared::steps::{Failing, ReplyOutcome, StepReply};
use uuid::Uuid;

use self::drive::Driver;
pub(crate) use self::operator::Operator;
pub(crate) use self::timers::Timers;
use crate::engine::{Input, Refusal};
use crate::plan::Saga;
use crate::sagas::{PlaceOrder, Registry, ReturnOrder};

/// The messages that the orchestrator takes, its timers, and who acts for operators.
pub(crate) fn all(db: Db, registry: Arc<Registry>) -> (Table, Timers, Operator) {
    let types = [
        (OrderCreated::TYPE, OrderCreated::TOPIC),
        (CancellationRequested::TYPE, CancellationRequested::TOPIC),
        (ReturnRequested::TYPE, ReturnRequested::TOPIC),
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
            let changes = messages.iter().map(|message| change(message)).collect::<Result<Vec<_>, _>>()?;
            self.driver.drive(claimed, changes).await
        })
    }
}

/// What a message means for its saga.
fn change(message: &Incoming) -> Result<Change, Fault> {
    let envelope = message.envelope()?;
    let (begin, input, reply) = match message.kind() {
        OrderCreated::TYPE => (Some(begin(&PlaceOrder::of(message.data()?))?), Input::Started, None),
        ReturnRequested::TYPE => (Some(begin(&ReturnOrder::of(message.data()?))?), Input::Started, None),
        CancellationRequested::TYPE => (None, Input::Cancel, None),
        _ => {
            let (input, reply) = answer(message.data()?)?;
            (None, input, reply)
        }
    };
    Ok(Change {
        saga_id: envelope.correlation_id,
        subject: envelope.subject.clone(),
        cause: message.cause()?,
        begin,
        input,
        reply,
    })
}

fn begin<S: Saga>(saga: &S) -> Result<Begin, Fault> {
    Ok(Begin { definition: S::NAME, version: S::VERSION, data: serde_json::to_string(saga)? })
}

/// What a step's reply means, and the reply if the step is done.
fn answer(reply: StepReply) -> Result<(Input, Option<Box<RawValue>>), Fault> {
    let StepReply { step, direction, outcome, result } = reply;
    Ok(match (outcome, direction) {
        (ReplyOutcome::Refused, Direction::Undo) => {
            return Err(Fault::permanent(format!("the undo of {step} was refused; an undo can't be")));
        }
        (ReplyOutcome::Refused, Direction::Do) => {
            (Input::Refused { step, refusal: refusal(result.get())? }, None)
        }
        (ReplyOutcome::Failing, direction) => {
            let failing: Failing = serde_json::from_str(result.get())?;
            (Input::Failing { step, direction, error: failing.error }, None)
        }
        (ReplyOutcome::Done, direction) => (Input::Done { step, direction }, Some(result)),
    })
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
