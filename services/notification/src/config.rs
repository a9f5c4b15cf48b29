//! Notification's own settings.

use lettre::message::Mailbox;
use shared::service::secret::Secret;

/// Settings of the notification service.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// The mail server: smtp://user:password@host:port, with ?tls=required for STARTTLS, or smtps://user:password@host.
    /// Percent-encode reserved characters. Without this setting notices are only kept. NOTIFICATION_SMTP_URL_FILE may name a
    /// file with the URL instead.
    #[arg(long, env = "NOTIFICATION_SMTP_URL", hide_env_values = true)]
    pub smtp_url: Option<Secret>,
    /// The sender of the mails.
    #[arg(long, env = "NOTIFICATION_MAIL_FROM", default_value = "Amends <orders@example.com>")]
    pub mail_from: Mailbox,
}
