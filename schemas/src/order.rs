//! Messages of the order service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::common::{Address, Money, Never, PricedLine};
use crate::macros::{commands, events};

/// An order was placed. The order saga begins with this event.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderCreated {
    /// The order, which is also the id of its saga.
    pub order_id: Uuid,
    pub customer_id: String,
    pub items: Vec<PricedLine>,
    pub total: Money,
    /// The card as a token of the provider; never a card number.
    pub payment_token: String,
    pub shipping_address: Address,
    /// The mail address for notifications about this order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

impl std::fmt::Debug for OrderCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OrderCreated({})", self.order_id)
    }
}

/// An order is confirmed, and its payment is captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderConfirmed {
    pub order_id: Uuid,
    pub total: Money,
}

/// An order was rejected, and all completed steps are undone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderRejected {
    pub order_id: Uuid,
    /// The reason: `card_declined`, `insufficient_funds`, `out_of_stock`, `unknown_product`, `undeliverable_address`,
    /// or `deadline_exceeded` if it could not be paid within a day.
    pub reason: String,
    /// The other members of the refusal, for example the items that are out of stock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Value>,
}

/// A customer requests the cancellation of a pending order. The saga decides whether it is still possible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CancellationRequested {
    pub order_id: Uuid,
}

/// An order was cancelled by its customer, and all completed steps are undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderCancelled {
    pub order_id: Uuid,
}

/// A customer returns an order. The return saga begins with this event, and the id of the return is its id.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReturnRequested {
    pub order_id: Uuid,
    /// The return, which is also the id of its saga.
    pub return_id: Uuid,
    pub customer_id: String,
    pub total: Money,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

impl std::fmt::Debug for ReturnRequested {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReturnRequested({})", self.order_id)
    }
}

/// An order was returned: the payment is refunded, and the goods are in stock again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderReturned {
    pub order_id: Uuid,
    pub return_id: Uuid,
    pub total: Money,
}

/// A return was refused. The order stays confirmed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReturnRefused {
    pub order_id: Uuid,
    pub return_id: Uuid,
    /// The reason: `in_transit` or `refund_declined`.
    pub reason: String,
}

/// A customer is new, or the name or mail address has changed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CustomerUpdated {
    pub customer_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub email: String,
}

impl std::fmt::Debug for CustomerUpdated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CustomerUpdated({})", self.customer_id)
    }
}

/// Marks the order as confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfirmOrder {
    pub order_id: Uuid,
}

/// Marks the order as rejected, with the reason of the first refusal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RejectOrder {
    pub order_id: Uuid,
    /// The reason, as a code.
    pub reason: String,
    /// More about the refusal, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Value>,
}

/// Marks the order as cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CancelOrder {
    pub order_id: Uuid,
}

/// Marks the order as returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReturnOrder {
    pub order_id: Uuid,
    pub return_id: Uuid,
}

/// Refuses the return of an order, with the reason of the first refusal. The order stays confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefuseReturn {
    pub order_id: Uuid,
    pub return_id: Uuid,
    /// The reason, as a code.
    pub reason: String,
}

events! {
    OrderCreated = "order.created.v1", on "order.events";
    OrderConfirmed = "order.confirmed.v1", on "order.events";
    OrderRejected = "order.rejected.v1", on "order.events";
    CancellationRequested = "order.cancellation_requested.v1", on "order.events";
    OrderCancelled = "order.cancelled.v1", on "order.events";
    ReturnRequested = "order.return_requested.v1", on "order.events";
    OrderReturned = "order.returned.v1", on "order.events";
    ReturnRefused = "order.return_refused.v1", on "order.events";
    CustomerUpdated = "customer.updated.v1", on "customer.events";
}

commands! {
    ConfirmOrder = "order.confirm_order.v1", on "order.commands", answers OrderConfirmed, or Never;
    RejectOrder = "order.reject_order.v1", on "order.commands", answers OrderRejected, or Never;
    CancelOrder = "order.cancel_order.v1", on "order.commands", answers OrderCancelled, or Never;
    ReturnOrder = "order.return_order.v1", on "order.commands", answers OrderReturned, or Never;
    RefuseReturn = "order.refuse_return.v1", on "order.commands", answers ReturnRefused, or Never;
}
