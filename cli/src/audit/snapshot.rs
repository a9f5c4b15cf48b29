//! A snapshot of what every service's `/audit` says: its statements, its counts by state, and the sums that are compared
//! between services.

use std::collections::BTreeMap;

use anyhow::bail;
use schemas::common::Money;
use serde_json::{Map, Value};

use super::pending::Pending;
use crate::api::Api;
use crate::json::{array, text_of};
use crate::suite::SERVICES;

/// The states that are not final: the service, the member with its counts, the states, and the words of a finding.
const UNDER_WAY: [(&str, &str, &[&str], &str); 9] = [
    ("order", "orders", &["pending"], "orders are pending"),
    ("payment", "payments", &["authorizing"], "payments are being authorized"),
    ("payment", "payments", &["authorized"], "payments are authorized, and neither captured nor voided"),
    ("inventory", "reservations", &["held"], "reservations are held"),
    ("shipping", "shipments", &["booking", "stopping"], "shipments are being booked or stopped"),
    ("notification", "notifications", &["sending"], "notices are being sent"),
    ("orchestrator", "sagas", &["running"], "sagas are under way"),
    ("orchestrator", "sagas", &["compensating"], "sagas are being undone"),
    ("orchestrator", "sagas", &["stuck"], "sagas are stuck (`amends saga list --status stuck`)"),
];

/// How many invariants there are. They are numbered from 1 on.
pub const INVARIANTS: usize = 9;

/// The services whose sums are compared with each other.
const COMPARED: [&str; 3] = ["order", "payment", "inventory"];

/// The answer of every service to `GET /audit`, by the service's name.
#[derive(Debug, Clone, Default)]
pub struct AuditSnapshot(pub BTreeMap<&'static str, Value>);

/// A statement that does not hold.
#[derive(Debug)]
pub struct Broken {
    /// The number of the invariant that it belongs to.
    pub invariant: usize,
    /// The ids that violate it.
    pub violations: Vec<String>,
    pub says: String,
}

impl AuditSnapshot {
    /// Reads `/audit` of every service, side by side.
    ///
    /// # Errors
    /// If a service does not answer, or has a statement that belongs to none of the invariants.
    pub async fn read(api: &Api) -> anyhow::Result<Self> {
        let mut snapshot = Self::default();
        let mut silent = Vec::new();
        for (service, answer) in api.get_all(&SERVICES, "/audit").await {
            match answer {
                Ok(answer) => {
                    check_numbers(service, &answer)?;
                    snapshot.0.insert(service, answer);
                }
                Err(error) => silent.push(format!("{error:#}")),
            }
        }
        if !silent.is_empty() {
            bail!("{}", silent.join("\n  "));
        }
        Ok(snapshot)
    }

    fn of(&self, service: &str) -> &Value {
        self.0.get(service).unwrap_or(&Value::Null)
    }

    /// Returns the statements that do not hold.
    pub fn broken(&self) -> Vec<Broken> {
        let mut all = Vec::new();
        for (service, answer) in &self.0 {
            let statements = array(&answer["statements"]).iter();
            for statement in statements.filter(|statement| statement["holds"] != true) {
                let Some(invariant) = invariant_of(statement) else { continue };
                let ids = array(&statement["violations"]).iter().filter_map(Value::as_str);
                let violations: Vec<String> = ids.map(str::to_owned).collect();
                let says = text_of(statement, "says");
                let says = match statement["error"].as_str() {
                    Some(error) => format!("{service}: this can't be checked: {says} ({error})"),
                    None => format!("{service}: this does not hold: {says} ({})", violations.join(", ")),
                };
                all.push(Broken { invariant, violations, says });
            }
        }
        all
    }

    /// Returns a finding for each state that is not final and that something is in.
    pub fn under_way(&self) -> Vec<String> {
        let open = UNDER_WAY.into_iter().filter_map(|(service, what, states, says)| {
            let counts = &self.of(service)[what];
            let count: i64 = states.iter().filter_map(|state| counts[state].as_i64()).sum();
            (count > 0).then(|| format!("{count} {says}"))
        });
        open.collect()
    }

    /// Returns the reason why the sums of this snapshot can't be compared, or `None` if they can. `again` is a second
    /// snapshot, which was begun after this one had ended.
    ///
    /// The services are not read at the same moment. An order may be placed after order was read, and be captured before
    /// payment is read. No order, payment or reservation comes back to a state that it has left. So a service with the
    /// same counts in both snapshots has not changed between them. If that is true of all services, the sums are those of
    /// one moment: the one between the two snapshots.
    pub fn moved(&self, again: &Self) -> Option<String> {
        let moved: Vec<&str> =
            COMPARED.into_iter().filter(|service| self.figures(service) != again.figures(service)).collect();
        (!moved.is_empty()).then(|| format!("the counts of {} have changed meanwhile", moved.join(", ")))
    }

    /// Returns the members of a service's answer without its statements.
    fn figures(&self, service: &str) -> Map<String, Value> {
        let mut figures = self.of(service).as_object().cloned().unwrap_or_default();
        figures.remove("statements");
        figures
    }

    /// Compares what payment captured with what order's standing orders cost, without the orders under way.
    pub fn money_differs(&self, pending: &Pending) -> Vec<String> {
        let sum = |list: &Value, currency: &str| -> i64 {
            let amounts = list.as_array().into_iter().flatten().filter(|money| money["currency"] == currency);
            amounts.filter_map(|money| money["amount"].as_i64()).sum()
        };
        let lists = [
            &self.of("order")["confirmed"],
            &self.of("payment")["captured"],
            &self.of("payment")["refunded"],
        ];
        let mut currencies: Vec<&str> = lists
            .iter()
            .flat_map(|list| {
                list.as_array().into_iter().flatten().filter_map(|money| money["currency"].as_str())
            })
            .collect();
        currencies.extend(pending.money.keys().map(String::as_str));
        currencies.sort_unstable();
        currencies.dedup();
        let differs = currencies.into_iter().filter_map(|currency| {
            let [confirmed, captured, refunded] = lists.map(|list| sum(list, currency));
            let (of_pending, pending_cost) = pending.money.get(currency).copied().unwrap_or_default();
            let (captured, confirmed) = (captured - of_pending, confirmed - pending_cost);
            (captured - refunded != confirmed).then(|| {
                let said = |amount| Money { amount, currency: currency.to_owned() };
                format!(
                    "money: {} captured less {} refunded is not the {} of confirmed orders",
                    said(captured).decimal(),
                    said(refunded).decimal(),
                    said(confirmed)
                )
            })
        });
        differs.collect()
    }

    pub fn stock_differs(&self) -> Vec<String> {
        let empty = Map::new();
        let sold = self.of("order")["sold"].as_object().unwrap_or(&empty);
        let products = self.of("inventory")["products"].as_object().unwrap_or(&empty);
        let mut skus: Vec<&String> = sold.keys().chain(products.keys()).collect();
        skus.sort_unstable();
        skus.dedup();
        let differs = skus.into_iter().filter_map(|sku| {
            let sold = sold.get(sku).and_then(Value::as_i64).unwrap_or(0);
            let shipped = products.get(sku).and_then(|stock| stock["shipped"].as_i64()).unwrap_or(0);
            (sold != shipped)
                .then(|| format!("stock: {shipped} pieces of `{sku}` were shipped, and {sold} were sold"))
        });
        differs.collect()
    }
}

/// The number of the invariant that a service's statement belongs to, if it is one of ours.
fn invariant_of(statement: &Value) -> Option<usize> {
    let number = usize::try_from(statement["invariant"].as_u64()?).ok()?;
    (1..=INVARIANTS).contains(&number).then_some(number)
}

/// Fails if a statement belongs to none of the invariants: if it did not hold, nobody would see it.
fn check_numbers(service: &str, answer: &Value) -> anyhow::Result<()> {
    for statement in array(&answer["statements"]) {
        if invariant_of(statement).is_none() {
            let (name, invariant) = (text_of(statement, "name"), &statement["invariant"]);
            bail!(
                "{service} says that its statement {name} belongs to invariant {invariant}, and there are {INVARIANTS}"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use serde_json::json;

    use super::*;

    pub fn snapshot() -> AuditSnapshot {
        let holds =
            json!([{"name": "n", "invariant": 3, "says": "all is well", "holds": true, "violations": []}]);
        AuditSnapshot(BTreeMap::from([
            (
                "order",
                json!({"statements": holds, "orders": {"confirmed": 2}, "sold": {"lamp": 3},
                       "confirmed": [{"amount": 300, "currency": "EUR"}]}),
            ),
            (
                "payment",
                json!({"statements": holds, "payments": {"captured": 2, "refunded": 1},
                       "captured": [{"amount": 400, "currency": "EUR"}],
                       "refunded": [{"amount": 100, "currency": "EUR"}]}),
            ),
            (
                "inventory",
                json!({"statements": holds, "reservations": {"committed": 2},
                       "products": {"lamp": {"shipped": 3}, "mug": {"shipped": 0}}}),
            ),
            ("shipping", json!({"statements": holds, "shipments": {"booked": 2}})),
            ("notification", json!({"statements": holds, "notifications": {"sent": 2}})),
            ("orchestrator", json!({"statements": holds, "sagas": {"completed": 3}})),
        ]))
    }

    pub fn set(snapshot: &mut AuditSnapshot, service: &'static str, pointer: &str, value: Value) {
        let place = snapshot.0.get_mut(service).and_then(|answer| answer.pointer_mut(pointer));
        *place.unwrap_or_else(|| panic!("no {pointer} in {service}")) = value;
    }

    #[test]
    fn every_statement_must_belong_to_an_invariant() {
        let answer =
            |invariant: Value| json!({"statements": [{"name": "n", "invariant": invariant, "holds": true}]});
        for number in 1..=INVARIANTS {
            assert!(check_numbers("order", &answer(json!(number))).is_ok(), "{number}");
        }
        for unknown in [json!(0), json!(10), json!(-1), json!("1"), Value::Null] {
            let error = check_numbers("order", &answer(unknown.clone())).expect_err("not one of the nine");
            assert!(error.to_string().contains("statement n"), "{unknown}: {error}");
        }
    }

    #[test]
    fn captured_less_refunded_is_what_confirmed_orders_cost() {
        let none = Pending::default();
        assert_eq!((snapshot().money_differs(&none), snapshot().stock_differs()), (vec![], vec![]));
        let mut snapshot = snapshot();
        set(&mut snapshot, "payment", "/captured/0/amount", json!(401));
        assert!(snapshot.money_differs(&none)[0].contains("4.01 captured"));
        let one = |money| Pending {
            count: 1,
            money: BTreeMap::from([("EUR".to_owned(), money)]),
            ..Pending::default()
        };
        assert_eq!(snapshot.money_differs(&one((1, 0))), [""; 0], "it was captured for an order under way");
        assert!(snapshot.money_differs(&one((0, 1)))[0].contains("4.01 captured"));
        let captured = json!([{"amount": 400, "currency": "EUR"}, {"amount": 1, "currency": "USD"}]);
        set(&mut snapshot, "payment", "/captured", captured);
        assert!(snapshot.money_differs(&none)[0].contains("USD"));
    }

    #[test]
    fn what_is_shipped_is_what_was_sold() {
        for (sku, shipped) in [("lamp", 4), ("mug", 1)] {
            let mut snapshot = snapshot();
            set(&mut snapshot, "inventory", &format!("/products/{sku}/shipped"), json!(shipped));
            assert!(snapshot.stock_differs()[0].contains(sku));
            assert!(snapshot.money_differs(&Pending::default()).is_empty());
        }
    }

    #[test]
    fn sums_are_compared_if_two_snapshots_are_the_same() {
        assert_eq!(snapshot().moved(&snapshot()), None);
        for (service, pointer, value) in [
            ("order", "/orders", json!({"confirmed": 3})),
            ("payment", "/captured/0/amount", json!(500)),
            ("inventory", "/products/lamp/shipped", json!(4)),
        ] {
            let mut again = snapshot();
            set(&mut again, service, pointer, value);
            let why = snapshot().moved(&again).expect("a reason");
            assert_eq!(why, format!("the counts of {service} have changed meanwhile"));
        }
        let mut again = snapshot();
        set(&mut again, "order", "/statements", json!([]));
        set(&mut again, "shipping", "/shipments", json!({"delivered": 2}));
        assert_eq!(snapshot().moved(&again), None, "a parcel on its way changes no sum");
    }

    #[test]
    fn whatever_has_not_ended_is_under_way() {
        for (service, what, states, says) in UNDER_WAY {
            for state in states {
                let mut snapshot = snapshot();
                set(&mut snapshot, service, &format!("/{what}"), json!({*state: 3}));
                assert_eq!(snapshot.under_way(), [format!("3 {says}")]);
            }
        }
        assert!(snapshot().under_way().is_empty());
    }
}
