//! Messages of the shipping service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::common::{Address, Line, Never};
use crate::macros::{commands, events};

/// Books a shipment with the carrier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BookShipment {
    pub order_id: Uuid,
    pub address: Address,
    pub items: Vec<Line>,
}

/// The reason why the carrier refused the booking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum BookRefused {
    /// The carrier cannot deliver to the address.
    UndeliverableAddress,
    /// The carrier gave no answer. It was told to cancel whatever it has booked.
    TimedOut,
}

/// Cancels a booking. It undoes `shipping.book_shipment.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CancelShipment {
    pub order_id: Uuid,
    /// The carrier's tracking number of the booking.
    pub tracking_number: String,
}

/// Stops a parcel from leaving, because its order is being returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StopShipment {
    pub order_id: Uuid,
}

/// Lets a stopped parcel go after all. A delivered parcel is not affected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResumeShipment {
    pub order_id: Uuid,
}

/// The reason why a parcel could not be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum StopRefused {
    /// The parcel is on its way to the customer.
    InTransit,
    /// The carrier gave no answer. It was told to let the parcel go on.
    TimedOut,
}

/// A shipment is booked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Booked {
    pub order_id: Uuid,
    /// The carrier's tracking number.
    pub tracking_number: String,
}

/// A booking was cancelled, and the parcel is not sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cancelled {
    pub order_id: Uuid,
}

/// The carrier does not accept a booking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BookingRefused {
    pub order_id: Uuid,
    #[serde(flatten)]
    pub refusal: BookRefused,
}

/// The parcel of an order that is being returned is not on its way. It was stopped, or it is already delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    pub order_id: Uuid,
    /// Whether the parcel is already delivered.
    pub delivered: bool,
}

/// The parcel of an order that was to be returned could not be stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StopDeclined {
    pub order_id: Uuid,
    #[serde(flatten)]
    pub refusal: StopRefused,
}

/// A stopped parcel may go after all. A parcel that was already delivered has no new booking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resumed {
    pub order_id: Uuid,
    /// The carrier's tracking number of the new booking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracking_number: Option<String>,
}

/// The carrier has picked up the parcel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dispatched {
    pub order_id: Uuid,
    /// The carrier's tracking number.
    pub tracking_number: String,
}

/// The parcel is delivered to the customer.
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
    BookingRefused = "shipping.booking_refused.v1", on "shipping.events";
    Stopped = "shipping.stopped.v1", on "shipping.events";
    StopDeclined = "shipping.stop_refused.v1", on "shipping.events";
    Resumed = "shipping.resumed.v1", on "shipping.events";
}

commands! {
    BookShipment = "shipping.book_shipment.v1", on "shipping.commands", answers Booked, or BookingRefused;
    CancelShipment = "shipping.cancel_shipment.v1", on "shipping.commands", answers Cancelled, or Never;
    StopShipment = "shipping.stop_shipment.v1", on "shipping.commands", answers Stopped, or StopDeclined;
    ResumeShipment = "shipping.resume_shipment.v1", on "shipping.commands", answers Resumed, or Never;
}
