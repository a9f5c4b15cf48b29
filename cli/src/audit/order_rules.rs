//! The rules that the states of one order in all services must obey.

use super::merge::{Row, Standing};

/// The services, by what they keep about an order.
pub const ORDER: &str = "order";
pub const SAGAS: &str = "orchestrator";
pub const PAYMENT: &str = "payment";
pub const RESERVATION: &str = "inventory";
const SHIPMENT: &str = "shipping";
const NOTICES: &str = "notification";

/// The judgement on one order.
#[derive(Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The states in all services are those that the order's state requires.
    Fits,
    /// One of its sagas is under way, or will begin.
    UnderWay {
        /// For how many seconds.
        age: i64,
        /// Whether its saga is stuck; a stuck saga has a reason.
        stuck: bool,
        /// Whether a saga has begun.
        begun: bool,
    },
    /// The states contradict each other, as this sentence says.
    Wrong(String),
}

/// Judges the states of one order in all services.
pub fn judge(row: &Row) -> Judgement {
    let sagas = row.states(SAGAS);
    let open = |state: &String| !state.ends_with("=completed") && !state.ends_with("=compensated");
    let Some(order) = row.0.get(ORDER) else {
        return Judgement::Wrong(format!("there is no such order, but {}", told(row)));
    };
    let status = order.states.first().map_or("", String::as_str);
    if status == "pending" || sagas.iter().any(open) {
        let of_saga = row.0.get(SAGAS).and_then(|standing| standing.age);
        let age = of_saga.or(order.age).unwrap_or_default();
        let stuck = sagas.iter().any(|state| state.ends_with("=stuck"));
        return Judgement::UnderWay { age, stuck, begun: !sagas.is_empty() };
    }
    // The carrier gets a parcel a moment after its order was confirmed.
    if status == "confirmed"
        && row.states(SHIPMENT) == ["unreleased"]
        && let Some(age) = row.0.get(SHIPMENT).and_then(|shipment| shipment.age)
    {
        return Judgement::UnderWay { age, stuck: false, begun: true };
    }
    let wrong = wrong(row, order, status, sagas);
    if wrong.is_empty() {
        Judgement::Fits
    } else {
        Judgement::Wrong(format!("{status}, but {}", wrong.join(", ")))
    }
}

/// The states that a final state of an order requires in the other services.
struct Wanted {
    placed: &'static str,
    payment: &'static [&'static str],
    reservation: &'static [&'static str],
    shipment: &'static [&'static str],
    /// The kinds of notices that the customer must have got, and no others.
    notices: &'static [&'static str],
}

/// The word for a service that does not know the order.
const NONE: &str = "none";

/// The states after an order was undone.
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
    if let Some(payment) = row.0.get(PAYMENT)
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

/// Lists the states in the other services, for an id that the order service does not know.
fn told(row: &Row) -> String {
    let names = [
        (PAYMENT, "a payment"),
        (RESERVATION, "a reservation"),
        (SHIPMENT, "a shipment"),
        (NOTICES, "notices"),
        (SAGAS, "sagas"),
    ];
    let there: Vec<String> = names
        .iter()
        .filter(|(service, _)| row.0.contains_key(service))
        .map(|(service, name)| format!("{name} ({})", row.states(service).join(", ")))
        .collect();
    there.join(" and ")
}

#[cfg(test)]
mod tests {
    use schemas::SERVICES;
    use uuid::Uuid;

    use super::*;

    /// The states of an order in each service, in the order of [`SERVICES`] and separated by spaces.
    type States = [&'static str; SERVICES.len()];

    fn row(states: States) -> Row {
        let standing = |(service, text): (&'static str, &str)| {
            let money = [ORDER, PAYMENT].contains(&service);
            let standing = Standing {
                id: Uuid::nil(),
                states: text.split(' ').map(str::to_owned).collect(),
                amount: money.then_some(100),
                currency: money.then(|| "EUR".to_owned()),
                age: Some(7),
            };
            (!text.is_empty()).then_some((service, standing))
        };
        Row(SERVICES.into_iter().zip(states).filter_map(standing).collect())
    }

    fn set(states: &mut States, service: &str, text: &'static str) {
        states[SERVICES.iter().position(|known| *known == service).expect("a service")] = text;
    }

    const CONFIRMED: States = [
        "confirmed",
        "captured",
        "committed",
        "dispatched",
        "order_confirmed=sent",
        "place_order=completed return_order=compensated",
    ];
    const RETURNED: States = [
        "returned",
        "refunded",
        "restocked",
        "cancelled",
        "order_confirmed=sent order_returned=failed",
        "place_order=completed return_order=completed",
    ];
    const REJECTED: States = ["rejected", "voided", "", "refused", "", "place_order=compensated"];

    #[test]
    fn the_states_that_a_final_order_requires_are_accepted() {
        for states in [CONFIRMED, RETURNED, REJECTED] {
            assert_eq!(judge(&row(states)), Judgement::Fits, "{states:?}");
        }
        let mut cancelled = REJECTED;
        set(&mut cancelled, ORDER, "cancelled");
        set(&mut cancelled, RESERVATION, "released");
        assert_eq!(judge(&row(cancelled)), Judgement::Fits);
    }

    #[test]
    fn every_difference_is_named() {
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
            set(&mut states, service, other);
            let Judgement::Wrong(text) = judge(&row(states)) else { panic!("{states:?} fits") };
            assert!(text.contains(said), "{text} does not say that {said}");
        }
        let mut dear = row(CONFIRMED);
        dear.0.get_mut(PAYMENT).expect("a payment").amount = Some(101);
        assert!(matches!(judge(&dear), Judgement::Wrong(text) if text.contains("another amount")));
    }

    #[test]
    fn states_without_an_order_are_orphans() {
        let Judgement::Wrong(text) = judge(&row(["", "captured", "", "booked", "", ""])) else {
            panic!("it fits")
        };
        assert_eq!(text, "there is no such order, but a payment (captured) and a shipment (booked)");
    }

    #[test]
    fn an_order_under_way_is_judged_later() {
        let pending = ["pending", "authorized", "held", "", "", "place_order=running"];
        assert_eq!(judge(&row(pending)), Judgement::UnderWay { age: 7, stuck: false, begun: true });
        let mut stuck = pending;
        set(&mut stuck, SAGAS, "place_order=stuck");
        assert_eq!(judge(&row(stuck)), Judgement::UnderWay { age: 7, stuck: true, begun: true });
        let mut closing = CONFIRMED;
        set(&mut closing, NOTICES, "");
        set(&mut closing, SAGAS, "place_order=running");
        assert_eq!(judge(&row(closing)), Judgement::UnderWay { age: 7, stuck: false, begun: true });
    }
}
