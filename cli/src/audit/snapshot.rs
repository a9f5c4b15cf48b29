//! What the services say of themselves: statements, what is under way, and sums that are held against each other.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::invariants;
use crate::api::Api;
use crate::json::{array, text_of};
use crate::suite::SERVICES;

/// What is not at its end: service, what it counts, the states that are not an end, and what is said of them.
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

/// Whose sums and counts are held against each other.
const COMPARED: [&str; 3] = ["order", "payment", "inventory"];

/// What every service says of itself, by its name.
#[derive(Debug, Clone, Default)]
pub struct AuditSnapshot(pub BTreeMap<&'static str, Value>);

/// A statement that does not hold.
#[derive(Debug)]
pub struct Broken {
    /// Which of the nine it belongs to.
    pub number: usize,
    pub offending: Vec<String>,
    pub says: String,
}

impl AuditSnapshot {
    /// Asks all services.
    pub async fn read(api: &Api) -> anyhow::Result<Self> {
        let mut books = Self::default();
        for service in SERVICES.map(|service| service.name) {
            books.0.insert(service, api.get(service, "/audit").await?);
        }
        Ok(books)
    }

    fn of(&self, service: &str) -> &Value {
        self.0.get(service).unwrap_or(&Value::Null)
    }

    /// The statements that do not hold.
    pub fn broken(&self) -> Vec<Broken> {
        let mut all = Vec::new();
        for (service, books) in &self.0 {
            for statement in array(&books["statements"]).iter().filter(|statement| statement["holds"] != true)
            {
                let ids = array(&statement["offending"]).iter().filter_map(Value::as_str);
                let offending: Vec<String> = ids.map(str::to_owned).collect();
                let says = text_of(statement, "says");
                let says = format!("{service}: this does not hold: {says} ({})", offending.join(", "));
                let number = invariants::number(service, text_of(statement, "name"));
                all.push(Broken { number, offending, says });
            }
        }
        all
    }

    /// What is still being done.
    pub fn under_way(&self) -> Vec<String> {
        let open = UNDER_WAY.into_iter().filter_map(|(service, what, states, says)| {
            let counts = &self.of(service)[what];
            let count: i64 = states.iter().filter_map(|state| counts[state].as_i64()).sum();
            (count > 0).then(|| format!("{count} {says}"))
        });
        open.collect()
    }

    /// Why the sums of these books can't be compared, by a second reading that began when this one had ended; `None` if they
    /// can.
    ///
    /// The services are read one after the other, so an order may be placed after order was read, and be captured before
    /// payment is. No order, payment or reservation comes back to a state that it has left, so a service with the same counts
    /// in both readings was the same all the time between them. Where all are, the sums are those of one moment: the one
    /// between the readings.
    pub fn sums_open(&self, again: &Self) -> Option<String> {
        for books in [self, again] {
            let under_way = books.under_way();
            if !under_way.is_empty() {
                return Some(under_way.join(", "));
            }
        }
        let moved: Vec<&str> =
            COMPARED.into_iter().filter(|service| self.figures(service) != again.figures(service)).collect();
        (!moved.is_empty()).then(|| format!("the books of {} moved on meanwhile", moved.join(", ")))
    }

    /// What a service says beside its statements.
    fn figures(&self, service: &str) -> Map<String, Value> {
        let mut figures = self.of(service).as_object().cloned().unwrap_or_default();
        figures.remove("statements");
        figures
    }

    pub fn money_differs(&self) -> Vec<String> {
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
        currencies.sort_unstable();
        currencies.dedup();
        let differs = currencies.into_iter().filter_map(|currency| {
            let [confirmed, captured, refunded] = lists.map(|list| sum(list, currency));
            (captured - refunded != confirmed).then(|| {
                format!(
                    "money: {captured} captured less {refunded} refunded is not the {confirmed} {currency} (in minor \
                     units) of confirmed orders"
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

#[cfg(test)]
pub mod tests {
    use serde_json::json;

    use super::*;

    pub fn books() -> AuditSnapshot {
        let holds = json!([{"name": "n", "says": "all is well", "holds": true, "offending": []}]);
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

    pub fn set(books: &mut AuditSnapshot, service: &'static str, pointer: &str, value: Value) {
        let place = books.0.get_mut(service).and_then(|books| books.pointer_mut(pointer));
        *place.unwrap_or_else(|| panic!("no {pointer} in {service}")) = value;
    }

    #[test]
    fn captured_less_refunded_is_what_confirmed_orders_cost() {
        assert_eq!((books().money_differs(), books().stock_differs()), (vec![], vec![]));
        let mut books = books();
        set(&mut books, "payment", "/captured/0/amount", json!(401));
        assert!(books.money_differs()[0].contains("401 captured"));
        let captured = json!([{"amount": 400, "currency": "EUR"}, {"amount": 1, "currency": "USD"}]);
        set(&mut books, "payment", "/captured", captured);
        assert!(books.money_differs()[0].contains("USD"));
    }

    #[test]
    fn what_is_shipped_is_what_was_sold() {
        for (sku, shipped) in [("lamp", 4), ("mug", 1)] {
            let mut books = books();
            set(&mut books, "inventory", &format!("/products/{sku}/shipped"), json!(shipped));
            assert!(books.stock_differs()[0].contains(sku));
            assert!(books.money_differs().is_empty());
        }
    }

    #[test]
    fn sums_are_compared_where_two_readings_are_the_same() {
        assert_eq!(books().sums_open(&books()), None);
        for (service, pointer, value) in [
            ("order", "/orders", json!({"confirmed": 3})),
            ("payment", "/captured/0/amount", json!(500)),
            ("inventory", "/products/lamp/shipped", json!(4)),
        ] {
            let mut again = books();
            set(&mut again, service, pointer, value);
            let why = books().sums_open(&again).expect("a reason");
            assert_eq!(why, format!("the books of {service} moved on meanwhile"));
        }
        let mut again = books();
        set(&mut again, "orchestrator", "/sagas", json!({"running": 1}));
        assert_eq!(books().sums_open(&again).as_deref(), Some("1 sagas are under way"));
        set(&mut again, "orchestrator", "/sagas", json!({"completed": 3}));
        set(&mut again, "order", "/statements", json!([]));
        set(&mut again, "shipping", "/shipments", json!({"delivered": 2}));
        assert_eq!(books().sums_open(&again), None, "a parcel on its way changes no sum");
    }

    #[test]
    fn whatever_has_not_ended_is_under_way() {
        for (service, what, states, says) in UNDER_WAY {
            for state in states {
                let mut books = books();
                set(&mut books, service, &format!("/{what}"), json!({*state: 3}));
                assert_eq!(books.under_way(), [format!("3 {says}")]);
            }
        }
        assert!(books().under_way().is_empty());
    }
}
