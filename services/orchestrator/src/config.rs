//! Settings of the orchestrator's own.

/// Settings of the orchestrator. It has none of its own yet.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {}
