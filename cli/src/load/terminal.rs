//! The terminal: Ctrl-C and the progress of the run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::board::Board;
use crate::output::complain;

/// Ends the placing at the first Ctrl-C, and returns at the second one.
pub async fn told_to_end(stop: CancellationToken) {
    for first in [true, false] {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without a handler, Ctrl-C ends the program.
            std::future::pending::<()>().await;
        }
        if first {
            complain!(
                "placing no more orders; waiting for those under way (press Ctrl-C again to stop at once)"
            );
            stop.cancel();
        }
    }
}

/// Prints the progress of the run once a second, if standard error is a terminal.
pub async fn show_progress(board: Arc<Board>, over: CancellationToken) {
    use std::io::{IsTerminal as _, Write as _};
    let mut terminal = std::io::stderr();
    if !terminal.is_terminal() {
        return;
    }
    let (began, mut before) = (Instant::now(), 0);
    while over.run_until_cancelled(tokio::time::sleep(Duration::from_secs(1))).await.is_some() {
        let now = board.standing();
        let _ = write!(
            terminal,
            "\r\x1b[K{:>4} s  {} placed, {} settled ({}/s), {} under way, {} errors",
            began.elapsed().as_secs(),
            now.placed,
            now.settled,
            now.settled - before,
            now.pending,
            now.errors
        );
        before = now.settled;
    }
    let _ = write!(terminal, "\r\x1b[K");
}
