//! The mail server.
//!
//! SMTP has no idempotency key. If the answer to a mail is lost, because the connection broke or the service was killed,
//! the mail is sent again. Both mails have the same content and the same `Message-ID`, which is made of the step's key. So
//! the receiving side can recognize the repetition.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lettre::address::Address;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, SinglePart};
use lettre::transport::smtp::response::Category;
use lettre::transport::smtp::{AsyncSmtpTransportBuilder, Error, PoolConfig};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use time::OffsetDateTime;

/// Most mails under way at once, each over a connection of its own. Mail servers dislike clients with many connections.
pub const CONNECTIONS: usize = 10;
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

type Transport = AsyncSmtpTransport<Tokio1Executor>;

/// A mail to be sent.
pub struct Mail<'m> {
    pub to: &'m str,
    pub subject: &'m str,
    pub text: &'m str,
    /// The time at which the notice was written. It makes a repetition the same mail.
    pub date: OffsetDateTime,
    /// The step's key.
    pub key: &'m str,
}

/// The mail server's answer to a mail.
#[derive(Debug, PartialEq, Eq)]
pub enum Delivery {
    Accepted,
    /// The server will not accept this mail, however often it is sent.
    Refused {
        reason: String,
    },
}

/// There was no answer to a mail. The mail may have been sent all the same. The texts leave out the server's words, which
/// may name an address.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error("the mail server answered {0}")]
    Answered(u16),
    #[error("the mail server's answer can't be understood")]
    Garbled,
    #[error("no mail can be sent to the mail server: {0}")]
    Unreachable(Error),
}

impl From<Error> for NoAnswer {
    fn from(error: Error) -> Self {
        match error.status() {
            Some(code) => Self::Answered(code.into()),
            None if error.is_response() => Self::Garbled,
            None => Self::Unreachable(error),
        }
    }
}

/// The URL does not name a mail server. The text does not contain the URL.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0}; write smtp://user:password@host:port, with ?tls=required for STARTTLS, or smtps://user:password@host, and \
     percent-encode what URLs reserve"
)]
pub struct BadUrl(Error);

/// Sends mails, each over a connection of its own, and keeps the connections for the next mails. The caller sends at most
/// [`CONNECTIONS`] mails at once.
pub struct Smtp {
    builder: AsyncSmtpTransportBuilder,
    from: Mailbox,
    /// Each has at most one connection.
    idle: Mutex<Vec<Transport>>,
}

impl Smtp {
    /// Connects lazily, so a missing mail server fails the first mail and not the start.
    ///
    /// # Errors
    /// If the URL does not name a mail server.
    pub fn new(url: &str, from: Mailbox) -> Result<Self, BadUrl> {
        let builder = Transport::from_url(url).map_err(BadUrl)?;
        let builder =
            builder.timeout(Some(CONNECT_TIMEOUT)).pool_config(PoolConfig::new().max_size(1).min_idle(0));
        Ok(Self { builder, from, idle: Mutex::default() })
    }

    /// Sends a mail.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn send(&self, mail: &Mail<'_>) -> Result<Delivery, NoAnswer> {
        let Some(message) = compose(mail, &self.from) else {
            return Ok(Delivery::Refused {
                reason: "the address is none that mail can be sent to".to_owned(),
            });
        };
        let transport = self.idle().pop().unwrap_or_else(|| self.builder.clone().build());
        let ended = deliver(&transport, message).await;
        // The transport's own task puts the connection back, and runs first.
        tokio::task::yield_now().await;
        // A cancelled call does not come here. Its connection is in the middle of a mail, and is dropped with it.
        self.idle().push(transport);
        ended
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Transport>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn deliver(transport: &Transport, message: Message) -> Result<Delivery, NoAnswer> {
    let Err(error) = transport.send(message).await else { return Ok(Delivery::Accepted) };
    // The server says some things to every client: that it is closed, or wants another password. They are not about the mail.
    if is_final(&error) && transport.test_connection().await? {
        return Ok(Delivery::Refused { reason: reason(&error) });
    }
    Err(error.into())
}

/// Whether the error can be about the mail, and will be the same next time. 53x is about the sender, not the mail.
fn is_final(error: &Error) -> bool {
    let about_us = error.status().is_some_and(|code| code.category == Category::Unspecified3);
    // For example an address beyond ASCII, which the server does not accept.
    error.is_client() || (error.is_permanent() && !about_us)
}

/// Returns the server's words. They explain to an operator why a customer got no notice.
fn reason(error: &Error) -> String {
    const MOST: usize = 500;
    let said = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    let code = error.status().map(|code| format!("{code} ")).unwrap_or_default();
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    format!("{code}{said}").chars().map(plain).take(MOST).collect::<String>().trim().to_owned()
}

/// Returns `None` for an invalid address.
fn compose(mail: &Mail<'_>, from: &Mailbox) -> Option<Message> {
    const AUTO_SUBMITTED: HeaderName = HeaderName::new_from_ascii_str("Auto-Submitted");
    let to: Address = mail.to.parse().ok()?;
    Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, to))
        .subject(mail.subject)
        .date(mail.date.into())
        .message_id(Some(message_id(mail.key, from.email.domain())))
        // It keeps automatic replies, such as absence notes, from being sent (RFC 3834).
        .raw_header(HeaderValue::new(AUTO_SUBMITTED, "auto-generated".to_owned()))
        .singlepart(SinglePart::plain(format!("{}\r\n", mail.text)))
        .ok()
}

/// A message id can't have a colon (RFC 5322).
fn message_id(key: &str, domain: &str) -> String {
    format!("<{}@{domain}>", key.replace(':', "."))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn sender() -> Mailbox {
        "Amends <orders@example.com>".parse().expect("a mailbox")
    }

    fn mail<'m>(to: &'m str, text: &'m str) -> Mail<'m> {
        let date = datetime!(2026-11-21 10:00 UTC);
        Mail { to, subject: "Your order is confirmed", text, date, key: "0197:notify_customer:do" }
    }

    fn composed(mail: &Mail<'_>) -> Option<String> {
        compose(mail, &sender()).map(|message| String::from_utf8(message.formatted()).expect("UTF-8"))
    }

    #[test]
    fn a_mail_says_who_what_when_and_which() {
        let mail = mail("ada@example.net", "It is confirmed.");
        let said = composed(&mail).expect("a mail");
        for line in [
            "From: Amends <orders@example.com>",
            "To: ada@example.net",
            "Subject: Your order is confirmed",
            "Date: Sat, 21 Nov 2026 10:00:00 +0000",
            "Message-ID: <0197.notify_customer.do@example.com>",
            "Auto-Submitted: auto-generated",
            "MIME-Version: 1.0",
            "It is confirmed.",
        ] {
            assert!(said.lines().any(|said| said == line), "no {line} in\n{said}");
        }
        assert_eq!(composed(&mail).expect("a mail"), said, "a repetition is the same mail");
    }

    #[test]
    fn what_is_no_address_makes_no_mail() {
        for address in
            ["ada", "@example.com", "ada@", "a,b@example.com", "ada@example..com", "a@b>\r\nBcc: c@d"]
        {
            assert!(composed(&mail(address, "")).is_none(), "{address}");
        }
        for address in ["ada@example.com", "ada+lamp@example.co.uk", "ada@bücher.example"] {
            assert!(composed(&mail(address, "")).is_some(), "{address}");
        }
    }

    #[test]
    fn a_bad_url_is_not_told() {
        for url in
            ["mail.example.com", "https://ada:hunter2@example.com", "smtp://ada:hunter2@", "smtp://h:x"]
        {
            let error = Smtp::new(url, sender()).err().expect("no mail server").to_string();
            assert!(error.contains("write smtp://user:password@host:port"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn nobody_listens_and_nothing_is_concluded() {
        let smtp = Smtp::new("smtp://127.0.0.1:1", sender()).expect("a URL");
        let error = smtp.send(&mail("ada@example.com", "")).await.expect_err("nobody listens");
        assert!(error.to_string().contains("refused"), "{error}");
    }
}
