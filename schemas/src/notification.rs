//! Messages of the notification service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::common::{Money, Never};
use crate::macros::{commands, events};

/// Notifies a customer about an order.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotifyCustomer {
    pub order_id: Uuid,
    pub customer_id: String,
    /// The mail address. Without it the customer's known address is used. If there is none, the notification is only
    /// kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The content of the notification.
    pub notice: Notice,
}

impl std::fmt::Debug for NotifyCustomer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NotifyCustomer({})", self.order_id)
    }
}

/// The content of a notification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum Notice {
    /// The order is confirmed.
    OrderConfirmed {
        /// The captured amount.
        total: Money,
        /// The tracking number of the shipment.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tracking_number: Option<String>,
    },
    /// The order was cancelled.
    OrderCancelled,
    /// The order was rejected.
    OrderRejected {
        /// The reason, as in `order.rejected.v1`.
        reason: String,
    },
    /// The order was returned.
    OrderReturned {
        /// The refunded amount.
        total: Money,
    },
}

/// A notification was sent, or kept if it cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sent {
    pub order_id: Uuid,
    pub notification_id: Uuid,
    /// The channel: `smtp`, or `kept`.
    pub channel: String,
}

/// A notification could not be delivered. It is not tried again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failed {
    pub order_id: Uuid,
    pub notification_id: Uuid,
    /// The answer of the mail server. It may contain the mail address.
    pub reason: String,
}

impl std::fmt::Debug for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Failed({})", self.notification_id)
    }
}

events! {
    Sent = "notification.sent.v1", on "notification.events";
    Failed = "notification.failed.v1", on "notification.events";
}

commands! {
    NotifyCustomer = "notification.notify_customer.v1", on "notification.commands", answers Sent, or Never;
}
