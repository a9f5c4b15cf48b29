//! Whether what the other services have about an order is what the order's state asks for.

use super::merge::{Row, Standing};

const ORDER: usize = 0;
const PAYMENT: usize = 1;
const RESERVATION: usize = 2;
const SHIPMENT: usize = 3;
const NOTICES: usize = 4;
const SAGAS: usize = 5;

/// What can be said of an order.
#[derive(Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Everything about it is as its state asks for.
    Fits,
    /// A saga of it is under way, or will be.
    UnderWay {
        /// For how many seconds.
        age: i64,
        /// Whether its saga is stuck, which has a reason.
        stuck: bool,
    },
    /// What does not fit.
    Wrong(String),
}

/// Judges what all services have about an order.
pub fn judge(row: &Row) -> Judgement {
    let sagas = row.states(SAGAS);
    let open = |state: &String| !state.ends_with("=completed") && !state.ends_with("=compensated");
    let Some(order) = &row.0[ORDER] else {
        return Judgement::Wrong(format!("there is no such order, but {}", told(row)));
    };
    let status = order.states.first().map_or("", String::as_str);
    if status == "pending" || sagas.iter().any(open) {
        let of_saga = row.0[SAGAS].as_ref().and_then(|standing| standing.age);
        let age = of_saga.or(order.age).unwrap_or_default();
        return Judgement::UnderWay { age, stuck: sagas.iter().any(|state| state.ends_with("=stuck")) };
    }
    let wrong = wrong(row, order, status, sagas);
    if wrong.is_empty() {
        Judgement::Fits
    } else {
        Judgement::Wrong(format!("{status}, but {}", wrong.join(", ")))
    }
}

/// What an order asks for that is at its end.
struct Wanted {
    placed: &'static str,
    payment: &'static [&'static str],
    reservation: &'static [&'static str],
    shipment: &'static [&'static str],
    /// Of which kinds the customer must have been told; of no others.
    notices: &'static [&'static str],
}

/// Nothing at all is one of the states that are asked for.
const NONE: &str = "none";

/// What was undone leaves nothing standing.
const UNDONE: Wanted = Wanted {
    placed: "place_order=compensated",
    payment: &[NONE, "declined", "voided"],
    reservation: &[NONE, "released"],
    shipment: &[NONE, "refused", "cancelled"],
    notices: &[],
};

fn wanted(status: &str) -> Option<Wanted> {
    match status {
        "confirmed" => Some(Wanted {
            placed: "place_order=completed",
            payment: &["captured"],
            reservation: &["committed"],
            shipment: &["booked", "dispatched", "delivered"],
            notices: &["order_confirmed"],
        }),
        "returned" => Some(Wanted {
            placed: "place_order=completed",
            payment: &["refunded"],
            reservation: &["restocked"],
            // A parcel that the customer had stays delivered.
            shipment: &["cancelled", "delivered"],
            notices: &["order_confirmed", "order_returned"],
        }),
        "rejected" | "cancelled" => Some(UNDONE),
        _ => None,
    }
}

fn wrong(row: &Row, order: &Standing, status: &str, sagas: &[String]) -> Vec<String> {
    let Some(wanted) = wanted(status) else { return vec![format!("`{status}` is no state of an order")] };
    let mut wrong = Vec::new();
    let placed: Vec<&String> = sagas.iter().filter(|state| state.starts_with("place_order=")).collect();
    match placed[..] {
        [one] if one == wanted.placed => {}
        [] => wrong.push("no saga has placed it".to_owned()),
        _ => wrong.push(format!("its sagas are {}", sagas.join(", "))),
    }
    let returned = sagas.iter().filter(|state| *state == "return_order=completed").count();
    if returned != usize::from(status == "returned") {
        wrong.push(format!("{returned} sagas have taken it back"));
    }
    for (what, service, states) in [
        ("payment", PAYMENT, wanted.payment),
        ("reservation", RESERVATION, wanted.reservation),
        ("shipment", SHIPMENT, wanted.shipment),
    ] {
        let state = row.states(service).first().map_or(NONE, String::as_str);
        if !states.contains(&state) {
            wrong.push(format!("its {what} is {state}"));
        }
    }
    if let Some(payment) = &row.0[PAYMENT]
        && (payment.amount, &payment.currency) != (order.amount, &order.currency)
    {
        wrong.push("its payment is of another amount".to_owned());
    }
    let notices = row.states(NOTICES);
    // A mail that was refused for good has failed, and the order stands all the same.
    let ended = |state: &String| state.ends_with("=sent") || state.ends_with("=failed");
    let kinds: Vec<&str> =
        notices.iter().map(|state| state.split_once('=').map_or(state.as_str(), |(kind, _)| kind)).collect();
    if kinds != wanted.notices || !notices.iter().all(ended) {
        let told = if notices.is_empty() { NONE.to_owned() } else { notices.join(", ") };
        wrong.push(format!("its notices are {told}"));
    }
    wrong
}

/// What there is about an order, where there is no order.
fn told(row: &Row) -> String {
    let names = ["order", "a payment", "a reservation", "a shipment", "notices", "sagas"];
    let there: Vec<String> = names
        .iter()
        .enumerate()
        .filter(|(service, _)| row.0[*service].is_some())
        .map(|(service, name)| format!("{name} ({})", row.states(service).join(", ")))
        .collect();
    there.join(" and ")
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// An order with these states of order, payment, reservation, shipment, notices and sagas, separated by spaces.
    fn row(states: [&str; 6]) -> Row {
        let standing = |(service, text): (usize, &&str)| {
            let money = service <= PAYMENT;
            (!text.is_empty()).then(|| Standing {
                id: Uuid::nil(),
                states: text.split(' ').map(str::to_owned).collect(),
                amount: money.then_some(100),
                currency: money.then(|| "EUR".to_owned()),
                age: Some(7),
            })
        };
        let mut row = Row::default();
        for (place, standing) in row.0.iter_mut().zip(states.iter().enumerate().map(standing)) {
            *place = standing;
        }
        row
    }

    const CONFIRMED: [&str; 6] = [
        "confirmed",
        "captured",
        "committed",
        "dispatched",
        "order_confirmed=sent",
        "place_order=completed return_order=compensated",
    ];
    const RETURNED: [&str; 6] = [
        "returned",
        "refunded",
        "restocked",
        "cancelled",
        "order_confirmed=sent order_returned=failed",
        "place_order=completed return_order=completed",
    ];
    const REJECTED: [&str; 6] = ["rejected", "voided", "", "refused", "", "place_order=compensated"];

    #[test]
    fn what_fits_an_order_that_is_at_its_end() {
        for states in [CONFIRMED, RETURNED, REJECTED] {
            assert_eq!(judge(&row(states)), Judgement::Fits, "{states:?}");
        }
        let mut cancelled = REJECTED;
        (cancelled[ORDER], cancelled[RESERVATION]) = ("cancelled", "released");
        assert_eq!(judge(&row(cancelled)), Judgement::Fits);
    }

    #[test]
    fn whatever_differs_is_named() {
        for (states, service, other, said) in [
            (CONFIRMED, PAYMENT, "authorized", "its payment is authorized"),
            (CONFIRMED, PAYMENT, "", "its payment is none"),
            (CONFIRMED, RESERVATION, "held", "its reservation is held"),
            (CONFIRMED, SHIPMENT, "cancelled", "its shipment is cancelled"),
            (CONFIRMED, NOTICES, "", "its notices are none"),
            (CONFIRMED, NOTICES, "order_confirmed=sending", "its notices are order_confirmed=sending"),
            (CONFIRMED, SAGAS, "", "no saga has placed it"),
            (CONFIRMED, SAGAS, "place_order=compensated", "its sagas are place_order=compensated"),
            (CONFIRMED, SAGAS, "place_order=completed return_order=completed", "1 sagas have taken it back"),
            (RETURNED, PAYMENT, "captured", "its payment is captured"),
            (RETURNED, SHIPMENT, "booked", "its shipment is booked"),
            (REJECTED, PAYMENT, "captured", "its payment is captured"),
            (REJECTED, RESERVATION, "held", "its reservation is held"),
            (REJECTED, SHIPMENT, "booked", "its shipment is booked"),
            (REJECTED, NOTICES, "order_confirmed=sent", "its notices are order_confirmed=sent"),
        ] {
            let mut states = states;
            states[service] = other;
            let Judgement::Wrong(text) = judge(&row(states)) else { panic!("{states:?} fits") };
            assert!(text.contains(said), "{text} does not say that {said}");
        }
        let mut dear = row(CONFIRMED);
        dear.0[PAYMENT].as_mut().expect("a payment").amount = Some(101);
        assert!(matches!(judge(&dear), Judgement::Wrong(text) if text.contains("another amount")));
    }

    #[test]
    fn what_belongs_to_no_order_is_an_orphan() {
        let Judgement::Wrong(text) = judge(&row(["", "captured", "", "booked", "", ""])) else {
            panic!("it fits")
        };
        assert_eq!(text, "there is no such order, but a payment (captured) and a shipment (booked)");
    }

    #[test]
    fn an_order_under_way_is_judged_later() {
        let pending = ["pending", "authorized", "held", "", "", "place_order=running"];
        assert_eq!(judge(&row(pending)), Judgement::UnderWay { age: 7, stuck: false });
        let mut stuck = pending;
        stuck[SAGAS] = "place_order=stuck";
        assert_eq!(judge(&row(stuck)), Judgement::UnderWay { age: 7, stuck: true });
        let mut closing = CONFIRMED;
        (closing[NOTICES], closing[SAGAS]) = ("", "place_order=running");
        assert_eq!(judge(&row(closing)), Judgement::UnderWay { age: 7, stuck: false });
    }
}
