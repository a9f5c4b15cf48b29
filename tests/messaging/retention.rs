//! What the order service forgets in time, and what it does not. The core's own memory is proven in `shared/tests`.

use reqwest::StatusCode;
use serde_json::Value;

use crate::harness::{Suite, order};

async fn under_key(suite: &Suite, key: &str) -> Value {
    let url = format!("{}/orders", suite.url("order"));
    let answer = suite.client.post(url).header("Idempotency-Key", key).json(&order()).send().await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    answer.json::<Value>().await.expect("JSON")["id"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_is_forgotten_after_a_day_and_a_younger_one_is_not() {
    let mut suite = Suite::start().await;
    let (forgotten, remembered) = (under_key(&suite, "old").await, under_key(&suite, "young").await);
    suite
        .execute(
            "order",
            "update idempotency_key set created_at = now() - interval '25 hours' where key = 'old'",
        )
        .await;
    suite.crash("order");
    suite.ready("order").await;
    suite
        .until("the old key to be forgotten", async |suite| {
            suite.number("order", "select count(*) from idempotency_key where key = 'old'").await == 0
        })
        .await;
    assert_ne!(under_key(&suite, "old").await, forgotten, "the key begins a new order");
    assert_eq!(under_key(&suite, "young").await, remembered);
}
