//! The broker and the database die, freeze or are cut off in the middle of sagas.

use std::time::Duration;

use futures::future::join_all;
use local::Signal;

use crate::harness::servers::Server;
use crate::harness::{Order, SERVICES, Setup, Suite, order};

async fn own() -> Suite {
    Suite::with(Setup { own_servers: true, ..Setup::default() }).await
}

async fn ten(suite: &Suite) -> Vec<Order> {
    let body = order();
    join_all((0..10).map(|_| suite.place(&body))).await
}

/// Sagas that wait for shipping, which does not answer, and some that have just begun.
async fn under_way(suite: &mut Suite) -> Vec<Order> {
    suite.process("shipping").signal(Signal::STOP);
    let mut placed = ten(suite).await;
    for order in &placed {
        suite.step_is(*order, "book_shipment", "asked").await;
    }
    placed.extend(ten(suite).await);
    placed
}

async fn nothing_is_lost(suite: &Suite, placed: impl IntoIterator<Item = Order>) {
    for order in placed {
        assert_eq!(suite.settled(order).await["status"], "confirmed");
    }
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_comes_back_loses_nothing() {
    let mut suite = own().await;
    let before = under_way(&mut suite).await;
    suite.servers.kill(Server::Kafka);
    suite.processes_go_on("shipping");
    // Orders are accepted without a broker, because the outbox keeps their messages.
    let during = ten(&suite).await;
    suite.servers.restart(Server::Kafka);
    nothing_is_lost(&suite, before.into_iter().chain(during)).await;
}

/// A frozen server answers nothing and closes no connection, for longer than the sessions of its consumers.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_freezes_and_goes_on_loses_nothing() {
    const FROZEN: Duration = Duration::from_secs(12);
    let mut suite = own().await;
    let before = under_way(&mut suite).await;
    suite.servers.freeze(Server::Kafka);
    suite.processes_go_on("shipping");
    let during = ten(&suite).await;
    tokio::time::sleep(FROZEN).await;
    suite.servers.thaw(Server::Kafka);
    nothing_is_lost(&suite, before.into_iter().chain(during)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_killed_and_comes_back_loses_nothing() {
    let mut suite = own().await;
    let before = under_way(&mut suite).await;
    suite.servers.kill(Server::Postgres);
    suite.processes_go_on("shipping");
    suite.servers.restart(Server::Postgres);
    all_ready(&suite).await;
    let after = ten(&suite).await;
    nothing_is_lost(&suite, before.into_iter().chain(after)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_freezes_and_goes_on_loses_nothing() {
    const FROZEN: Duration = Duration::from_secs(5);
    let mut suite = own().await;
    let before = under_way(&mut suite).await;
    suite.servers.freeze(Server::Postgres);
    suite.processes_go_on("shipping");
    tokio::time::sleep(FROZEN).await;
    suite.servers.thaw(Server::Postgres);
    let after = ten(&suite).await;
    nothing_is_lost(&suite, before.into_iter().chain(after)).await;
}

async fn all_ready(suite: &Suite) {
    for service in SERVICES {
        suite.ready(service).await;
    }
}

/// The server continues with everything that its clients had begun, and its clients can't reach it. No client learns the
/// result of its last request.
async fn cut_off_in_the_middle_of_sagas(server: Server) {
    let mut suite = own().await;
    let servers = std::sync::Arc::clone(&suite.servers);
    let network = servers.network().expect("only containers have a network that can be cut");
    let before = under_way(&mut suite).await;
    network.cut(server);
    suite.processes_go_on("shipping");
    // Long enough for every client to have tried without success.
    tokio::time::sleep(Duration::from_secs(3)).await;
    network.mend(server);
    all_ready(&suite).await;
    let after = ten(&suite).await;
    nothing_is_lost(&suite, before.into_iter().chain(after)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "AMENDS_SERVERS=docker has a network that can be cut"]
async fn a_broker_that_is_cut_off_and_comes_back_loses_nothing() {
    cut_off_in_the_middle_of_sagas(Server::Kafka).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "AMENDS_SERVERS=docker has a network that can be cut"]
async fn a_database_that_is_cut_off_and_comes_back_loses_nothing() {
    cut_off_in_the_middle_of_sagas(Server::Postgres).await;
}
