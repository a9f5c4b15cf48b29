//! The messages of the loyalty service, and the shop's event that it listens to.

use serde::{Deserialize, Serialize};
use shared::envelope::{Command, Event, Message, Never};
use uuid::Uuid;

const COMMANDS: &str = "loyalty.commands";

/// The topic of the service's events. They answer its commands.
pub const EVENTS: &str = "loyalty.events";

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
    type Reply = PointsGranted;
    type Refusal = GrantRefused;
}

#[derive(Serialize, Deserialize)]
pub struct PointsGranted {
    pub member: Uuid,
    pub points: i64,
}

impl Message for PointsGranted {
    const TYPE: &'static str = "loyalty.points_granted.v1";
    const TOPIC: &'static str = EVENTS;
}

impl Event for PointsGranted {}

#[derive(Serialize, Deserialize)]
pub struct GrantRefused {
    pub member: Uuid,
    /// The members `code` and `detail`.
    #[serde(flatten)]
    pub reason: GrantRefusal,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "code", content = "detail", rename_all = "snake_case")]
pub enum GrantRefusal {
    /// The campaign has so many points left.
    BudgetSpent { left: i64 },
}

impl Message for GrantRefused {
    const TYPE: &'static str = "loyalty.grant_refused.v1";
    const TOPIC: &'static str = EVENTS;
}

impl Event for GrantRefused {}

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
    type Reply = PointsRevoked;
    type Refusal = Never;
}

#[derive(Serialize, Deserialize)]
pub struct PointsRevoked {
    pub member: Uuid,
}

impl Message for PointsRevoked {
    const TYPE: &'static str = "loyalty.points_revoked.v1";
    const TOPIC: &'static str = EVENTS;
}

impl Event for PointsRevoked {}

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
    type Reply = VoucherPrinted;
    type Refusal = Never;
}

#[derive(Serialize, Deserialize)]
pub struct VoucherPrinted {
    pub page: String,
}

impl Message for VoucherPrinted {
    const TYPE: &'static str = "loyalty.voucher_printed.v1";
    const TOPIC: &'static str = EVENTS;
}

impl Event for VoucherPrinted {}

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
    type Reply = VoucherVoided;
    type Refusal = Never;
}

#[derive(Serialize, Deserialize)]
pub struct VoucherVoided {
    pub page: String,
}

impl Message for VoucherVoided {
    const TYPE: &'static str = "loyalty.voucher_voided.v1";
    const TOPIC: &'static str = EVENTS;
}

impl Event for VoucherVoided {}

#[derive(Serialize, Deserialize)]
pub struct EngraveCup {
    pub member: Uuid,
    pub text: String,
}

impl Message for EngraveCup {
    const TYPE: &'static str = "loyalty.engrave_cup.v1";
    const TOPIC: &'static str = COMMANDS;
}

impl Command for EngraveCup {
    type Reply = CupEngraved;
    type Refusal = EngraveRefused;
}

/// The reason why a cup was not engraved.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum NotEngraved {
    TooSmall,
    TimedOut,
}

#[derive(Serialize, Deserialize)]
pub struct EngraveRefused {
    #[serde(flatten)]
    pub why: NotEngraved,
}

impl Message for EngraveRefused {
    const TYPE: &'static str = "loyalty.engrave_refused.v1";
    const TOPIC: &'static str = EVENTS;
}

impl Event for EngraveRefused {}

#[derive(Serialize, Deserialize)]
pub struct CupEngraved {
    /// The engraver's mark on the cup.
    pub mark: String,
}

impl Message for CupEngraved {
    const TYPE: &'static str = "loyalty.cup_engraved.v1";
    const TOPIC: &'static str = EVENTS;
}

impl Event for CupEngraved {}

/// Takes [`EngraveCup`] back.
#[derive(Serialize, Deserialize)]
pub struct MeltCup {
    pub member: Uuid,
}

impl Message for MeltCup {
    const TYPE: &'static str = "loyalty.melt_cup.v1";
    const TOPIC: &'static str = COMMANDS;
}

impl Command for MeltCup {
    type Reply = CupMelted;
    type Refusal = Never;
}

#[derive(Serialize, Deserialize)]
pub struct CupMelted {
    pub member: Uuid,
}

impl Message for CupMelted {
    const TYPE: &'static str = "loyalty.cup_melted.v1";
    const TOPIC: &'static str = EVENTS;
}

impl Event for CupMelted {}

/// Somebody says that a member has visited a shop. No saga waits for the answer, so the inbox has to remember the message.
#[derive(Serialize, Deserialize)]
pub struct NoteVisit {
    pub shop: String,
}

impl Message for NoteVisit {
    const TYPE: &'static str = "loyalty.note_visit.v1";
    const TOPIC: &'static str = COMMANDS;
}

#[derive(Serialize, Deserialize)]
pub struct VisitNoted {
    pub shop: String,
}

impl Message for VisitNoted {
    const TYPE: &'static str = "loyalty.visit_noted.v1";
    const TOPIC: &'static str = EVENTS;
}

impl Event for VisitNoted {}

/// The shop says that a member has bought something.
#[derive(Serialize, Deserialize)]
pub struct PurchaseMade {}

impl Message for PurchaseMade {
    const TYPE: &'static str = "shop.purchase_made.v1";
    const TOPIC: &'static str = "shop.events";
}

impl Event for PurchaseMade {}
