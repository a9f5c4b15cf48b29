//! Messages of the payment service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::common::{Money, Never};
use crate::macros::{commands, events};

/// Authorizes the amount with the card provider.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizePayment {
    pub order_id: Uuid,
    pub amount: Money,
    /// The card as a token of the provider.
    pub token: String,
}

impl std::fmt::Debug for AuthorizePayment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AuthorizePayment({})", self.order_id)
    }
}

/// The reason why the card provider declined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum AuthorizeRefused {
    /// The provider declined the card.
    CardDeclined,
    /// The card has too little money.
    InsufficientFunds,
    /// The provider gave no answer. It was told to release whatever it holds.
    TimedOut,
}

/// Voids an authorization. It undoes `payment.authorize_payment.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VoidPayment {
    pub order_id: Uuid,
    /// The provider's id of the authorization.
    pub authorization_id: String,
}

/// Captures the authorized amount. It is the pivot of the order saga: once it is done, the order only goes forward.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CapturePayment {
    pub order_id: Uuid,
    /// The provider's id of the authorization.
    pub authorization_id: String,
}

/// The reason why the authorized amount was not captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum CaptureRefused {
    /// The provider declined the capture.
    CaptureDeclined,
    /// The provider no longer holds the amount.
    AuthorizationExpired,
}

/// Refunds the payment of a returned order. It is the pivot of the return saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefundPayment {
    pub order_id: Uuid,
}

/// The reason why the payment was not refunded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum RefundRefused {
    /// The provider declined the refund.
    RefundDeclined,
}

/// The amount of an order is authorized.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authorized {
    pub order_id: Uuid,
    pub amount: Money,
    /// The provider's id of the authorization.
    pub authorization_id: String,
}

/// The card provider declined the payment of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Declined {
    pub order_id: Uuid,
    #[serde(flatten)]
    pub refusal: AuthorizeRefused,
}

/// The authorization of an order is voided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Voided {
    pub order_id: Uuid,
    pub amount: Money,
}

/// The payment of an order is captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Captured {
    pub order_id: Uuid,
    pub amount: Money,
}

/// The authorized amount of an order was not captured. No money was taken, so the order is undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaptureDeclined {
    pub order_id: Uuid,
    #[serde(flatten)]
    pub refusal: CaptureRefused,
}

/// The payment of an order is refunded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refunded {
    pub order_id: Uuid,
    pub amount: Money,
}

/// The card provider declined the refund of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefundDeclined {
    pub order_id: Uuid,
    #[serde(flatten)]
    pub refusal: RefundRefused,
}

events! {
    Authorized = "payment.authorized.v1", on "payment.events";
    Declined = "payment.declined.v1", on "payment.events";
    Voided = "payment.voided.v1", on "payment.events";
    Captured = "payment.captured.v1", on "payment.events";
    CaptureDeclined = "payment.capture_declined.v1", on "payment.events";
    Refunded = "payment.refunded.v1", on "payment.events";
    RefundDeclined = "payment.refund_declined.v1", on "payment.events";
}

commands! {
    AuthorizePayment = "payment.authorize_payment.v1", on "payment.commands", answers Authorized, or Declined;
    VoidPayment = "payment.void_payment.v1", on "payment.commands", answers Voided, or Never;
    CapturePayment = "payment.capture_payment.v1", on "payment.commands", answers Captured, or CaptureDeclined;
    RefundPayment = "payment.refund_payment.v1", on "payment.commands", answers Refunded, or RefundDeclined;
}
