//! Stopping in order.

use futures::future::join_all;

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
