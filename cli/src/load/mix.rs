//! The orders of a run: many customers, all products of the catalogue, and the requested shares of refusals.

use std::fmt::Write as _;

/// The number of customers.
const CUSTOMERS: u64 = 1000;
/// The golden ratio. The fractions of its multiples are spread evenly over 0 to 1, however many there are.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// What to order.
#[derive(Debug, Clone)]
pub struct Mix {
    /// Products with enough stock.
    pub products: Vec<String>,
    /// A product without stock.
    pub sold_out: String,
    /// The share of orders whose card is declined.
    pub declined: f64,
    /// The share of orders for the product without stock.
    pub out_of_stock: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Good,
    Declined,
    OutOfStock,
}

impl Mix {
    fn kind(&self, number: u64) -> Kind {
        // Not random, so that two runs place the same orders.
        let drawn = ((number + 1) as f64 * GOLDEN).fract();
        if drawn < self.declined {
            Kind::Declined
        } else if drawn < self.declined + self.out_of_stock {
            Kind::OutOfStock
        } else {
            Kind::Good
        }
    }

    /// Returns the body of an order. Every third order has two lines, the others one, with one or two pieces each.
    pub fn body(&self, number: u64) -> String {
        let kind = self.kind(number);
        let token = if kind == Kind::Declined { "tok_chargeDeclined" } else { "tok_visa" };
        let count = self.products.len() as u64;
        let product = |n: u64| self.products.get((n % count) as usize).map_or("", String::as_str);
        let first = if kind == Kind::OutOfStock { &self.sold_out } else { product(number) };
        let mut body = format!(
            r#"{{"customerId":"load-{}","paymentToken":"{token}","items":[{{"sku":"{first}","quantity":{}}}"#,
            number % CUSTOMERS,
            number % 2 + 1
        );
        if number.is_multiple_of(3) {
            // A String can't refuse to be written to.
            let _ = write!(body, r#",{{"sku":"{}","quantity":1}}"#, product(number / 3 * 5 + 1));
        }
        body.push_str(
            r#"],"shippingAddress":{"name":"Load","line1":"Main St 1","city":"Ulm","postalCode":"89073","country":"DE"}}"#,
        );
        body
    }

    /// Returns the most pieces of one product that this many orders can take.
    pub fn most_pieces(orders: u64) -> i64 {
        i64::try_from(orders.saturating_mul(3)).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn mix() -> Mix {
        Mix {
            products: ["lamp", "mug", "rug"].map(str::to_owned).to_vec(),
            sold_out: "unicorn".to_owned(),
            declined: 0.05,
            out_of_stock: 0.03,
        }
    }

    #[test]
    fn the_shares_of_refusals_are_as_requested() {
        for count in [200, 1000, 10_000] {
            let of = |kind| (0..count).filter(|number| mix().kind(*number) == kind).count() as f64;
            let near = |share: f64, kind| (of(kind) - share * count as f64).abs() <= 3.0;
            assert!(near(0.05, Kind::Declined) && near(0.03, Kind::OutOfStock), "of {count}");
        }
        let all = Mix { declined: 1.0, out_of_stock: 0.0, ..mix() };
        assert!((0..1000).all(|number| all.kind(number) == Kind::Declined));
    }

    #[test]
    fn every_body_is_an_order() {
        let mix = mix();
        for number in 0..1000 {
            let body: Value = serde_json::from_str(&mix.body(number)).expect("JSON");
            let items = body["items"].as_array().expect("items");
            assert_eq!(items.len(), if number % 3 == 0 { 2 } else { 1 });
            let sold_out = items.iter().any(|item| item["sku"] == "unicorn");
            assert_eq!(sold_out, mix.kind(number) == Kind::OutOfStock);
            let pieces: i64 = items.iter().filter_map(|item| item["quantity"].as_i64()).sum();
            assert!(pieces <= Mix::most_pieces(1));
        }
    }
}
