//! Speaking to the service as a coordinator of sagas does: commands of steps, and what it answers.

use serde_json::{Value, json};
use shared::envelope::{Command, Direction, new_id};
use uuid::Uuid;

use super::toy::Toy;

/// A command in its envelope, on its way.
pub struct Asked {
    pub id: Uuid,
    pub(super) topic: &'static str,
    pub(super) key: String,
    pub(super) body: String,
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

impl Toy {
    /// Sends commands as one record batch, so that the service gets them as one batch, in this order. Waits until it has
    /// taken them.
    pub async fn told(&self, commands: &[Asked]) {
        self.send_together(commands).await;
        let ids: Vec<String> = commands.iter().map(|command| format!("'{}'", command.id)).collect();
        let taken = format!("select count(*) from inbox where message_id in ({})", ids.join(", "));
        let all = commands.len() as i64;
        self.until("the commands to be taken", async || self.number(&taken).await == all).await;
    }

    /// What the service has answered to a saga, in its order: step, direction, outcome, result. That a step is failing is
    /// no answer.
    pub async fn answers(&self, saga: Uuid) -> Vec<Value> {
        let answers = format!(
            "select convert_from(body, 'UTF8')::json ->> 'data' from outbox
             where topic = 'orchestrator.replies' and key = '{saga}'
               and convert_from(body, 'UTF8')::json -> 'data' ->> 'outcome' <> 'failing' order by position"
        );
        let answers = self.texts(&answers).await;
        answers.iter().map(|answer| serde_json::from_str(answer).expect("JSON")).collect()
    }

    /// How many events the service has published about points that were granted to a member.
    pub async fn published_grants(&self, member: Uuid) -> i64 {
        let events =
            format!("select count(*) from outbox where topic = 'loyalty.events' and key = '{member}'");
        self.number(&events).await
    }
}
