//! Settings of notification's own.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use lettre::message::Mailbox;

/// Settings of the notification service.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// The mail server: smtp://user:password@host:port, with ?tls=required for STARTTLS, or smtps://user:password@host.
    /// What URLs reserve is percent-encoded. Without it notices are only kept.
    #[arg(long, env = "NOTIFICATION_SMTP_URL", hide_env_values = true)]
    pub smtp_url: Option<SmtpUrl>,
    /// Whom mails are from.
    #[arg(long, env = "NOTIFICATION_MAIL_FROM", default_value = "Amends <orders@example.com>")]
    pub mail_from: Mailbox,
}

impl Config {
    /// The mail server, if there is to be one.
    pub fn mail_server(&self) -> Option<&SmtpUrl> {
        self.smtp_url.as_ref().filter(|url| !url.0.trim().is_empty())
    }
}

/// The address of a mail server with its password. It is read when the service starts, not with the command line: who
/// mistypes it is told what is wrong with it, but not what it is.
#[derive(Clone)]
pub struct SmtpUrl(String);

impl SmtpUrl {
    /// For the mail server's client alone.
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
