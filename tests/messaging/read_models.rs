//! Copies of another service's data follow their owner, also after the owner's database was set back.

use rdkafka::message::{Message, OwnedMessage};
use serde_json::{Value, json};

use crate::harness::{Suite, order};

impl Suite {
    async fn price(&self, sku: &str, amount: i64) {
        let product = json!({"name": "Rug", "price": {"amount": amount, "currency": "EUR"}});
        let url = format!("{}/products/{sku}", self.url("inventory"));
        let put = self.client.put(url).json(&product).send().await.expect("an answer");
        assert!(put.status().is_success(), "{}", put.status());
    }

    async fn knows_price(&self, sku: &str, amount: i64) {
        self.until(&format!("{sku} to cost {amount}"), async |suite| {
            let known = suite.get("order", "/products").await;
            let mut products = known["products"].as_array().into_iter().flatten();
            products.any(|product| product["sku"] == sku && product["price"]["amount"] == amount)
        })
        .await;
    }

    async fn address(&self, customer: &str, email: &str) {
        let url = format!("{}/customers/{customer}", self.url("order"));
        let put = self.client.put(url).json(&json!({"email": email})).send().await.expect("an answer");
        assert!(put.status().is_success(), "{}", put.status());
    }

    async fn knows_address(&self, customer: &str, email: &str) {
        let known = format!(
            "select count(*) from customer_contact where customer_id = '{customer}' and email = '{email}'"
        );
        self.until(&format!("{customer} to be at {email}"), async |suite| {
            suite.number("notification", &known).await == 1
        })
        .await;
    }

    /// Returns how often a copy went back to an older version.
    async fn set_back(&self, service: &'static str, model: &str) -> f64 {
        let url = format!("{}/metrics", self.url(service));
        let text = self.client.get(url).send().await.expect("an answer").text().await.expect("text");
        let counts = text.lines().filter(|line| line.starts_with("amends_read_model_set_back_total"));
        let mut counts = counts.filter(|line| line.contains(&format!("model=\"{model}\"")));
        counts.next().and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or(0.0)
    }

    /// Waits until a copy's message is so old that a difference between clocks can't explain it.
    async fn is_older_than_clocks_differ(&self, service: &str, row: &str) {
        let old = format!("select count(*) from {row} and message_at < now() - interval '1500 ms'");
        self.until("the message to be older", async |suite| suite.number(service, &old).await == 1).await;
    }

    fn records_about(&self, key: &str) -> Vec<OwnedMessage> {
        let about = |record: &OwnedMessage| record.key() == Some(key.as_bytes());
        self.records().into_iter().filter(about).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_pays_the_price_of_an_inventory_that_was_set_back() {
    let suite = Suite::start().await;
    for amount in [1000, 1100, 1200, 1300, 1400] {
        suite.price("rug", amount).await;
    }
    let receipts = format!("{}/products/rug/receipts", suite.url("inventory"));
    let received =
        suite.client.post(receipts).json(&json!({"quantity": 10})).send().await.expect("an answer");
    assert!(received.status().is_success());
    suite.knows_price("rug", 1400).await;
    let before = suite.records_about("rug");
    assert_eq!(before.len(), 5);
    suite.is_older_than_clocks_differ("order", "product where sku = 'rug'").await;

    suite.execute("inventory", "update product set version = 2 where sku = 'rug'").await;
    suite.price("rug", 9900).await;
    suite.knows_price("rug", 9900).await;
    assert_eq!(suite.set_back("order", "product").await, 1.0);
    let mut rug = order();
    rug["items"] = json!([{"sku": "rug", "quantity": 1}]);
    let placed = suite.confirmed(&rug).await;
    let paid: Value = suite.get("order", &format!("/orders/{}", placed.id)).await;
    assert_eq!(paid["total"]["amount"], 9900);

    // What the owner has lost does not come back, although one of its versions is higher.
    suite.send_again(&before).await;
    suite.read_models_are_up_to_now("order").await;
    suite.knows_price("rug", 9900).await;
    // The versions 4, 5 and 6: the first two are used again.
    for amount in [9800, 9700, 9600] {
        suite.price("rug", amount).await;
        suite.knows_price("rug", amount).await;
    }
    assert_eq!(suite.set_back("order", "product").await, 1.0);
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_goes_to_the_address_of_an_order_service_that_was_set_back() {
    let suite = Suite::start().await;
    for number in 1..=4 {
        suite.address("eve", &format!("eve{number}@example.com")).await;
    }
    suite.knows_address("eve", "eve4@example.com").await;
    let before = suite.records_about("eve");
    assert_eq!(before.len(), 4);
    suite.is_older_than_clocks_differ("notification", "customer_contact where customer_id = 'eve'").await;

    // The version that the next change gets was used before.
    suite.execute("order", "update customer set version = 3 where id = 'eve'").await;
    suite.address("eve", "eve@example.org").await;
    suite.knows_address("eve", "eve@example.org").await;
    assert_eq!(suite.set_back("notification", "customer_contact").await, 1.0);
    suite.send_again(&before).await;
    suite.read_models_are_up_to_now("notification").await;
    suite.knows_address("eve", "eve@example.org").await;
    suite.comes_to_rest().await;
}
