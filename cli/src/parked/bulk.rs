//! `amends parked skip` and `retry` for many messages at once.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};
use shared::service::config::duration;

use super::Place;
use crate::api::Api;
use crate::json::{array, text_of};
use crate::output::{complain, say};

/// Which parked messages. Every flag that is given must match.
#[derive(Debug, Args)]
pub(super) struct Selection {
    /// All messages of this type, for example payment.capture_payment.v1.
    #[arg(long, value_name = "TYPE", help_heading = MANY)]
    all_of: Option<String>,
    /// All messages whose reason has this text; `amends parked list` shows the reasons.
    #[arg(long, value_name = "TEXT", help_heading = MANY)]
    cause: Option<String>,
    /// All messages of this topic, for example payment.commands.
    #[arg(long, help_heading = MANY)]
    topic: Option<String>,
    /// All messages that were parked so long ago, for example 1h.
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = MANY)]
    older_than: Option<Duration>,
    /// Only count what is selected, by its cause.
    #[arg(long, conflicts_with = "key", help_heading = MANY)]
    dry_run: bool,
}

/// The flags that select messages, by their ids.
pub(super) const FLAGS: [&str; 4] = ["all_of", "cause", "topic", "older_than"];

/// The flags that select messages, and the one that selects all.
pub(super) fn or_all() -> impl Iterator<Item = &'static str> {
    FLAGS.into_iter().chain(["all"])
}

const MANY: &str = "Many messages at once";

impl Selection {
    pub fn is_given(&self) -> bool {
        self.all_of.is_some() || self.cause.is_some() || self.topic.is_some() || self.older_than.is_some()
    }

    /// Does `act`, which is `skip` or `retry`, at every service of the place.
    pub async fn run(&self, place: &Place, act: &str, by: &str, reason: &str) -> anyhow::Result<()> {
        let api = place.api();
        let (mut messages, mut failed, mut silent) = (0, 0, 0);
        for service in place.services() {
            match self.at(&api, service, act, by, reason).await {
                Ok((done, failed_here)) => {
                    messages += done;
                    failed += failed_here;
                }
                // The messages of the other services are independent of it.
                Err(error) => {
                    silent += 1;
                    complain!("{service}: {error:#}");
                }
            }
        }
        if silent > 0 {
            bail!("{silent} of {} services did not do it", place.services().len());
        }
        let done = if act == "skip" { "skipped" } else { "replayed" };
        match (self.dry_run, messages, failed) {
            (true, 0, _) | (false, 0, 0) => say!("nothing is parked that fits"),
            (true, ..) => say!("{messages} messages are selected; nothing was changed"),
            (false, _, 0) => say!("{messages} messages {done}"),
            (false, ..) => {
                bail!("{messages} messages {done}; {failed} keys failed again and are still parked")
            }
        }
        Ok(())
    }

    /// Does it at one service, with as many requests as that takes. Returns the number of messages, and of keys that failed.
    async fn at(
        &self,
        api: &Api,
        service: &str,
        act: &str,
        by: &str,
        reason: &str,
    ) -> anyhow::Result<(u64, u64)> {
        let (mut messages, mut failed, mut cursor) = (0, 0, Value::Null);
        loop {
            let answer = api
                .post(service, &format!("/parked-messages/{act}"), &self.body(&cursor, by, reason))
                .await?;
            let number = |member: &str| answer[member].as_u64().unwrap_or_default();
            messages += number("messages");
            failed += number("failed");
            for cause in array(&answer["selected"]) {
                messages += cause["messages"].as_u64().unwrap_or_default();
                let kind = cause["type"].as_str().unwrap_or("unreadable");
                let (count, keys, reason) = (&cause["messages"], &cause["keys"], text_of(cause, "reason"));
                say!(
                    "{service:<12}  {count:>6} messages of {keys} keys  {kind}  {}: {reason}",
                    text_of(cause, "topic")
                );
            }
            if answer["next"].is_null() {
                return Ok((messages, failed));
            }
            if answer["next"] == cursor {
                bail!("the service is stopping; repeat it when it is back");
            }
            cursor = answer["next"].clone();
        }
    }

    fn body(&self, cursor: &Value, by: &str, reason: &str) -> Value {
        let age = self.older_than.map(|age| format!("{}ms", age.as_millis()));
        json!({
            "type": self.all_of, "cause": self.cause, "topic": self.topic, "olderThan": age,
            "dryRun": self.dry_run, "cursor": cursor, "by": by, "reason": reason,
        })
    }
}
