//! Inventory's batches: the order of service, the locks, and the number of statements.

use schemas::common::Line;
use schemas::inventory::{CommitStock, ReleaseStock, ReserveStock};
use shared::envelope::{Direction, new_id};
use uuid::Uuid;

use crate::harness::steps::{Asked, ask};
use crate::harness::{Setup, Suite};

async fn inventory() -> Suite {
    Suite::with(Setup { only: Some("inventory"), ..Setup::default() }).await
}

fn reserve(order: Uuid, lines: &[(&str, i64)]) -> Asked {
    let items = lines.iter().map(|&(sku, quantity)| Line { sku: sku.to_owned(), quantity }).collect();
    ask(order, "reserve_stock", Direction::Do, &ReserveStock { order_id: order, items })
}

fn release(order: Uuid) -> Asked {
    ask(order, "reserve_stock", Direction::Undo, &ReleaseStock { order_id: order })
}

fn commit(order: Uuid) -> Asked {
    ask(order, "commit_stock", Direction::Do, &CommitStock { order_id: order })
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_orders_in_one_batch_the_first_gets_the_last_piece() {
    let suite = inventory().await;
    let orders: Vec<Uuid> = (0..4).map(|_| new_id()).collect();
    let [first, greedy, last, none] = orders[..] else { unreachable!("four") };
    suite
        .told(
            "inventory",
            &[
                reserve(first, &[("poster", 2)]),
                reserve(greedy, &[("lamp", 1), ("poster", 2)]),
                reserve(last, &[("poster", 1)]),
                reserve(none, &[("poster", 1)]),
            ],
        )
        .await;
    let mut outcomes = Vec::new();
    for order in &orders {
        let answers = suite.answers("inventory", *order).await;
        outcomes.push((answers[0]["outcome"].clone(), answers[0]["result"]["code"].clone()));
    }
    let done = ("done".into(), serde_json::Value::Null);
    let refused = ("refused".into(), "out_of_stock".into());
    assert_eq!(outcomes, [done.clone(), refused.clone(), done, refused]);
    let lamps = suite.number("inventory", "select reserved from product where sku = 'lamp'").await;
    assert_eq!(lamps, 0, "all lines of an order or none");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_order_gives_back_another_of_the_same_batch_gets() {
    let suite = inventory().await;
    let (before, after) = (new_id(), new_id());
    suite.told("inventory", &[reserve(before, &[("poster", 3)])]).await;
    suite.told("inventory", &[release(before), reserve(after, &[("poster", 3)])]).await;
    assert_eq!(suite.answers("inventory", after).await[0]["outcome"], "done");
    suite.told("inventory", &[commit(after)]).await;
    let poster = "select on_hand * 100 + reserved * 10 + shipped from product where sku = 'poster'";
    assert_eq!(suite.number("inventory", poster).await, 3);
}

/// A batch that takes `mug` and gives `lamp` back must not hold `mug` while it waits for `lamp`. Another batch that holds
/// `lamp` and waits for `mug`, in the order that all keep, would be a deadlock.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_locks_its_products_in_one_order_whatever_it_does_with_them() {
    let suite = inventory().await;
    let (giving, taking) = (new_id(), new_id());
    suite.told("inventory", &[reserve(giving, &[("lamp", 1)])]).await;
    let mut other = suite.connect("inventory").await;
    let lock = async |db: &mut sqlx::PgConnection, sku: &str| {
        let lock = format!("select from product where sku = '{sku}' for no key update nowait");
        sqlx::raw_sql(sqlx::AssertSqlSafe(lock)).execute(db).await
    };
    sqlx::raw_sql("begin").execute(&mut other).await.expect("begun");
    lock(&mut other, "lamp").await.expect("free");
    suite.send_together(&[reserve(taking, &[("mug", 1)]), release(giving)]).await;
    suite
        .until("the batch to wait for the lamps", async |suite| {
            let waiting = "select count(*) from pg_stat_activity
                           where datname = current_database() and wait_event_type = 'Lock'";
            suite.number("inventory", waiting).await == 1
        })
        .await;
    lock(&mut other, "mug").await.expect("the batch waits for the lamps, so it has not got the mugs");
    sqlx::raw_sql("rollback").execute(&mut other).await.expect("ended");
    suite
        .until("both to be answered", async |suite| {
            suite.answers("inventory", taking).await.len() == 1
                && suite.answers("inventory", giving).await.len() == 2
        })
        .await;
}

/// A batch of a hundred commands of all kinds reads once and writes once.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_takes_two_statements_however_long_it_is() {
    // It has its own servers, because the statistics drop old statements when many databases fill them.
    let suite = Suite::with(Setup { only: Some("inventory"), own_servers: true, ..Setup::default() }).await;
    let (ending, new): (Vec<Uuid>, Vec<Uuid>) = (0..50).map(|_| (new_id(), new_id())).unzip();
    let held: Vec<Asked> = ending.iter().map(|order| reserve(*order, &[("lamp", 1), ("mug", 1)])).collect();
    suite.told("inventory", &held).await;
    suite.execute("inventory", "create extension if not exists pg_stat_statements").await;
    let ours = "from pg_stat_statements s join pg_database d on d.oid = s.dbid
                where d.datname = current_database() and query ~ '(product|reservation|stock_entry)'
                  and query !~ 'pg_stat_statements'";
    let calls = format!("select sum(calls)::bigint {ours}");
    let before = suite.number("inventory", &calls).await;
    let mut batch: Vec<Asked> = new.iter().map(|order| reserve(*order, &[("mug", 1), ("lamp", 1)])).collect();
    let half = ending.len() / 2;
    batch.extend(ending[..half].iter().map(|order| release(*order)));
    batch.extend(ending[half..].iter().map(|order| commit(*order)));
    suite.told("inventory", &batch).await;
    let statements = suite.texts("inventory", &format!("select calls || 'x ' || query {ours}")).await;
    assert_eq!(suite.number("inventory", &calls).await - before, 2, "{statements:#?}");
    let lamps = "select reserved from product where sku = 'lamp'";
    assert_eq!(suite.number("inventory", lamps).await, 50);
}
