//! What the tests work with: a database, topics and processes of their own, on servers that all of them share.

pub mod commands;
mod kafka;
mod operator;
pub mod outbox;
pub mod place;
pub mod process;
mod servers;
mod sql;
pub mod toy;

use std::time::Duration;

/// How long anything may take that happens by itself. It is generous: it ends a broken test, and times nothing.
pub const PATIENCE: Duration = Duration::from_secs(120);
