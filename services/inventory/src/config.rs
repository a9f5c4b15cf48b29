//! Inventory's own settings.

/// Settings of the inventory service. It has none of its own yet.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {}
