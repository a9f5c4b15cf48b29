//! The messages of the loyalty service, and the shop's event that it listens to.

use serde::{Deserialize, Serialize};
use shared::envelope::{Command, Event, Message, Never};
use uuid::Uuid;

const COMMANDS: &str = "loyalty.commands";

/// An empty answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Nothing {}

#[derive(Serialize, Deserialize)]
pub struct GrantPoints {
    pub member: Uuid,
    pub campaign: String,
    pub points: i64,
}

impl Message for GrantPoints {
    const TYPE: &'static str = "loyalty.grant_points.v1";
    const TOPIC: &'static str = COMMANDS;
}

impl Command for GrantPoints {
    type Reply = Nothing;
    type Refusal = GrantRefused;
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum GrantRefused {
    /// The campaign has so many points left.
    BudgetSpent { left: i64 },
}

/// Takes [`GrantPoints`] back.
#[derive(Serialize, Deserialize)]
pub struct RevokePoints {
    pub member: Uuid,
}

impl Message for RevokePoints {
    const TYPE: &'static str = "loyalty.revoke_points.v1";
    const TOPIC: &'static str = COMMANDS;
}

impl Command for RevokePoints {
    type Reply = Nothing;
    type Refusal = Never;
}

#[derive(Serialize, Deserialize)]
pub struct PrintVoucher {
    pub member: Uuid,
    pub text: String,
}

impl Message for PrintVoucher {
    const TYPE: &'static str = "loyalty.print_voucher.v1";
    const TOPIC: &'static str = COMMANDS;
}

impl Command for PrintVoucher {
    type Reply = Printed;
    type Refusal = Never;
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Printed {
    pub page: String,
}

/// Takes [`PrintVoucher`] back.
#[derive(Serialize, Deserialize)]
pub struct VoidVoucher {
    pub member: Uuid,
    pub page: String,
}

impl Message for VoidVoucher {
    const TYPE: &'static str = "loyalty.void_voucher.v1";
    const TOPIC: &'static str = COMMANDS;
}

impl Command for VoidVoucher {
    type Reply = Nothing;
    type Refusal = Never;
}

#[derive(Serialize, Deserialize)]
pub struct PointsGranted {
    pub member: Uuid,
    pub points: i64,
}

impl Message for PointsGranted {
    const TYPE: &'static str = "loyalty.points_granted.v1";
    const TOPIC: &'static str = "loyalty.events";
}

impl Event for PointsGranted {}

/// The shop says that a member has bought something.
#[derive(Serialize, Deserialize)]
pub struct PurchaseMade {}

impl Message for PurchaseMade {
    const TYPE: &'static str = "shop.purchase_made.v1";
    const TOPIC: &'static str = "shop.events";
}

impl Event for PurchaseMade {}
