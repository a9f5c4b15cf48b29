//! Clients that are silent, slow or too many, over real sockets.

use std::net::SocketAddr;

use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;
use crate::service::http::{self, Body as JsonBody};
use crate::service::problem::Problem;

/// A test fails if something takes longer than this.
const PATIENCE: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_millis(300);
const GET: &str = "GET /ok HTTP/1.1\r\nhost: a\r\n\r\n";

fn limits() -> Limits {
    Limits { head: PATIENCE, idle: PATIENCE, write: PATIENCE, ..Limits::new(100, PATIENCE) }
}

struct Served {
    address: SocketAddr,
    stop: CancellationToken,
    ended: JoinHandle<()>,
}

async fn served(limits: Limits) -> Served {
    let never = async || std::future::pending::<()>().await;
    let conflict = async |JsonBody(_): JsonBody<Value>| -> Problem {
        Problem::new(axum::http::StatusCode::CONFLICT, "/problems/not-open", "")
    };
    let endless = async || {
        let chunks = futures::stream::repeat_with(|| Ok::<_, io::Error>(vec![b'x'; 64 * 1024]));
        Body::from_stream(chunks).into_response()
    };
    let router = Router::new()
        .route("/ok", get(async || "ok"))
        .route("/echo", post(async |JsonBody(value): JsonBody<Value>| value.to_string()))
        .route("/conflict", post(conflict))
        .route("/never", get(never))
        .route("/endless", get(endless));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let serving = serve(listener, http::finish(router, &json!({})), limits, stop.clone());
    #[expect(clippy::disallowed_methods, reason = "the test awaits its end")]
    let ended = tokio::spawn(serving);
    Served { address, stop, ended }
}

impl Served {
    async fn client(&self) -> Client {
        Client(TcpStream::connect(self.address).await.expect("a connection"))
    }

    async fn clients(&self, count: usize) -> Vec<Client> {
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(self.client().await);
        }
        clients
    }

    /// Stops, and waits for the end. Returns how long that took.
    async fn stopped(self) -> Duration {
        let began = Instant::now();
        self.stop.cancel();
        within(self.ended).await.expect("no panic");
        began.elapsed()
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

struct Client(TcpStream);

impl Client {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.expect("sent");
    }

    /// Reads an answer with a `content-length`. Returns its status and its body.
    async fn answer(&mut self) -> (u16, String) {
        let mut read = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&read).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if length.and_then(|length| length.parse().ok()) == Some(body.len()) {
                    return (head[9..12].parse().expect("a status"), body.to_owned());
                }
            }
            let mut chunk = [0; 4096];
            let length = within(self.0.read(&mut chunk)).await.expect("an answer");
            assert!(length > 0, "the connection was closed after `{text}`");
            read.extend_from_slice(&chunk[..length]);
        }
    }

    async fn ask(&mut self, request: &str) -> u16 {
        self.send(request).await;
        self.answer().await.0
    }

    /// Waits until the server closes the connection, and drops what comes before.
    async fn closed(mut self) {
        let mut chunk = [0; 4096];
        while within(self.0.read(&mut chunk)).await.is_ok_and(|length| length > 0) {}
    }

    /// Returns whether the connection is closed already.
    fn is_closed(&self) -> bool {
        match self.0.try_read(&mut [0; 1]) {
            Ok(length) => length == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

fn posted(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn others_are_served_while_more_silent_connections_come_than_are_allowed() {
    let served = served(Limits { connections: 20, ..limits() }).await;
    let mut regular = served.client().await;
    assert_eq!(regular.ask(GET).await, 200);
    let silent = served.clients(50).await;
    for _ in 0..30 {
        assert_eq!(served.client().await.ask(GET).await, 200);
    }
    assert!(silent.iter().filter(|client| client.is_closed()).count() >= 30, "they made room");
    assert_eq!(regular.ask(GET).await, 200, "connections without any request make room first");
}

#[tokio::test]
async fn a_head_that_does_not_come_is_cut_off() {
    let served = served(Limits { head: SOON, ..limits() }).await;
    let silent = served.client().await;
    let mut half = served.client().await;
    half.send("GET /ok HTTP/1.1\r\nho").await;
    let mut second = served.client().await;
    assert_eq!(second.ask(GET).await, 200);
    second.send("GET /ok").await;
    for client in [silent, half, second] {
        client.closed().await;
    }
    let mut dripping = served.client().await;
    let drip = async {
        let mut tick = tokio::time::interval(SOON / 10);
        while dripping.0.write_all(b"x").await.is_ok() {
            tick.tick().await;
        }
    };
    within(drip).await;
}

#[tokio::test]
async fn an_idle_connection_serves_further_requests_and_is_closed_in_the_end() {
    let served = served(Limits { idle: SOON, ..limits() }).await;
    let mut client = served.client().await;
    for _ in 0..3 {
        assert_eq!(client.ask(GET).await, 200);
    }
    client.closed().await;
}

#[tokio::test]
async fn a_request_that_runs_for_long_is_not_cut_off() {
    let served = served(Limits { head: SOON, idle: SOON, ..limits() }).await;
    let mut running = served.client().await;
    running.send("GET /never HTTP/1.1\r\nhost: a\r\n\r\n").await;
    // The silent one is cut off later than the other would be.
    served.client().await.closed().await;
    served.client().await.closed().await;
    assert!(!running.is_closed());
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_an_answer_is_cut_off() {
    let served = served(Limits { write: SOON, ..limits() }).await;
    let mut client = served.client().await;
    client.send("GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await;
    // The connection is reset, which a write notices without reading.
    let reset = async {
        let mut tick = tokio::time::interval(SOON / 10);
        while client.0.write_all(b"x").await.is_ok() {
            tick.tick().await;
        }
    };
    within(reset).await;
}

#[tokio::test]
async fn a_new_connection_gets_503_while_all_others_have_a_request() {
    let served = served(Limits { connections: 2, ..limits() }).await;
    let mut running = served.clients(2).await;
    for client in &mut running {
        client.send("GET /never HTTP/1.1\r\nhost: a\r\n\r\n").await;
    }
    // The first ones may not have been read yet, and would then make room.
    let (status, body) = loop {
        let mut third = served.client().await;
        if let Ok(answer) = tokio::time::timeout(SOON, third.answer()).await {
            break answer;
        }
        assert!(running.iter().any(|client| !client.is_closed()), "requests under way are not displaced");
    };
    assert_eq!(status, 503);
    let problem: Problem = serde_json::from_str(&body).expect("a problem");
    assert_eq!(problem.kind, "/problems/overloaded");
}

#[tokio::test]
async fn a_body_that_is_declared_as_too_large_is_refused_before_it_comes() {
    let served = served(limits()).await;
    let mut client = served.client().await;
    let head = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\nexpect: 100-continue\r\n\r\n";
    assert_eq!(client.ask(head).await, 413);
    client.closed().await;
    // A client that sends it at once reads the answer too.
    let body = format!("\"{}\"", "x".repeat(500_000));
    assert_eq!(served.client().await.ask(&posted("/echo", &body)).await, 413);
    // One without a length is refused when it has become too large.
    let chunked = format!(
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    assert_eq!(served.client().await.ask(&chunked).await, 413);
}

#[tokio::test]
async fn an_ordinary_error_does_not_close_the_connection() {
    let served = served(limits()).await;
    let mut client = served.client().await;
    assert_eq!(client.ask("GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n").await, 404);
    assert_eq!(client.ask(&posted("/nowhere", "{}")).await, 404);
    assert_eq!(client.ask(&posted("/ok", "{}")).await, 405);
    assert_eq!(client.ask(&posted("/conflict", "{}")).await, 409);
    assert_eq!(client.ask(&posted("/echo", "{")).await, 400);
    assert_eq!(client.ask(&posted("/echo", "{}")).await, 200);
}

#[tokio::test]
async fn a_stop_closes_waiting_connections_and_cuts_off_half_requests() {
    let served = served(Limits { stop: SOON, ..limits() }).await;
    let mut idle = served.client().await;
    assert_eq!(idle.ask(GET).await, 200);
    let mut half_head = served.client().await;
    half_head.send("GET /ok HTTP/1.1\r\nho").await;
    let mut half_body = served.client().await;
    half_body
        .send(
            "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
        )
        .await;
    let mut running = served.client().await;
    running.send("GET /never HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let silent = served.client().await;
    assert!(served.stopped().await < PATIENCE / 2, "it waited for clients");
    for client in [idle, half_head, half_body, running, silent] {
        client.closed().await;
    }
}

#[tokio::test]
async fn a_stop_waits_for_no_connection_without_a_request() {
    let served = served(limits()).await;
    let mut idle = served.client().await;
    assert_eq!(idle.ask(GET).await, 200);
    let _silent = served.client().await;
    assert!(served.stopped().await < PATIENCE / 2);
}
