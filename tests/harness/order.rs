//! Placing orders and following them.

use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Suite;

/// A good order: two lamps with a good card.
pub fn order() -> Value {
    json!({
        "customerId": "ada",
        "items": [{"sku": "lamp", "quantity": 2}],
        "paymentToken": "tok_visa",
        "shippingAddress": {"name": "Ada", "line1": "Main St 1", "city": "Ulm", "postalCode": "89073", "country": "DE"},
    })
}

/// An order that was accepted.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    pub id: Uuid,
}

impl Suite {
    /// Places an order. It is accepted then, and under way.
    pub async fn place(&self, body: &Value) -> Order {
        let url = format!("{}/orders", self.url("order"));
        let answer = self.client.post(url).json(body).send().await.expect("an answer");
        assert_eq!(answer.status(), 202);
        let placed: Value = answer.json().await.expect("JSON");
        assert_eq!(placed["status"], "pending");
        Order { id: id(&placed) }
    }

    /// Posts a request about an order. Returns the status and the body of the answer.
    pub async fn post(&self, order: Order, what: &str) -> (StatusCode, Value) {
        let url = format!("{}/orders/{}/{what}", self.url("order"), order.id);
        let answer = self.client.post(url).send().await.expect("an answer");
        (answer.status(), answer.json().await.expect("JSON"))
    }

    /// Waits until the order has settled, its saga has ended and its timeline is complete. Returns the order.
    pub async fn settled(&self, order: Order) -> Value {
        self.until(&format!("the saga of {} to end", order.id), async |suite| {
            let url = format!("{}/sagas/{}", suite.url("orchestrator"), order.id);
            let Ok(answer) = suite.client.get(url).send().await else { return false };
            let saga: Value = answer.json().await.unwrap_or_default();
            saga["status"] == "completed" || saga["status"] == "compensated"
        })
        .await;
        self.ready("order").await;
        let ended = format!(
            "select count(*) from saga where subject = '{}' and status in ('completed', 'compensated')",
            order.id
        );
        let ended = self.number("orchestrator", &ended).await;
        let told = format!(
            "select count(*) from order_timeline
             where order_id = '{}' and type in ('saga.completed.v1', 'saga.compensated.v1')",
            order.id
        );
        self.until("the timeline to tell of the end", async |suite| {
            suite.number("order", &told).await >= ended
        })
        .await;
        // It may tell of the end before it tells of everything else.
        self.read_models_are_up_to_now("order").await;
        self.get("order", &format!("/orders/{}", order.id)).await
    }

    /// Places an order and waits until it is confirmed.
    pub async fn confirmed(&self, body: &Value) -> Order {
        let order = self.place(body).await;
        let settled = self.settled(order).await;
        // A parcel without a delay may already have left.
        assert!(
            ["confirmed", "shipped", "delivered"].map(Value::from).contains(&settled["status"]),
            "{settled}"
        );
        order
    }

    /// Waits until the order's shipment may leave.
    pub async fn released(&self, order: Order) {
        let released = format!(
            "select count(*) from shipment where released_at is not null and order_id = '{}'",
            order.id
        );
        self.until("the shipment to be released", async |suite| {
            suite.number("shipping", &released).await == 1
        })
        .await;
    }

    /// Waits until a step of the order's saga has this status: `asked`, `unknown`, `done` and so on.
    pub async fn step_is(&self, order: Order, step: &str, status: &str) {
        self.until(&format!("{step} to be {status}"), async |suite| {
            let url = format!("{}/sagas/{}", suite.url("orchestrator"), order.id);
            let Ok(answer) = suite.client.get(url).send().await else { return false };
            let saga: Value = answer.json().await.unwrap_or_default();
            let mut steps = saga["steps"].as_array().into_iter().flatten();
            steps.any(|one| one["name"] == step && one["status"] == status)
        })
        .await;
    }
}

pub fn id(order: &Value) -> Uuid {
    order["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("no id in {order}"))
}
