//! An order and its rules, without database or wire.

mod customer;

use schemas::common::{Address, Money, PricedLine};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

pub use self::customer::{Customer, NewCustomer};

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The saga is under way.
    Pending,
    /// The order stands, and is paid.
    Confirmed,
    /// The order stands, and the carrier has the parcel.
    Shipped,
    /// The order stands, and the customer has the parcel.
    Delivered,
    /// A participant refused the order. Every step that was done for it is undone.
    Rejected,
    /// The customer cancelled the order. Every step that was done for it is undone.
    Cancelled,
    /// The order came back, and the money was given back.
    Returned,
}

impl Status {
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Confirmed,
        Self::Shipped,
        Self::Delivered,
        Self::Rejected,
        Self::Cancelled,
        Self::Returned,
    ];

    /// The text in answers and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Confirmed => "confirmed",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
            Self::Returned => "returned",
        }
    }

    /// Returns the status of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether the saga that placed the order is over.
    pub fn is_settled(self) -> bool {
        match self {
            Self::Pending => false,
            Self::Confirmed
            | Self::Shipped
            | Self::Delivered
            | Self::Rejected
            | Self::Cancelled
            | Self::Returned => true,
        }
    }
}

/// A line as a customer asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedLine {
    pub sku: String,
    pub quantity: i64,
}

/// An order as a customer asks for it. It is valid in itself, and not priced yet.
#[derive(Clone, Default)]
pub struct NewOrder {
    pub customer_id: String,
    pub items: Vec<AskedLine>,
    pub payment_token: String,
    pub shipping_address: Address,
    pub email: Option<String>,
}

impl std::fmt::Debug for NewOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewOrder({})", self.customer_id)
    }
}

/// An order.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    pub id: Uuid,
    pub status: Status,
    pub customer_id: String,
    pub items: Vec<PricedLine>,
    pub total: Money,
    /// Why it was rejected: `card_declined`, `insufficient_funds`, `out_of_stock`, `unknown_product`,
    /// `undeliverable_address`, or `deadline_exceeded` if it could not be paid within a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Details of the reason, for example the items that are out of stock.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub detail: Option<serde_json::Value>,
    /// The state of the customer's request to cancel the order, as long as it is not cancelled: `requested` or `refused`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancellation: Option<String>,
    /// Why the cancellation was refused: `past_pivot`, `already_undone` (the order is being undone for another reason) or
    /// `not_foreseen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancellation_reason: Option<String>,
    /// The customer's request to send the order back, and its state.
    #[serde(rename = "return", skip_serializing_if = "Option::is_none")]
    pub returning: Option<Return>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Counts up with every change of the order.
    pub version: i64,
}

/// An order that a customer sends back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Return {
    pub id: Uuid,
    /// `requested`, `refused` or `done`.
    pub status: String,
    /// Why it was refused: `in_transit`, `refund_declined`, or `timed_out` if the carrier did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Returns the sum of the lines, or `None` if they have several currencies.
pub fn total(items: &[PricedLine]) -> Option<Money> {
    let currency = &items.first()?.unit_price.currency;
    let one_currency = items.iter().all(|item| item.unit_price.currency == *currency);
    let amount = items.iter().map(|item| item.unit_price.amount * item.quantity).sum();
    one_currency.then(|| Money { amount, currency: currency.clone() })
}
