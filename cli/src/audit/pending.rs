//! The orders that are under way while the others are judged. The sums are those of all orders, so what these contribute is
//! taken off.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::merge::Row;
use super::order_rules::{ORDER, PAYMENT, RESERVATION};

/// The most orders that are named.
const MOST_NAMED: usize = 20;

/// What the orders under way contribute to the sums.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pending {
    /// How many they are.
    pub count: u64,
    /// The first of them.
    pub ids: Vec<Uuid>,
    /// By currency: what was captured for them and not refunded, and what those of them cost that stand.
    pub money: BTreeMap<String, (i64, i64)>,
    /// How many of them have their pieces shipped and are not sold, or the other way round. How many pieces that are is not
    /// known.
    pub uneven_stock: u64,
    /// How many of them were read at a moment at which they moved, so that they may contribute something else.
    pub moving: u64,
}

impl Pending {
    /// Adds an order that is under way.
    pub fn add(&mut self, id: Uuid, row: &Row) {
        self.count += 1;
        if self.ids.len() < MOST_NAMED {
            self.ids.push(id);
        }
        let is = |service: &str, state: &str| row.states(service).first().is_some_and(|one| one == state);
        for (service, state) in [(PAYMENT, "captured"), (ORDER, "confirmed")] {
            let Some(standing) = row.0.get(service).filter(|_| is(service, state)) else { continue };
            let currency = standing.currency.clone().unwrap_or_default();
            let (captured, standing_orders) = self.money.entry(currency).or_default();
            let sum = if service == PAYMENT { captured } else { standing_orders };
            *sum += standing.amount.unwrap_or_default();
        }
        if is(RESERVATION, "committed") != is(ORDER, "confirmed") {
            self.uneven_stock += 1;
        }
    }

    /// Adds an order that had moved when it was read again.
    pub fn add_moving(&mut self, id: Uuid) {
        self.add(id, &Row::default());
        self.moving += 1;
    }

    /// Names the orders; `None` if there are none.
    pub fn names(&self) -> Option<String> {
        let ids: Vec<String> = self.ids.iter().map(Uuid::to_string).collect();
        let more = if self.count > ids.len() as u64 { ", ..." } else { "" };
        match self.count {
            0 => None,
            1 => Some(format!("1 order is under way and left out: {}", ids.concat())),
            count => Some(format!("{count} orders are under way and left out: {}{more}", ids.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::merge::Standing;
    use super::*;

    fn row(order: &str, payment: &str, reservation: &str) -> Row {
        let standing = |state: &str| Standing {
            id: Uuid::nil(),
            states: vec![state.to_owned()],
            amount: Some(100),
            currency: Some("EUR".to_owned()),
            age: None,
        };
        let states = [(ORDER, order), (PAYMENT, payment), (RESERVATION, reservation)];
        Row(states.into_iter().map(|(service, state)| (service, standing(state))).collect())
    }

    #[test]
    fn what_an_order_under_way_contributes_to_the_sums_is_known() {
        let of = |order, payment, reservation| {
            let mut pending = Pending::default();
            pending.add(Uuid::nil(), &row(order, payment, reservation));
            (pending.money.get("EUR").copied().unwrap_or_default(), pending.uneven_stock)
        };
        assert_eq!(of("pending", "authorized", "held"), ((0, 0), 0));
        assert_eq!(of("pending", "captured", "held"), ((100, 0), 0), "behind the capture");
        assert_eq!(of("pending", "captured", "committed"), ((100, 0), 1), "its pieces are shipped");
        assert_eq!(of("confirmed", "captured", "held"), ((100, 100), 1));
        assert_eq!(of("confirmed", "captured", "committed"), ((100, 100), 0), "its notice is missing");
        assert_eq!(of("confirmed", "refunded", "restocked"), ((0, 100), 1), "it is being returned");
    }

    #[test]
    fn the_first_orders_under_way_are_named() {
        let mut pending = Pending::default();
        assert_eq!(pending.names(), None);
        pending.add(Uuid::nil(), &Row::default());
        let one = "1 order is under way and left out: 00000000-0000-0000-0000-000000000000";
        assert_eq!(pending.names().as_deref(), Some(one));
        (0..30).for_each(|_| pending.add_moving(Uuid::nil()));
        let names = pending.names().expect("names");
        assert!(names.starts_with("31 orders are under way") && names.ends_with(", ..."), "{names}");
        assert_eq!((pending.ids.len(), pending.moving), (MOST_NAMED, 30));
    }
}
