//! What the plans in this folder are made of: a saga, its commands, the events that answer them, and the words.

use serde::{Deserialize, Serialize};
use shared::envelope::{Command, Event, Message, Never};
pub use shared::saga::engine::Refusal;
pub use shared::saga::plan::{Definition, Plan};

macro_rules! events {
    ($($event:ident $({ $member:ident })? = $kind:literal;)*) => {
        $(
            #[derive(Serialize, Deserialize)]
            pub struct $event { $(pub $member: String)? }

            impl Message for $event {
                const TYPE: &'static str = $kind;
                const TOPIC: &'static str = "toy.events";
            }

            impl Event for $event {}
        )*
    };
}

events! {
    StockReserved = "toy.stock_reserved.v1";
    ReserveRefused { code } = "toy.reserve_refused.v1";
    StockReleased = "toy.stock_released.v1";
    PaymentAuthorized { authorization_id } = "toy.payment_authorized.v1";
    AuthorizeRefused { code } = "toy.authorize_refused.v1";
    PaymentVoided = "toy.payment_voided.v1";
    PaymentCaptured = "toy.payment_captured.v1";
    PaymentRefunded = "toy.payment_refunded.v1";
    RefundRefused { code } = "toy.refund_refused.v1";
    StockCommitted = "toy.stock_committed.v1";
    OrderRejected = "toy.order_rejected.v1";
    OrderCancelled = "toy.order_cancelled.v1";
}

macro_rules! commands {
    ($($command:ident = $kind:literal, $reply:ty, refused with $refusal:ty;)*) => {
        $(
            #[derive(Serialize, Deserialize)]
            pub struct $command {}

            impl Message for $command {
                const TYPE: &'static str = $kind;
                const TOPIC: &'static str = "toy.commands";
            }

            impl Command for $command {
                type Reply = $reply;
                type Refusal = $refusal;
            }
        )*
    };
}

commands! {
    ReserveStock = "toy.reserve_stock.v1", StockReserved, refused with ReserveRefused;
    ReleaseStock = "toy.release_stock.v1", StockReleased, refused with Never;
    AuthorizePayment = "toy.authorize_payment.v1", PaymentAuthorized, refused with AuthorizeRefused;
    VoidPayment = "toy.void_payment.v1", PaymentVoided, refused with Never;
    CapturePayment = "toy.capture_payment.v1", PaymentCaptured, refused with Never;
    RefundPayment = "toy.refund_payment.v1", PaymentRefunded, refused with RefundRefused;
    CommitStock = "toy.commit_stock.v1", StockCommitted, refused with Never;
    RejectOrder = "toy.reject_order.v1", OrderRejected, refused with Never;
    CancelOrder = "toy.cancel_order.v1", OrderCancelled, refused with Never;
}

#[derive(Default)]
pub struct Toy {
    pub authorization: String,
}

impl Toy {
    pub fn reserve(&self) -> ReserveStock {
        ReserveStock {}
    }

    pub fn release(&self) -> ReleaseStock {
        ReleaseStock {}
    }

    pub fn authorize(&self) -> AuthorizePayment {
        AuthorizePayment {}
    }

    pub fn void(&self) -> VoidPayment {
        VoidPayment {}
    }

    pub fn capture(&self) -> CapturePayment {
        CapturePayment {}
    }

    /// A command that may be refused.
    pub fn refund(&self) -> RefundPayment {
        RefundPayment {}
    }

    pub fn commit(&self) -> CommitStock {
        CommitStock {}
    }

    pub fn reject(&self, _: &Refusal) -> RejectOrder {
        RejectOrder {}
    }

    pub fn cancel(&self, _: &Refusal) -> CancelOrder {
        CancelOrder {}
    }

    pub fn reserve_anew(&self, _: &Refusal) -> ReserveStock {
        self.reserve()
    }
}

pub fn shortest() -> Definition<Toy> {
    Plan::begin().pivot(Toy::capture).or_else(Toy::reject)
}
