//! Whether money and stock add up: every service's statements about itself, and the sums of one held against another's.

mod command;

use std::time::{Duration, Instant};

use serde_json::{Map, Value};

pub use self::command::Audit;
use crate::api::Api;

/// The services that have books.
const AUDITED: [&str; 4] = ["order", "payment", "inventory", "orchestrator"];

/// How long the first wait between two looks is; each one doubles it, for a look reads every row.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// What the services say of themselves.
#[derive(Debug)]
struct Books {
    order: Value,
    payment: Value,
    inventory: Value,
    orchestrator: Value,
}

/// Whether it adds up, and what does not.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Captured less refunded is what confirmed orders cost, and every statement about money holds. `None` if the
    /// suite did not come to rest, so that sums can't be compared.
    pub money: Option<bool>,
    /// Shipped is what confirmed orders have, nothing is held, and every statement about stock holds. `None` as above.
    pub stock: Option<bool>,
    /// What is wrong, one sentence each.
    pub findings: Vec<String>,
}

impl Verdict {
    pub fn holds(&self) -> bool {
        self.money == Some(true) && self.stock == Some(true)
    }
}

/// Waits until nothing is under way, at most for `patience`, and says whether money and stock add up. A service that
/// does not answer then leaves both open.
pub async fn at_rest(api: &Api, patience: Duration) -> Verdict {
    let deadline = Instant::now() + patience;
    let mut wait = FIRST_WAIT;
    loop {
        let verdict = Books::read(api).await.map_or_else(
            |error| Verdict { findings: vec![format!("there is no audit: {error:#}")], ..Verdict::default() },
            |books| books.verdict(),
        );
        // What an order does last (its stock leaves the house) is done after it has settled.
        if verdict.holds() || Instant::now() + wait > deadline {
            return verdict;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

impl Books {
    async fn read(api: &Api) -> anyhow::Result<Self> {
        Ok(Self {
            order: api.get("order", "/audit").await?,
            payment: api.get("payment", "/audit").await?,
            inventory: api.get("inventory", "/audit").await?,
            orchestrator: api.get("orchestrator", "/audit").await?,
        })
    }

    fn verdict(&self) -> Verdict {
        let mut findings = broken("order", &self.order);
        // What a saga has done wrong concerns both.
        findings.extend(broken("orchestrator", &self.orchestrator));
        let order_holds = findings.is_empty();
        let payment = broken("payment", &self.payment);
        let inventory = broken("inventory", &self.inventory);
        let mut money = order_holds && payment.is_empty();
        let mut stock = order_holds && inventory.is_empty();
        findings.extend(payment);
        findings.extend(inventory);
        let under_way = self.under_way();
        if !under_way.is_empty() {
            findings.extend(under_way);
            // A statement that is broken is broken at any time; sums can't be compared yet.
            let unless_broken = |holds: bool| if holds { None } else { Some(false) };
            return Verdict { money: unless_broken(money), stock: unless_broken(stock), findings };
        }
        let differences = self.money_differs();
        money &= differences.is_empty();
        findings.extend(differences);
        let differences = self.stock_differs();
        stock &= differences.is_empty();
        findings.extend(differences);
        Verdict { money: Some(money), stock: Some(stock), findings }
    }

    /// What is still being done.
    fn under_way(&self) -> Vec<String> {
        let counts = [
            (&self.order["orders"]["pending"], "orders are pending"),
            (&self.payment["payments"]["authorizing"], "payments are being authorized"),
            (
                &self.payment["payments"]["authorized"],
                "payments are authorized, and neither captured nor voided",
            ),
            (&self.inventory["reservations"]["held"], "reservations are held"),
            (&self.orchestrator["sagas"]["running"], "sagas are under way"),
            (&self.orchestrator["sagas"]["compensating"], "sagas are being undone"),
            (&self.orchestrator["sagas"]["stuck"], "sagas are stuck (`amends saga list --status stuck`)"),
        ];
        let open = counts.into_iter().filter_map(|(count, what)| {
            let count = count.as_i64().unwrap_or(0);
            (count > 0).then(|| format!("{count} {what}"))
        });
        open.collect()
    }

    fn money_differs(&self) -> Vec<String> {
        let sum = |list: &Value, currency: &str| -> i64 {
            let amounts = list.as_array().into_iter().flatten().filter(|money| money["currency"] == currency);
            amounts.filter_map(|money| money["amount"].as_i64()).sum()
        };
        let lists = [&self.order["confirmed"], &self.payment["captured"], &self.payment["refunded"]];
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

    fn stock_differs(&self) -> Vec<String> {
        let empty = Map::new();
        let sold = self.order["sold"].as_object().unwrap_or(&empty);
        let products = self.inventory["products"].as_object().unwrap_or(&empty);
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

/// The statements of a service that do not hold.
fn broken(service: &str, books: &Value) -> Vec<String> {
    let statements = books["statements"].as_array().into_iter().flatten();
    let broken = statements.filter(|statement| statement["holds"] != true).map(|statement| {
        let ids: Vec<&str> =
            statement["offending"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let says = statement["says"].as_str().unwrap_or_default();
        format!("{service}: this does not hold: {says} ({})", ids.join(", "))
    });
    broken.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn books() -> Books {
        let holds = json!([{"name": "n", "says": "all is well", "holds": true, "offending": []}]);
        Books {
            order: json!({"statements": holds, "orders": {"confirmed": 2}, "sold": {"lamp": 3},
                          "confirmed": [{"amount": 300, "currency": "EUR"}]}),
            payment: json!({"statements": holds, "payments": {"captured": 2, "refunded": 1},
                            "captured": [{"amount": 400, "currency": "EUR"}],
                            "refunded": [{"amount": 100, "currency": "EUR"}]}),
            inventory: json!({"statements": holds, "reservations": {"committed": 2},
                              "products": {"lamp": {"shipped": 3}, "mug": {"shipped": 0}}}),
            orchestrator: json!({"statements": holds, "sagas": {"completed": 3}}),
        }
    }

    #[test]
    fn captured_less_refunded_is_what_confirmed_orders_cost() {
        assert!(books().verdict().holds());
        let mut books = books();
        books.payment["captured"][0]["amount"] = json!(401);
        let verdict = books.verdict();
        assert_eq!((verdict.money, verdict.stock), (Some(false), Some(true)));
        assert!(verdict.findings[0].contains("401 captured"), "{:?}", verdict.findings);
        books.payment["captured"] =
            json!([{"amount": 400, "currency": "EUR"}, {"amount": 1, "currency": "USD"}]);
        assert!(books.verdict().findings[0].contains("USD"));
    }

    #[test]
    fn what_is_shipped_is_what_was_sold() {
        for (sku, shipped) in [("lamp", 4), ("mug", 1)] {
            let mut books = books();
            books.inventory["products"][sku]["shipped"] = json!(shipped);
            let verdict = books.verdict();
            assert_eq!((verdict.money, verdict.stock), (Some(true), Some(false)));
            assert!(verdict.findings[0].contains(sku));
        }
    }

    #[test]
    fn sums_are_not_compared_while_an_order_is_under_way() {
        for (service, counts, status) in [
            ("order", "orders", "pending"),
            ("payment", "payments", "authorized"),
            ("inventory", "reservations", "held"),
            ("orchestrator", "sagas", "stuck"),
        ] {
            let mut books = books();
            let book = match service {
                "order" => &mut books.order,
                "payment" => &mut books.payment,
                "orchestrator" => &mut books.orchestrator,
                _ => &mut books.inventory,
            };
            book[counts][status] = json!(1);
            let verdict = books.verdict();
            assert_eq!((verdict.money, verdict.stock), (None, None), "{service}");
            assert_eq!(verdict.findings.len(), 1);
        }
    }

    #[test]
    fn a_broken_statement_is_a_failure_even_then() {
        let mut books = books();
        books.order["orders"]["pending"] = json!(1);
        books.payment["statements"][0] =
            json!({"name": "n", "says": "it holds", "holds": false, "offending": ["a", "b"]});
        let verdict = books.verdict();
        assert_eq!((verdict.money, verdict.stock), (Some(false), None));
        assert!(verdict.findings[0].contains("it holds (a, b)"), "{:?}", verdict.findings);
    }
}
