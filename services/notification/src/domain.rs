//! The notices to customers, and their words.

use schemas::notification::Notice;
use uuid::Uuid;

/// Where a notice stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The mail server is being asked, or will be asked again.
    Sending,
    Sent,
    /// The mail server does not accept it.
    Failed,
}

impl Status {
    /// The text in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sending => "sending",
            Self::Sent => "sent",
            Self::Failed => "failed",
        }
    }
}

/// The way by which a notice goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// It stays in the database, to be read there.
    Kept,
    Smtp,
}

impl Channel {
    /// The text in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Smtp => "smtp",
        }
    }
}

/// Returns the notice's kind, as the database has it.
pub fn kind(notice: &Notice) -> &'static str {
    match notice {
        Notice::OrderConfirmed { .. } => "order_confirmed",
        Notice::OrderCancelled => "order_cancelled",
        Notice::OrderRejected { .. } => "order_rejected",
        Notice::OrderReturned { .. } => "order_returned",
    }
}

/// Returns the notice's subject line.
pub fn subject(order: Uuid, notice: &Notice) -> String {
    match notice {
        Notice::OrderConfirmed { .. } => format!("Your order {order} is confirmed"),
        Notice::OrderCancelled => format!("Your order {order} is cancelled"),
        Notice::OrderRejected { .. } => format!("Your order {order} could not be accepted"),
        Notice::OrderReturned { .. } => format!("Your order {order} has come back"),
    }
}

/// Returns the notice's text.
pub fn text(order: Uuid, notice: &Notice) -> String {
    match notice {
        Notice::OrderConfirmed { total, tracking_number } => {
            let tracking =
                tracking_number.as_deref().map(|number| format!(" Its tracking number is {number}."));
            format!("Your order {order} over {total} is confirmed.{}", tracking.unwrap_or_default())
        }
        Notice::OrderCancelled => {
            format!("Your order {order} is cancelled, as you asked. You are not charged for it.")
        }
        Notice::OrderRejected { reason } => {
            format!("Your order {order} could not be accepted: {}. You are not charged for it.", why(reason))
        }
        Notice::OrderReturned { total } => {
            format!("Your order {order} has come back to us, and you get your {total} back.")
        }
    }
}

/// The reason of a rejection in words.
fn why(reason: &str) -> &'static str {
    match reason {
        "card_declined" => "your card was declined",
        "insufficient_funds" => "your card does not cover it",
        "out_of_stock" => "something of it is out of stock",
        "unknown_product" => "something of it is not sold any more",
        "undeliverable_address" => "nothing can be delivered to its address",
        // Other services may add reasons.
        _ => "it could not be carried out",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use schemas::common::Money;

    use super::*;

    fn price() -> Money {
        Money { amount: 1905, currency: "EUR".to_owned() }
    }

    #[test]
    fn an_amount_has_the_decimals_of_its_currency() {
        for (currency, expected) in [("JPY", "over 1905 JPY is"), ("KWD", "over 1.905 KWD is")] {
            let total = Money { currency: currency.to_owned(), ..price() };
            let said = text(Uuid::nil(), &Notice::OrderConfirmed { total, tracking_number: None });
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn a_confirmation_says_what_and_where() {
        let notice = Notice::OrderConfirmed { total: price(), tracking_number: Some("AM1".to_owned()) };
        let said = text(Uuid::nil(), &notice);
        assert!(said.ends_with("over 19.05 EUR is confirmed. Its tracking number is AM1."), "{said}");
    }

    #[test]
    fn a_rejection_says_why_in_words() {
        let said = |reason: &str| text(Uuid::nil(), &Notice::OrderRejected { reason: reason.to_owned() });
        assert!(said("out_of_stock").contains(": something of it is out of stock."));
        assert!(said("of_a_later_release").contains(": it could not be carried out."));
    }

    #[test]
    fn a_return_says_what_comes_back() {
        let said = text(Uuid::nil(), &Notice::OrderReturned { total: price() });
        assert!(said.ends_with("you get your 19.05 EUR back."), "{said}");
    }

    #[test]
    fn every_notice_names_its_order_and_has_a_subject_of_its_own() {
        let notices = [
            Notice::OrderConfirmed { total: price(), tracking_number: None },
            Notice::OrderCancelled,
            Notice::OrderRejected { reason: "card_declined".to_owned() },
            Notice::OrderReturned { total: price() },
        ];
        let order = Uuid::from_u128(7);
        let (mut kinds, mut subjects) = (HashSet::new(), HashSet::new());
        for notice in &notices {
            let subject = subject(order, notice);
            assert!(subject.contains(&order.to_string()), "{subject}");
            assert!(text(order, notice).contains(&order.to_string()), "{notice:?}");
            assert!(kinds.insert(kind(notice)) && subjects.insert(subject), "{notice:?}");
        }
    }
}
