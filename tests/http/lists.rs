//! Lists: they page, they read by an index however many rows there are, and they delay nobody.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::Value;

use crate::harness::{Setup, Suite, order};

/// Enough for a plan that reads a whole table to be noticed.
const ROWS: usize = 100_000;

/// A list, a part of its statement, and the most buffers that it may read.
type List = (&'static str, &'static str, &'static str, i64);

const LISTS: [List; 14] = [
    ("order", "/orders", "from orders where", 60),
    ("order", "/orders?customerId=nobody", "from orders where", 60),
    ("order", "/orders?customerId=ada", "from orders where", 60),
    ("order", "/orders?status=pending", "from orders where", 60),
    ("order", "/orders?status=delivered", "from orders where", 600),
    ("order", "/orders?status=shipped", "from orders where", 600),
    ("order", "/orders?status=confirmed", "from orders where", 600),
    ("order", "/orders?customerId=ada&status=rejected", "from orders where", 600),
    ("order", "/products?cursor=sku-5", "from product where", 60),
    ("inventory", "/products?cursor=sku-5", "from product where", 60),
    ("notification", "/notifications", "from notification where", 60),
    (
        "notification",
        "/notifications?orderId=0197e3a0-0000-7000-8000-000000000001",
        "from notification where",
        60,
    ),
    ("orchestrator", "/sagas?status=stuck", "from saga where", 60),
    ("orchestrator", "/sagas?status=completed", "from saga where", 60),
];

const FILLINGS: [(&str, &str); 4] = [
    (
        "order",
        "insert into orders (id, customer_id, status, delivery, items, total_amount, currency, shipping_address)
         select uuidv7(), 'ada', 'confirmed', 'delivered', '[]', 1, 'EUR', '{}' from generate_series(1, $rows);
         insert into product (sku, name, price_amount, price_currency, version)
         select 'sku-' || number, 'a thing', 1, 'EUR', 1 from generate_series(1, $rows) as number",
    ),
    (
        "inventory",
        "insert into product (sku, name, price_amount, price_currency)
         select 'sku-' || number, 'a thing', 1, 'EUR' from generate_series(1, $rows) as number",
    ),
    (
        "notification",
        "insert into notification (id, order_id, customer_id, kind, text, channel, status)
         select uuidv7(), gen_random_uuid(), 'ada', 'order_confirmed', 'told', 'kept', 'sent'
         from generate_series(1, $rows)",
    ),
    (
        "orchestrator",
        "insert into saga (saga_id, definition, version, plan_hash, subject, status, state, data, sequence)
         select uuidv7(), 'place_order', 1, '', 'order ' || number, 'completed',
                '{\"status\":\"completed\",\"steps\":[]}', '{}', 1
         from generate_series(1, $rows) as number",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_list_reads_by_an_index_however_many_rows_there_are() {
    let suite = Suite::start().await;
    for (service, filling) in FILLINGS {
        // The plans are made while the tables are almost empty, and are kept.
        for (_, path, ..) in LISTS.iter().filter(|(of, ..)| *of == service) {
            suite.get(service, path).await;
        }
        suite.execute(service, &filling.replace("$rows", &ROWS.to_string())).await;
    }
    // With and without statistics: all rows have one value then, and the wanted one looks either frequent or unknown.
    for analyzed in [false, true] {
        let mut slow = Vec::new();
        for (service, path, part, most) in LISTS {
            if analyzed {
                suite.execute(service, "analyze").await;
            }
            suite.counts_statements(service).await;
            suite.get(service, path).await;
            let read = suite.buffers(service, part).await;
            if read > most {
                slow.push(format!("{service} {path} reads {read} buffers"));
            }
        }
        assert!(slow.is_empty(), "analyzed: {analyzed}\n{}", slow.join("\n"));
    }
}

/// Reads all pages of a list. Returns the ids, and the number of pages.
async fn pages(suite: &Suite, service: &'static str, path: &str, id: &str) -> (Vec<String>, usize) {
    let (mut ids, mut count, mut next) = (Vec::new(), 0, String::new());
    loop {
        let page = suite.get(service, &format!("{path}{next}")).await;
        let list = page.as_object().and_then(|page| page.values().find_map(Value::as_array)).expect("a list");
        ids.extend(list.iter().map(|one| one[id].as_str().expect("an id").to_owned()));
        count += 1;
        let Some(cursor) = page["next"].as_str() else { return (ids, count) };
        next = format!("&cursor={cursor}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_list_shows_each_thing_once_page_by_page() {
    let suite = Suite::start().await;
    let mut placed = Vec::new();
    for _ in 0..5 {
        placed.push(suite.confirmed(&order()).await.id.to_string());
    }
    suite.comes_to_rest().await;
    for (service, path, id) in [
        ("notification", "/notifications?limit=2", "orderId"),
        ("order", "/orders?limit=2&status=confirmed", "id"),
        ("order", "/orders?limit=2&customerId=ada&status=confirmed", "id"),
        ("orchestrator", "/sagas?limit=2&status=completed", "id"),
    ] {
        let (listed, pages) = pages(&suite, service, path, id).await;
        assert_eq!(pages, 3, "{path}");
        assert_eq!(BTreeSet::from_iter(&listed), BTreeSet::from_iter(&placed), "{path}");
        assert_eq!(listed.len(), placed.len(), "{path}");
    }
    let about_one = format!("/notifications?limit=1&orderId={}", placed[3]);
    assert_eq!(pages(&suite, "notification", &about_one, "orderId").await.0, [placed[3].clone()]);
    for service in ["order", "inventory"] {
        let (skus, pages) = pages(&suite, service, "/products?limit=2", "sku").await;
        assert_eq!((skus, pages), (["lamp", "mug", "poster"].map(str::to_owned).to_vec(), 2), "{service}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rare_order_is_found_behind_pages_that_are_read_from_a_bounded_number_of_orders() {
    let suite = Suite::with(Setup { only: Some("order"), ..Setup::default() }).await;
    let insert = "insert into orders (id, customer_id, status, delivery, items, total_amount, currency, shipping_address)
                  select uuidv7(), 'ada', 'confirmed', $delivery, '[]', 1, 'EUR', '{}' from generate_series(1, $rows)";
    let fill = async |delivery: &str, rows: &str| {
        suite.execute("order", &insert.replace("$delivery", delivery).replace("$rows", rows)).await;
    };
    fill("'shipped'", "1").await;
    fill("'delivered'", "5000").await;
    fill("null", "3").await;
    for path in ["/orders?status=shipped", "/orders?status=shipped&customerId=ada"] {
        let (found, pages) = pages(&suite, "order", path, "id").await;
        assert_eq!((found.len(), pages), (1, 3), "{path}");
    }
    assert_eq!(pages(&suite, "order", "/orders?status=confirmed", "id").await.0.len(), 3);
    let (delivered, _) = pages(&suite, "order", "/orders?status=delivered&limit=200", "id").await;
    assert_eq!(delivered.len(), 5000);
    assert!(delivered.is_sorted_by(|newer, older| newer > older), "the newest come first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_has_no_more_connections_than_it_may_and_keeps_them_after_errors() {
    let suite = Suite::start().await;
    let url = suite.url("order");
    let unknown = "0197e3a0-0000-7000-8000-000000000001";
    let get = |path: String| suite.client.get(format!("{url}{path}")).send();
    let many =
        (0..50).flat_map(|_| ["/orders".to_owned(), format!("/orders/{unknown}"), "/audit".to_owned()]);
    for answer in join_all(many.map(get)).await {
        assert_ne!(answer.expect("an answer").status(), 500);
    }
    let pids = "select pid::text from pg_stat_activity
                where datname = current_database() and application_name = 'order' order by pid";
    let before = suite.texts("order", pids).await;
    // Ten by the setting, and two of the relay.
    assert!(before.len() <= 12, "{} connections", before.len());

    // Each of these begins a transaction and does not end it.
    for _ in 0..10 {
        for path in ["cancellation", "returns"] {
            let path = format!("{url}/orders/{unknown}/{path}");
            assert_eq!(suite.client.post(path).send().await.expect("an answer").status(), 404);
        }
    }
    let pending = suite.place(&order()).await;
    suite.settled(pending).await;
    let after = suite.texts("order", pids).await;
    let lost: Vec<_> = before.iter().filter(|pid| !after.contains(pid)).collect();
    assert!(lost.is_empty(), "connections were closed: {lost:?} of {before:?}");
}
