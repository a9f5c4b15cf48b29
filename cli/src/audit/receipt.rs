//! The receipt of one order: everything that the services did for it, sorted by time, with sums.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use schemas::SERVICES;
use schemas::common::Money;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::api::Api;
use crate::json::{array, money, number, text_of};

/// The services in the order in which an order reaches them. It sorts effects that have the same time.
const CAUSAL_ORDER: [&str; SERVICES.len()] =
    ["order", "orchestrator", "inventory", "payment", "shipping", "notification"];
/// The kinds of entries of the two ledgers. In both, the third kind takes from the customer's side and the fourth gives back.
const MONEY: [&str; 4] = ["authorize", "void", "capture", "refund"];
const STOCK: [&str; 4] = ["reserved", "released", "committed", "restocked"];

/// The answers of the services about one order; null if a service does not know it.
#[derive(Debug, Clone, Default)]
pub struct Receipt {
    order: Value,
    payment: Value,
    reservation: Value,
    shipment: Value,
    notices: Value,
}

/// Something that was done, or an event about it.
struct Effect<'r> {
    at: &'r str,
    service: &'r str,
    what: &'r str,
    detail: String,
}

/// How much of one currency or product was moved by entries of each of the four kinds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Moved([i64; 4]);

impl Moved {
    /// The amount that is reserved, and neither taken nor released.
    fn held(self) -> i64 {
        self.0[0] - self.0[1] - self.0[2]
    }

    /// The amount that was taken and not given back.
    fn taken(self) -> i64 {
        self.0[2] - self.0[3]
    }
}

impl Receipt {
    /// Reads the order from all services.
    pub async fn read(api: &Api, id: Uuid) -> anyhow::Result<Self> {
        let found =
            async |service, path: String| api.find(service, &path).await.map(Option::unwrap_or_default);
        let (order, notices) = (format!("/orders/{id}"), format!("/notifications?orderId={id}"));
        let (order, payment, reservation, shipment, notices) = tokio::try_join!(
            api.get("order", &order),
            found("payment", format!("/payments/{id}")),
            found("inventory", format!("/reservations/{id}")),
            found("shipping", format!("/shipments/{id}")),
            api.get("notification", &notices),
        )?;
        Ok(Self { order, payment, reservation, shipment, notices })
    }

    /// Returns the lines to print.
    pub fn lines(&self) -> Vec<String> {
        let order = &self.order;
        let mut lines = vec![format!("order {}, {}", text_of(order, "id"), text_of(order, "status"))];
        for line in array(&order["items"]) {
            let (pieces, sku) = (number(&line["quantity"]), text_of(line, "sku"));
            lines.push(format!("  {pieces:>4} x {sku:<20} {:>12}", money(&line["unitPrice"])));
        }
        lines.push(format!("       total                {:>12}", money(&order["total"])));
        lines.push(String::new());
        for effect in self.effects() {
            let Effect { at, service, what, detail } = effect;
            lines.push(format!("{at:<32} {service:<12}  {what:<28} {detail}").trim_end().to_owned());
        }
        lines.push(String::new());
        lines.extend(self.sums());
        lines
    }

    /// Returns all effects, causes first. An effect and its event have the time at which their transaction began. That
    /// transaction began after the one of its cause had ended, so sorting by time sorts by cause.
    fn effects(&self) -> Vec<Effect<'_>> {
        let mut all = Vec::new();
        for entry in array(&self.reservation["entries"]) {
            let detail = format!("{} x {}", number(&entry["quantity"]), text_of(entry, "sku"));
            all.push(Effect::of("inventory", entry, "at", text_of(entry, "kind"), detail));
        }
        for entry in array(&self.payment["entries"]) {
            let (from, to) = (text_of(entry, "credit"), text_of(entry, "debit"));
            let detail = format!("{} from {from} to {to}", money(&entry["amount"]));
            all.push(Effect::of("payment", entry, "at", text_of(entry, "kind"), detail));
        }
        let stages = [
            ("createdAt", "shipment asked for"),
            ("dispatchedAt", "parcel picked up"),
            ("deliveredAt", "parcel arrived"),
        ];
        for (member, what) in stages.into_iter().filter(|(member, _)| self.shipment[member].is_string()) {
            all.push(Effect::of("shipping", &self.shipment, member, what, String::new()));
        }
        for notice in array(&self.notices["notifications"]) {
            let detail = format!("{} by {}", text_of(notice, "kind"), text_of(notice, "channel"));
            all.push(Effect::of("notification", notice, "createdAt", "notice", detail));
        }
        for told in array(&self.order["timeline"]) {
            let detail = match text_of(told, "type") {
                "shipping.booked.v1" => self.tracking().map(|number| format!("tracking number {number}")),
                _ => None,
            };
            let (service, kind) = (text_of(told, "service"), text_of(told, "type"));
            all.push(Effect::of(service, told, "at", kind, detail.unwrap_or_default()));
        }
        all.sort_by_key(|effect| (OffsetDateTime::parse(effect.at, &Rfc3339).ok(), effect.rank()));
        all
    }

    fn tracking(&self) -> Option<&str> {
        self.shipment["trackingNumber"].as_str()
    }

    fn sums(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (currency, moved, due) in self.money() {
            let said = |amount| Money { amount, currency: currency.clone() }.decimal();
            let [authorized, voided, captured, refunded] = moved.0.map(said);
            lines.push(format!(
                "money     {currency}: {authorized} authorized, {voided} voided, {captured} captured, {refunded} refunded; \
                 {} taken, {} to be",
                said(moved.taken()),
                said(due)
            ));
        }
        for (sku, moved, due) in self.pieces() {
            let [reserved, released, committed, restocked] = moved.0;
            lines.push(format!(
                "pieces    {sku}: {reserved} reserved, {released} released, {committed} committed, {restocked} restocked; \
                 {} taken, {due} to be",
                moved.taken()
            ));
        }
        lines.push(match (self.shipment["status"].as_str(), self.tracking()) {
            (None, _) => "parcel    none".to_owned(),
            (Some(status), None) => format!("parcel    {status}"),
            (Some(status), Some(number)) => format!("parcel    {status}, tracking number {number}"),
        });
        let notices = array(&self.notices["notifications"]).iter();
        let notices: Vec<String> =
            notices.rev().map(|one| format!("{} {}", text_of(one, "kind"), text_of(one, "status"))).collect();
        let notices = if notices.is_empty() { "none".to_owned() } else { notices.join(", ") };
        lines.push(format!("notices   {notices}"));
        lines
    }

    /// Returns a sentence for each sum that the order's status does not allow. A pending order allows every sum.
    pub fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.order["status"] == "pending" {
            return wrong;
        }
        for (currency, moved, due) in self.money() {
            if moved.taken() != due || moved.held() != 0 {
                let said = |amount| Money { amount, currency: currency.clone() }.decimal();
                let [taken, held, due, none] = [moved.taken(), moved.held(), due, 0].map(said);
                wrong.push(format!(
                    "money: {taken} {currency} taken and {held} held, to be: {due} and {none}"
                ));
            }
        }
        for (sku, moved, due) in self.pieces() {
            if moved.taken() != due || moved.held() != 0 {
                let (taken, held) = (moved.taken(), moved.held());
                wrong.push(format!(
                    "stock: {taken} pieces of `{sku}` taken and {held} held, to be: {due} and 0"
                ));
            }
        }
        wrong
    }

    /// Whether the customer has the goods, or will get them.
    fn stands(&self) -> bool {
        matches!(text_of(&self.order, "status"), "confirmed" | "shipped" | "delivered")
    }

    /// Returns for each currency the amounts that were moved, and the amount that should have been taken.
    fn money(&self) -> Vec<(String, Moved, i64)> {
        let entry = |entry: &Value| {
            let amount = &entry["amount"];
            (text_of(amount, "currency").to_owned(), number(&amount["amount"]))
        };
        let total = &self.order["total"];
        let due = [(text_of(total, "currency").to_owned(), number(&total["amount"]))];
        self.moved(&self.payment, MONEY, entry, due)
    }

    /// Returns for each product the pieces that were moved, and the pieces that should have been taken.
    fn pieces(&self) -> Vec<(String, Moved, i64)> {
        let line = |line: &Value| (text_of(line, "sku").to_owned(), number(&line["quantity"]));
        self.moved(&self.reservation, STOCK, line, array(&self.order["items"]).iter().map(line))
    }

    fn moved(
        &self,
        ledger: &Value,
        kinds: [&str; 4],
        read: impl Fn(&Value) -> (String, i64),
        ordered: impl IntoIterator<Item = (String, i64)>,
    ) -> Vec<(String, Moved, i64)> {
        let mut all: BTreeMap<String, (Moved, i64)> = BTreeMap::new();
        for (of, due) in ordered {
            all.entry(of).or_default().1 += if self.stands() { due } else { 0 };
        }
        for entry in array(&ledger["entries"]) {
            let (of, much) = read(entry);
            if let Some(kind) = kinds.iter().position(|kind| entry["kind"] == *kind) {
                all.entry(of).or_default().0.0[kind] += much;
            }
        }
        all.into_iter().map(|(of, (moved, due))| (of, moved, due)).collect()
    }
}

impl<'r> Effect<'r> {
    fn of(service: &'r str, value: &'r Value, at: &str, what: &'r str, detail: String) -> Self {
        Self { at: text_of(value, at), service, what, detail }
    }

    /// The place of its service in the causal order.
    fn rank(&self) -> usize {
        CAUSAL_ORDER.iter().position(|service| *service == self.service).unwrap_or(CAUSAL_ORDER.len())
    }
}
