//! A shipment's states and the way of a parcel, without database or wire.

use std::time::Duration;

use time::OffsetDateTime;

/// Where a shipment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The carrier is being asked.
    Booking,
    /// The parcel is at home. It leaves once its order is confirmed.
    Booked,
    /// The carrier does not deliver there.
    Refused,
    /// The carrier is being told to leave the parcel where it is. The parcel will not leave any more.
    Stopping,
    /// The parcel stays at home.
    Cancelled,
    /// The carrier has the parcel.
    Dispatched,
    /// The customer has the parcel.
    Delivered,
}

impl Status {
    const ALL: [Self; 7] = [
        Self::Booking,
        Self::Booked,
        Self::Refused,
        Self::Stopping,
        Self::Cancelled,
        Self::Dispatched,
        Self::Delivered,
    ];

    /// The text in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Booking => "booking",
            Self::Booked => "booked",
            Self::Refused => "refused",
            Self::Stopping => "stopping",
            Self::Cancelled => "cancelled",
            Self::Dispatched => "dispatched",
            Self::Delivered => "delivered",
        }
    }

    /// Returns the status of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// Where a parcel is, according to its carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// The carrier has not picked it up yet.
    AtHome,
    InTransit {
        dispatched_at: OffsetDateTime,
    },
    Delivered {
        dispatched_at: OffsetDateTime,
        delivered_at: OffsetDateTime,
    },
}

/// A change of a shipment that the carrier reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    pub from: Status,
    pub to: Status,
    pub dispatched_at: OffsetDateTime,
    pub delivered_at: Option<OffsetDateTime>,
}

impl Move {
    /// Returns the change of a shipment with status `from`, if there is any. A parcel only goes forward.
    pub fn of(from: Status, whereabouts: Whereabouts) -> Option<Self> {
        match (from, whereabouts) {
            (Status::Booked, Whereabouts::InTransit { dispatched_at }) => {
                Some(Self { from, to: Status::Dispatched, dispatched_at, delivered_at: None })
            }
            (Status::Booked | Status::Dispatched, Whereabouts::Delivered { dispatched_at, delivered_at }) => {
                Some(Self { from, to: Status::Delivered, dispatched_at, delivered_at: Some(delivered_at) })
            }
            (Status::Booked, Whereabouts::AtHome)
            | (Status::Dispatched, Whereabouts::AtHome | Whereabouts::InTransit { .. })
            | (
                Status::Booking | Status::Refused | Status::Stopping | Status::Cancelled | Status::Delivered,
                _,
            ) => None,
        }
    }

    /// Whether the parcel was at home before.
    pub fn dispatches(self) -> bool {
        self.from == Status::Booked
    }

    /// Whether the customer has it now.
    pub fn delivers(self) -> bool {
        self.to == Status::Delivered
    }
}

/// How long parcels take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From the release to the pick-up.
    pub dispatch_after: Duration,
    /// From the pick-up to the delivery.
    pub deliver_after: Duration,
}

impl Pace {
    /// Returns when the carrier picks up a parcel that was released at `released_at`.
    pub fn dispatch(self, released_at: OffsetDateTime) -> OffsetDateTime {
        later(released_at, self.dispatch_after)
    }

    /// Returns the time of release of the parcels that the carrier may be picking up now. It may have those that were
    /// released earlier.
    pub fn released_before(self, now: OffsetDateTime) -> OffsetDateTime {
        now - self.dispatch_after
    }

    /// Returns when the carrier delivers a parcel that it picked up at `dispatched_at`.
    pub fn delivery(self, dispatched_at: OffsetDateTime) -> OffsetDateTime {
        later(dispatched_at, self.deliver_after)
    }

    /// Returns when the next change after this one may come, if there will be one.
    pub fn next(self, last: &Move) -> Option<OffsetDateTime> {
        (last.to == Status::Dispatched).then(|| self.delivery(last.dispatched_at))
    }
}

/// Adds a duration to a time. A sum beyond the last representable time becomes that time.
fn later(from: OffsetDateTime, by: Duration) -> OffsetDateTime {
    from.saturating_add(time::Duration::try_from(by).unwrap_or(time::Duration::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
    const PACE: Pace =
        Pace { dispatch_after: Duration::from_secs(60), deliver_after: Duration::from_secs(30) };
    const IN_TRANSIT: Whereabouts = Whereabouts::InTransit { dispatched_at: AT };
    const DELIVERED: Whereabouts = Whereabouts::Delivered { dispatched_at: AT, delivered_at: AT };

    #[test]
    fn every_status_is_known_by_its_name() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        assert_eq!(Status::parse("lost"), None);
    }

    #[test]
    fn a_parcel_is_picked_up_and_then_delivered() {
        assert_eq!(Move::of(Status::Booked, Whereabouts::AtHome), None);
        let dispatch = Move::of(Status::Booked, IN_TRANSIT).expect("news");
        assert_eq!(
            (dispatch.to, dispatch.dispatches(), dispatch.delivers()),
            (Status::Dispatched, true, false)
        );
        assert_eq!(PACE.next(&dispatch), Some(AT + time::Duration::seconds(30)));
        let delivery = Move::of(dispatch.to, DELIVERED).expect("news");
        assert_eq!(
            (delivery.to, delivery.dispatches(), delivery.delivers()),
            (Status::Delivered, false, true)
        );
        assert_eq!(PACE.next(&delivery), None);
    }

    #[test]
    fn a_delivery_that_is_heard_of_late_tells_of_the_pick_up_too() {
        let both = Move::of(Status::Booked, DELIVERED).expect("news");
        assert_eq!((both.to, both.dispatches(), both.delivers()), (Status::Delivered, true, true));
    }

    #[test]
    fn a_parcel_never_goes_back() {
        assert_eq!(Move::of(Status::Dispatched, Whereabouts::AtHome), None);
        assert_eq!(Move::of(Status::Dispatched, IN_TRANSIT), None);
        assert_eq!(Move::of(Status::Delivered, IN_TRANSIT), None);
        assert_eq!(Move::of(Status::Delivered, DELIVERED), None);
    }

    #[test]
    fn what_is_not_booked_never_moves() {
        for status in [Status::Booking, Status::Refused, Status::Stopping, Status::Cancelled] {
            for whereabouts in [Whereabouts::AtHome, IN_TRANSIT, DELIVERED] {
                assert_eq!(Move::of(status, whereabouts), None, "{status:?}");
            }
        }
    }

    #[test]
    fn a_pace_beyond_the_end_of_time_is_late_enough() {
        let pace = Pace { dispatch_after: Duration::MAX, ..PACE };
        assert!(pace.dispatch(AT) > AT + time::Duration::days(365_000));
    }
}
