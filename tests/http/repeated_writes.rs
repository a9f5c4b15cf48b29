//! `Idempotency-Key` on the writes that are not idempotent by nature: receipts, and what operators ask for.
//! `idempotency` has `POST /orders`.

use futures::future::join_all;
use local::Signal;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Suite, order};

struct Answer {
    status: StatusCode,
    body: Value,
    replayed: bool,
}

impl Suite {
    async fn keyed(&self, service: &'static str, path: &str, key: Option<&str>, body: &Value) -> Answer {
        let mut request = self.client.post(format!("{}{path}", self.url(service))).json(body);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let answer = request.send().await.expect("an answer");
        let replayed = answer.headers().contains_key("idempotency-replayed");
        Answer { status: answer.status(), replayed, body: answer.json().await.expect("JSON") }
    }

    async fn on_hand(&self, sku: &str) -> i64 {
        self.number("inventory", &format!("select on_hand from product where sku = '{sku}'")).await
    }
}

const RECEIPTS: &str = "/products/lamp/receipts";

#[tokio::test(flavor = "multi_thread")]
async fn pieces_are_received_once_however_often_their_receipt_is_sent() {
    let mut suite = Suite::start().await;
    let before = suite.on_hand("lamp").await;
    let hundred = json!({"quantity": 100});
    let first = suite.keyed("inventory", RECEIPTS, Some("r-1"), &hundred).await;
    assert_eq!((first.status, first.replayed), (StatusCode::CREATED, false));
    let again = suite.keyed("inventory", RECEIPTS, Some("r-1"), &hundred).await;
    assert_eq!((again.status, &again.body, again.replayed), (StatusCode::CREATED, &first.body, true));
    assert_eq!(suite.on_hand("lamp").await, before + 100);

    // Requests that come at once wait for each other.
    let body = json!({"quantity": 7});
    let answers = join_all((0..20).map(|_| suite.keyed("inventory", RECEIPTS, Some("r-2"), &body))).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::CREATED));
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    assert_eq!(suite.on_hand("lamp").await, before + 107);

    // Another request is not taken for the first one.
    for (path, body) in [(RECEIPTS, json!({"quantity": 99})), ("/products/mug/receipts", hundred.clone())] {
        let other = suite.keyed("inventory", path, Some("r-1"), &body).await;
        assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(other.body["type"], "/problems/idempotency-key-reused");
    }
    // What was refused is decided anew.
    let unknown = "/products/ghost/receipts";
    assert_eq!(suite.keyed("inventory", unknown, Some("r-3"), &hundred).await.status, StatusCode::NOT_FOUND);
    suite.stock("ghost", 100, 1).await;
    assert_eq!(suite.keyed("inventory", unknown, Some("r-3"), &hundred).await.status, StatusCode::CREATED);
    // Without a key, each request counts.
    for _ in 0..2 {
        suite.keyed("inventory", RECEIPTS, None, &hundred).await;
    }
    assert_eq!(suite.on_hand("lamp").await, before + 307);
    let bad = suite.keyed("inventory", RECEIPTS, Some(&"k".repeat(256)), &hundred).await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);

    suite.crash("inventory");
    suite.ready("inventory").await;
    let again = suite.keyed("inventory", RECEIPTS, Some("r-1"), &hundred).await;
    assert_eq!((again.body, again.replayed), (first.body, true), "it outlives a crash");
    // Old answers are forgotten when a housekeeper runs, which is at the start.
    let old = "update idempotency_answer set created_at = now() - interval '25 hours' where key = 'r-1'";
    suite.execute("inventory", old).await;
    suite.crash("inventory");
    suite.ready("inventory").await;
    suite
        .until("the old answer to be forgotten", async |suite| {
            suite.texts("inventory", "select key from idempotency_answer order by key").await
                == ["r-2", "r-3"]
        })
        .await;
    assert!(!suite.keyed("inventory", RECEIPTS, Some("r-1"), &hundred).await.replayed);
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_is_heard_once() {
    let mut suite = Suite::start().await;
    suite.process("shipping").signal(Signal::STOP);
    let placed = suite.place(&order()).await;
    suite.step_is(placed, "book_shipment", "asked").await;
    let (path, body) =
        (format!("/sagas/{}/retry", placed.id), json!({"by": "ada", "reason": "it is mended"}));
    for replayed in [false, true] {
        let answer = suite.keyed("orchestrator", &path, Some("s-1"), &body).await;
        assert_eq!((answer.status, answer.replayed), (StatusCode::OK, replayed));
        assert_eq!(answer.body["orderId"], json!(placed.id.to_string()));
    }
    let retries = "select count(*) from saga_log where input ->> 'input' = 'retry'";
    assert_eq!(suite.number("orchestrator", retries).await, 1);
    suite.processes_go_on("shipping");
    assert_eq!(suite.settled(placed).await["status"], "confirmed");
    // It has ended, but the first request was carried out.
    let late = suite.keyed("orchestrator", &path, Some("s-1"), &body).await;
    assert_eq!((late.status, &late.body["status"]), (StatusCode::OK, &json!("completed")));
    assert_eq!(suite.keyed("orchestrator", &path, Some("s-2"), &body).await.status, StatusCode::CONFLICT);

    suite.produce("payment.commands", "odd", b"not a message").await;
    let parked = suite.first_parked("payment", "odd").await;
    let path = format!("/parked/odd/messages/{}/skip", parked["id"]);
    let body = json!({"by": "ada", "reason": "it is rubbish"});
    let first = suite.keyed("payment", &path, Some("p-1"), &body).await;
    let again = suite.keyed("payment", &path, Some("p-1"), &body).await;
    assert_eq!((first.status, first.replayed), (StatusCode::OK, false));
    assert_eq!((again.status, again.body, again.replayed), (StatusCode::OK, first.body, true));
    assert_eq!(suite.keyed("payment", &path, None, &body).await.status, StatusCode::CONFLICT);
    suite.comes_to_rest().await;
}
