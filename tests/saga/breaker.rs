//! An external provider that does not answer for a while.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Instant;

use rdkafka::message::Message;
use serde_json::{Value, json};

use crate::harness::kafka::header;
use crate::harness::{Order, Setup, Suite, order};

const PROVIDER: &str = "card-provider";

/// A file whose presence simulates an outage. The outage ends when this is dropped.
pub(super) struct Outage(PathBuf);

impl Outage {
    pub(super) fn begin(name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        File::create(&path).expect("a file");
        Self(path)
    }

    /// Ends the outage for now.
    pub(super) fn end(&self) {
        fs::remove_file(&self.0).expect("the file was there");
    }

    pub(super) fn begin_again(&self) {
        File::create(&self.0).expect("a file");
    }

    pub(super) fn setting(&self) -> String {
        self.0.to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Suite {
    /// Returns the value of one of payment's metrics about the card provider's circuit breaker or its calls.
    async fn payment_metric(&self, name: &str, label: &str) -> f64 {
        let url = format!("{}/metrics", self.url("payment"));
        let text = self.client.get(url).send().await.expect("an answer").text().await.expect("text");
        let line = text.lines().find(|line| line.starts_with(name) && line.contains(&format!("\"{label}\"")));
        line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or(0.0)
    }

    /// Returns how many authorizations the card provider did not answer.
    async fn unanswered(&self) -> f64 {
        self.payment_metric("amends_external_calls_unanswered_total", "payment.authorize_payment.v1").await
    }

    /// Returns the state of a service's external dependency. The service is ready whatever that state is.
    async fn standing(&self, service: &'static str) -> String {
        let ready = self.get(service, "/readyz").await;
        let checks = ready["checks"].as_array().expect("checks");
        let dependencies: Vec<&Value> = checks.iter().filter(|check| check["name"] == "dependency").collect();
        assert_eq!(dependencies.len(), 1, "all external calls of {service} share one circuit: {ready}");
        assert_eq!(dependencies[0]["ok"], true);
        dependencies[0]["detail"].as_str().expect("a detail").to_owned()
    }

    /// Returns what payment has told about an order's failing steps: step, error, attempts.
    fn failing(&self, order: Order) -> Vec<(String, String, u64)> {
        let mut failing = Vec::new();
        for record in self.records() {
            if header(&record, "ce_outcome").as_deref() != Some("failing")
                || record.key() != Some(order.id.to_string().as_bytes())
            {
                continue;
            }
            let envelope: Value =
                serde_json::from_slice(record.payload().unwrap_or_default()).expect("an envelope");
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let attempts = envelope["data"]["attempts"].as_u64().expect("a number");
            failing.push((text(&envelope["metadata"]["step"]), text(&envelope["data"]["error"]), attempts));
        }
        failing
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_out_is_hardly_called_and_all_orders_go_on_when_it_is_back() {
    const ORDERS: usize = 20;
    let outage = Outage::begin("card-provider-outage");
    let settings = vec![("PAYMENT_PROVIDER_OUTAGE", outage.setting())];
    let suite = Suite::with(Setup { settings, ..Setup::default() }).await;
    assert!(suite.standing("payment").await.contains("closed"));

    // The calls for one order are repeated until the circuit breaker opens.
    let first = suite.place(&order()).await;
    suite
        .until("the circuit to open", async |suite| {
            suite.payment_metric("amends_circuit_breaker_opened_total", PROVIDER).await >= 1.0
        })
        .await;
    let opened = Instant::now();
    let mut orders = vec![first];
    for _ in 1..ORDERS {
        orders.push(suite.place(&order()).await);
    }
    // Its saga gets a `failing` reply at the first, second and fourth attempt.
    suite.until("the fourth attempt to be told", async |suite| suite.failing(first).len() == 3).await;
    let failing = suite.failing(first);
    let told: Vec<_> =
        failing.iter().map(|(step, error, attempts)| (step.as_str(), error.as_str(), *attempts)).collect();
    let error = "the card provider is not available";
    let step = "authorize_payment";
    assert_eq!(told, [(step, error, 1), (step, error, 2), (step, error, 4)]);

    // Two trial calls later, each after a longer pause, no other call was made.
    suite
        .until("two trials to fail", async |suite| {
            suite.payment_metric("amends_circuit_breaker_opened_total", PROVIDER).await >= 3.0
        })
        .await;
    let orders_and_seconds = ORDERS as f64 * opened.elapsed().as_secs_f64();
    let unanswered = suite.unanswered().await;
    let openings = suite.payment_metric("amends_circuit_breaker_opened_total", PROVIDER).await;
    assert!(unanswered <= 4.0 + openings, "{unanswered} calls, the circuit opened {openings} times");
    assert!(openings < orders_and_seconds / 2.0, "{openings} calls in {orders_and_seconds} s of all orders");
    // The state is half-open while a trial call is due, so wait.
    suite
        .until("payment to say so", async |suite| {
            suite.standing("payment").await.starts_with("card-provider does not answer: the circuit is open")
                && suite.payment_metric("amends_circuit_breaker_state{", PROVIDER).await == 2.0
        })
        .await;
    for order in &orders {
        let pending = suite.get("order", &format!("/orders/{}", order.id)).await;
        assert_eq!(pending["status"], "pending", "an outage is no refusal");
    }
    assert!(suite.standing("shipping").await.contains("closed"), "the carrier's circuit is another one");

    drop(outage);
    for order in orders {
        assert_eq!(suite.settled(order).await["status"], "confirmed");
    }
    assert_eq!(suite.payment_metric("amends_circuit_breaker_state{", PROVIDER).await, 0.0);
    assert!(suite.standing("payment").await.contains("closed"));
    suite.comes_to_rest().await;
    let attempts = suite.number("payment", "select sum(attempts)::bigint from step_outcome").await;
    assert_eq!(attempts as f64, suite.unanswered().await, "being put off is no attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_never_gets_an_answer_does_not_hold_up_the_others() {
    let suite = Suite::start().await;
    let mut body = order();
    body["paymentToken"] = json!("tok_unavailable");
    let silent = suite.place(&body).await;
    // Each of them alone would take the next trial.
    for _ in 0..4 {
        suite.place(&body).await;
    }
    suite
        .until("the circuit to open", async |suite| {
            suite.payment_metric("amends_circuit_breaker_opened_total", PROVIDER).await >= 1.0
        })
        .await;
    for _ in 0..3 {
        suite.confirmed(&order()).await;
    }
    let pending = suite.get("order", &format!("/orders/{}", silent.id)).await;
    assert_eq!(pending["status"], "pending");
    // There is no audit here: the audit needs a suite at rest, and this order waits for its provider for ever. Nothing may
    // end it, because nobody knows whether the card is authorized.
}

#[tokio::test(flavor = "multi_thread")]
async fn a_carrier_that_is_out_costs_time_and_nothing_else() {
    let outage = Outage::begin("carrier-outage");
    let settings = vec![("SHIPPING_CARRIER_OUTAGE", outage.setting())];
    let suite = Suite::with(Setup { settings, ..Setup::default() }).await;
    let placed = suite.place(&order()).await;
    suite.until("the carrier to be asked", async |suite| !suite.failing(placed).is_empty()).await;
    assert_eq!(
        suite.failing(placed)[0],
        ("book_shipment".to_owned(), "the carrier did not answer".to_owned(), 1)
    );
    drop(outage);
    assert_eq!(suite.settled(placed).await["status"], "confirmed");
    suite.comes_to_rest().await;
}
