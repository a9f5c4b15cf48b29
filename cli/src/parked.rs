//! `amends parked`: messages that could not be handled, and what to do about them.

mod edit;
mod list;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use reqwest::Url;
use serde_json::{Value, json};

use crate::api::Api;
use crate::json::text_of;
use crate::output::{complain, say};
use crate::suite::{SERVICES, Suite};

/// What to do with parked keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the parked keys of every service, each with its reason.
    List(list::List),
    /// Show the messages of a key, in order, with their bodies.
    Show(list::Show),
    /// Replay the messages of a key in order, up to the first that fails again.
    Retry(Retry),
    /// Put a corrected body in the place of a message's; then retry the key.
    Edit(edit::Edit),
    /// Pass over one message for good; then retry the key.
    Skip(Skip),
}

/// Where to look.
#[derive(Debug, Args)]
struct Place {
    #[command(flatten)]
    suite: Suite,
    /// Only this service; without it, every one is asked.
    #[arg(long, value_parser = SERVICES)]
    service: Option<String>,
}

/// What to replay.
#[derive(Debug, Args)]
pub struct Retry {
    #[command(flatten)]
    place: Place,
    /// The key that is parked.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    key: Option<String>,
    /// Every parked key.
    #[arg(long)]
    all: bool,
}

/// What to pass over.
#[derive(Debug, Args)]
pub struct Skip {
    #[command(flatten)]
    place: Place,
    /// The key that is parked.
    key: String,
    /// The message's number, as `amends parked show` has it.
    id: i64,
    /// Why; it is kept with the message.
    #[arg(long)]
    reason: String,
    /// Who says so.
    #[arg(long, env = "USER", default_value = "operator")]
    by: String,
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

    /// Those services that have parked the key once, each with its page of the key's messages.
    async fn holders(&self, api: &Api, key: &str) -> anyhow::Result<Vec<(&str, Value)>> {
        let mut holders = Vec::new();
        for service in self.services() {
            if let Some(page) = api.find(service, &path(key, "?limit=200")?).await? {
                holders.push((service, page));
            }
        }
        if holders.is_empty() {
            bail!("the key {key} is parked nowhere; `amends parked list` says what is");
        }
        Ok(holders)
    }

    /// The one service in which this message of the key is.
    async fn holder_of(&self, api: &Api, key: &str, id: i64) -> anyhow::Result<(&str, Value)> {
        let mut found = Vec::new();
        for (service, _) in self.holders(api, key).await? {
            // The page that begins with the message.
            let page = api.get(service, &path(key, &format!("?limit=1&cursor={}", id - 1))?).await?;
            if page["messages"][0]["id"] == id {
                found.push((service, page["messages"][0].clone()));
            }
        }
        match found.len() {
            0 => bail!("the key {key} has no message {id}; `amends parked show {key}` lists them"),
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
                for service in self.place.services() {
                    for parked in list::keys(&api, service).await? {
                        keys.push((service, text_of(&parked, "key").to_owned()));
                    }
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
                // The other keys have nothing to do with this one.
                Err(error) => {
                    failed += 1;
                    complain!("{service}  {key}  {error:#}");
                }
            }
        }
        match failed {
            0 => Ok(()),
            failed => bail!("{failed} of {} keys are still parked", keys.len()),
        }
    }
}

/// Replays all of a key, however many requests it takes.
async fn replay(api: &Api, service: &str, key: &str) -> anyhow::Result<u64> {
    let mut replayed = 0;
    loop {
        let answer = api.post(service, &path(key, "/retry")?, &json!({})).await?;
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
        let api = self.place.api();
        let (service, _) = self.place.holder_of(&api, &self.key, self.id).await?;
        let rest = format!("/messages/{}/skip", self.id);
        let body = json!({"reason": self.reason, "by": self.by});
        let answer = api.post(service, &path(&self.key, &rest)?, &body).await?;
        say!("{service}  {}  message {} skipped; {}", self.key, self.id, what_now(&answer, &self.key));
        Ok(())
    }
}

/// What is left to do after an edit or a skip.
fn what_now(answer: &Value, key: &str) -> String {
    match answer["left"].as_i64().unwrap_or_default() {
        0 => "nothing of the key is parked any more".to_owned(),
        left => format!("{left} of the key are parked: amends parked retry '{key}'"),
    }
}

/// The path of what is parked under a key, which may have slashes.
fn path(key: &str, rest: &str) -> anyhow::Result<String> {
    let mut url = Url::parse("http://localhost/parked")?;
    url.path_segments_mut().ok().context("the key can't be in an address")?.push(key);
    Ok(format!("{}{rest}", url.path()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_key_is_one_segment_of_the_path() {
        let path = super::path("payment.commands/2/17 50%", "/retry").expect("a path");
        assert_eq!(path, "/parked/payment.commands%2F2%2F17%2050%25/retry");
    }
}
