//! The demo products, which can be ordered after the first start.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::api::Api;
use crate::suite::Suite;

/// SKU, name, price in cents, pieces.
const PRODUCTS: [(&str, &str, i64, i64); 14] = [
    ("lamp", "Desk lamp, brass", 4900, 1_000_000),
    ("chair", "Oak chair", 12_900, 1_000_000),
    ("desk", "Standing desk", 44_900, 500_000),
    ("shelf", "Wall shelf", 3900, 1_000_000),
    ("rug", "Wool rug, 120 x 180", 15_900, 500_000),
    ("mug", "Stoneware mug", 1200, 1_000_000),
    ("kettle", "Enamel kettle", 5400, 1_000_000),
    ("clock", "Wall clock", 3500, 1_000_000),
    ("blanket", "Linen blanket", 7900, 1_000_000),
    ("vase", "Glass vase", 2600, 1_000_000),
    ("mirror", "Round mirror", 8900, 1_000_000),
    ("candle", "Beeswax candle", 900, 1_000_000),
    ("poster", "Poster, signed edition", 6000, 25),
    ("unicorn", "Plush unicorn, sold out", 2900, 0),
];

/// The products with enough pieces for `amends load`.
pub const PLENTIFUL: [&str; 12] = [
    "lamp", "chair", "desk", "shelf", "rug", "mug", "kettle", "clock", "blanket", "vase", "mirror", "candle",
];

/// A product without any pieces.
pub const SOLD_OUT: &str = "unicorn";

/// Adds the products that are missing, and waits until they can be ordered. Returns the number of products.
pub async fn seed(suite: &Suite, told_to_stop: &AtomicBool) -> anyhow::Result<usize> {
    let api = Api::new(suite);
    for (sku, name, price, pieces) in PRODUCTS {
        let known = api.find("inventory", &format!("/products/{sku}")).await?;
        if known.is_none() {
            let product = json!({"name": name, "price": {"amount": price, "currency": "EUR"}});
            api.put("inventory", &format!("/products/{sku}"), &product).await?;
        }
        // An interrupted first start may have left a product without its stock.
        let received = known.as_ref().and_then(|product| product["received"].as_i64()).unwrap_or(0);
        if received == 0 && pieces > 0 {
            api.post("inventory", &format!("/products/{sku}/receipts"), &json!({"quantity": pieces})).await?;
        }
    }
    api.until("the catalogue to reach the order service", async || {
        if told_to_stop.load(Ordering::Acquire) {
            return Ok(true);
        }
        let products = api.get("order", "/products").await?;
        Ok(products["products"].as_array().is_some_and(|known| known.len() >= PRODUCTS.len()))
    })
    .await?;
    Ok(PRODUCTS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_products_that_load_orders_are_in_the_catalogue() {
        let pieces = |sku| PRODUCTS.iter().find(|(known, ..)| *known == sku).map(|(.., pieces)| *pieces);
        assert!(PLENTIFUL.into_iter().all(|sku| pieces(sku) >= Some(100_000)));
        assert_eq!(pieces(SOLD_OUT), Some(0));
    }
}
