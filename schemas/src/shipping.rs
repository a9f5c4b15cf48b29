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

/// Keeps a parcel from leaving, because its order is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StopShipment {
    pub order_id: Uuid,
}

/// Lets a parcel that was stopped go after all. Of one that the customer has nothing changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResumeShipment {
    pub order_id: Uuid,
}

/// The parcel is not on its way: it has stayed at home, or the customer has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    /// Whether the customer has it.
    pub delivered: bool,
}

/// Why a parcel could not be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum StopRefused {
    /// It is on its way to the customer.
    InTransit,
}

/// A shipment is booked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Booked {
    pub order_id: Uuid,
    pub tracking_number: String,
}

/// The booking is taken back, and the parcel stays at home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cancelled {
    pub order_id: Uuid,
}

/// The carrier has picked the parcel up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dispatched {
    pub order_id: Uuid,
    pub tracking_number: String,
}

/// The customer has the parcel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delivered {
    pub order_id: Uuid,
}

events! {
    Booked = "shipping.booked.v1", on "shipping.events";
    Dispatched = "shipping.dispatched.v1", on "shipping.events";
    Delivered = "shipping.delivered.v1", on "shipping.events";
    Cancelled = "shipping.cancelled.v1", on "shipping.events";
}

commands! {
    BookShipment = "shipping.book_shipment.v1", on "shipping.commands", answers Booking, or BookRefused;
    CancelShipment = "shipping.cancel_shipment.v1", on "shipping.commands", answers Nothing, or Never;
    StopShipment = "shipping.stop_shipment.v1", on "shipping.commands", answers Stopped, or StopRefused;
    ResumeShipment = "shipping.resume_shipment.v1", on "shipping.commands", answers Nothing, or Never;
}
