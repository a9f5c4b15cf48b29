//! Speaking to one service as the others do: commands and events by Kafka, and what it answers.

use std::time::Duration;

use futures::future::join_all;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use shared::envelope::{Command, Direction, Event, new_id};
use uuid::Uuid;

use super::Suite;

/// A message in its envelope, on its way.
pub struct Asked {
    topic: &'static str,
    key: String,
    body: String,
}

/// A command of a saga's step. The saga's id is the order's too.
pub fn ask<C: Command>(order: Uuid, step: &str, direction: Direction, command: &C) -> Asked {
    let body = json!({
        "id": new_id(), "type": C::TYPE, "source": "orchestrator", "subject": order, "dataVersion": "1.0.0",
        "timestamp": "2026-11-21T10:00:00Z", "correlationId": order, "data": command,
        "metadata": {"step": step, "direction": direction},
    });
    Asked { topic: C::TOPIC, key: order.to_string(), body: body.to_string() }
}

/// An event about an order that a saga of its own has placed.
pub fn event<E: Event>(order: Uuid, event: &E) -> Asked {
    let body = json!({
        "id": new_id(), "type": E::TYPE, "source": "order", "subject": order, "dataVersion": "1.0.0",
        "timestamp": "2026-11-21T10:00:00Z", "correlationId": order, "data": event,
    });
    Asked { topic: E::TOPIC, key: order.to_string(), body: body.to_string() }
}

impl Suite {
    /// Sends commands as one record batch, so that their service gets them as one batch, in this order; and waits
    /// until it has taken them.
    pub async fn told(&self, service: &str, commands: &[Asked]) {
        self.send_together(commands).await;
        self.caught_up(service).await;
    }

    /// Sends messages as one record batch, so that a service gets them as one batch, in this order.
    #[expect(clippy::disallowed_methods, reason = "the test plays the orchestrator's relay")]
    pub async fn send_together(&self, commands: &[Asked]) {
        let mut config = self.kafka().client();
        let producer: FutureProducer = config.set("linger.ms", "200").create().expect("a producer");
        let sent = commands.iter().map(|command| {
            let topic = self.kafka().name(command.topic);
            let producer = producer.clone();
            async move {
                let record = FutureRecord::to(&topic).key(&command.key).payload(&command.body).partition(0);
                producer.send(record, Duration::from_secs(10)).await.map(drop).map_err(|(error, _)| error)
            }
        });
        for sent in join_all(sent).await {
            sent.expect("sent");
        }
    }

    /// What a service has answered to a saga, in its order: type, step, direction, outcome, result. That a step is failing is
    /// no answer.
    pub async fn answers(&self, service: &str, saga: Uuid) -> Vec<Value> {
        let answers = format!(
            "select jsonb_build_object('type', body -> 'type', 'step', metadata -> 'step',
                                       'direction', metadata -> 'direction', 'outcome', metadata -> 'outcome',
                                       'result', coalesce(body -> 'data' -> 'result', body -> 'data'))::text
             from (select position, convert_from(body, 'UTF8')::jsonb as body,
                          convert_from(body, 'UTF8')::jsonb -> 'metadata' as metadata
                   from outbox where topic = '{service}.events' and key = '{saga}') as event
             where metadata ->> 'outcome' <> 'failing' order by position"
        );
        let answers = self.texts(service, &answers).await;
        answers.iter().map(|answer| serde_json::from_str(answer).expect("JSON")).collect()
    }
}
