//! Amounts are in the minor unit of their own currency, and are shown so.

use serde_json::{Value, json};

use crate::harness::{Suite, order};

impl Suite {
    /// Sets a product's price, and returns the status and the pointers of what is wrong.
    async fn priced_in(&self, sku: &str, currency: &str) -> (u16, Vec<String>) {
        let product = json!({"name": sku, "price": {"amount": 1905, "currency": currency}});
        let url = format!("{}/products/{sku}", self.url("inventory"));
        let answer = self.client.put(url).json(&product).send().await.expect("an answer");
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.expect("JSON");
        let errors = body["errors"].as_array().into_iter().flatten();
        (status, errors.filter_map(|error| error["pointer"].as_str().map(str::to_owned)).collect())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_amount_is_shown_with_the_decimals_of_its_currency() {
    let suite = Suite::start().await;
    for (sku, currency, shown) in [("fan", "JPY", "over 1905 JPY is"), ("pearl", "KWD", "over 1.905 KWD is")]
    {
        assert_eq!(suite.priced_in(sku, currency).await, (201, vec![]));
        let receipts = format!("{}/products/{sku}/receipts", suite.url("inventory"));
        let received =
            suite.client.post(receipts).json(&json!({"quantity": 5})).send().await.expect("an answer");
        assert!(received.status().is_success());
        suite
            .until("the product to be known", async |suite| {
                suite.get("order", "/products").await.to_string().contains(&format!("\"{sku}\""))
            })
            .await;
        let mut body = order();
        body["items"] = json!([{"sku": sku, "quantity": 1}]);
        let placed = suite.confirmed(&body).await;
        suite.comes_to_rest().await;
        let notices = suite.get("notification", &format!("/notifications?orderId={}", placed.id)).await;
        let text = notices["notifications"][0]["text"].as_str().expect("a text");
        assert!(text.contains(shown), "{text}");
    }
    for currency in ["QQQ", "XXX", "XTS", "XAU", "jpy"] {
        assert_eq!(
            suite.priced_in("fan", currency).await,
            (422, vec!["/price/currency".to_owned()]),
            "{currency}"
        );
    }
}
