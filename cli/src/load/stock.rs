//! Fills the stock before a run, so that only the product without stock is out of stock.

use anyhow::{Context, bail};
use serde_json::json;

use super::mix::Mix;
use crate::api::Api;
use crate::setup::{PLENTIFUL, SOLD_OUT};

/// The most pieces that inventory accepts in one receipt.
const MOST_PIECES: i64 = 1_000_000_000;

/// Fills the stock for this many orders, and returns the mix of the run.
///
/// # Errors
/// If the suite does not answer, or lacks the catalogue that `amends up` seeds.
pub async fn fill(api: &Api, orders: u64, declined: f64, out_of_stock: f64) -> anyhow::Result<Mix> {
    let wanted = Mix::most_pieces(orders).min(MOST_PIECES);
    for sku in PLENTIFUL {
        let on_hand = on_hand(api, sku).await?;
        if on_hand < wanted {
            let receipt = json!({"quantity": wanted - on_hand});
            api.post("inventory", &format!("/products/{sku}/receipts"), &receipt).await?;
        }
    }
    if out_of_stock > 0.0 && on_hand(api, SOLD_OUT).await? > 0 {
        bail!(
            "--out-of-stock orders the product `{SOLD_OUT}`, but somebody has put pieces of it on the shelf"
        );
    }
    let products = PLENTIFUL.map(str::to_owned).to_vec();
    Ok(Mix { products, sold_out: SOLD_OUT.to_owned(), declined, out_of_stock })
}

async fn on_hand(api: &Api, sku: &str) -> anyhow::Result<i64> {
    let product = api.find("inventory", &format!("/products/{sku}")).await?;
    let product = product.with_context(|| {
        format!("the suite has no product `{sku}`; `amends up` seeds the catalogue that load orders from")
    })?;
    product["onHand"].as_i64().context("inventory does not say what is on hand")
}
