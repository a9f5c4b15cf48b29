//! What several messages are made of.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
pub use shared::envelope::Never;
use utoipa::ToSchema;

/// An answer without content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Nothing {}

/// An amount of money, in the currency's smallest unit. Never a float.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct Money {
    /// In minor units: 1999 is 19.99 EUR.
    pub amount: i64,
    /// ISO 4217, for example `EUR`.
    pub currency: String,
}

/// So many of a product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct Line {
    pub sku: String,
    #[schema(minimum = 1, maximum = 10_000)]
    pub quantity: i64,
}

/// A line with what one piece costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PricedLine {
    pub sku: String,
    pub quantity: i64,
    /// The price of one, at the time of the order.
    pub unit_price: Money,
}

/// Where a shipment goes. Personal data: it is in messages and databases, never in logs.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    pub name: String,
    pub line1: String,
    pub city: String,
    pub postal_code: String,
    /// ISO 3166-1 alpha-2, for example `DE`.
    pub country: String,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Address({})", self.country)
    }
}
