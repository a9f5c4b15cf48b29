//! A shipment's states, without database or wire.

/// Where a shipment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The carrier is being asked.
    Booking,
    Booked,
    /// The carrier does not deliver there.
    Refused,
    Cancelled,
}

impl Status {
    /// As it stands in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Booking => "booking",
            Self::Booked => "booked",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
        }
    }
}
