//! Take an order back. The saga stops a parcel that has not left. A parcel in transit refuses the return. Giving the money
//! back is the point of no return. Then the goods go back to the shelf, and the customer gets a notice.

#[cfg(test)]
mod tests;

use schemas::inventory::RestockOrder;
use schemas::notification::{Notice, NotifyCustomer};
use schemas::order::{RefuseReturn, ReturnOrder as MarkReturned, ReturnRequested};
use schemas::payment::RefundPayment;
use schemas::shipping::{ResumeShipment, StopShipment};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use shared::saga::engine::Refusal;
use shared::saga::plan::{Definition, Plan, Saga};

/// What the saga remembers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReturnOrder {
    pub requested: ReturnRequested,
}

impl Saga for ReturnOrder {
    const NAME: &'static str = "return_order";
    const VERSION: i32 = 1;

    #[rustfmt::skip] // A line a step.
    fn plan() -> Definition<Self> {
        Plan::begin()
            .step(Self::stop_shipment).undo(Self::resume_shipment)
            .pivot(Self::refund_payment)
            .together(|group| {
                group.then(Self::restock).then(Self::mark_returned).then(Self::notify_customer)
            })
            .or_else(Self::refuse_return)
            .within(super::A_DAY)
    }
}

impl ReturnOrder {
    pub fn of(requested: ReturnRequested) -> Self {
        Self { requested }
    }

    fn order(&self) -> Uuid {
        self.requested.order_id
    }

    fn stop_shipment(&self) -> StopShipment {
        StopShipment { order_id: self.order() }
    }

    fn resume_shipment(&self) -> ResumeShipment {
        ResumeShipment { order_id: self.order() }
    }

    fn refund_payment(&self) -> RefundPayment {
        RefundPayment { order_id: self.order() }
    }

    fn restock(&self) -> RestockOrder {
        RestockOrder { order_id: self.order() }
    }

    fn mark_returned(&self) -> MarkReturned {
        MarkReturned { order_id: self.order(), return_id: self.requested.return_id }
    }

    fn notify_customer(&self) -> NotifyCustomer {
        NotifyCustomer {
            order_id: self.order(),
            customer_id: self.requested.customer_id.clone(),
            email: self.requested.email.clone(),
            notice: Notice::OrderReturned { total: self.requested.total.clone() },
        }
    }

    fn refuse_return(&self, refusal: &Refusal) -> RefuseReturn {
        let reason = refusal.code.clone();
        RefuseReturn { order_id: self.order(), return_id: self.requested.return_id, reason }
    }
}
