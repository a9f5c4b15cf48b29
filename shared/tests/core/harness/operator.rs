//! What an operator sees of parked messages, and does about them over HTTP.

use rdkafka::message::Message;
use reqwest::{Method, Url};
use serde_json::{Value, json};
use uuid::Uuid;

use super::toy::Toy;

impl Toy {
    /// Sends a request about a parked key, and returns the status with the answer.
    async fn about_parked(
        &self,
        method: Method,
        key: &str,
        rest: &[&str],
        body: Option<&str>,
    ) -> (u16, Value) {
        let mut url = Url::parse(&format!("http://127.0.0.1:{}", self.process.port)).expect("a URL");
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

    pub async fn retry(&self, key: &str) -> (u16, Value) {
        self.about_parked(Method::POST, key, &["retry"], None).await
    }

    pub async fn edit(&self, key: &str, id: &Value, body: &str) -> (u16, Value) {
        self.about_parked(Method::PUT, key, &["messages", &id.to_string()], Some(body)).await
    }

    pub async fn skip(&self, key: &str, id: &Value) -> (u16, Value) {
        let body = json!({"reason": "a test of theirs", "by": "ada"}).to_string();
        self.about_parked(Method::POST, key, &["messages", &id.to_string(), "skip"], Some(&body)).await
    }

    /// Skips or retries many parked messages. Returns the status with the answer.
    pub async fn in_bulk(&self, act: &str, selection: Value) -> (u16, Value) {
        let url = format!("http://127.0.0.1:{}/parked-messages/{act}", self.process.port);
        let mut body = json!({"reason": "rubbish of a test", "by": "ada"});
        let selection = selection.as_object().expect("an object").clone();
        body.as_object_mut().expect("an object").extend(selection);
        let answer = self.client.post(url).json(&body).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    /// The acts of operators, as the service shows them, the newest first.
    pub async fn acts(&self) -> Vec<Value> {
        let (ok, text) = self.get(&self.process, "/operator-acts").await.expect("an answer");
        assert!(ok, "{text}");
        let page: Value = serde_json::from_str(&text).expect("JSON");
        page["acts"].as_array().expect("acts").clone()
    }

    /// States the outcome of a step's open call. Returns the status with the answer.
    pub async fn resolve(&self, saga: Uuid, step: &str, stated: Value) -> (u16, Value) {
        let url = format!("http://127.0.0.1:{}/steps/{saga}/{step}/resolution", self.process.port);
        let mut body = json!({"reason": "I have asked him", "by": "ada"});
        body.as_object_mut().expect("an object").extend(stated.as_object().expect("an object").clone());
        let answer = self.client.post(url).json(&body).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    /// The keys that are parked.
    pub async fn parked_keys(&self) -> Value {
        let (status, text) = self.get(&self.process, "/parked").await.expect("an answer");
        assert!(status, "{text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Waits until so many messages of a key are parked, and returns them.
    pub async fn parked_messages(&self, key: &str, count: usize) -> Vec<Value> {
        self.until(&format!("{count} messages of {key} to be parked"), async || {
            let (status, page) = self.about_parked(Method::GET, key, &[], None).await;
            status == 200 && page["messages"].as_array().is_some_and(|messages| messages.len() == count)
        })
        .await;
        let (_, page) = self.about_parked(Method::GET, key, &[], None).await;
        page["messages"].as_array().expect("messages").clone()
    }

    /// The copies of a key's parked messages, in order.
    pub fn copies(&self, key: &str) -> Vec<Value> {
        let topic = self.kafka().name("loyalty.parked");
        let records = self.records();
        let ours = records
            .iter()
            .filter(|record| record.topic() == topic && record.key().is_some_and(|it| it == key.as_bytes()));
        let bodies = ours.filter_map(|record| record.payload());
        bodies.map(|body| serde_json::from_slice(body).expect("an envelope")).collect()
    }
}
