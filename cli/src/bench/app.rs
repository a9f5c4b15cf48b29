//! The measured service, and its only message.

use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use shared::envelope::{Event, Message};
use shared::kafka::Topic;
use shared::service::{App, Service};

/// A service without routes, handlers and tables. It has only the relay.
pub struct Bench;

#[derive(Debug, Args)]
pub struct Config {}

impl App for Bench {
    const NAME: &'static str = "bench";
    const PORT: u16 = 0;
    type Config = Config;

    fn openapi() -> utoipa::openapi::OpenApi {
        utoipa::openapi::OpenApi::default()
    }

    fn run(_service: &mut Service<Config>) -> anyhow::Result<()> {
        Ok(())
    }
}

/// The name of the topic of the rows.
pub const TOPIC: &str = "bench.events";

/// Returns the topic of the rows.
pub fn topic() -> Topic {
    Topic { name: TOPIC.to_owned(), partitions: 4, retention: Duration::from_secs(24 * 3600) }
}

/// A row of the outbox. Numbers have a fixed width, so that all messages have the same size.
#[derive(Debug, Serialize, Deserialize)]
pub struct RowWritten {
    /// Counted over all keys.
    pub row: String,
    /// Counted within the key.
    pub sequence: String,
    pub filler: String,
}

impl Message for RowWritten {
    const TYPE: &'static str = "bench.row_written.v1";
    const TOPIC: &'static str = TOPIC;
}

impl Event for RowWritten {}

impl RowWritten {
    /// Returns a message whose envelope has about [`ROW_BYTES`] bytes. Its filler compresses about as well as ids and amounts.
    pub fn new(row: usize, sequence: u32) -> Self {
        let mut state = (row as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let filler = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            format!("{state:016x}")
        });
        let mut filler: String = filler.take(FILLER / 16 + 1).collect();
        filler.truncate(FILLER);
        Self { row: format!("{row:010}"), sequence: format!("{sequence:010}"), filler }
    }
}

/// The size of a row's message.
const ROW_BYTES: usize = 650;
/// The bytes that the envelope and the numbers do not take.
const FILLER: usize = ROW_BYTES - 310;
