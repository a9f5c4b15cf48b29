//! One connection: what it is doing, and its stream, which notes that.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// After its answer, a connection reads and drops at most so much of a body that nobody wanted. A socket that is closed with
/// unread data resets the connection, and the client could lose the answer.
const MOST_UNWANTED: usize = 1024 * 1024;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has had no request yet.
    New,
    /// It waits for the first byte of a further request.
    Idle,
    /// A further request has begun to come.
    Head,
    /// A request is being answered.
    Busy,
    /// The last answer is sent, and the client has not closed the connection yet.
    Closing,
    /// It is to be closed.
    Cut,
    /// It is closed.
    Ended,
}

impl Phase {
    const ALL: [Self; 7] =
        [Self::New, Self::Idle, Self::Head, Self::Busy, Self::Closing, Self::Cut, Self::Ended];

    /// Returns whether it may be closed without losing a request.
    pub fn is_waiting(self) -> bool {
        matches!(self, Self::New | Self::Idle | Self::Head)
    }
}

/// What a connection is doing, and since when.
#[derive(Debug)]
pub(super) struct Watched {
    /// The milliseconds from `zero` to the beginning of the phase, and in the lowest byte the phase. They are one number, so
    /// that none changes without the other.
    state: AtomicU64,
    /// The milliseconds from `zero` to when the client stopped taking data; 0 if it takes data.
    stalled: AtomicU64,
    /// Whether the client may still be sending a body that nobody wants.
    expects_more: AtomicBool,
    changed: Notify,
    zero: Instant,
}

impl Watched {
    pub fn new(zero: Instant) -> Self {
        let watched = Self {
            state: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
            expects_more: AtomicBool::new(false),
            changed: Notify::new(),
            zero,
        };
        watched.state.store(watched.pack(Phase::New), Ordering::Relaxed);
        watched
    }

    fn now(&self) -> u64 {
        self.zero.elapsed().as_millis() as u64
    }

    fn pack(&self, phase: Phase) -> u64 {
        self.now() << 8 | phase as u64
    }

    /// Returns the phase, and when it began, in milliseconds from `zero`.
    pub fn phase(&self) -> (Phase, u64) {
        unpack(self.state.load(Ordering::Acquire))
    }

    /// Returns since when the client has taken nothing of an answer, in milliseconds from `zero`.
    pub fn stalled_since(&self) -> Option<u64> {
        Some(self.stalled.load(Ordering::Relaxed)).filter(|since| *since > 0)
    }

    /// Changes the phase if `from` holds for the present one.
    fn change(&self, to: Phase, from: impl Fn(Phase) -> bool) -> bool {
        let state = self.pack(to);
        let change = |present| from(unpack(present).0).then_some(state);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).is_ok()
    }

    /// Begins to answer a request; `None` if the connection was closed before.
    pub fn begin(self: &Arc<Self>) -> Option<Busy> {
        self.change(Phase::Busy, Phase::is_waiting).then(|| Busy(Arc::clone(self)))
    }

    /// Notes that the client may still be sending a body that nobody wants.
    pub fn expect_more(&self) {
        self.expects_more.store(true, Ordering::Relaxed);
    }

    /// Closes the connection if no request is being answered. Returns whether it does.
    pub fn displace(&self) -> bool {
        let cut = self.change(Phase::Cut, Phase::is_waiting);
        if cut {
            self.changed.notify_one();
        }
        cut
    }

    /// Closes the connection, whatever it is doing.
    pub fn cut(&self) {
        self.change(Phase::Cut, |phase| phase != Phase::Ended);
        self.changed.notify_one();
    }

    /// Asks the connection to end with the request that is being answered.
    pub fn stop(&self) {
        self.changed.notify_one();
    }

    /// Waits until the connection is to be closed, or to end with its present request.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    pub fn is_cut(&self) -> bool {
        self.phase().0 == Phase::Cut
    }
}

fn unpack(state: u64) -> (Phase, u64) {
    (Phase::ALL[(state & 0xff) as usize % Phase::ALL.len()], state >> 8)
}

/// Marks a connection as ended when its task ends, also by a panic.
pub(super) struct Running(pub Arc<Watched>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.change(Phase::Ended, |_| true);
    }
}

/// A request that is being answered, until the last byte of the answer.
pub(super) struct Busy(Arc<Watched>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.change(Phase::Idle, |phase| phase == Phase::Busy);
    }
}

/// The body of an answer.
pub(super) struct Answer {
    body: Body,
    _busy: Busy,
}

impl Answer {
    pub fn new(body: Body, busy: Busy) -> Self {
        Self { body, _busy: busy }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The stream of a connection. It notes when a request begins to come, and when the client takes no more data.
pub(super) struct Stream {
    stream: TcpStream,
    watched: Arc<Watched>,
    /// How many bytes were dropped after the last answer.
    unwanted: Option<usize>,
}

impl Stream {
    pub fn new(stream: TcpStream, watched: Arc<Watched>) -> Self {
        Self { stream, watched, unwanted: None }
    }

    fn note_write<T>(&self, written: Poll<T>) -> Poll<T> {
        let stalled = &self.watched.stalled;
        match (&written, stalled.load(Ordering::Relaxed)) {
            (Poll::Pending, 0) => stalled.store(self.watched.now().max(1), Ordering::Relaxed),
            (Poll::Ready(_), since) if since > 0 => stalled.store(0, Ordering::Relaxed),
            _ => {}
        }
        written
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before && self.watched.phase().0 == Phase::Idle {
            self.watched.change(Phase::Head, |phase| phase == Phase::Idle);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note_write(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note_write(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unwanted.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            self.unwanted = Some(0);
            self.watched.change(Phase::Closing, |phase| !matches!(phase, Phase::Cut | Phase::Ended));
        }
        let mut scratch = [0; 4096];
        while self.watched.expects_more.load(Ordering::Relaxed) {
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            let unwanted = self.unwanted.unwrap_or(0) + buffer.filled().len();
            if buffer.filled().is_empty() || unwanted > MOST_UNWANTED {
                break;
            }
            self.unwanted = Some(unwanted);
        }
        Poll::Ready(Ok(()))
    }
}
