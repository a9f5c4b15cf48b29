//! What the plans in this folder are made of: a saga, its commands, and the words.

pub use orchestrator::engine::Refusal;
pub use orchestrator::plan::{Definition, Plan};
use schemas::common::Money;
use schemas::inventory::{CommitStock, ReleaseStock, ReserveStock};
use schemas::order::{CancelOrder, RejectOrder};
use schemas::payment::{AuthorizePayment, CapturePayment, RefundPayment, VoidPayment};

#[derive(Default)]
pub struct Toy {
    pub authorization: String,
}

impl Toy {
    pub fn reserve(&self) -> ReserveStock {
        ReserveStock { order_id: Default::default(), items: Vec::new() }
    }

    pub fn release(&self) -> ReleaseStock {
        ReleaseStock { order_id: Default::default() }
    }

    pub fn authorize(&self) -> AuthorizePayment {
        let amount = Money { amount: 4990, currency: "EUR".to_owned() };
        AuthorizePayment { order_id: Default::default(), amount, token: String::new() }
    }

    pub fn void(&self) -> VoidPayment {
        VoidPayment { order_id: Default::default(), authorization_id: self.authorization.clone() }
    }

    pub fn capture(&self) -> CapturePayment {
        CapturePayment { order_id: Default::default(), authorization_id: self.authorization.clone() }
    }

    /// A command that may be refused.
    pub fn refund(&self) -> RefundPayment {
        RefundPayment { order_id: Default::default() }
    }

    pub fn commit(&self) -> CommitStock {
        CommitStock { order_id: Default::default() }
    }

    pub fn reject(&self, refusal: &Refusal) -> RejectOrder {
        RejectOrder { order_id: Default::default(), reason: refusal.code.clone(), detail: None }
    }

    pub fn cancel(&self, _: &Refusal) -> CancelOrder {
        CancelOrder { order_id: Default::default() }
    }

    pub fn reserve_anew(&self, _: &Refusal) -> ReserveStock {
        self.reserve()
    }
}

pub fn shortest() -> Definition<Toy> {
    Plan::begin().pivot(Toy::capture).or_else(Toy::reject)
}
