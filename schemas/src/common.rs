//! Types that several messages share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
pub use shared::envelope::Never;
use utoipa::ToSchema;

/// An amount of money in the smallest unit of its currency. It is never a float.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct Money {
    /// The amount in the currency's minor units: 1999 is 19.99 EUR, 1999 JPY or 1.999 KWD.
    pub amount: i64,
    /// The currency by ISO 4217, for example `EUR`.
    pub currency: String,
}

/// A quantity of one product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct Line {
    /// The product's stock keeping unit.
    pub sku: String,
    /// The number of pieces.
    #[schema(minimum = 1, maximum = 10_000)]
    pub quantity: i64,
}

/// A quantity of one product, with its price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PricedLine {
    /// The product's stock keeping unit.
    pub sku: String,
    /// The number of pieces.
    pub quantity: i64,
    /// The price of one piece at the time of the order.
    pub unit_price: Money,
}

/// The destination of a shipment. It is personal data: messages and databases have it, but logs never do.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// The name of the recipient.
    pub name: String,
    /// The street and number.
    pub line1: String,
    /// The city.
    pub city: String,
    /// The postal code. It is empty where an address needs none.
    #[serde(default)]
    pub postal_code: String,
    /// The country by ISO 3166-1 alpha-2, for example `DE`.
    pub country: String,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Address({})", self.country)
    }
}
