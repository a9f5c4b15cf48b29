//! The release before goes on while the next one changes the tables.

use serde_json::Value;

use crate::harness::{Order, SERVICES, Suite, order};

/// Asks everything that can be asked about an order, of all services.
async fn ask_everything(suite: &Suite, order: Order) {
    for service in SERVICES {
        let document = suite.get(service, "/openapi.json").await;
        let paths = document["paths"].as_object().expect("paths");
        for (path, _) in paths.iter().filter(|(_, methods)| methods.get("get").is_some()) {
            let parameters = |text: &str| {
                let id = order.id.to_string();
                text.split('/')
                    .map(|part| match part {
                        "{sku}" => "lamp",
                        part if part.starts_with('{') => &id,
                        part => part,
                    })
                    .collect::<Vec<_>>()
                    .join("/")
            };
            let url = format!("{}{}", suite.url(service), parameters(path));
            let answer = suite.client.get(&url).send().await.expect("an answer");
            let status = answer.status();
            assert!(!status.is_server_error(), "GET {url}: {status}");
        }
    }
}

/// A plan that was made for `select *` fails once the table has another column, and it fails at random: on those connections
/// that have it.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_added_under_a_running_suite_disturbs_nobody() {
    let suite = Suite::start().await;
    let placed = suite.place(&order()).await;
    assert_eq!(suite.settled(placed).await["status"], "confirmed");
    ask_everything(&suite, placed).await;
    for service in SERVICES {
        let tables = "select format('alter table %I.%I add column added_by_a_test int', schemaname, tablename)
            from pg_tables
            where schemaname in ('public', 'amends')
              and not exists (select from pg_inherits where inhrelid = format('%I.%I', schemaname, tablename)::regclass)";
        for change in suite.texts(service, tables).await {
            suite.execute(service, &change).await;
        }
    }
    // More than once, because the answers come over several connections.
    for _ in 0..5 {
        let placed = suite.place(&order()).await;
        assert_eq!(suite.settled(placed).await["status"], "confirmed");
        ask_everything(&suite, placed).await;
    }
    let parked: Value = suite.get("payment", "/parked").await;
    assert_eq!(parked["keys"].as_array().map(Vec::len), Some(0), "{parked}");
    suite.comes_to_rest().await;
}
