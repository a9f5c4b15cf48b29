//! Messages of the payment service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::common::{Money, Never, Nothing};
use crate::macros::{commands, events};

/// Asks the card provider to set the amount aside.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizePayment {
    pub order_id: Uuid,
    pub amount: Money,
    /// The card, as the provider's token.
    pub token: String,
}

impl std::fmt::Debug for AuthorizePayment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AuthorizePayment({})", self.order_id)
    }
}

/// The amount is set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authorization {
    /// The provider's name for it.
    pub authorization_id: String,
}

/// Why the card provider said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum AuthorizeRefused {
    CardDeclined,
    InsufficientFunds,
}

/// Gives the amount free again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VoidPayment {
    pub order_id: Uuid,
    /// The provider's name for what is to be voided.
    pub authorization_id: String,
}

/// Takes the money. The pivot of the order saga: from here on the order goes forward only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CapturePayment {
    pub order_id: Uuid,
    /// The provider's name for what is to be captured.
    pub authorization_id: String,
}

/// Gives the money of a returned order back. The pivot of the return saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefundPayment {
    pub order_id: Uuid,
}

/// Why the money was not given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum RefundRefused {
    RefundDeclined,
}

/// The amount of an order is set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authorized {
    pub order_id: Uuid,
    pub amount: Money,
}

/// The card provider said no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Declined {
    pub order_id: Uuid,
    /// `card_declined` or `insufficient_funds`.
    pub reason: String,
}

/// The amount is free again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Voided {
    pub order_id: Uuid,
    pub amount: Money,
}

/// The money is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Captured {
    pub order_id: Uuid,
    pub amount: Money,
}

/// The money is given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refunded {
    pub order_id: Uuid,
    pub amount: Money,
}

events! {
    Authorized = "payment.authorized.v1", on "payment.events";
    Declined = "payment.declined.v1", on "payment.events";
    Voided = "payment.voided.v1", on "payment.events";
    Captured = "payment.captured.v1", on "payment.events";
    Refunded = "payment.refunded.v1", on "payment.events";
}

commands! {
    AuthorizePayment = "payment.authorize_payment.v1", on "payment.commands", answers Authorization, or AuthorizeRefused;
    VoidPayment = "payment.void_payment.v1", on "payment.commands", answers Nothing, or Never;
    CapturePayment = "payment.capture_payment.v1", on "payment.commands", answers Nothing, or Never;
    RefundPayment = "payment.refund_payment.v1", on "payment.commands", answers Nothing, or RefundRefused;
}
