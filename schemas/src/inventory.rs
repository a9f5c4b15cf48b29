//! Messages of the inventory service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::common::{Line, Money, Never};
use crate::macros::{commands, events};

/// Reserves stock for an order: all of its lines or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReserveStock {
    pub order_id: Uuid,
    pub items: Vec<Line>,
}

/// The reason why stock was not reserved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "code", content = "detail", rename_all = "snake_case")]
pub enum ReserveRefused {
    /// Less stock is available than was requested.
    OutOfStock {
        /// The products with too little stock.
        items: Vec<Shortage>,
    },
    /// Some products are not in the catalogue.
    UnknownProduct {
        /// The unknown stock keeping units.
        items: Vec<String>,
    },
}

/// A line with too little stock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shortage {
    /// The product's stock keeping unit.
    pub sku: String,
    /// The requested number of pieces.
    pub requested: i64,
    /// The available number of pieces.
    pub available: i64,
}

/// Releases the reserved stock of an order. It undoes `inventory.reserve_stock.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseStock {
    pub order_id: Uuid,
}

/// Takes the reserved stock of an order out of the warehouse for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommitStock {
    pub order_id: Uuid,
}

/// Puts the pieces of a returned order back into stock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestockOrder {
    pub order_id: Uuid,
}

/// Stock is reserved for an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reserved {
    pub order_id: Uuid,
    pub items: Vec<Line>,
}

/// No stock was reserved for an order, because some of it is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservationRefused {
    pub order_id: Uuid,
    #[serde(flatten)]
    pub refusal: ReserveRefused,
}

/// Reserved stock was released and is available again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Released {
    pub order_id: Uuid,
    pub items: Vec<Line>,
}

/// Reserved stock has left the warehouse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Committed {
    pub order_id: Uuid,
    pub items: Vec<Line>,
}

/// The pieces of a returned order are in stock again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Restocked {
    pub order_id: Uuid,
    pub items: Vec<Line>,
}

/// Few pieces of a product are left. The event is published once, when the stock crosses the threshold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StockLow {
    /// The product's stock keeping unit.
    pub sku: String,
    /// The number of pieces in stock.
    pub on_hand: i64,
    /// The threshold, in pieces.
    pub threshold: i64,
}

/// A product is new, or its name or price has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProductUpdated {
    /// The product's stock keeping unit.
    pub sku: String,
    /// The name of the product.
    pub name: String,
    /// The price of one piece.
    pub price: Money,
}

events! {
    Reserved = "inventory.reserved.v1", on "inventory.events";
    ReservationRefused = "inventory.reservation_refused.v1", on "inventory.events";
    Released = "inventory.released.v1", on "inventory.events";
    Committed = "inventory.committed.v1", on "inventory.events";
    Restocked = "inventory.restocked.v1", on "inventory.events";
    StockLow = "inventory.stock_low.v1", on "inventory.events";
    ProductUpdated = "product.updated.v1", on "inventory.events";
}

commands! {
    ReserveStock = "inventory.reserve_stock.v1", on "inventory.commands", answers Reserved, or ReservationRefused;
    ReleaseStock = "inventory.release_stock.v1", on "inventory.commands", answers Released, or Never;
    CommitStock = "inventory.commit_stock.v1", on "inventory.commands", answers Committed, or Never;
    RestockOrder = "inventory.restock_order.v1", on "inventory.commands", answers Restocked, or Never;
}
