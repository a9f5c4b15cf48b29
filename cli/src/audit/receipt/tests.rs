use serde_json::json;

use super::*;

/// A time in one minute, with as many digits of the second as the test needs.
fn at(seconds: &str) -> String {
    format!("2026-11-21T10:00:{seconds}Z")
}

fn euros(amount: i64) -> Value {
    json!({"amount": amount, "currency": "EUR"})
}

/// A confirmed order, as the services return it. Its timeline has the events in the order of their arrival.
fn confirmed() -> Receipt {
    let told = [
        ("01", "order", "order.created.v1"),
        ("03.5", "payment", "payment.authorized.v1"),
        ("03.25", "inventory", "inventory.reserved.v1"),
        ("07", "order", "order.confirmed.v1"),
        ("05", "shipping", "shipping.booked.v1"),
        ("06", "payment", "payment.captured.v1"),
        ("07", "inventory", "inventory.committed.v1"),
    ];
    let timeline: Vec<Value> = told
        .iter()
        .map(|(seconds, service, kind)| json!({"at": at(seconds), "service": service, "type": kind}))
        .collect();
    let moved =
        |kind: &str, seconds: &str| json!({"kind": kind, "sku": "lamp", "quantity": 2, "at": at(seconds)});
    let entry = |kind: &str, credit: &str, debit: &str, seconds: &str| json!({"kind": kind, "credit": credit, "debit": debit, "amount": euros(9800), "at": at(seconds)});
    Receipt {
        order: json!({
            "id": "an-id", "status": "confirmed", "total": euros(9800), "timeline": timeline,
            "items": [{"sku": "lamp", "quantity": 2, "unitPrice": euros(4900)}],
        }),
        payment: json!({"status": "captured", "entries": [
            entry("authorize", "customer", "holds", "03.5"), entry("capture", "holds", "revenue", "06"),
        ]}),
        reservation: json!({"status": "committed", "entries": [moved("reserved", "03.25"), moved("committed", "07")]}),
        shipment: json!({"status": "booked", "trackingNumber": "CT-1", "createdAt": at("04")}),
        notices: json!({"notifications": [
            {"kind": "order_confirmed", "channel": "kept", "status": "sent", "createdAt": at("07.000001")},
        ]}),
    }
}

#[test]
fn the_causal_order_has_every_service() {
    let (mut ours, mut all) = (CAUSAL_ORDER, SERVICES);
    ours.sort_unstable();
    all.sort_unstable();
    assert_eq!(ours, all);
}

fn push(ledger: &mut Value, entry: Value) {
    ledger["entries"].as_array_mut().expect("entries").push(entry);
}

/// The effects without their times.
fn effects(receipt: &Receipt) -> Vec<String> {
    let line =
        |one: &Effect<'_>| format!("{} {} {}", one.service, one.what, one.detail).trim_end().to_owned();
    receipt.effects().iter().map(line).collect()
}

#[test]
fn a_confirmed_order_is_told_from_cause_to_effect_with_its_sums() {
    let receipt = confirmed();
    let wanted = [
        "order order.created.v1",
        "inventory reserved 2 x lamp",
        "inventory inventory.reserved.v1",
        "payment authorize 98.00 EUR from customer to holds",
        "payment payment.authorized.v1",
        "shipping shipment asked for",
        "shipping shipping.booked.v1 tracking number CT-1",
        "payment capture 98.00 EUR from holds to revenue",
        "payment payment.captured.v1",
        "order order.confirmed.v1",
        "inventory committed 2 x lamp",
        "inventory inventory.committed.v1",
        "notification notice order_confirmed by kept",
    ];
    assert_eq!(effects(&receipt), wanted);
    let sums = [
        "money     EUR: 98.00 authorized, 0.00 voided, 98.00 captured, 0.00 refunded; 98.00 taken, 98.00 to be",
        "pieces    lamp: 2 reserved, 0 released, 2 committed, 0 restocked; 2 taken, 2 to be",
        "parcel    booked, tracking number CT-1",
        "notices   order_confirmed sent",
    ];
    assert!(receipt.lines().ends_with(&sums.map(str::to_owned)), "{:#?}", receipt.lines());
    assert_eq!(receipt.wrong(), Vec::<String>::new());
}

#[test]
fn a_returned_order_has_cost_nothing_and_its_pieces_are_back() {
    let mut receipt = confirmed();
    receipt.order["status"] = json!("returned");
    assert_eq!(receipt.wrong().len(), 2, "money and pieces are still with the other");
    let back = json!({"kind": "refund", "credit": "revenue", "debit": "customer", "amount": euros(9800), "at": at("08")});
    push(&mut receipt.payment, back);
    push(
        &mut receipt.reservation,
        json!({"kind": "restocked", "sku": "lamp", "quantity": 2, "at": at("09")}),
    );
    receipt.shipment["status"] = json!("cancelled");
    assert_eq!(receipt.wrong(), Vec::<String>::new());
    let effects = effects(&receipt);
    let end = ["payment refund 98.00 EUR from revenue to customer", "inventory restocked 2 x lamp"];
    assert_eq!(effects[effects.len() - 2..], end);
    let lines = receipt.lines().join("\n");
    assert!(lines.contains("98.00 refunded; 0.00 taken, 0.00 to be"), "{lines}");
    assert!(lines.contains("2 restocked; 0 taken, 0 to be"), "{lines}");
}

#[test]
fn sums_that_the_status_does_not_allow_are_named() {
    let mut twice = confirmed();
    let capture = twice.payment["entries"][1].clone();
    push(&mut twice.payment, capture);
    assert_eq!(twice.wrong(), ["money: 196.00 EUR taken and -98.00 held, to be: 98.00 and 0.00"]);
    let yen = twice.wrong().len();
    let yen_entries = twice.payment["entries"].as_array_mut().expect("entries");
    yen_entries.iter_mut().for_each(|entry| entry["amount"]["currency"] = json!("JPY"));
    twice.order["total"]["currency"] = json!("JPY");
    assert_eq!(
        (yen, twice.wrong()),
        (1, vec!["money: 19600 JPY taken and -9800 held, to be: 9800 and 0".to_owned()])
    );
    let mut kept = confirmed();
    kept.reservation["entries"][1]["quantity"] = json!(1);
    assert_eq!(kept.wrong(), ["stock: 1 pieces of `lamp` taken and 1 held, to be: 2 and 0"]);
    let mut foreign = confirmed();
    foreign.payment["entries"][1]["amount"]["currency"] = json!("USD");
    assert_eq!(foreign.wrong().len(), 2, "neither currency is right");
}

#[test]
fn an_order_that_stands_without_a_payment_or_stock_is_broken() {
    for (status, wrong) in [("confirmed", 2), ("delivered", 2), ("rejected", 0), ("pending", 0)] {
        let order = json!({"status": status, "total": euros(100), "items": [{"sku": "lamp", "quantity": 1}]});
        let bare = Receipt { order, ..Receipt::default() };
        assert_eq!(bare.wrong().len(), wrong, "{status}");
        assert!(bare.lines().join("\n").contains("parcel    none\nnotices   none"), "{status}");
    }
}
