//! Serves the HTTP interface with deadlines and a limit on connections, so that clients who are silent, slow or too many do
//! not keep others from being served.
//!
//! The deadlines need no timer per connection: one look a second compares the connections' states with the clock.

mod connection;
mod registry;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use self::connection::{Answer, Running, Stream, Watched};
use self::registry::Registry;
use super::refusals::{self, Refusal, refused};
use crate::metric::HTTP_CONNECTIONS;

/// The largest head of a request, and how much of a body is read ahead, in bytes.
const MAX_READ_BYTES: usize = 64 * 1024;
/// How long a peer may leave sent data unacknowledged, so that one that vanished is noticed.
const VANISHED_AFTER: Duration = Duration::from_secs(60);
/// How long to wait when the process may open no further file.
const PAUSE: Duration = Duration::from_millis(50);

/// The answer to a connection that there is no room for.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 137\r\n\r\n\
    {\"type\":\"/problems/overloaded\",\"title\":\"The service has too much to do\",\"status\":503,\
    \"detail\":\"too many connections are open; try again\"}";

/// The bounds of the HTTP interface.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The largest number of open connections.
    pub connections: usize,
    /// How long the head of a request may take, from the opening of the connection or from its first byte.
    pub head: Duration,
    /// How long a connection may be idle between two requests. Proxies reuse connections for a minute.
    pub idle: Duration,
    /// How long a client may take nothing of an answer.
    pub write: Duration,
    /// How long running requests may take after a stop.
    pub stop: Duration,
}

impl Limits {
    pub(crate) fn new(connections: usize, stop: Duration) -> Self {
        Self {
            connections: connections.max(1),
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            write: Duration::from_secs(30),
            stop,
        }
    }

    /// How often to compare the connections with the clock.
    fn look_every(&self) -> Duration {
        (self.head.min(self.idle).min(self.write) / 4).min(Duration::from_secs(1))
    }
}

/// Serves the routes until `stop`, and then for [`Limits::stop`] those requests that are running.
pub(crate) async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) {
    let mut server =
        Server { router, limits, registry: Registry::new(limits, Instant::now()), tasks: JoinSet::new() };
    server.accept_until(listener, stop).await;
    server.finish().await;
}

struct Server {
    router: Router,
    limits: Limits,
    registry: Registry,
    tasks: JoinSet<()>,
}

impl Server {
    async fn accept_until(&mut self, listener: TcpListener, stop: CancellationToken) {
        let mut look = tokio::time::interval(self.limits.look_every());
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.attend(stream),
                    Err(error) => self.make_room(&error).await,
                },
                Some(_) = self.tasks.join_next() => self.count(),
                _ = look.tick(), if !self.tasks.is_empty() => self.registry.look(),
            }
        }
    }

    /// Closes idle connections, and waits for running requests. Cuts off those that take too long.
    async fn finish(&mut self) {
        self.registry.stop();
        let (began, mut look) = (Instant::now(), tokio::time::interval(self.limits.look_every()));
        while !self.tasks.is_empty() && began.elapsed() < self.limits.stop {
            tokio::select! {
                Some(_) = self.tasks.join_next() => {}
                _ = look.tick() => self.registry.look(),
            }
        }
        refused(Refusal::Stopping, self.tasks.len() as u64);
        self.tasks.shutdown().await;
        self.count();
        refusals::report();
    }

    /// Serves a new connection. If there are too many, the one that has been silent for longest makes room.
    fn attend(&mut self, stream: TcpStream) {
        if self.tasks.len() >= self.limits.connections {
            if !self.registry.displace() {
                // It fails only if the client has left.
                let _ = stream.try_write(FULL);
                refused(Refusal::TooManyConnections, 1);
                return;
            }
            refused(Refusal::Displaced, 1);
        }
        // These fail only if the client has left.
        let _ = stream.set_nodelay(true);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, VANISHED_AFTER.as_millis() as u32);
        let watched = self.registry.add();
        self.tasks.spawn(run(stream, self.router.clone(), watched));
        self.count();
    }

    /// Makes room if the process may open no further file.
    async fn make_room(&mut self, error: &io::Error) {
        use rustix::io::Errno;
        let full = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
        if full.iter().any(|full| error.raw_os_error() == Some(full.raw_os_error())) {
            self.registry.displace();
            refused(Refusal::NoFile, 1);
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn count(&self) {
        HTTP_CONNECTIONS.gauge(&[]).set(self.tasks.len() as f64);
    }
}

/// Serves a connection to its end.
async fn run(stream: TcpStream, router: Router, watched: Arc<Watched>) {
    let watched = Running(watched);
    let mut http = http1::Builder::new();
    http.max_buf_size(MAX_READ_BYTES);
    let service = {
        let watched = Arc::clone(&watched.0);
        let router = TowerToHyperService::new(router);
        service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            answer(Arc::clone(&watched), router.clone(), request)
        })
    };
    let stream = TokioIo::new(Stream::new(stream, Arc::clone(&watched.0)));
    let mut connection = pin!(http.serve_connection(stream, service));
    loop {
        tokio::select! {
            // A failed connection concerns only its client.
            _ = connection.as_mut() => return,
            () = watched.0.changed() => {
                if watched.0.is_cut() {
                    return;
                }
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Answers a request, and keeps its connection from being closed meanwhile.
fn answer(
    watched: Arc<Watched>,
    router: TowerToHyperService<Router>,
    request: hyper::Request<hyper::body::Incoming>,
) -> impl Future<Output = io::Result<hyper::Response<Answer>>> + Send {
    // Nothing of a request is done if its connection was closed a moment before.
    let busy = watched.begin();
    let has_body = !hyper::body::Body::is_end_stream(request.body());
    let response = busy.is_some().then(|| router.call(request.map(Body::new)));
    async move {
        let Some((busy, response)) = busy.zip(response) else {
            return Err(io::Error::from(io::ErrorKind::ConnectionAborted));
        };
        let response = response.await.unwrap_or_else(|never| match never {});
        if has_body && response.status().is_client_error() {
            watched.expect_more();
        }
        Ok(response.map(|body| Answer::new(body, busy)))
    }
}

#[cfg(test)]
mod tests;
