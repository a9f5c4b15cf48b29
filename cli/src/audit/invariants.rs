//! The nine invariants, and the evidence that each of them is judged by.

use serde::Serialize;

use super::orders::Orders;
use super::pending::Pending;
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
    /// A third one, read after the orders.
    pub after: AuditSnapshot,
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
    conclude_sums(&mut invariants, snapshot, evidence);
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

/// Compares the sums of the orders that have ended.
fn conclude_sums(invariants: &mut [Invariant], snapshot: &AuditSnapshot, evidence: &Evidence) {
    let none = Pending::default();
    let pending = evidence.orders.as_ref().map_or(&none, |orders| &orders.pending);
    let under_way = snapshot.under_way();
    let open = match &evidence.orders {
        // What is under way is not known.
        Err(_) if !under_way.is_empty() => Some(under_way.join(", ")),
        Ok(orders) if orders.pending.moving > 0 => Some("orders have moved meanwhile".to_owned()),
        Ok(orders) if orders.pending.count > 0 => evidence.again.moved(&evidence.after),
        Ok(_) | Err(_) => None,
    };
    if let Some(open) = snapshot.moved(&evidence.again).or(open) {
        for one in [0, 1] {
            invariants[one].is_open(&format!("sums can't be compared yet: {open}"));
        }
        return;
    }
    for finding in snapshot.money_differs(pending) {
        invariants[0].breaks([], finding);
    }
    if pending.uneven_stock > 0 {
        let uneven = pending.uneven_stock;
        invariants[1]
            .is_open(&format!("sums can't be compared yet: {uneven} orders under way have moved pieces"));
    } else {
        for finding in snapshot.stock_differs() {
            invariants[1].breaks([], finding);
        }
    }
    if let Some(names) = pending.names() {
        for one in [0, 1, 2] {
            invariants[one].notes(&names);
        }
    }
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

    /// Adds a remark that does not change the judgement.
    fn notes(&mut self, remark: &str) {
        self.findings.push(remark.to_owned());
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
    use std::collections::BTreeMap;

    use anyhow::anyhow;
    use serde_json::json;
    use uuid::Uuid;

    use super::super::snapshot::tests::{set, snapshot};
    use super::*;

    /// Nothing is found, and the second snapshot is equal to the first.
    fn nothing_found(snapshot: &AuditSnapshot) -> Evidence {
        Evidence {
            again: snapshot.clone(),
            after: snapshot.clone(),
            orders: Ok(Orders::default()),
            topics: Ok(Topics::default()),
        }
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
    fn sums_are_those_of_the_orders_that_have_ended_and_the_others_are_named() {
        let mut snapshot = snapshot();
        set(&mut snapshot, "order", "/orders", json!({"confirmed": 2, "pending": 1}));
        set(&mut snapshot, "payment", "/captured/0/amount", json!(401));
        let with = |pending| Evidence {
            orders: Ok(Orders { pending, ..Orders::default() }),
            ..nothing_found(&snapshot)
        };
        let captured = Pending {
            count: 1,
            ids: vec![Uuid::nil()],
            money: BTreeMap::from([("EUR".to_owned(), (1, 0))]),
            ..Pending::default()
        };
        assert_eq!(numbers(&snapshot, &with(captured.clone())), (vec![], vec![]));
        let named = conclude(&snapshot, &with(captured.clone()));
        assert!(named[..3].iter().all(|one| one.findings[0].contains(&Uuid::nil().to_string())), "{named:?}");
        assert_eq!(numbers(&snapshot, &with(Pending::default())), (vec![1], vec![]), "it has cost 1");
        let uneven = Pending { uneven_stock: 1, ..captured.clone() };
        assert_eq!(numbers(&snapshot, &with(uneven)), (vec![], vec![2]));
        let moving = Pending { moving: 1, ..captured.clone() };
        assert_eq!(numbers(&snapshot, &with(moving)), (vec![], vec![1, 2]));
        // It has moved since the sums were read.
        let mut after = snapshot.clone();
        set(&mut after, "order", "/orders", json!({"confirmed": 3}));
        assert_eq!(numbers(&snapshot, &Evidence { after, ..with(captured) }), (vec![], vec![1, 2]));
        let unread = Evidence { orders: Err(anyhow!("no pages")), ..nothing_found(&snapshot) };
        assert_eq!(numbers(&snapshot, &unread), (vec![], vec![1, 2, 3, 4, 8]));
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
        let uneven = Pending { count: 1, uneven_stock: 1, ..Pending::default() };
        let orders = Ok(Orders { pending: uneven, ..Orders::default() });
        let invariants = conclude(&snapshot, &Evidence { orders, ..nothing_found(&snapshot) });
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
        let evidence = Evidence { orders: Ok(orders), topics: Ok(topics), ..nothing_found(&snapshot()) };
        assert_eq!(numbers(&snapshot(), &evidence), (vec![3, 4, 6, 7, 8], vec![]));
        let evidence = Evidence {
            orders: Err(anyhow!("no pages")),
            topics: Err(anyhow!("no broker")),
            ..nothing_found(&snapshot())
        };
        assert_eq!(numbers(&snapshot(), &evidence), (vec![], vec![3, 4, 6, 7, 8]));
    }
}
