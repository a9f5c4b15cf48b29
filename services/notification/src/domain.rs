//! What customers are told, in words.

use schemas::notification::Notice;
use uuid::Uuid;

/// The notice's kind, as it stands in the database.
pub fn kind(notice: &Notice) -> &'static str {
    match notice {
        Notice::OrderConfirmed { .. } => "order_confirmed",
    }
}

/// The notice as a text.
pub fn text(order: Uuid, notice: &Notice) -> String {
    match notice {
        Notice::OrderConfirmed { total, tracking_number } => {
            let (units, cents) = (total.amount / 100, total.amount % 100);
            let tracking =
                tracking_number.as_deref().map(|number| format!(" Its tracking number is {number}."));
            format!(
                "Your order {order} over {units}.{cents:02} {} is confirmed.{}",
                total.currency,
                tracking.unwrap_or_default()
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmation_says_what_and_where() {
        let total = schemas::common::Money { amount: 1905, currency: "EUR".to_owned() };
        let notice = Notice::OrderConfirmed { total, tracking_number: Some("AM1".to_owned()) };
        let said = text(Uuid::nil(), &notice);
        assert!(said.ends_with("over 19.05 EUR is confirmed. Its tracking number is AM1."), "{said}");
    }
}
