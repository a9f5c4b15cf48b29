//! Place an order. The saga reserves stock and authorizes the card side by side, and then books the shipment. Capturing
//! the money is the point of no return: the steps after it are repeated until they are done.

#[cfg(test)]
mod tests;
mod version_1;

use schemas::common::{Address, Line, Money};
use schemas::inventory::{CommitStock, ReleaseStock, ReserveStock};
use schemas::notification::{Notice, NotifyCustomer};
use schemas::order::{CancelOrder, CancellationRequested, ConfirmOrder, OrderCreated, RejectOrder};
use schemas::payment::{AuthorizePayment, CapturePayment, VoidPayment};
use schemas::shipping::{BookShipment, CancelShipment};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use shared::saga::engine::Refusal;
use shared::saga::plan::{Definition, Plan, Saga};

/// What the saga remembers. Participants are addressed by order id, so that a step can be undone even if its reply was
/// lost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placing<const VERSION: i32> {
    pub order: OrderCreated,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracking_number: Option<String>,
}

/// The plan that new orders get.
pub type PlaceOrder = Placing<2>;
/// The first plan, which had no cancellation. Sagas in flight that began with it go on by it.
pub type PlaceOrder1 = Placing<1>;

impl Saga for PlaceOrder {
    const NAME: &'static str = "place_order";
    const VERSION: i32 = 2;

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
            .if_cancelled(Self::cancel_order)
            .within(super::A_DAY)
    }
}

impl<const VERSION: i32> Placing<VERSION> {
    pub fn of(order: OrderCreated) -> Self {
        Self { order, authorization_id: None, tracking_number: None }
    }

    /// Returns the memory of a saga whose order is known by its id alone, because the event that begins it was lost. Such a
    /// saga is cancelled from its beginning, so it asks for nothing but the end of the order.
    pub fn unknown(cancelled: CancellationRequested) -> Self {
        Self::of(OrderCreated {
            order_id: cancelled.order_id,
            customer_id: String::new(),
            items: Vec::new(),
            total: Money { amount: 0, currency: String::new() },
            payment_token: String::new(),
            shipping_address: Address::default(),
            email: None,
        })
    }

    fn id(&self) -> Uuid {
        self.order.order_id
    }

    fn lines(&self) -> Vec<Line> {
        let line =
            |item: &schemas::common::PricedLine| Line { sku: item.sku.clone(), quantity: item.quantity };
        self.order.items.iter().map(line).collect()
    }

    fn total(&self) -> Money {
        self.order.total.clone()
    }

    /// Empty before the authorization was granted. No step that needs it is asked before.
    fn authorization_id(&self) -> String {
        self.authorization_id.clone().unwrap_or_default()
    }

    fn reserve_stock(&self) -> ReserveStock {
        ReserveStock { order_id: self.id(), items: self.lines() }
    }

    fn release_stock(&self) -> ReleaseStock {
        ReleaseStock { order_id: self.id() }
    }

    fn authorize_payment(&self) -> AuthorizePayment {
        let token = self.order.payment_token.clone();
        AuthorizePayment { order_id: self.id(), amount: self.total(), token }
    }

    fn void_payment(&self) -> VoidPayment {
        VoidPayment { order_id: self.id(), authorization_id: self.authorization_id() }
    }

    fn book_shipment(&self) -> BookShipment {
        let address = self.order.shipping_address.clone();
        BookShipment { order_id: self.id(), address, items: self.lines() }
    }

    fn cancel_shipment(&self) -> CancelShipment {
        CancelShipment {
            order_id: self.id(),
            tracking_number: self.tracking_number.clone().unwrap_or_default(),
        }
    }

    fn capture_payment(&self) -> CapturePayment {
        CapturePayment { order_id: self.id(), authorization_id: self.authorization_id() }
    }

    fn commit_stock(&self) -> CommitStock {
        CommitStock { order_id: self.id() }
    }

    fn confirm_order(&self) -> ConfirmOrder {
        ConfirmOrder { order_id: self.id() }
    }

    fn notify_customer(&self) -> NotifyCustomer {
        NotifyCustomer {
            order_id: self.id(),
            customer_id: self.order.customer_id.clone(),
            email: self.order.email.clone(),
            notice: Notice::OrderConfirmed {
                total: self.total(),
                tracking_number: self.tracking_number.clone(),
            },
        }
    }

    fn reject_order(&self, refusal: &Refusal) -> RejectOrder {
        RejectOrder { order_id: self.id(), reason: refusal.code.clone(), detail: refusal.detail.clone() }
    }

    fn cancel_order(&self, _: &Refusal) -> CancelOrder {
        CancelOrder { order_id: self.id() }
    }
}
