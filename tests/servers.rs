//! The broker and the database die in the middle of sagas.

use std::time::Duration;

use futures::future::join_all;

use crate::harness::{SERVICES, Setup, Suite, order};

async fn own() -> Suite {
    Suite::with(Setup { own_servers: true, ..Setup::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_comes_back_loses_nothing() {
    let suite = own().await;
    suite.confirmed(&order()).await;
    let body = order();
    let before = join_all((0..10).map(|_| suite.place(&body))).await;
    let servers = std::sync::Arc::clone(&suite.servers);
    servers.kafka().kill9().expect("killed");
    // The outbox takes orders while there is no broker.
    let during = join_all((0..10).map(|_| suite.place(&body))).await;
    std::thread::scope(|scope| scope.spawn(|| servers.kafka().restart()).join())
        .expect("no panic")
        .expect("restarted");
    for order in before.into_iter().chain(during) {
        assert_eq!(suite.settled(order).await["status"], "confirmed");
    }
    suite.comes_to_rest().await;
}

/// Frozen, it answers nothing and closes no connection, for longer than the sessions of its consumers last.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_freezes_and_goes_on_loses_nothing() {
    const FROZEN: Duration = Duration::from_secs(12);
    let suite = own().await;
    suite.confirmed(&order()).await;
    let body = order();
    let before = join_all((0..10).map(|_| suite.place(&body))).await;
    suite.servers.kafka().sigstop().expect("frozen");
    let during = join_all((0..10).map(|_| suite.place(&body))).await;
    tokio::time::sleep(FROZEN).await;
    suite.servers.kafka().sigcont().expect("going on");
    for order in before.into_iter().chain(during) {
        assert_eq!(suite.settled(order).await["status"], "confirmed");
    }
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_killed_and_comes_back_loses_nothing() {
    let suite = own().await;
    let body = order();
    let before = join_all((0..10).map(|_| suite.place(&body))).await;
    let servers = std::sync::Arc::clone(&suite.servers);
    servers.postgres().kill9().expect("killed");
    std::thread::scope(|scope| scope.spawn(|| servers.postgres().restart()).join())
        .expect("no panic")
        .expect("restarted");
    for service in SERVICES {
        suite.ready(service).await;
    }
    let after = join_all((0..10).map(|_| suite.place(&body))).await;
    for order in before.into_iter().chain(after) {
        assert_eq!(suite.settled(order).await["status"], "confirmed");
    }
    suite.comes_to_rest().await;
}
