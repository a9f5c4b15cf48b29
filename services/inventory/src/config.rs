//! Settings of inventory's own.

/// Settings of the inventory service. It has none of its own yet.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {}
