//! Messages of the shipping service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::common::{Address, Line, Never, Nothing};
use crate::macros::{commands, events};

/// Books a shipment with the carrier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BookShipment {
    pub order_id: Uuid,
    pub address: Address,
    pub items: Vec<Line>,
}

/// A shipment is booked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Booking {
    pub tracking_number: String,
}

/// Why the carrier said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum BookRefused {
    UndeliverableAddress,
}

/// Takes a booking back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CancelShipment {
    pub order_id: Uuid,
    /// The carrier's name for what is to be cancelled.
    pub tracking_number: String,
}

/// A shipment is booked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Booked {
    pub order_id: Uuid,
    pub tracking_number: String,
}

/// The booking is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cancelled {
    pub order_id: Uuid,
}

events! {
    Booked = "shipping.booked.v1", on "shipping.events";
    Cancelled = "shipping.cancelled.v1", on "shipping.events";
}

commands! {
    BookShipment = "shipping.book_shipment.v1", on "shipping.commands", answers Booking, or BookRefused;
    CancelShipment = "shipping.cancel_shipment.v1", on "shipping.commands", answers Nothing, or Never;
}
