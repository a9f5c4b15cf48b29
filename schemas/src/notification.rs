//! Messages of the notification service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::common::{Money, Never, Nothing};
use crate::macros::{commands, events};

/// Tells a customer something about an order.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotifyCustomer {
    pub order_id: Uuid,
    pub customer_id: String,
    /// Where to; without it to the customer's own address, and where that is not known the message is only kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    pub notice: Notice,
}

impl std::fmt::Debug for NotifyCustomer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NotifyCustomer({})", self.order_id)
    }
}

/// What there is to tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum Notice {
    OrderConfirmed {
        total: Money,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tracking_number: Option<String>,
    },
    OrderCancelled,
    OrderRejected {
        /// As `order.rejected.v1` has it.
        reason: String,
    },
    OrderReturned {
        /// What the customer gets back.
        total: Money,
    },
}

/// A message to a customer was sent, or kept where there is no way to send it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sent {
    pub order_id: Uuid,
    pub notification_id: Uuid,
    /// `kept`, or the way it went: `smtp`.
    pub channel: String,
}

/// A message to a customer could not be delivered, and will not be tried again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failed {
    pub order_id: Uuid,
    pub notification_id: Uuid,
    /// What the mail server said, which may name the address.
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
    NotifyCustomer = "notification.notify_customer.v1", on "notification.commands", answers Nothing, or Never;
}
