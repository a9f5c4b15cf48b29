//! The broker and the database die, freeze or are cut off in the middle of sagas.

use std::io::Write;
use std::time::Duration;

use futures::future::join_all;
use local::Signal;

use crate::harness::servers::Server;
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
    suite.servers.kill(Server::Kafka);
    // The outbox takes orders while there is no broker.
    let during = join_all((0..10).map(|_| suite.place(&body))).await;
    suite.servers.restart(Server::Kafka);
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
    suite.servers.freeze(Server::Kafka);
    let during = join_all((0..10).map(|_| suite.place(&body))).await;
    tokio::time::sleep(FROZEN).await;
    suite.servers.thaw(Server::Kafka);
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
    suite.servers.kill(Server::Postgres);
    suite.servers.restart(Server::Postgres);
    for service in SERVICES {
        suite.ready(service).await;
    }
    let after = join_all((0..10).map(|_| suite.place(&body))).await;
    for order in before.into_iter().chain(after) {
        assert_eq!(suite.settled(order).await["status"], "confirmed");
    }
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_freezes_and_goes_on_loses_nothing() {
    const FROZEN: Duration = Duration::from_secs(5);
    let suite = own().await;
    let body = order();
    let before = join_all((0..10).map(|_| suite.place(&body))).await;
    suite.servers.freeze(Server::Postgres);
    tokio::time::sleep(FROZEN).await;
    suite.servers.thaw(Server::Postgres);
    let after = join_all((0..10).map(|_| suite.place(&body))).await;
    for order in before.into_iter().chain(after) {
        assert_eq!(suite.settled(order).await["status"], "confirmed");
    }
    suite.comes_to_rest().await;
}

/// The server works on, with all that its clients had begun, and its clients find nobody: none of them learns what became
/// of what it had asked for last.
async fn cut_off_in_the_middle_of_sagas(server: Server) {
    let mut suite = own().await;
    let servers = std::sync::Arc::clone(&suite.servers);
    let Some(network) = servers.network() else {
        let skipped =
            format!("skipped: no network of {server:?} can be cut here; AMENDS_SERVERS=docker has one");
        writeln!(std::io::stderr(), "{skipped}").expect("told");
        return;
    };
    suite.process("shipping").signal(Signal::STOP);
    let body = order();
    let placed = join_all((0..10).map(|_| suite.place(&body))).await;
    for order in &placed {
        suite.step_is(*order, "book_shipment", "asked").await;
    }
    suite.process("shipping").signal(Signal::CONT);
    network.cut(server);
    // Long enough for everybody to have tried in vain.
    tokio::time::sleep(Duration::from_secs(3)).await;
    network.mend(server);
    for service in SERVICES {
        suite.ready(service).await;
    }
    let after = join_all((0..10).map(|_| suite.place(&body))).await;
    for order in placed.into_iter().chain(after) {
        assert_eq!(suite.settled(order).await["status"], "confirmed");
    }
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_cut_off_and_comes_back_loses_nothing() {
    cut_off_in_the_middle_of_sagas(Server::Kafka).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_cut_off_and_comes_back_loses_nothing() {
    cut_off_in_the_middle_of_sagas(Server::Postgres).await;
}
