//! The first plan. It is kept as long as a saga that began with it may be in flight.

use super::PlaceOrder1;
use shared::saga::plan::{Definition, Plan, Saga};

impl Saga for PlaceOrder1 {
    const NAME: &'static str = "place_order";
    const VERSION: i32 = 1;

    #[rustfmt::skip] // A line a step.
    fn plan() -> Definition<Self> {
        Plan::begin()
            .together(|group| {
                group
                    .step(Self::reserve_stock).undo(Self::release_stock)
                    .step(Self::authorize_payment)
                        .on_reply(|saga, held| saga.authorization_id = Some(held.authorization_id))
                        .undo(Self::void_payment)
            })
            .step(Self::book_shipment)
                .on_reply(|saga, booking| saga.tracking_number = Some(booking.tracking_number))
                .undo(Self::cancel_shipment)
            .pivot(Self::capture_payment)
            .together(|group| {
                group.then(Self::commit_stock).then(Self::confirm_order).then(Self::notify_customer)
            })
            .or_else(Self::reject_order)
    }
}
