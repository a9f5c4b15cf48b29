//! `amends parked`: shows messages that a service could not handle, and retries, edits or skips them.

mod bulk;
mod edit;
mod list;

use anyhow::bail;
use clap::{Args, Subcommand};
use futures::future::join_all;
use serde_json::{Value, json};
use shared::text::line;

use crate::api::Api;
use crate::json::text_of;
use crate::output::{complain, say};
use crate::suite::{SERVICES, Suite};

/// The commands about parked messages. A message is parked under its key, usually an order's id.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the keys with parked messages, with the reason of each.
    List(list::List),
    /// Show the parked messages of a key, in order, with their bodies.
    Show(list::Show),
    /// Handle the messages of a key again, in order, up to the first that fails again; or of many keys at once.
    Retry(Retry),
    /// Replace the body of a message by a corrected one; then retry the key.
    Edit(edit::Edit),
    /// Drop one message for good, or many at once; then retry the keys.
    Skip(Skip),
}

/// The services that are asked.
#[derive(Debug, Args)]
struct Place {
    /// Ask only this service, instead of all.
    #[arg(long, value_parser = SERVICES)]
    service: Option<String>,
    #[command(flatten)]
    suite: Suite,
}

/// What to retry.
#[derive(Debug, Args)]
pub struct Retry {
    /// The parked key.
    #[arg(required_unless_present_any = bulk::or_all(), conflicts_with_all = bulk::or_all())]
    key: Option<String>,
    /// Retry every parked key.
    #[arg(long, conflicts_with_all = bulk::FLAGS, conflicts_with = "dry_run")]
    all: bool,
    /// Of many keys those whose first message is selected are retried.
    #[command(flatten)]
    selection: bulk::Selection,
    /// Why it should work now. It is kept if many keys are retried at once.
    #[arg(long, default_value = "the cause is mended")]
    reason: String,
    /// Who retries it. The name is kept if many keys are retried at once.
    #[arg(long, env = "USER", default_value = "operator")]
    by: String,
    #[command(flatten)]
    place: Place,
}

/// What to skip.
#[derive(Debug, Args)]
pub struct Skip {
    /// The parked key.
    #[arg(required_unless_present_any = bulk::FLAGS, conflicts_with_all = bulk::FLAGS, requires = "id")]
    key: Option<String>,
    /// The message's number, as `amends parked show` prints it.
    id: Option<i64>,
    #[command(flatten)]
    selection: bulk::Selection,
    /// Why it is skipped. The message keeps the reason.
    #[arg(long, required_unless_present = "dry_run")]
    reason: Option<String>,
    /// Who skips it. The message keeps the name.
    #[arg(long, env = "USER", default_value = "operator")]
    by: String,
    #[command(flatten)]
    place: Place,
}

impl Command {
    pub fn run(self) -> anyhow::Result<()> {
        crate::runtime::block_on(async {
            match self {
                Self::List(list) => list.run().await,
                Self::Show(show) => show.run().await,
                Self::Retry(retry) => retry.run().await,
                Self::Edit(edit) => edit.run().await,
                Self::Skip(skip) => skip.run().await,
            }
        })
    }
}

impl Place {
    fn api(&self) -> Api {
        Api::new(&self.suite)
    }

    fn services(&self) -> Vec<&str> {
        match &self.service {
            Some(service) => vec![service],
            None => SERVICES.to_vec(),
        }
    }

    /// Returns the services that have, or had, parked messages of the key, each with a page of them.
    async fn holders(&self, api: &Api, key: &str) -> anyhow::Result<Vec<(&str, Value)>> {
        let path = path(key, "?limit=200");
        let services = self.services();
        let asked = services.iter().map(async |service| (*service, api.find(service, &path).await));
        let mut holders = Vec::new();
        for (service, page) in join_all(asked).await {
            if let Some(page) = page? {
                holders.push((service, page));
            }
        }
        if holders.is_empty() {
            bail!("the key {key} is parked nowhere; `amends parked list` shows the parked keys");
        }
        Ok(holders)
    }

    /// Returns the service that has this message of the key, and the message.
    async fn holder_of(&self, api: &Api, key: &str, id: i64) -> anyhow::Result<(&str, Value)> {
        let mut found = Vec::new();
        for (service, _) in self.holders(api, key).await? {
            // The page that begins with the message.
            let page = api.get(service, &path(key, &format!("?limit=1&cursor={}", id - 1))).await?;
            if page["messages"][0]["id"] == id {
                found.push((service, page["messages"][0].clone()));
            }
        }
        match found.len() {
            0 => bail!("the key {key} has no message {id}; `amends parked show {}` lists them", quoted(key)),
            1 => Ok(found.remove(0)),
            _ => {
                let names: Vec<&str> = found.iter().map(|(service, _)| *service).collect();
                bail!(
                    "{} have a message {id} of the key {key}; say which with --service",
                    names.join(" and ")
                )
            }
        }
    }
}

impl Retry {
    async fn run(self) -> anyhow::Result<()> {
        if self.selection.is_given() {
            return self.selection.run(&self.place, "retry", &self.by, &self.reason).await;
        }
        let api = self.place.api();
        let mut keys = Vec::new();
        match &self.key {
            Some(key) => {
                for (service, page) in self.place.holders(&api, key).await? {
                    let waits = |message: &Value| message["status"] == "parked";
                    if page["messages"].as_array().is_some_and(|messages| messages.iter().any(waits))
                        || page["next"].is_i64()
                    {
                        keys.push((service, key.clone()));
                    }
                }
                if keys.is_empty() {
                    bail!("nothing of the key {key} is parked any more");
                }
            }
            None => {
                let services = self.place.services();
                let asked = services.iter().map(async |service| (*service, list::keys(&api, service).await));
                for (service, parked) in join_all(asked).await {
                    keys.extend(parked?.iter().map(|parked| (service, text_of(parked, "key").to_owned())));
                }
                if keys.is_empty() {
                    say!("nothing is parked");
                }
            }
        }
        let mut failed = 0;
        for (service, key) in &keys {
            match replay(&api, service, key).await {
                Ok(replayed) => say!("{service}  {key}  {replayed} replayed"),
                // The other keys are independent of this one.
                Err(error) => {
                    failed += 1;
                    complain!("{service}  {}  {error:#}", line(key));
                }
            }
        }
        match failed {
            0 => Ok(()),
            failed => bail!("{failed} of {} keys are still parked", keys.len()),
        }
    }
}

/// Replays all messages of a key, with as many requests as that takes.
async fn replay(api: &Api, service: &str, key: &str) -> anyhow::Result<u64> {
    let mut replayed = 0;
    loop {
        let answer = api.post(service, &path(key, "/retry"), &json!({})).await?;
        let now = answer["replayed"].as_u64().unwrap_or_default();
        replayed += now;
        if answer["left"].as_i64().unwrap_or_default() == 0 {
            return Ok(replayed);
        }
        if now == 0 {
            bail!("the service is stopping; retry when it is back");
        }
    }
}

impl Skip {
    async fn run(self) -> anyhow::Result<()> {
        let reason = self.reason.as_deref().unwrap_or("a dry run");
        let (Some(key), Some(id)) = (&self.key, self.id) else {
            return self.selection.run(&self.place, "skip", &self.by, reason).await;
        };
        let api = self.place.api();
        let (service, _) = self.place.holder_of(&api, key, id).await?;
        let body = json!({"reason": reason, "by": self.by});
        let answer = api.post(service, &path(key, &format!("/messages/{id}/skip")), &body).await?;
        say!("{service}  {key}  message {id} skipped; {}", what_now(&answer, key));
        Ok(())
    }
}

/// Returns a hint what to do after an edit or a skip.
fn what_now(answer: &Value, key: &str) -> String {
    match answer["left"].as_i64().unwrap_or_default() {
        0 => "nothing of the key is parked any more".to_owned(),
        left => format!(
            "{left} of the key are still parked; retry them with: amends parked retry {}",
            quoted(key)
        ),
    }
}

/// Returns the key as a word of a shell command. A stranger may have chosen it, and the command is made to be copied.
fn quoted(key: &str) -> String {
    format!("'{}'", key.replace('\'', r"'\''"))
}

/// The path of a key's parked messages. The key may contain slashes, and whatever else a record's key may have. A parser of
/// URLs would leave out line feeds and tabs.
fn path(key: &str, rest: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    format!("/parked/{}{rest}", key.bytes().map(encode).collect::<String>())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(subcommand)]
        _command: super::Command,
    }

    #[test]
    fn one_key_or_a_selection_is_skipped_or_retried_and_a_dry_run_is_about_a_selection() {
        let fits =
            |line: &str| Line::try_parse_from(std::iter::once("parked").chain(line.split(' '))).is_ok();
        for line in [
            "skip key 3 --reason why",
            "skip --cause rubbish --older-than 1h --dry-run",
            "skip --all-of payment.void_payment.v1 --reason why",
            "retry key",
            "retry --all",
            "retry --topic payment.commands --dry-run",
        ] {
            assert!(fits(line), "{line}");
        }
        for line in [
            "skip --reason why",
            "skip key --reason why",
            "skip key 3",
            "skip key 3 --dry-run",
            "skip key 3 --cause rubbish --reason why",
            "skip --cause rubbish",
            "retry",
            "retry key --all",
            "retry key --dry-run",
            "retry --all --dry-run",
            "retry --all --cause rubbish",
        ] {
            assert!(!fits(line), "{line}");
        }
    }

    #[test]
    fn a_key_is_one_segment_of_the_path() {
        let path = super::path("payment.commands/2/17 50%", "/retry");
        assert_eq!(path, "/parked/payment.commands%2F2%2F17%2050%25/retry");
        assert_eq!(super::path("a\n\t\u{1b}ß", ""), "/parked/a%0A%09%1B%C3%9F");
    }

    #[test]
    fn a_key_is_one_word_of_a_command() {
        assert_eq!(super::quoted("an-order"), "'an-order'");
        assert_eq!(super::quoted("x'; rm -rf ~; '"), r"'x'\''; rm -rf ~; '\'''");
    }
}
