//! An order has one trace, across six services.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message as _;
use rdkafka::message::Message as _;
use tokio::task::JoinSet;

use crate::harness::kafka::header;
use crate::harness::{SERVICES, Setup, Suite, order};

/// Returns the names of each service's spans by trace. Spans of consumers count only if they have a parent and a link.
type Spans = Arc<Mutex<BTreeMap<Vec<u8>, BTreeMap<String, BTreeSet<String>>>>>;

async fn collect(State(spans): State<Spans>, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body).expect("a request of the OTLP");
    let mut spans = spans.lock().expect("no panic");
    for resource in request.resource_spans {
        let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
        let name = attributes.into_iter().find(|attribute| attribute.key == "service.name");
        let Some(Value::StringValue(service)) = name.and_then(|name| name.value?.value) else { continue };
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let linked = span
                .links
                .iter()
                .any(|link| link.trace_id == span.trace_id && link.span_id == span.parent_span_id);
            if span.name.starts_with("process ") && !linked {
                continue;
            }
            spans.entry(span.trace_id).or_default().entry(service.clone()).or_default().insert(span.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_one_trace_over_all_services() {
    let spans = Spans::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let collector = format!("http://{}", listener.local_addr().expect("an address"));
    let app = Router::new().route("/v1/traces", post(collect)).with_state(Arc::clone(&spans));
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, app).await });

    let settings = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "200".to_owned()),
    ];
    let suite = Suite::with(Setup { settings, ..Setup::default() }).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let url = format!("{}/orders", suite.url("order"));
    let request = suite
        .client
        .post(url)
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
        .json(&order());
    assert_eq!(request.send().await.expect("an answer").status(), 202);
    suite.comes_to_rest().await;

    for service in SERVICES {
        let stored = suite.texts(service, "select coalesce(traceparent, 'none') from outbox where topic <> 'inventory.events' or key <> all (array['lamp', 'mug', 'poster'])").await;
        assert!(
            !stored.is_empty() && stored.iter().all(|stored| stored.contains(trace)),
            "{service}: {stored:?}"
        );
    }
    for record in suite.records() {
        let of_product =
            ["lamp", "mug", "poster"].map(str::as_bytes).contains(&record.key().unwrap_or_default());
        let sent = header(&record, "traceparent").unwrap_or_default();
        assert!(of_product || sent.contains(trace), "{sent}");
    }

    let trace: Vec<u8> =
        (0..16).map(|i| u8::from_str_radix(&trace[2 * i..2 * i + 2], 16).expect("hex")).collect();
    let expected = [
        ("order", "POST /orders"),
        ("order", "publish order.events"),
        ("orchestrator", "process order.events"),
        ("orchestrator", "publish payment.commands"),
        ("payment", "process payment.commands"),
        ("inventory", "process inventory.commands"),
        ("shipping", "process shipping.commands"),
        ("notification", "process notification.commands"),
        ("orchestrator", "process payment.events"),
        ("order", "process order.commands"),
    ];
    suite
        .until("every service's spans in the order's trace", async |_| {
            let spans = spans.lock().expect("no panic");
            let Some(ours) = spans.get(&trace) else { return false };
            expected
                .iter()
                .all(|(service, name)| ours.get(*service).is_some_and(|names| names.contains(*name)))
        })
        .await;
    let spans = spans.lock().expect("no panic");
    let services: Vec<&str> = spans[&trace].keys().map(String::as_str).collect();
    let mut all = SERVICES;
    all.sort_unstable();
    assert_eq!(services, all);
}
