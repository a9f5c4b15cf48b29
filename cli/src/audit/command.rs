//! `amends audit`: whether the nine statements hold of a running suite, and the receipt of one order.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};
use shared::config::duration;
use uuid::Uuid;

use super::{Scope, Verdict, at_rest};
use crate::api::Api;
use crate::json::{array, text_of};
use crate::output::say;
use crate::suite::{SERVICES, Suite};

/// What to audit.
#[derive(Debug, Args)]
#[command(after_help = "The exit code is 1 if a statement does not hold, or if it can't be said yet.")]
pub struct Audit {
    #[command(flatten)]
    suite: Suite,
    /// Print what was done for this order instead, in the order in which it was done, with sums.
    #[arg(long)]
    order: Option<Uuid>,
    /// How long to wait for orders under way, without which sums can't be compared.
    #[arg(long, default_value = "10s", value_parser = duration)]
    wait: Duration,
    /// How long an order may take to its end, unless it is stuck or parked.
    #[arg(long, default_value = "300s", value_parser = duration)]
    deadline: Duration,
    /// For how many minutes back the topics are held against the outboxes, at most 20160. Each record of that time is read,
    /// and remembered with some 40 bytes; 10080 is all that topics keep.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=20_160))]
    minutes: u16,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Where a service of a suite listens that `amends up` has not started, for example order=http://orders:8081.
    #[arg(long, value_name = "SERVICE=URL", value_parser = service_url)]
    service_url: Vec<(String, String)>,
    /// The brokers of such a suite.
    #[arg(long)]
    kafka_brokers: Option<String>,
    /// The prefix of its topics.
    #[arg(long, default_value = "")]
    topic_prefix: String,
}

fn service_url(text: &str) -> Result<(String, String), String> {
    let known = || SERVICES.map(|service| service.name).join(", ");
    let (service, url) = text.split_once('=').ok_or("must be like order=http://127.0.0.1:8081")?;
    if SERVICES.iter().all(|known| known.name != service) {
        return Err(format!("`{service}` is none of {}", known()));
    }
    Ok((service.to_owned(), url.trim_end_matches('/').to_owned()))
}

impl Audit {
    pub fn run(self) -> anyhow::Result<()> {
        crate::block_on(async {
            let urls: BTreeMap<String, String> = self.service_url.iter().cloned().collect();
            let api = Api::new(&self.suite).with_urls(urls);
            match self.order {
                Some(order) => receipt(&api, order).await,
                None => self.all(&api).await,
            }
        })
    }

    fn scope(&self) -> Scope {
        let mut scope = Scope::of(&self.suite);
        scope.kafka.prefix.clone_from(&self.topic_prefix);
        if let Some(brokers) = &self.kafka_brokers {
            scope.kafka.brokers.clone_from(brokers);
        }
        Scope { patience: self.wait, deadline: self.deadline, minutes: self.minutes, ..scope }
    }

    async fn all(&self, api: &Api) -> anyhow::Result<()> {
        let verdict = at_rest(api, &self.scope()).await;
        if self.json {
            let statements = serde_json::to_value(&verdict.statements)?;
            let said =
                json!({"holds": verdict.holds(), "statements": statements, "findings": verdict.findings});
            say!("{said:#}");
        } else {
            print(&verdict);
        }
        if verdict.holds() {
            return Ok(());
        }
        match verdict.statements.iter().filter(|one| one.holds == Some(false)).count() {
            0 => bail!("not all nine statements can be said yet\n  {}", verdict.findings.join("\n  ")),
            1 => bail!("one of the nine statements does not hold"),
            many => bail!("{many} of the nine statements do not hold"),
        }
    }
}

fn print(verdict: &Verdict) {
    for one in &verdict.statements {
        let holds = match one.holds {
            Some(true) => "holds ",
            Some(false) => "BROKEN",
            None => "open  ",
        };
        say!("{}  {:<9} {holds}  {}", one.number, one.name, one.says);
        for finding in &one.findings {
            say!("                     {finding}");
        }
    }
    if verdict.holds() {
        say!("all nine hold");
    }
}

async fn receipt(api: &Api, id: Uuid) -> anyhow::Result<()> {
    let order = api.get("order", &format!("/orders/{id}")).await?;
    say!("order {id}, {}", text_of(&order, "status"));
    for line in array(&order["items"]) {
        say!(
            "  {:>4} x {:<20} {}",
            line["quantity"].as_i64().unwrap_or_default(),
            text_of(line, "sku"),
            money(&line["unitPrice"])
        );
    }
    say!("       total                {}", money(&order["total"]));
    say!("");
    for entry in array(&order["timeline"]) {
        say!("{}  {:<13} {}", text_of(entry, "at"), text_of(entry, "service"), text_of(entry, "type"));
    }
    let Some(payment) = api.find("payment", &format!("/payments/{id}")).await? else { return Ok(()) };
    say!("");
    let mut taken = 0;
    for entry in array(&payment["entries"]) {
        let amount = entry["amount"]["amount"].as_i64().unwrap_or_default();
        taken += match text_of(entry, "kind") {
            "capture" => amount,
            "refund" => -amount,
            _ => 0,
        };
        say!(
            "{}  {:<9} {}  from {} to {}",
            text_of(entry, "at"),
            text_of(entry, "kind"),
            money(&entry["amount"]),
            text_of(entry, "credit"),
            text_of(entry, "debit")
        );
    }
    let stands = matches!(text_of(&order, "status"), "confirmed" | "shipped" | "delivered");
    let total = order["total"]["amount"].as_i64().unwrap_or_default();
    let due = if stands { total } else { 0 };
    say!("taken and not given back: {taken}, to be: {due} (in minor units)");
    if order["status"] != "pending" && taken != due {
        bail!("the money of the order {id} is not what its status says, or it is still being moved");
    }
    Ok(())
}

fn money(value: &Value) -> String {
    let (amount, currency) = (value["amount"].as_i64().unwrap_or_default(), text_of(value, "currency"));
    format!("{:>7}.{:02} {currency}", amount / 100, amount % 100)
}
