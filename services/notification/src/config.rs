//! Settings of notification's own.

/// Settings of the notification service. It has none of its own yet.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {}
