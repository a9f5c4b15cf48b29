//! What happens to an order that is sent back.

use schemas::common::Money;
use schemas::inventory::RestockOrder;
use schemas::notification::{Notice, NotifyCustomer};
use schemas::order::{RefuseReturn, ReturnOrder as MarkReturned, ReturnRequested};
use schemas::payment::RefundPayment;
use schemas::shipping::{ResumeShipment, StopShipment};
use uuid::Uuid;

use super::ReturnOrder;
use shared::saga::engine::{Input, NoCancellation, Status};
use shared::saga::testing::{Run, given};

use crate::sagas::test_orders::{ORDER, answers};

const RETURN: Uuid = Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_0002);

#[test]
fn the_money_is_given_back_and_the_lamps_go_on_the_shelf() {
    begun()
        .done::<StopShipment>(answers::stopped(true))
        .expects(RefundPayment { order_id: ORDER })
        .done::<RefundPayment>(answers::refunded())
        .expects(RestockOrder { order_id: ORDER })
        .expects(MarkReturned { order_id: ORDER, return_id: RETURN })
        .expects(NotifyCustomer {
            order_id: ORDER,
            customer_id: "customer-7".to_owned(),
            email: None,
            notice: Notice::OrderReturned { total: total() },
        })
        .done::<NotifyCustomer>(answers::sent())
        .done::<RestockOrder>(answers::restocked())
        .done::<MarkReturned>(answers::returned(RETURN))
        .ends(Status::Completed);
}

#[test]
fn a_parcel_on_its_way_refuses_the_return() {
    begun()
        .refused::<StopShipment>(answers::in_transit())
        .turns_round_at("stop_shipment", "in_transit")
        .expects(refused("in_transit"))
        .done::<RefuseReturn>(answers::return_refused(RETURN))
        .ends(Status::Compensated);
}

#[test]
fn a_refund_that_is_declined_lets_the_parcel_go_after_all() {
    begun()
        .done::<StopShipment>(answers::stopped(false))
        .expects(RefundPayment { order_id: ORDER })
        .refused::<RefundPayment>(answers::refund_declined())
        .turns_round_at("refund_payment", "refund_declined")
        .expects(ResumeShipment { order_id: ORDER })
        .done::<ResumeShipment>(answers::resumed())
        .expects(refused("refund_declined"))
        .done::<RefuseReturn>(answers::return_refused(RETURN))
        .ends(Status::Compensated);
}

#[test]
fn a_return_is_not_cancelled() {
    let mut run = begun();
    let decisions = run.take(&Input::Cancel, None);
    let reason = NoCancellation::NotForeseen;
    assert_eq!(decisions, [shared::saga::engine::Decision::RefuseCancellation { reason }]);
}

fn begun() -> Run {
    let requested = ReturnRequested {
        order_id: ORDER,
        return_id: RETURN,
        customer_id: "customer-7".to_owned(),
        total: total(),
        email: None,
    };
    given(ReturnOrder::of(requested)).expects(StopShipment { order_id: ORDER })
}

fn total() -> Money {
    Money { amount: 4_990, currency: "EUR".to_owned() }
}

fn refused(reason: &str) -> RefuseReturn {
    RefuseReturn { order_id: ORDER, return_id: RETURN, reason: reason.to_owned() }
}
