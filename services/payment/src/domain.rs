//! A payment and its accounts, without database or wire.

/// What moves money, and between which accounts. The first account is debited, the second credited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    Authorize,
    Void,
    Capture,
    Refund,
}

impl Move {
    /// As it stands in the ledger.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Authorize => "authorize",
            Self::Void => "void",
            Self::Capture => "capture",
            Self::Refund => "refund",
        }
    }

    /// The debited and the credited account. What is held is a claim against the card; capturing turns it into money
    /// that the provider owes.
    pub fn accounts(self) -> (&'static str, &'static str) {
        match self {
            Self::Authorize => ("holds", "cardholders"),
            Self::Void => ("cardholders", "holds"),
            Self::Capture => ("provider", "holds"),
            Self::Refund => ("cardholders", "provider"),
        }
    }

    /// The status that a payment must have, and the one that it gets.
    pub fn transition(self) -> (&'static str, &'static str) {
        match self {
            Self::Authorize => ("authorizing", "authorized"),
            Self::Void => ("authorized", "voided"),
            Self::Capture => ("authorized", "captured"),
            Self::Refund => ("captured", "refunded"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_ends_as_it_began_or_becomes_money() {
        let (held, from) = Move::Authorize.accounts();
        assert_eq!(Move::Void.accounts(), (from, held));
        assert_eq!(Move::Capture.accounts().1, held);
        assert_eq!(Move::Void.transition().0, Move::Authorize.transition().1);
        assert_eq!(Move::Capture.transition().0, Move::Authorize.transition().1);
        assert_eq!(
            Move::Refund.accounts(),
            (from, Move::Capture.accounts().0),
            "money goes back where it came from"
        );
        assert_eq!(Move::Refund.transition().0, Move::Capture.transition().1);
    }
}
