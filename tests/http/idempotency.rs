//! `Idempotency-Key` on `POST /orders`.

use local::Signal;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Suite, order};

async fn post(suite: &Suite, key: &str, body: &Value) -> (StatusCode, Value, bool) {
    let url = format!("{}/orders", suite.url("order"));
    let request = suite.client.post(url).header("Idempotency-Key", key).json(body);
    let answer = request.send().await.expect("an answer");
    let replayed = answer.headers().contains_key("idempotency-replayed");
    (answer.status(), answer.json().await.expect("JSON"), replayed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_gets_the_first_answer_and_places_nothing() {
    let mut suite = Suite::start().await;
    let (status, first, replayed) = post(&suite, "k-1", &order()).await;
    assert_eq!((status, replayed), (StatusCode::ACCEPTED, false));
    // The sequence of the members does not matter.
    let text = order().to_string();
    let turned: Value = serde_json::from_str(&text).expect("JSON");
    let again = post(&suite, "k-1", &turned).await;
    assert_eq!(again, (StatusCode::ACCEPTED, first.clone(), true));
    suite.comes_to_rest().await;
    suite.crash("order");
    suite.ready("order").await;
    assert_eq!(
        post(&suite, "k-1", &order()).await,
        (StatusCode::ACCEPTED, first, true),
        "it outlives a crash"
    );
    assert_eq!(suite.number("order", "select count(*) from orders").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_can_not_be_used_for_another_order() {
    let suite = Suite::start().await;
    post(&suite, "k-1", &order()).await;
    let mut other = order();
    other["items"][0]["quantity"] = json!(3);
    let (status, problem, _) = post(&suite, "k-1", &other).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(problem["type"], "/problems/idempotency-key-reused");
    suite.comes_to_rest().await;
    assert_eq!(suite.number("order", "select count(*) from orders").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_at_once_place_one_order() {
    let suite = Suite::start().await;
    let body = order();
    let answers = futures::future::join_all((0..20).map(|_| post(&suite, "k-1", &body))).await;
    let accepted = answers.iter().filter(|(status, ..)| *status == StatusCode::ACCEPTED).count();
    assert!(accepted >= 1, "{answers:?}");
    assert!(
        answers.iter().all(|(status, ..)| [StatusCode::ACCEPTED, StatusCode::CONFLICT].contains(status)),
        "{answers:?}"
    );
    suite.comes_to_rest().await;
    assert_eq!(suite.number("order", "select count(*) from orders").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_while_the_first_still_waits_is_told_so() {
    let mut suite = Suite::start().await;
    // The order can't settle, so the request that waits for it is still open.
    suite.process("payment").signal(Signal::STOP);
    let url = format!("{}/orders", suite.url("order"));
    let waiting =
        suite.client.post(&url).header("Idempotency-Key", "k-1").header("Prefer", "wait=60").json(&order());
    let waiting = waiting.send();
    let body = order();
    let repeat = async {
        suite
            .until("the first to be on record", async |suite| {
                suite.number("order", "select count(*) from orders").await == 1
            })
            .await;
        let told = post(&suite, "k-1", &body).await;
        suite.processes_go_on("payment");
        told
    };
    let (waited, (status, problem, _)) = futures::future::join(waiting, repeat).await;
    assert_eq!((status, &problem["type"]), (StatusCode::CONFLICT, &json!("/problems/request-running")));
    assert_eq!(waited.expect("an answer").status(), StatusCode::CREATED);
    suite.comes_to_rest().await;
}
