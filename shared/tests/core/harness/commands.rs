//! Speaking to the service as a coordinator of sagas does: commands of steps, and what it answers.

use serde_json::{Value, json};
use shared::envelope::{Command, Direction, Message, Metadata, Outcome, new_id};
use shared::saga::participant::StepAnswered;
use uuid::Uuid;

use super::toy::Toy;
use crate::loyalty::messages::{EVENTS, PointsGranted};

/// A message in its envelope, on its way: mostly a command.
#[derive(Clone)]
pub struct Asked {
    pub id: Uuid,
    pub(super) topic: &'static str,
    pub(super) key: String,
    pub(super) body: String,
}

impl Asked {
    /// The same message in a record with this key, which need not be its subject.
    pub fn under(self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self }
    }
}

/// A command of a saga's step. The saga's id is the member's too.
pub fn ask<C: Command>(saga: Uuid, step: &str, direction: Direction, command: &C) -> Asked {
    ask_as(new_id(), saga, step, direction, command)
}

/// [`ask`] in a message with this id.
pub fn ask_as<C: Command>(id: Uuid, saga: Uuid, step: &str, direction: Direction, command: &C) -> Asked {
    let body = json!({
        "id": id, "type": C::TYPE, "source": "coordinator", "subject": saga, "dataVersion": "1.0.0",
        "timestamp": "2026-11-21T10:00:00Z", "correlationId": saga, "data": command,
        "metadata": {"step": step, "direction": direction},
    });
    Asked { id, topic: C::TOPIC, key: saga.to_string(), body: body.to_string() }
}

/// An id as it was made some days ago.
pub fn made_days_ago(days: u32) -> Uuid {
    let now = new_id().as_u128();
    Uuid::from_u128(now - ((u128::from(days) * 86_400_000) << 80))
}

/// A message with this id. It does not belong to a saga.
pub fn say<M: Message>(id: Uuid, subject: Uuid, said: &M) -> Asked {
    let mut body = message(M::TYPE, &subject.to_string(), subject, json!(said));
    body["id"] = json!(id);
    Asked { id, topic: M::TOPIC, key: subject.to_string(), body: body.to_string() }
}

/// A message as somebody else's service might write it.
pub fn message(kind: &str, subject: &str, correlation: Uuid, data: Value) -> Value {
    json!({
        "id": new_id(), "type": kind, "source": "foreign", "subject": subject, "dataVersion": "1.0.0",
        "timestamp": "2026-11-21T10:00:00Z", "correlationId": correlation, "data": data,
    })
}

/// Directions and outcomes of answers.
pub fn outcomes(answers: &[Value]) -> Vec<(&str, &str)> {
    answers
        .iter()
        .map(|answer| {
            (
                answer["direction"].as_str().expect("a direction"),
                answer["outcome"].as_str().expect("an outcome"),
            )
        })
        .collect()
}

/// The answer to a saga that an event is, if it is one.
fn answer(saga: Uuid, event: &str) -> Option<Value> {
    let event: Value = serde_json::from_str(event).expect("JSON");
    let Metadata { saga_id, step, direction, outcome, .. } =
        serde_json::from_value(event["metadata"].clone()).expect("metadata");
    if saga_id != Some(saga) || outcome == Some(Outcome::Failing) {
        return None;
    }
    let result = if event["type"] == StepAnswered::TYPE { &event["data"]["result"] } else { &event["data"] };
    Some(json!({"step": step, "direction": direction, "outcome": outcome?, "result": result}))
}

impl Toy {
    /// Sends commands as one record batch, so that the service gets them as one batch, in this order. Waits until it has
    /// taken them: the offsets of a batch are committed after its transaction.
    pub async fn told(&self, commands: &[Asked]) {
        self.send_together(commands).await;
        self.commands_are_taken().await;
    }

    /// What the service has answered to a saga, in its order: step, direction, outcome, result. The result is the data of
    /// the event that first answered the step. A message that a step is failing does not count as an answer.
    pub async fn answers(&self, saga: Uuid) -> Vec<Value> {
        let events = format!(
            "select convert_from(body, 'UTF8') from outbox where topic = '{EVENTS}' and key = '{saga}'
             order by position"
        );
        let events = self.texts(&events).await;
        events.iter().filter_map(|event| answer(saga, event)).collect()
    }

    /// The types of the events that the service has published about a member, in their order.
    pub async fn published(&self, member: Uuid) -> Vec<String> {
        let types = format!(
            "select convert_from(body, 'UTF8')::json ->> 'type' from outbox
             where topic = '{EVENTS}' and key = '{member}' order by position"
        );
        self.texts(&types).await
    }

    /// How many events a message has caused.
    pub async fn caused_by(&self, message: Uuid) -> i64 {
        let events = format!(
            "select count(*) from outbox where topic = '{EVENTS}'
             and convert_from(body, 'UTF8')::json ->> 'causationId' = '{message}'"
        );
        self.number(&events).await
    }

    /// How many events the service has published about points that were granted to a member.
    pub async fn published_grants(&self, member: Uuid) -> i64 {
        let events = format!(
            "select count(*) from outbox where topic = '{EVENTS}' and key = '{member}'
             and convert_from(body, 'UTF8')::json ->> 'type' = '{}'",
            PointsGranted::TYPE
        );
        self.number(&events).await
    }
}
