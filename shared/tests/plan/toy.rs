//! What the plans in this folder are made of: a saga, its commands, and the words.

use serde::{Deserialize, Serialize};
use shared::envelope::{Command, Message, Never};
pub use shared::saga::engine::Refusal;
pub use shared::saga::plan::{Definition, Plan};

/// A reply without content.
#[derive(Serialize, Deserialize)]
pub struct Nothing {}

/// The reply to an authorization.
#[derive(Serialize, Deserialize)]
pub struct Authorization {
    pub authorization_id: String,
}

/// The refusal of a reservation.
#[derive(Serialize, Deserialize)]
pub struct ReserveRefused {}

/// The refusal of a refund.
#[derive(Serialize, Deserialize)]
pub struct RefundRefused {}

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
    ReserveStock = "toy.reserve_stock.v1", Nothing, refused with ReserveRefused;
    ReleaseStock = "toy.release_stock.v1", Nothing, refused with Never;
    AuthorizePayment = "toy.authorize_payment.v1", Authorization, refused with ReserveRefused;
    VoidPayment = "toy.void_payment.v1", Nothing, refused with Never;
    CapturePayment = "toy.capture_payment.v1", Nothing, refused with Never;
    RefundPayment = "toy.refund_payment.v1", Nothing, refused with RefundRefused;
    CommitStock = "toy.commit_stock.v1", Nothing, refused with Never;
    RejectOrder = "toy.reject_order.v1", Nothing, refused with Never;
    CancelOrder = "toy.cancel_order.v1", Nothing, refused with Never;
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
