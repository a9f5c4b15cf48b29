//! Text from strangers: what people enter has no control characters, and a row that can't be read does not break the audit.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{SERVICES, Suite, order};

impl Suite {
    /// Sends a request, and returns the status and the pointers of what is wrong.
    async fn refused(
        &self,
        service: &'static str,
        method: Method,
        path: &str,
        body: &Value,
    ) -> (u16, Vec<String>) {
        let url = format!("{}{path}", self.url(service));
        let answer = self.client.request(method, url).json(body).send().await.expect("an answer");
        let status = answer.status().as_u16();
        let problem: Value = answer.json().await.expect("JSON");
        let errors = problem["errors"].as_array().into_iter().flatten();
        (status, errors.filter_map(|error| error["pointer"].as_str().map(str::to_owned)).collect())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_text_that_people_enter_has_control_characters() {
    let suite = Suite::start().await;
    let placed = suite.confirmed(&order()).await;
    let retry = format!("/sagas/{}/retry", placed.id);
    for bad in ["a\u{0}b", "a\u{1b}]0;pwned\u{7}", "a\nforged", "\u{9b}2J", "a\u{202e}b"] {
        let mut named = order();
        named["shippingAddress"]["name"] = json!(bad);
        let price = json!({"amount": 100, "currency": "EUR"});
        let table = [
            ("order", Method::POST, "/orders", named, "/shippingAddress/name"),
            ("order", Method::PUT, "/customers/c", json!({"email": "c@example.com", "name": bad}), "/name"),
            ("inventory", Method::PUT, "/products/fan", json!({"name": bad, "price": price}), "/name"),
            ("orchestrator", Method::POST, &retry, json!({"by": "me", "reason": bad}), "/reason"),
            ("orchestrator", Method::POST, &retry, json!({"by": bad, "reason": "mended"}), "/by"),
            (
                "payment",
                Method::POST,
                "/parked/k/messages/1/skip",
                json!({"by": "me", "reason": bad}),
                "/reason",
            ),
        ];
        for (service, method, path, body, pointer) in table {
            let refused = suite.refused(service, method, path, &body).await;
            assert_eq!(refused, (422, vec![pointer.to_owned()]), "{service}{path}: {bad:?}");
        }
    }
    for (service, path) in [
        ("order", "/orders?customerId=a%0Ab"),
        ("order", "/customers/a%1Bb"),
        ("inventory", "/products/a%00b"),
        ("payment", "/parked/a%00b"),
    ] {
        let (status, _) = suite.refused(service, Method::GET, path, &json!({})).await;
        assert_eq!(status, 400, "{service}{path}");
    }
    let edit = suite.refused("payment", Method::PUT, "/parked/k/messages/1?by=a%0Ab", &json!({})).await;
    assert_eq!(edit.0, 400);
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_can_not_be_read_does_not_break_the_audit() {
    let suite = Suite::start().await;
    suite.confirmed(&order()).await;
    suite.comes_to_rest().await;
    // A release before stored such texts of operators and participants.
    let spoil = r#"update saga_log set input = (rtrim(input::text, '}') || ',"why":"\\\u0000\u0000"}')::json where sequence = 1"#;
    suite.execute("orchestrator", spoil).await;
    let audit = suite.get("orchestrator", "/audit").await;
    let statements = audit["statements"].as_array().expect("statements");
    let failed = statements.iter().filter(|statement| statement["error"].is_string());
    assert!(failed.clone().count() > 0, "{audit}");
    assert!(failed.clone().all(|statement| statement["holds"] == false), "{audit}");
    assert!(statements.iter().any(|statement| statement["holds"] == true), "the others are checked: {audit}");
    for service in SERVICES.into_iter().filter(|service| *service != "orchestrator") {
        suite.get(service, "/audit").await;
    }

    let migration = include_str!("../../shared/migrations/saga/0004_readable_log.sql");
    suite.execute("orchestrator", migration).await;
    let mended = "select input ->> 'why' from saga_log where sequence = 1";
    assert_eq!(suite.texts("orchestrator", mended).await, ["\\\u{fffd}\u{fffd}"]);
    suite.comes_to_rest().await;
}
