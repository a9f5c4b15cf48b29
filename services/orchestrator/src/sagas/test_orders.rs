//! Orders for tests.

use schemas::common::{Address, Money, PricedLine};
use schemas::order::OrderCreated;
use uuid::Uuid;

/// The id of the order.
pub(crate) const ORDER: Uuid = Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_0001);

/// An order of two lamps.
pub(crate) fn two_lamps() -> OrderCreated {
    let euros = |amount| Money { amount, currency: "EUR".to_owned() };
    OrderCreated {
        order_id: ORDER,
        customer_id: "customer-7".to_owned(),
        items: vec![PricedLine { sku: "lamp".to_owned(), quantity: 2, unit_price: euros(2_495) }],
        total: euros(4_990),
        payment_token: "tok_visa".to_owned(),
        shipping_address: Address {
            name: "Ada Example".to_owned(),
            line1: "Lampengasse 1".to_owned(),
            city: "Berlin".to_owned(),
            postal_code: "10115".to_owned(),
            country: "DE".to_owned(),
        },
        email: Some("ada@example.com".to_owned()),
    }
}

/// The events with which the participants answer an order's steps.
pub(crate) mod answers {
    use schemas::common::{Line, Money};
    use schemas::inventory::{
        Committed, Released, ReservationRefused, ReserveRefused, Reserved, Restocked, Shortage,
    };
    use schemas::notification::Sent;
    use schemas::order::{OrderConfirmed, OrderRejected, OrderReturned, ReturnRefused};
    use schemas::payment::{
        AuthorizeRefused, Authorized, CaptureDeclined, CaptureRefused, Captured, Declined, RefundDeclined,
        RefundRefused, Refunded, Voided,
    };
    use schemas::shipping::{
        BookRefused, Booked, BookingRefused, Cancelled, Resumed, StopDeclined, StopRefused, Stopped,
    };
    use uuid::Uuid;

    const ORDER_ID: Uuid = super::ORDER;

    fn amount() -> Money {
        super::two_lamps().total
    }

    fn items() -> Vec<Line> {
        vec![Line { sku: "lamp".to_owned(), quantity: 2 }]
    }

    pub(crate) fn reserved() -> Reserved {
        Reserved { order_id: ORDER_ID, items: items() }
    }

    pub(crate) fn out_of_stock() -> ReservationRefused {
        let items = vec![Shortage { sku: "lamp".to_owned(), requested: 2, available: 1 }];
        ReservationRefused { order_id: ORDER_ID, refusal: ReserveRefused::OutOfStock { items } }
    }

    pub(crate) fn unknown_product() -> ReservationRefused {
        let items = vec!["lamp".to_owned()];
        ReservationRefused { order_id: ORDER_ID, refusal: ReserveRefused::UnknownProduct { items } }
    }

    pub(crate) fn released() -> Released {
        Released { order_id: ORDER_ID, items: items() }
    }

    pub(crate) fn committed() -> Committed {
        Committed { order_id: ORDER_ID, items: items() }
    }

    pub(crate) fn restocked() -> Restocked {
        Restocked { order_id: ORDER_ID, items: items() }
    }

    pub(crate) fn authorized() -> Authorized {
        Authorized { order_id: ORDER_ID, amount: amount(), authorization_id: "auth-1".to_owned() }
    }

    pub(crate) fn declined(refusal: AuthorizeRefused) -> Declined {
        Declined { order_id: ORDER_ID, refusal }
    }

    pub(crate) fn voided() -> Voided {
        Voided { order_id: ORDER_ID, amount: amount() }
    }

    pub(crate) fn captured() -> Captured {
        Captured { order_id: ORDER_ID, amount: amount() }
    }

    pub(crate) fn capture_declined(refusal: CaptureRefused) -> CaptureDeclined {
        CaptureDeclined { order_id: ORDER_ID, refusal }
    }

    pub(crate) fn refunded() -> Refunded {
        Refunded { order_id: ORDER_ID, amount: amount() }
    }

    pub(crate) fn refund_declined() -> RefundDeclined {
        RefundDeclined { order_id: ORDER_ID, refusal: RefundRefused::RefundDeclined }
    }

    pub(crate) fn booked(tracking_number: &str) -> Booked {
        Booked { order_id: ORDER_ID, tracking_number: tracking_number.to_owned() }
    }

    pub(crate) fn undeliverable() -> BookingRefused {
        BookingRefused { order_id: ORDER_ID, refusal: BookRefused::UndeliverableAddress }
    }

    pub(crate) fn booking_cancelled() -> Cancelled {
        Cancelled { order_id: ORDER_ID }
    }

    pub(crate) fn stopped(delivered: bool) -> Stopped {
        Stopped { order_id: ORDER_ID, delivered }
    }

    pub(crate) fn in_transit() -> StopDeclined {
        StopDeclined { order_id: ORDER_ID, refusal: StopRefused::InTransit }
    }

    pub(crate) fn resumed() -> Resumed {
        Resumed { order_id: ORDER_ID, tracking_number: Some("TN-2".to_owned()) }
    }

    pub(crate) fn confirmed() -> OrderConfirmed {
        OrderConfirmed { order_id: ORDER_ID, total: amount() }
    }

    pub(crate) fn rejected() -> OrderRejected {
        OrderRejected { order_id: ORDER_ID, reason: "no".to_owned(), detail: None }
    }

    pub(crate) fn returned(return_id: Uuid) -> OrderReturned {
        OrderReturned { order_id: ORDER_ID, return_id, total: amount() }
    }

    pub(crate) fn return_refused(return_id: Uuid) -> ReturnRefused {
        ReturnRefused { order_id: ORDER_ID, return_id, reason: "no".to_owned() }
    }

    pub(crate) fn sent() -> Sent {
        Sent { order_id: ORDER_ID, notification_id: Uuid::nil(), channel: "kept".to_owned() }
    }
}
