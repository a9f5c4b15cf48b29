//! Messages of the inventory service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::common::{Line, Money, Never, Nothing};
use crate::macros::{commands, events};

/// Holds stock for an order: all of its lines or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReserveStock {
    pub order_id: Uuid,
    pub items: Vec<Line>,
}

/// Why stock was not held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum ReserveRefused {
    /// There is less of these than was asked for.
    OutOfStock { items: Vec<Shortage> },
    /// These are not sold here.
    UnknownProduct { items: Vec<String> },
}

/// A line that can't be served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shortage {
    pub sku: String,
    pub requested: i64,
    pub available: i64,
}

/// Gives held stock back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseStock {
    pub order_id: Uuid,
}

/// Takes held stock off the shelf for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommitStock {
    pub order_id: Uuid,
}

/// Puts what an order took back on the shelf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestockOrder {
    pub order_id: Uuid,
}

/// Stock is held for an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reserved {
    pub order_id: Uuid,
    pub items: Vec<Line>,
}

/// Held stock is free again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Released {
    pub order_id: Uuid,
    pub items: Vec<Line>,
}

/// Held stock has left the shelf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Committed {
    pub order_id: Uuid,
    pub items: Vec<Line>,
}

/// What an order took is on the shelf again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Restocked {
    pub order_id: Uuid,
    pub items: Vec<Line>,
}

/// Few pieces of a product are left. Told once, when the threshold is crossed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StockLow {
    pub sku: String,
    pub on_hand: i64,
    pub threshold: i64,
}

/// A product is new or has another name or price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProductUpdated {
    pub sku: String,
    pub name: String,
    pub price: Money,
}

events! {
    Reserved = "inventory.reserved.v1", on "inventory.events";
    Released = "inventory.released.v1", on "inventory.events";
    Committed = "inventory.committed.v1", on "inventory.events";
    Restocked = "inventory.restocked.v1", on "inventory.events";
    StockLow = "inventory.stock_low.v1", on "inventory.events";
    ProductUpdated = "product.updated.v1", on "inventory.events";
}

commands! {
    ReserveStock = "inventory.reserve_stock.v1", on "inventory.commands", answers Nothing, or ReserveRefused;
    ReleaseStock = "inventory.release_stock.v1", on "inventory.commands", answers Nothing, or Never;
    CommitStock = "inventory.commit_stock.v1", on "inventory.commands", answers Nothing, or Never;
    RestockOrder = "inventory.restock_order.v1", on "inventory.commands", answers Nothing, or Never;
}
