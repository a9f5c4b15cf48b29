//! `amends products`: the catalogue, with the stock of each product.

use clap::Args;

use crate::api::Api;
use crate::json::{array, money, text_of};
use crate::output::{print_json, say};
use crate::suite::Suite;

/// What to show.
#[derive(Debug, Args)]
pub struct Products {
    /// Print the JSON answer of the inventory service.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    suite: Suite,
}

impl Products {
    pub fn run(self) -> anyhow::Result<()> {
        let api = Api::new(&self.suite);
        let answer = crate::runtime::block_on(async { api.get("inventory", "/products").await })?;
        if self.json {
            return print_json(&answer);
        }
        say!("{:<12} {:>14} {:>10} {:>9} {:>9}  NAME", "SKU", "PRICE", "ON HAND", "RESERVED", "SHIPPED");
        for product in array(&answer["products"]) {
            let pieces = |name: &str| product[name].as_i64().unwrap_or_default();
            say!(
                "{:<12} {:>14} {:>10} {:>9} {:>9}  {}",
                text_of(product, "sku"),
                money(&product["price"]).to_string(),
                pieces("onHand"),
                pieces("reserved"),
                pieces("shipped"),
                text_of(product, "name")
            );
        }
        Ok(())
    }
}
