//! `amends relay`: lets the relay of a restored service send again.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::api::Api;
use crate::json::text_of;
use crate::output::say;
use crate::suite::{SERVICES, Suite};

/// The commands about relays, which send the committed messages of a service.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Let the relay of a restored database send what may be unsent. Restore the database completely before.
    Adopt(Adopt),
}

/// Whose outbox is adopted.
#[derive(Debug, Args)]
pub struct Adopt {
    /// The service whose database was restored.
    #[arg(long, value_parser = SERVICES)]
    service: String,
    /// Why it is adopted. The database keeps the reason.
    #[arg(long)]
    reason: String,
    /// Who adopts it. The database keeps the name.
    #[arg(long, env = "USER", default_value = "operator")]
    by: String,
    /// Say how many messages would be sent, and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    suite: Suite,
}

impl Command {
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Adopt(adopt) => crate::runtime::block_on(adopt.run()),
        }
    }
}

impl Adopt {
    async fn run(self) -> anyhow::Result<()> {
        let body = json!({"reason": self.reason, "by": self.by, "dryRun": self.dry_run});
        let answer = Api::new(&self.suite).post(&self.service, "/relay/adoption", &body).await?;
        let (rows, why) = (answer["rows"].as_i64().unwrap_or_default(), text_of(&answer, "blocked"));
        let will = if self.dry_run {
            "would be sent, or sent again; nothing was changed"
        } else {
            "are sent, or sent again"
        };
        say!("{}  {rows} messages {will} ({why})", self.service);
        Ok(())
    }
}
