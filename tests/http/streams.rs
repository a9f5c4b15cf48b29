//! Event streams: they cost nothing while there is nothing to hear, and every replica serves them.

use futures::future::join_all;
use local::Signal;
use reqwest::Response;

use crate::harness::proxy::Proxy;
use crate::harness::{Order, Setup, Suite, order};

const ORDERS: usize = 10;
const STREAMS_OF_EACH: usize = 20;

/// What finds the changes that other replicas have committed. It is one statement for all streams.
const LOOK: &str = "max(t.position)";

/// Opens an event stream of an order, and reads its beginning.
async fn open(suite: &Suite, order: Order, replica: usize) -> Response {
    let url = format!("{}/orders/{}/events", suite.replica_url("order", replica), order.id);
    let mut stream = suite.client.get(url).send().await.expect("an answer");
    assert!(stream.chunk().await.expect("a stream").is_some(), "it begins with what has happened so far");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_with_nothing_to_hear_do_not_ask_the_database() {
    let mut suite = Suite::start().await;
    suite.process("payment").signal(Signal::STOP);
    let body = order();
    let placed = join_all((0..ORDERS).map(|_| suite.place(&body))).await;
    let reserved = "select count(*) from order_timeline where type = 'inventory.reserved.v1'";
    suite
        .until("the stock of all orders to be reserved", async |suite| {
            suite.number("order", reserved).await == ORDERS as i64
        })
        .await;
    let streams = placed.iter().flat_map(|order| std::iter::repeat_n(*order, STREAMS_OF_EACH));
    let streams = join_all(streams.map(|order| open(&suite, order, 0))).await;

    suite.counts_statements("order").await;
    suite.until("some looks", async |suite| suite.calls_with("order", LOOK).await >= 6).await;
    let calls = suite.calls("order").await;
    let of_streams = |query: &str| query.contains("from order_timeline") && !query.contains(LOOK);
    let asked: i64 = calls.iter().filter(|(query, _)| of_streams(query)).map(|(_, calls)| calls).sum();
    assert_eq!(asked, 0, "{} streams asked: {calls:#?}", streams.len());

    suite.processes_go_on("payment");
    for text in join_all(streams.into_iter().map(Response::text)).await {
        let text = text.expect("a whole stream");
        assert!(text.contains("event: order.confirmed.v1") && text.contains("event: settled"), "{text}");
    }
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_tells_what_another_replica_has_committed() {
    let mut suite = Suite::with(Setup { twins: 1, ..Setup::default() }).await;
    for replica in 0..2 {
        suite.replica("payment", replica).signal(Signal::STOP);
    }
    let body = order();
    let placed = join_all((0..ORDERS).map(|_| suite.place(&body))).await;
    let mut streams = Vec::new();
    for order in placed {
        for replica in 0..2 {
            streams.push(open(&suite, order, replica).await);
        }
    }
    for replica in 0..2 {
        suite.replica("payment", replica).signal(Signal::CONT);
    }
    for text in join_all(streams.into_iter().map(Response::text)).await {
        let text = text.expect("a whole stream");
        for event in ["shipping.booked.v1", "order.confirmed.v1", "settled"] {
            assert!(text.contains(&format!("event: {event}")), "{event} is missing: {text}");
        }
    }
    suite.comes_to_rest().await;
}

/// Reads a stream until a text has come.
async fn until_told(stream: &mut Response, text: &str) {
    let mut told = String::new();
    while !told.contains(text) {
        let chunk = stream.chunk().await.expect("a part of the stream before the client gives up");
        let chunk = chunk.unwrap_or_else(|| panic!("the stream ended without `{text}`: {told}"));
        told.push_str(&String::from_utf8_lossy(&chunk));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_passes_each_event_on_at_once() {
    let mut suite = Suite::start().await;
    let Some(nginx) = Proxy::start(&suite, "order").await else { return };
    suite.process("payment").signal(Signal::STOP);
    let feed = suite.client.get(format!("{}/orders/events", nginx.url)).send();
    let mut feed = feed.await.expect("an answer");
    let placed = suite.place(&order()).await;
    let stream = suite.client.get(format!("{}/orders/{}/events", nginx.url, placed.id)).send();
    let mut stream = stream.await.expect("an answer");
    // The order does not settle, so the streams do not end.
    until_told(&mut stream, "event: inventory.reserved.v1").await;
    suite.processes_go_on("payment");
    until_told(&mut feed, &placed.id.to_string()).await;
    until_told(&mut stream, "event: settled").await;
    suite.comes_to_rest().await;
}
