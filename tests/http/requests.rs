//! The HTTP interfaces: bad input, problems, documents, caching, event streams.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{SERVICES, Suite, order};

async fn send(suite: &Suite, method: Method, path: &str, kind: Option<&str>, body: &str) -> (u16, Value) {
    let mut request =
        suite.client.request(method, format!("{}{path}", suite.url("order"))).body(body.to_owned());
    if let Some(kind) = kind {
        request = request.header("Content-Type", kind);
    }
    let answer = request.send().await.expect("an answer");
    let status = answer.status();
    let problem = answer.headers().get("content-type").is_some_and(|kind| kind == "application/problem+json");
    assert!(problem, "{path}: {status} is not a problem document");
    (status.as_u16(), answer.json().await.expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_answered_with_what_is_wrong_and_where() {
    let suite = Suite::start().await;
    let with = |pointer: &str, value: Value| {
        let mut body = order();
        *body.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
        body.to_string()
    };
    let many: Vec<Value> = (0..101).map(|_| json!({"sku": "lamp", "quantity": 1})).collect();
    let table: Vec<(String, u16, &[&str])> = vec![
        (with("/items/0/sku", json!("ghost")), 422, &["/items/0/sku"]),
        (
            with("/items", json!([{"sku": "ghost", "quantity": 1}, {"sku": "lamp", "quantity": 0}])),
            422,
            &["/items/0/sku", "/items/1/quantity"],
        ),
        (with("/items/0/quantity", json!(0)), 422, &["/items/0/quantity"]),
        (with("/items/0/quantity", json!(10_001)), 422, &["/items/0/quantity"]),
        (with("/items/0/quantity", json!(1.5)), 422, &["/items/0/quantity"]),
        (with("/items", json!([])), 422, &["/items"]),
        (with("/items", json!(many)), 422, &["/items"]),
        (with("/items", json!("lamp")), 422, &["/items"]),
        (with("/shippingAddress/country", json!("XX")), 422, &["/shippingAddress/country"]),
        (with("/shippingAddress", json!(null)), 422, &["/shippingAddress"]),
        (with("/customerId", json!("")), 422, &["/customerId"]),
        (with("/customerId", json!("a\u{0}b")), 422, &["/customerId"]),
        (with("/customerId", json!("x".repeat(65))), 422, &["/customerId"]),
        (with("/paymentToken", json!("4242424242424242")), 422, &["/paymentToken"]),
        (
            json!({"items": [{"sku": "lamp", "quantity": 1}]}).to_string(),
            422,
            &["/customerId", "/paymentToken", "/shippingAddress"],
        ),
        (
            order().to_string().replacen("\"quantity\":", "\"quantity\":200,\"quantity\":", 1),
            422,
            &["/items/0/quantity"],
        ),
        (
            order().to_string().replacen("{", "{\"customerId\":\"eve\",\"couponCode\":7,", 1),
            422,
            &["/customerId"],
        ),
        (order().to_string().replacen("{", "{\"couponCode\":7,", 1), 422, &["/couponCode"]),
        ("[]".to_owned(), 422, &[""]),
        ("null".to_owned(), 422, &[""]),
        ("".to_owned(), 400, &[]),
        ("{".to_owned(), 400, &[]),
        ("{\"a\":1} x".to_owned(), 400, &[]),
        ("\u{feff}{}".to_owned(), 400, &[]),
    ];
    for (body, status, pointers) in table {
        let (answered, problem) =
            send(&suite, Method::POST, "/orders", Some("application/json"), &body).await;
        assert_eq!(answered, status, "{body}: {problem}");
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        let mut found: Vec<&str> = errors.iter().filter_map(|error| error["pointer"].as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, pointers, "{body}: {problem}");
    }
    let (_, problem) = send(&suite, Method::POST, "/orders", Some("application/json"), "{\n  \"a\": }").await;
    assert_eq!(problem["detail"], "expected value at line 2, column 8");
    assert_eq!(suite.number("order", "select count(*) from orders").await, 0, "nothing of it was placed");
}

/// Somebody who sends a part of an order back would otherwise send back all of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_a_route_does_not_have_is_refused() {
    let suite = Suite::start().await;
    let order = suite.confirmed(&order()).await;
    let part = json!({"items": [{"sku": "lamp", "quantity": 1}]}).to_string();
    for what in ["returns", "cancellation"] {
        let path = format!("/orders/{}/{what}", order.id);
        for body in [part.as_str(), "{", "null"] {
            let (status, problem) = send(&suite, Method::POST, &path, Some("application/json"), body).await;
            assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("")), "{path} {body}");
        }
    }
    let (status, _) = send(&suite, Method::POST, "/parked/k/retry", None, &part).await;
    assert_eq!(status, 422);
    let url = format!("{}/orders/{}/returns", suite.url("order"), order.id);
    let answer = suite.client.post(url).body("{}").send().await.expect("an answer");
    assert_eq!(answer.status(), 202);
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_is_a_problem_document() {
    let suite = Suite::start().await;
    let json = Some("application/json");
    let large = format!("{{\"customerId\": \"{}\"}}", "x".repeat(70_000));
    let unknown = "/orders/0197e3a0-0000-7000-8000-000000000001";
    let table = [
        (Method::GET, "/nowhere", None, "", 404, "/problems/not-found"),
        (Method::GET, unknown, None, "", 404, "/problems/not-found"),
        (Method::GET, "/orders/not-an-id", None, "", 400, "/problems/bad-request"),
        (Method::GET, "/orders?limit=many", None, "", 400, "/problems/bad-request"),
        (Method::GET, "/orders?status=odd", None, "", 422, "/problems/invalid-request"),
        (Method::GET, "/orders?customerId=ada%00", None, "", 400, "/problems/bad-request"),
        (Method::DELETE, "/orders", None, "", 405, "/problems/method-not-allowed"),
        (Method::POST, "/healthz", None, "", 405, "/problems/method-not-allowed"),
        (Method::POST, "/orders", json, large.as_str(), 413, "/problems/too-large"),
        (Method::POST, "/orders", Some("text/plain"), "{}", 415, "/problems/unsupported-media-type"),
        (Method::POST, "/orders", None, "{}", 415, "/problems/unsupported-media-type"),
    ];
    for (method, path, kind, body, status, problem) in table {
        let (answered, document) = send(&suite, method.clone(), path, kind, body).await;
        assert_eq!((answered, document["type"].as_str()), (status, Some(problem)), "{method} {path}");
        assert!(document["title"].is_string() && document["status"] == status, "{document}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_parameter_that_a_route_does_not_have_is_refused_on_every_route() {
    let suite = Suite::start().await;
    for service in SERVICES {
        let document = suite.get(service, "/openapi.json").await;
        let mut tried = 0;
        for (path, item) in document["paths"].as_object().expect("paths") {
            let filled = path.split('/').map(|part| if part.starts_with('{') { "1" } else { part });
            let filled = filled.collect::<Vec<_>>().join("/");
            for method in item.as_object().expect("methods").keys() {
                let method: Method = method.to_uppercase().parse().expect("a method");
                let url = format!("{}{filled}?surprise=1", suite.url(service));
                let answer = suite.client.request(method.clone(), url).send().await.expect("an answer");
                assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{service} {method} {path}");
                let problem: Value = answer.json().await.expect("JSON");
                let detail = problem["detail"].as_str().unwrap_or_default();
                assert!(
                    detail.starts_with("query: `surprise` is unknown;"),
                    "{service} {method} {path}: {problem}"
                );
                tried += 1;
            }
        }
        assert!(tried > 5, "{service} has {tried} routes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_describes_itself_and_tells_how_it_is() {
    let suite = Suite::start().await;
    suite.confirmed(&order()).await;
    for service in SERVICES {
        let document = suite.get(service, "/openapi.json").await;
        assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{service}");
        assert!(document["paths"].as_object().is_some_and(|paths| !paths.is_empty()), "{service}");
        let ready = suite.get(service, "/readyz").await;
        assert_eq!(ready["ready"], true);
        let url = suite.url(service);
        let health = suite.client.get(format!("{url}/healthz")).send().await.expect("an answer");
        assert_eq!(health.status(), StatusCode::OK);
        let metrics = suite.client.get(format!("{url}/metrics")).send().await.expect("an answer");
        let metrics = metrics.text().await.expect("a text");
        assert!(
            metrics.contains(&format!("amends_relay_published_total{{service=\"{service}\"}}")),
            "{metrics}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_has_not_changed_is_not_sent_again() {
    let suite = Suite::start().await;
    let order = suite.confirmed(&order()).await;
    suite.caught_up("order").await;
    let url = format!("{}/orders/{}", suite.url("order"), order.id);
    let first = suite.client.get(&url).send().await.expect("an answer");
    let tag = first.headers()["etag"].clone();
    let second = suite.client.get(&url).header("If-None-Match", &tag).send().await.expect("an answer");
    assert_eq!((second.status(), second.headers().get("etag")), (StatusCode::NOT_MODIFIED, Some(&tag)));
    let other = suite.client.get(&url).header("If-None-Match", "\"1.1\"").send().await.expect("an answer");
    assert_eq!(other.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_event_stream_tells_all_and_ends_when_the_order_has_settled() {
    let suite = Suite::start().await;
    let placed = suite.place(&order()).await;
    let url = format!("{}/orders/{}/events", suite.url("order"), placed.id);
    let text = suite.client.get(&url).send().await.expect("an answer").text().await.expect("a whole stream");
    let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert!(text.contains("event: order.created.v1") && text.contains("event: order.confirmed.v1"), "{text}");
    assert!(text.trim_end().lines().rev().nth(1).is_some_and(|line| line == "event: settled"), "{text}");

    // A stream that is resumed behind the first event does not repeat it.
    let rest = suite.client.get(&url).header("Last-Event-ID", ids[0]).send().await.expect("an answer");
    let rest = rest.text().await.expect("a whole stream");
    assert!(!rest.contains("order.created.v1") && rest.contains("event: settled"), "{rest}");
    let later: Vec<&str> = rest.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert!(later.starts_with(&ids[1..]), "{later:?} does not go on from {ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_listed_page_by_page() {
    let suite = Suite::start().await;
    let mut placed = Vec::new();
    for number in 0..5 {
        let mut body = order();
        body["customerId"] = json!(if number < 4 { "ada" } else { "bob" });
        placed.push(suite.place(&body).await.id.to_string());
    }
    let mut seen = Vec::new();
    let mut path = "/orders?customerId=ada&limit=3".to_owned();
    loop {
        let page = suite.get("order", &path).await;
        for order in page["orders"].as_array().expect("orders") {
            seen.push(order["id"].as_str().expect("an id").to_owned());
        }
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/orders?customerId=ada&limit=3&cursor={next}");
    }
    placed.truncate(4);
    placed.reverse();
    assert_eq!(seen, placed);
    suite.comes_to_rest().await;
    let confirmed = suite.get("order", "/orders?status=confirmed").await;
    assert_eq!(confirmed["orders"].as_array().map(Vec::len), Some(5));
}
