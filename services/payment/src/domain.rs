//! A payment's states and its accounts, without database or wire.

use serde::Serialize;
use utoipa::ToSchema;

/// Where a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The card provider was asked for an authorization, and has not answered yet.
    Authorizing,
    /// The provider holds the amount on the card.
    Authorized,
    /// The provider declined the card.
    Declined,
    /// The hold was released, and no money was taken.
    Voided,
    /// The money was taken.
    Captured,
    /// The money was taken and given back.
    Refunded,
}

impl Status {
    const ALL: [Self; 6] =
        [Self::Authorizing, Self::Authorized, Self::Declined, Self::Voided, Self::Captured, Self::Refunded];

    /// The status as it stands in the database and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authorizing => "authorizing",
            Self::Authorized => "authorized",
            Self::Declined => "declined",
            Self::Voided => "voided",
            Self::Captured => "captured",
            Self::Refunded => "refunded",
        }
    }

    /// Returns the status of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// A text that is not the name of a status. The table's check keeps such texts out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the status of a payment")]
pub struct UnknownStatus(String);

impl TryFrom<String> for Status {
    type Error = UnknownStatus;

    fn try_from(text: String) -> Result<Self, UnknownStatus> {
        Self::parse(&text).ok_or(UnknownStatus(text))
    }
}

/// A move of money between two accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    Authorize,
    Void,
    Capture,
    Refund,
}

impl Move {
    /// The move's name in the ledger.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Authorize => "authorize",
            Self::Void => "void",
            Self::Capture => "capture",
            Self::Refund => "refund",
        }
    }

    /// The debited and the credited account. A hold is a claim against the card. Capturing turns it into money that the
    /// provider owes.
    pub fn accounts(self) -> (&'static str, &'static str) {
        match self {
            Self::Authorize => ("holds", "cardholders"),
            Self::Void => ("cardholders", "holds"),
            Self::Capture => ("provider", "holds"),
            Self::Refund => ("cardholders", "provider"),
        }
    }

    /// The status that a payment must have, and the one that it gets.
    pub fn transition(self) -> (Status, Status) {
        match self {
            Self::Authorize => (Status::Authorizing, Status::Authorized),
            Self::Void => (Status::Authorized, Status::Voided),
            Self::Capture => (Status::Authorized, Status::Captured),
            Self::Refund => (Status::Captured, Status::Refunded),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_known_by_its_name() {
        for status in Status::ALL {
            assert_eq!(Status::try_from(status.as_str().to_owned()), Ok(status));
        }
        let error = Status::try_from("lost".to_owned()).expect_err("no status");
        assert_eq!(error.to_string(), "`lost` is not the status of a payment");
    }

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
