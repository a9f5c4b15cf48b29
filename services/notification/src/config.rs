//! Notification's own settings.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use lettre::message::Mailbox;

/// Settings of the notification service.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// The mail server: smtp://user:password@host:port, with ?tls=required for STARTTLS, or smtps://user:password@host.
    /// Percent-encode reserved characters. Without this setting notices are only kept.
    #[arg(long, env = "NOTIFICATION_SMTP_URL", hide_env_values = true)]
    pub smtp_url: Option<SmtpUrl>,
    /// The sender of the mails.
    #[arg(long, env = "NOTIFICATION_MAIL_FROM", default_value = "Amends <orders@example.com>")]
    pub mail_from: Mailbox,
}

impl Config {
    /// Returns the URL of the mail server, if one is set.
    pub fn mail_server(&self) -> Option<&SmtpUrl> {
        self.smtp_url.as_ref().filter(|url| !url.0.trim().is_empty())
    }
}

/// The URL of a mail server with its password. The service parses it when it starts, not with the command line. So the error
/// about a wrong URL does not repeat the password.
#[derive(Clone)]
pub struct SmtpUrl(String);

impl SmtpUrl {
    /// Only the client of the mail server may read it.
    pub fn secret(&self) -> &str {
        self.0.trim()
    }
}

impl FromStr for SmtpUrl {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SmtpUrl")
    }
}
