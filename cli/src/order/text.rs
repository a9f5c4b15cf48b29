//! An order as text for people.

use serde_json::Value;

use crate::json::{array, money, text_of};
use crate::output::say;
use crate::suite::Suite;

/// Prints an order, and the command that shows what follows.
pub fn print(order: &Value, suite: &Suite) {
    for line in lines(order, &suite.flags()) {
        say!("{line}");
    }
}

fn lines(order: &Value, flags: &str) -> Vec<String> {
    let (id, status) = (text_of(order, "id"), text_of(order, "status"));
    let reason = order["reason"].as_str().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let mut lines = vec![format!("order {id}: {status}{reason}")];
    let placed = text_of(order, "createdAt");
    if !placed.is_empty() {
        lines.push(format!("  placed {placed} by {}", text_of(order, "customerId")));
    }
    for item in array(&order["items"]) {
        let (pieces, sku) = (item["quantity"].as_i64().unwrap_or_default(), text_of(item, "sku"));
        lines.push(format!("  {pieces:>5} x {sku:<20} {:>14}", money(&item["unitPrice"]).to_string()));
    }
    if order["total"].is_object() {
        lines.push(format!("  {:<28} {:>14}", "total", money(&order["total"]).to_string()));
    }
    for event in array(&order["timeline"]) {
        let (at, service) = (text_of(event, "at"), text_of(event, "service"));
        lines.push(format!("  {at}  {service:<13} {}", text_of(event, "type")));
    }
    let undone = &order["return"];
    if undone.is_object() {
        let (id, status) = (text_of(undone, "id"), text_of(undone, "status"));
        lines.push(format!("  return {id}: {status}"));
        if status == "requested" || status == "pending" {
            lines.push(String::new());
            let order = text_of(order, "id");
            lines.push(format!("`amends return watch {order}{flags}` follows the return"));
            return lines;
        }
    }
    lines.push(String::new());
    lines.push(match status {
        "pending" => format!("`amends order watch {id}{flags}` follows it until it has settled"),
        _ => format!("`amends audit --order {id}{flags}` shows every move of money and stock"),
    });
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_order_has_its_items_its_reason_and_what_to_do_next() {
        let money = |amount: i64| json!({"amount": amount, "currency": "EUR"});
        let order = json!({
            "id": "o-1", "status": "rejected", "reason": "card_declined", "customerId": "ada",
            "createdAt": "2026-01-01T00:00:00Z", "total": money(9800),
            "items": [{"sku": "lamp", "quantity": 2, "unitPrice": money(4900)}],
            "timeline": [{"at": "2026-01-01T00:00:00Z", "service": "order", "type": "order.created.v1"}],
        });
        let said = lines(&order, " --ports-from 9300").join("\n");
        for part in [
            "order o-1: rejected (card_declined)",
            "2 x lamp",
            "49.00 EUR",
            "98.00 EUR",
            "order.created.v1",
            "`amends audit --order o-1 --ports-from 9300`",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(lines(&json!({"id": "o-2", "status": "pending"}), "")[2].contains("amends order watch o-2"));
    }
}
