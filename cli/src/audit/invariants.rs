//! The nine statements, and what each of them is made of.

use serde::Serialize;

use super::orders::Orders;
use super::snapshot::AuditSnapshot;
use super::topics::Topics;

/// Most ids that a statement names. The first ones show the pattern.
const MOST_NAMED: usize = 20;

/// Names and meanings, from number 1 on.
const NINE: [(&str, &str); 9] = [
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

/// Which of the nine a service's own statement belongs to. What is not listed is about things that are left over.
pub fn number(service: &str, name: &str) -> usize {
    match (service, name) {
        ("payment", "an_entry_is_the_effect_of_a_step")
        | ("inventory", "an_entry_is_the_effect_of_a_step")
        | ("shipping", "a_shipment_is_the_effect_of_a_step")
        | ("notification", "a_notice_is_the_effect_of_a_step" | "a_customer_is_told_once")
        | ("orchestrator", "a_step_is_answered_once" | "an_end_is_decided_once") => 5,
        ("order", "a_timeline_is_in_order") | ("orchestrator", "answers_are_in_order") => 6,
        ("order", "an_answer_has_its_order" | "an_order_has_one_key") => 8,
        ("order", "total_is_the_sum_of_the_lines") | ("payment", _) => 1,
        ("inventory", _) => 2,
        ("orchestrator", "an_open_saga_is_woken") | ("shipping", "a_released_shipment_is_asked_about") => 4,
        ("orchestrator", _) => 9,
        _ => 3,
    }
}

/// One of the nine, and whether it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Invariant {
    pub number: usize,
    pub name: &'static str,
    /// What must be true, in a sentence.
    pub says: &'static str,
    /// `None` if it can't be said yet.
    pub holds: Option<bool>,
    /// The ids of what offends against it, at most 20.
    pub offending: Vec<String>,
    /// What is wrong, one sentence each, or why nothing can be said.
    pub findings: Vec<String>,
}

/// What was looked at beside the books.
pub struct Evidence {
    /// The books, read a second time.
    pub again: AuditSnapshot,
    pub orders: anyhow::Result<Orders>,
    pub topics: anyhow::Result<Topics>,
}

/// Says of each of the nine whether it holds.
pub fn conclude(books: &AuditSnapshot, looked: &Evidence) -> Vec<Invariant> {
    let mut nine: Vec<Invariant> = (1..)
        .zip(NINE)
        .map(|(number, (name, says))| Invariant {
            number,
            name,
            says,
            holds: Some(true),
            offending: Vec::new(),
            findings: Vec::new(),
        })
        .collect();
    for broken in books.broken() {
        nine[broken.number - 1].breaks(broken.offending, broken.says);
    }
    if let Some(open) = books.sums_open(&looked.again) {
        nine[0].is_open(&format!("sums can't be compared yet: {open}"));
        nine[1].is_open(&format!("sums can't be compared yet: {open}"));
    } else {
        for finding in books.money_differs() {
            nine[0].breaks([], finding);
        }
        for finding in books.stock_differs() {
            nine[1].breaks([], finding);
        }
    }
    let under_way = books.under_way();
    if !under_way.is_empty() {
        nine[2].is_open(&format!("it can't be said of everything yet: {}", under_way.join(", ")));
    }
    match &looked.orders {
        Ok(orders) => conclude_orders(&mut nine, orders),
        Err(error) => [2, 3, 7].into_iter().for_each(|one: usize| nine[one].is_open(&format!("{error:#}"))),
    }
    match &looked.topics {
        Ok(topics) => conclude_topics(&mut nine, topics),
        Err(error) => [5, 6].into_iter().for_each(|one: usize| nine[one].is_open(&format!("{error:#}"))),
    }
    for one in &mut nine {
        one.offending.truncate(MOST_NAMED);
        one.findings.truncate(MOST_NAMED);
    }
    nine
}

fn conclude_orders(nine: &mut [Invariant], orders: &Orders) {
    for (id, what) in &orders.wrong {
        nine[2].breaks([id.to_string()], format!("{id}: {what}"));
    }
    if orders.unread > 0 {
        nine[2].is_open(&format!("{} more orders that may not fit were not looked at", orders.unread));
    }
    for id in &orders.late {
        nine[3].breaks(
            [id.to_string()],
            format!("{id} is under way for too long, and neither stuck nor parked"),
        );
    }
    if orders.under_way > 0 {
        nine[3].is_open(&format!("{} orders are under way", orders.under_way));
    }
    for id in &orders.missing {
        nine[7].breaks([id.to_string()], format!("{id} was accepted, and is not there"));
    }
    if orders.unasked > 0 {
        nine[7].is_open(&format!("{} more accepted orders were not looked for", orders.unasked));
    }
}

fn conclude_topics(nine: &mut [Invariant], topics: &Topics) {
    for key in &topics.disorder {
        nine[5].breaks(
            [key.clone()],
            format!("not in the order in which they were written: the messages of {key}"),
        );
    }
    for finding in &topics.wrong {
        nine[6].breaks([], finding.clone());
    }
    if topics.unsent > 0 {
        nine[6].is_open(&format!("{} messages are on their way", topics.unsent));
    }
}

impl Invariant {
    fn breaks(&mut self, offending: impl IntoIterator<Item = String>, finding: String) {
        // Why it was open matters no more.
        if self.holds != Some(false) {
            self.findings.clear();
        }
        self.holds = Some(false);
        self.offending.extend(offending);
        self.findings.push(finding);
    }

    /// It can't be said yet, unless it is broken: that is so at any time.
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

    use super::super::snapshot::tests::{books, set};
    use super::*;

    /// Nothing is found, and the books were the same when they were read again.
    fn nothing_found(books: &AuditSnapshot) -> Evidence {
        Evidence { again: books.clone(), orders: Ok(Orders::default()), topics: Ok(Topics::default()) }
    }

    /// Which of the nine do not hold, and which are open.
    fn numbers(books: &AuditSnapshot, looked: &Evidence) -> (Vec<usize>, Vec<usize>) {
        let nine = conclude(books, looked);
        let of = |holds| nine.iter().filter(move |one| one.holds == holds).map(|one| one.number).collect();
        (of(Some(false)), of(None))
    }

    #[test]
    fn all_nine_hold_where_nothing_is_found() {
        assert_eq!(numbers(&books(), &nothing_found(&books())), (vec![], vec![]));
    }

    #[test]
    fn sums_are_not_compared_while_an_order_is_under_way() {
        let mut books = books();
        set(&mut books, "order", "/orders", json!({"pending": 1}));
        set(&mut books, "payment", "/captured/0/amount", json!(401));
        assert_eq!(numbers(&books, &nothing_found(&books)), (vec![], vec![1, 2, 3]));
    }

    #[test]
    fn sums_of_different_moments_are_not_compared() {
        // An order was placed after order was read, and captured and shipped before payment and inventory were.
        let mut early = books();
        set(&mut early, "payment", "/captured/0/amount", json!(500));
        set(&mut early, "inventory", "/products/lamp/shipped", json!(4));
        let mut again = early.clone();
        set(&mut again, "order", "/orders", json!({"confirmed": 3}));
        set(&mut again, "order", "/confirmed/0/amount", json!(400));
        set(&mut again, "order", "/sold/lamp", json!(4));
        let looked = Evidence { again: again.clone(), ..nothing_found(&early) };
        assert_eq!(numbers(&early, &looked), (vec![], vec![1, 2]));
        assert_eq!(numbers(&again, &nothing_found(&again)), (vec![], vec![]));
        assert_eq!(numbers(&early, &nothing_found(&early)), (vec![1, 2], vec![]));
    }

    #[test]
    fn a_broken_statement_is_a_failure_even_then() {
        let mut books = books();
        set(&mut books, "order", "/orders", json!({"pending": 1}));
        let broken = json!({"name": "n", "says": "it holds", "holds": false, "offending": ["a", "b"]});
        set(&mut books, "payment", "/statements/0", broken);
        let nine = conclude(&books, &nothing_found(&books));
        assert_eq!((nine[0].holds, nine[1].holds), (Some(false), None));
        assert!(nine[0].findings[0].contains("it holds (a, b)"), "{:?}", nine[0].findings);
        assert_eq!(nine[0].offending, ["a", "b"]);
    }

    #[test]
    fn what_was_not_looked_at_is_not_said_to_hold() {
        let orders = Orders { unread: 1, unasked: 1, ..Orders::default() };
        let looked = Evidence { orders: Ok(orders), ..nothing_found(&books()) };
        assert_eq!(numbers(&books(), &looked), (vec![], vec![3, 8]));
    }

    #[test]
    fn what_is_found_beside_the_books_belongs_to_its_number() {
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
        let looked = Evidence { again: books(), orders: Ok(orders), topics: Ok(topics) };
        assert_eq!(numbers(&books(), &looked), (vec![3, 4, 6, 7, 8], vec![]));
        let looked =
            Evidence { again: books(), orders: Err(anyhow!("no pages")), topics: Err(anyhow!("no broker")) };
        assert_eq!(numbers(&books(), &looked), (vec![], vec![3, 4, 6, 7, 8]));
    }
}
