//! The yardstick's orders, as the load generator places them.

use reqwest::header::HeaderMap;
use serde_json::json;
use uuid::Uuid;

use super::super::place::Orders;

/// Orders whose ids are numbered, so that they are known before the answer.
#[derive(Debug, Clone)]
pub struct Numbered;

impl Numbered {
    /// Returns the id that the order has in the databases.
    pub fn name(number: u64) -> String {
        format!("order-{number:08}")
    }

    /// Returns the number of an id of [`Numbered::name`].
    pub fn number(name: &str) -> Option<u64> {
        name.strip_prefix("order-")?.parse().ok()
    }

    /// Returns the id that the order has on the board, which knows only UUIDs.
    pub fn id(number: u64) -> Uuid {
        Uuid::from_u128(u128::from(number))
    }
}

impl Orders for Numbered {
    /// Successive orders are for other products and other accounts, and every combination comes again.
    fn body(&self, number: u64) -> String {
        let (sku, quantity, account, amount) =
            (number * 7 % 1000, 1 + number % 3, number % 1000, 100 + number % 900);
        json!({"id": Self::name(number), "sku": sku, "qty": quantity, "account": account, "amount": amount})
            .to_string()
    }

    fn id(&self, number: u64, _headers: &HeaderMap) -> Option<Uuid> {
        Some(Self::id(number))
    }
}

#[cfg(test)]
mod tests {
    use super::super::steps::Order;
    use super::*;

    #[test]
    fn an_order_has_one_name_and_one_id() {
        assert_eq!(Numbered::number(&Numbered::name(17)), Some(17));
        assert_eq!(Numbered::number("order-x"), None);
        assert_eq!(Numbered::id(17).as_u128(), 17);
    }

    #[test]
    fn every_body_is_an_order_and_one_in_twenty_has_no_credit() {
        let mut declined = 0;
        for number in 0..1000 {
            let order: Order = serde_json::from_str(&Numbered.body(number)).expect("JSON");
            assert!((0..1000).contains(&order.sku) && (1..=3).contains(&order.qty), "{order:?}");
            assert!((100..1000).contains(&order.amount), "{order:?}");
            declined += usize::from(order.account % 20 == 0);
        }
        assert_eq!(declined, 50);
    }
}
