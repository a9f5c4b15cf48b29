//! The nine invariants, and the evidence that each of them is judged by.

use serde::Serialize;

use super::orders::Orders;
use super::snapshot::{AuditSnapshot, INVARIANTS};
use super::topics::Topics;

/// The most ids that an invariant lists. The first ones show the pattern.
const MOST_NAMED: usize = 20;

/// Names and meanings, from number 1 on.
const NAMES: [(&str, &str); INVARIANTS] = [
    (
        "money",
        "captured less refunded is what standing orders cost, each order has cost nothing or its total",
    ),
    ("stock", "on hand, reserved and shipped are what was received, and what was shipped is what was sold"),
    ("orphans", "everything belongs to an order, and fits where that order stands; nothing else is left"),
    ("ends", "every order comes to its end in time, or is stuck or parked with a reason"),
    ("once", "a step has one effect and one answer, however often it is asked"),
    ("order", "messages of one key are sent and handled in the order in which they were written"),
    ("outbox", "what was committed is on its topic, and nothing else is"),
    ("accepted", "an order that was accepted is there, and is there once"),
    (
        "undoing",
        "nothing is undone past an open step or an open undo, later groups first, and the pivot never is",
    ),
];

/// One of the nine invariants, and whether it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Invariant {
    pub number: usize,
    pub name: &'static str,
    /// What must be true, in a sentence.
    pub says: &'static str,
    /// `None` if that can't be said yet.
    pub holds: Option<bool>,
    /// The ids that violate it, at most 20.
    pub violations: Vec<String>,
    /// One sentence for each violation, or for each reason why nothing can be said yet.
    pub findings: Vec<String>,
}

/// What was read after the first snapshot.
pub struct Evidence {
    /// A second snapshot.
    pub again: AuditSnapshot,
    pub orders: anyhow::Result<Orders>,
    pub topics: anyhow::Result<Topics>,
}

/// Judges each of the nine invariants.
pub fn conclude(snapshot: &AuditSnapshot, evidence: &Evidence) -> Vec<Invariant> {
    let mut invariants: Vec<Invariant> = (1..)
        .zip(NAMES)
        .map(|(number, (name, says))| Invariant {
            number,
            name,
            says,
            holds: Some(true),
            violations: Vec::new(),
            findings: Vec::new(),
        })
        .collect();
    for broken in snapshot.broken() {
        invariants[broken.invariant - 1].breaks(broken.violations, broken.says);
    }
    if let Some(open) = snapshot.sums_open(&evidence.again) {
        invariants[0].is_open(&format!("sums can't be compared yet: {open}"));
        invariants[1].is_open(&format!("sums can't be compared yet: {open}"));
    } else {
        for finding in snapshot.money_differs() {
            invariants[0].breaks([], finding);
        }
        for finding in snapshot.stock_differs() {
            invariants[1].breaks([], finding);
        }
    }
    let under_way = snapshot.under_way();
    if !under_way.is_empty() {
        invariants[2].is_open(&format!("it can't be said of everything yet: {}", under_way.join(", ")));
    }
    match &evidence.orders {
        Ok(orders) => conclude_orders(&mut invariants, orders),
        Err(error) => {
            [2, 3, 7].into_iter().for_each(|one: usize| invariants[one].is_open(&format!("{error:#}")))
        }
    }
    match &evidence.topics {
        Ok(topics) => conclude_topics(&mut invariants, topics),
        Err(error) => {
            [5, 6].into_iter().for_each(|one: usize| invariants[one].is_open(&format!("{error:#}")))
        }
    }
    for one in &mut invariants {
        one.violations.truncate(MOST_NAMED);
        one.findings.truncate(MOST_NAMED);
    }
    invariants
}

fn conclude_orders(invariants: &mut [Invariant], orders: &Orders) {
    for (id, what) in &orders.wrong {
        invariants[2].breaks([id.to_string()], format!("{id}: {what}"));
    }
    if orders.unread > 0 {
        invariants[2].is_open(&format!("{} more orders that may not fit were not looked at", orders.unread));
    }
    for id in &orders.late {
        invariants[3].breaks(
            [id.to_string()],
            format!("{id} is under way for too long, and neither stuck nor parked"),
        );
    }
    for id in &orders.unbegun {
        invariants[3].breaks(
            [id.to_string()],
            format!(
                "{id} was accepted, and its saga has not begun; if its event was deleted from the topic, see \"Deleted \
                 records\" in docs/operations.md"
            ),
        );
    }
    if orders.under_way > 0 {
        invariants[3].is_open(&format!("{} orders are under way", orders.under_way));
    }
    for id in &orders.missing {
        invariants[7].breaks([id.to_string()], format!("{id} was accepted, and is not there"));
    }
    if orders.unasked > 0 {
        invariants[7].is_open(&format!("{} more accepted orders were not looked for", orders.unasked));
    }
}

fn conclude_topics(invariants: &mut [Invariant], topics: &Topics) {
    for key in &topics.disorder {
        invariants[5].breaks(
            [key.clone()],
            format!("not in the order in which they were written: the messages of {key}"),
        );
    }
    for finding in &topics.wrong {
        invariants[6].breaks([], finding.clone());
    }
    if topics.unsent > 0 {
        invariants[6].is_open(&format!("{} messages are on their way", topics.unsent));
    }
}

impl Invariant {
    fn breaks(&mut self, violations: impl IntoIterator<Item = String>, finding: String) {
        // An invariant that is broken is no longer open, so the reasons for that go.
        if self.holds != Some(false) {
            self.findings.clear();
        }
        self.holds = Some(false);
        self.violations.extend(violations);
        self.findings.push(finding);
    }

    /// Notes that nothing can be said yet. An invariant that is broken stays broken.
    fn is_open(&mut self, why: &str) {
        if self.holds == Some(false) {
            return;
        }
        self.holds = None;
        self.findings.push(why.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use serde_json::json;
    use uuid::Uuid;

    use super::super::snapshot::tests::{set, snapshot};
    use super::*;

    /// Nothing is found, and the second snapshot is equal to the first.
    fn nothing_found(snapshot: &AuditSnapshot) -> Evidence {
        Evidence { again: snapshot.clone(), orders: Ok(Orders::default()), topics: Ok(Topics::default()) }
    }

    /// Returns the numbers of the invariants that do not hold, and of those that are open.
    fn numbers(snapshot: &AuditSnapshot, evidence: &Evidence) -> (Vec<usize>, Vec<usize>) {
        let invariants = conclude(snapshot, evidence);
        let of =
            |holds| invariants.iter().filter(move |one| one.holds == holds).map(|one| one.number).collect();
        (of(Some(false)), of(None))
    }

    #[test]
    fn all_nine_hold_where_nothing_is_found() {
        assert_eq!(numbers(&snapshot(), &nothing_found(&snapshot())), (vec![], vec![]));
    }

    #[test]
    fn sums_are_not_compared_while_an_order_is_under_way() {
        let mut snapshot = snapshot();
        set(&mut snapshot, "order", "/orders", json!({"pending": 1}));
        set(&mut snapshot, "payment", "/captured/0/amount", json!(401));
        assert_eq!(numbers(&snapshot, &nothing_found(&snapshot)), (vec![], vec![1, 2, 3]));
    }

    #[test]
    fn sums_of_different_moments_are_not_compared() {
        // An order was placed after order was read, and captured and shipped before payment and inventory were.
        let mut early = snapshot();
        set(&mut early, "payment", "/captured/0/amount", json!(500));
        set(&mut early, "inventory", "/products/lamp/shipped", json!(4));
        let mut again = early.clone();
        set(&mut again, "order", "/orders", json!({"confirmed": 3}));
        set(&mut again, "order", "/confirmed/0/amount", json!(400));
        set(&mut again, "order", "/sold/lamp", json!(4));
        let evidence = Evidence { again: again.clone(), ..nothing_found(&early) };
        assert_eq!(numbers(&early, &evidence), (vec![], vec![1, 2]));
        assert_eq!(numbers(&again, &nothing_found(&again)), (vec![], vec![]));
        assert_eq!(numbers(&early, &nothing_found(&early)), (vec![1, 2], vec![]));
    }

    #[test]
    fn a_broken_statement_is_a_failure_even_then() {
        let mut snapshot = snapshot();
        set(&mut snapshot, "order", "/orders", json!({"pending": 1}));
        let broken = json!({"name": "n", "invariant": 1, "says": "it holds", "holds": false, "violations": ["a", "b"]});
        set(&mut snapshot, "payment", "/statements/0", broken);
        let invariants = conclude(&snapshot, &nothing_found(&snapshot));
        assert_eq!((invariants[0].holds, invariants[1].holds), (Some(false), None));
        assert!(invariants[0].findings[0].contains("it holds (a, b)"), "{:?}", invariants[0].findings);
        assert_eq!(invariants[0].violations, ["a", "b"]);
    }

    #[test]
    fn an_invariant_with_unread_orders_is_open() {
        let orders = Orders { unread: 1, unasked: 1, ..Orders::default() };
        let evidence = Evidence { orders: Ok(orders), ..nothing_found(&snapshot()) };
        assert_eq!(numbers(&snapshot(), &evidence), (vec![], vec![3, 8]));
    }

    #[test]
    fn evidence_beside_the_snapshot_breaks_its_own_invariant() {
        let id = Uuid::nil();
        let orders = Orders {
            wrong: vec![(id, "x".to_owned())],
            late: vec![id],
            missing: vec![id],
            ..Orders::default()
        };
        let topics = Topics {
            wrong: vec!["y".to_owned()],
            disorder: vec!["k".to_owned()],
            unsent: 1,
            ..Topics::default()
        };
        let evidence = Evidence { again: snapshot(), orders: Ok(orders), topics: Ok(topics) };
        assert_eq!(numbers(&snapshot(), &evidence), (vec![3, 4, 6, 7, 8], vec![]));
        let evidence = Evidence {
            again: snapshot(),
            orders: Err(anyhow!("no pages")),
            topics: Err(anyhow!("no broker")),
        };
        assert_eq!(numbers(&snapshot(), &evidence), (vec![], vec![3, 4, 6, 7, 8]));
    }
}
