//! Stopping in order.

use std::fs;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::{SERVICES, Suite, order};

#[tokio::test(flavor = "multi_thread")]
async fn a_service_told_to_stop_under_load_ends_well_and_loses_nothing() {
    let mut suite = Suite::start().await;
    let body = order();
    for service in SERVICES {
        let placed = join_all((0..10).map(|_| suite.place(&body))).await;
        let ended = suite.process(service).stop().await;
        assert_eq!(ended.code(), Some(0), "{service}");
        suite.launch(service);
        suite.ready(service).await;
        for order in placed {
            assert_eq!(suite.settled(order).await["status"], "confirmed");
        }
    }
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_event_stream_does_not_hold_a_service_up() {
    let mut suite = Suite::start().await;
    suite.process("payment").signal(local::Signal::STOP);
    let placed = suite.place(&order()).await;
    let url = format!("{}/orders/{}/events", suite.url("order"), placed.id);
    let stream = suite.client.get(url).send().await.expect("an answer");
    assert_eq!(suite.process("order").stop().await.code(), Some(0));
    drop(stream);
    suite.process("payment").signal(local::Signal::CONT);
    suite.launch("order");
    assert_eq!(suite.settled(placed).await["status"], "confirmed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_half_a_request_does_not_cost_the_other_stages_their_turn() {
    let mut suite = Suite::start().await;
    let address = suite.url("order").replace("http://", "");
    let half = [
        "POST /orders HTTP/1.1\r\nhost: a\r\ncontent-le",
        "POST /orders HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{",
    ];
    let mut clients = Vec::new();
    for text in half {
        let mut client = TcpStream::connect(&address).await.expect("a connection");
        client.write_all(text.as_bytes()).await.expect("sent");
        clients.push(client);
    }
    let placed = suite.place(&order()).await;
    let began = Instant::now();
    assert_eq!(suite.process("order").stop().await.code(), Some(0));
    // The grace period is 25 seconds. Its third is for requests and batches.
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    let log = fs::read_to_string(suite.log("order", 0)).expect("the log");
    assert!(!log.contains("in time") && !log.contains("stopped before"), "a stage was left: {log}");
    let held = "select count(*) from relay_checkpoint where lease_until > now()";
    assert_eq!(suite.number("order", held).await, 0, "the relay has given its lease back");
    drop(clients);
    suite.launch("order");
    assert_eq!(suite.settled(placed).await["status"], "confirmed");
    suite.comes_to_rest().await;
}
