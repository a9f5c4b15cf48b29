//! Messages that can't be handled, and what an operator does about them over HTTP.

use rdkafka::message::OwnedHeaders;
use reqwest::{Method, Url};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Order, Suite};

/// A message as somebody else's service might write it.
pub fn message(kind: &str, subject: &str, correlation: Uuid, data: Value) -> Value {
    json!({
        "id": shared::envelope::new_id(), "type": kind, "source": "foreign", "subject": subject,
        "dataVersion": "1.0.0", "timestamp": "2026-11-21T10:00:00Z", "correlationId": correlation, "data": data,
    })
}

pub fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

impl Suite {
    pub async fn produce(&self, topic: &str, key: &str, value: &[u8]) {
        self.send(&self.kafka().name(topic), key.as_bytes(), value, OwnedHeaders::new()).await;
    }

    /// Sends a request about a parked key, and returns the status with the answer.
    async fn parked(
        &self,
        method: Method,
        service: &'static str,
        key: &str,
        rest: &[&str],
        body: Option<&str>,
    ) -> (u16, Value) {
        let mut url = Url::parse(&self.url(service)).expect("a URL");
        url.path_segments_mut().expect("segments").push("parked").push(key).extend(rest);
        // An edit has the operator's name here, because its body is the message.
        if method == Method::PUT {
            url.query_pairs_mut().append_pair("by", "ada");
        }
        let mut request = self.client.request(method, url);
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body.to_owned());
        }
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    pub async fn retry(&self, service: &'static str, key: &str) -> (u16, Value) {
        self.parked(Method::POST, service, key, &["retry"], None).await
    }

    pub async fn edit(&self, service: &'static str, key: &str, id: &Value, body: &str) -> (u16, Value) {
        self.parked(Method::PUT, service, key, &["messages", &id.to_string()], Some(body)).await
    }

    /// Skips a parked message of an order.
    pub async fn skip(&self, service: &'static str, order: Order, id: &Value) {
        let (key, body) = (order.id.to_string(), json!({"reason": "it is forged", "by": "ada"}));
        let path = ["messages", &id.to_string(), "skip"];
        let (status, answer) = self.parked(Method::POST, service, &key, &path, Some(&body.to_string())).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// Waits until a message of a key is parked, and returns the first. Others may wait behind it.
    pub async fn first_parked(&self, service: &'static str, key: &str) -> Value {
        let first = async |suite: &Self| {
            let (status, page) = suite.parked(Method::GET, service, key, &[], None).await;
            page["messages"].get(0).filter(|_| status == 200).cloned()
        };
        let what = format!("a message of {key} to be parked");
        self.until(&what, async |suite| first(suite).await.is_some()).await;
        first(self).await.expect("it was there")
    }

    /// Waits until so many messages of a key are parked, and returns them.
    pub async fn parked_messages(&self, service: &'static str, key: &str, count: usize) -> Vec<Value> {
        self.until(&format!("{count} messages of {key} to be parked"), async |suite| {
            let (status, page) = suite.parked(Method::GET, service, key, &[], None).await;
            status == 200 && page["messages"].as_array().is_some_and(|messages| messages.len() == count)
        })
        .await;
        let (_, page) = self.parked(Method::GET, service, key, &[], None).await;
        page["messages"].as_array().expect("messages").clone()
    }
}
