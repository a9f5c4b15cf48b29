//! `amends parked list` and `show`.

use anyhow::bail;
use clap::Args;
use futures::future::join_all;
use serde_json::{Value, json};
use shared::text::line;

use super::{Place, path, text_of};
use crate::api::Api;
use crate::output::{complain, print_json, say};

/// Which parked keys.
#[derive(Debug, Args)]
pub struct List {
    /// Print a JSON array instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Which key.
#[derive(Debug, Args)]
pub struct Show {
    /// The parked key.
    key: String,
    /// Print a JSON array with every member of every message.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Returns every parked key of a service.
pub(super) async fn keys(api: &Api, service: &str) -> anyhow::Result<Vec<Value>> {
    pages(api, service, "/parked?limit=200", "keys").await
}

async fn pages(api: &Api, service: &str, first: &str, member: &str) -> anyhow::Result<Vec<Value>> {
    let mut all = Vec::new();
    let mut next = first.to_owned();
    loop {
        let mut page = api.get(service, &next).await?;
        if let Value::Array(items) = page[member].take() {
            all.extend(items);
        }
        let Some(cursor) = page["next"].as_i64() else { return Ok(all) };
        next = format!("{first}&cursor={cursor}");
    }
}

impl List {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let api = self.place.api();
        let services = self.place.services();
        let (mut all, mut silent) = (Vec::new(), 0);
        let asked = services.iter().map(async |service| (*service, keys(&api, service).await));
        for (service, keys) in join_all(asked).await {
            match keys {
                Ok(keys) => all.extend(keys.into_iter().map(|key| with_service(service, key))),
                // The keys of the other services are listed nevertheless.
                Err(error) => {
                    silent += 1;
                    complain!("{error:#}");
                }
            }
        }
        if silent == services.len() {
            bail!("no service answered");
        }
        if self.json {
            print_json(&all)?;
        } else {
            table(&all);
        }
        if silent > 0 {
            bail!("{silent} of {} services did not answer", services.len());
        }
        Ok(())
    }
}

fn with_service(service: &str, mut value: Value) -> Value {
    value["service"] = json!(service);
    value
}

fn table(keys: &[Value]) {
    if keys.is_empty() {
        say!("nothing is parked");
        return;
    }
    let width =
        keys.iter().map(|key| line(text_of(key, "key")).chars().count()).max().unwrap_or_default().max(3);
    say!("{:<12}  {:<width$}  {:>5}  {:<20}  REASON", "SERVICE", "KEY", "COUNT", "SINCE");
    for key in keys {
        say!(
            "{:<12}  {:<width$}  {:>5}  {:<20}  {}",
            text_of(key, "service"),
            line(text_of(key, "key")),
            key["count"],
            second(text_of(key, "since")),
            text_of(key, "reason")
        );
    }
}

/// A time without its fraction of a second.
fn second(time: &str) -> String {
    time.split_once('.').map_or_else(|| time.to_owned(), |(time, _)| format!("{time}Z"))
}

impl Show {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let api = self.place.api();
        let mut all = Vec::new();
        for (service, _) in self.place.holders(&api, &self.key).await? {
            let messages = pages(&api, service, &path(&self.key, "?limit=20"), "messages").await?;
            all.extend(messages.into_iter().map(|message| with_service(service, message)));
        }
        if self.json {
            print_json(&all)?;
            return Ok(());
        }
        for message in &all {
            show(message);
        }
        Ok(())
    }
}

fn show(message: &Value) {
    let place = format!("{}/{}/{}", text_of(message, "topic"), message["partition"], message["offset"]);
    say!(
        "{}  message {}  {}  {}  {place}",
        text_of(message, "service"),
        message["id"],
        text_of(message, "status"),
        message["type"].as_str().unwrap_or("unreadable")
    );
    say!("  parked {}, retried {} times since", second(text_of(message, "parkedAt")), message["attempts"]);
    say!("  reason: {}", text_of(message, "reason"));
    if let Some(reason) = message["skipReason"].as_str() {
        say!("  skipped by {}: {reason}", text_of(message, "resolvedBy"));
    }
    for line in super::edit::readable(message).lines() {
        say!("    {line}");
    }
}
