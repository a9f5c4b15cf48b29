//! `amends audit`: whether the nine statements hold of a running suite, and the receipt of one order.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::json;
use shared::service::config::duration;
use uuid::Uuid;

use super::receipt::Receipt;
use super::{Scope, Topics, Verdict, wait_until_quiescent};
use crate::api::Api;
use crate::output::say;
use crate::suite::{SERVICES, Suite, http};

/// What to audit.
#[derive(Debug, Args)]
#[command(after_help = "The exit code is 1 if a statement does not hold, or if it can't be said yet.")]
pub struct Audit {
    #[command(flatten)]
    suite: Suite,
    /// Print what was done for this order instead: what was told, and each move of money and stock, the parcel and the
    /// notices, by the databases' clocks, with sums of money and pieces.
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
    #[command(flatten)]
    topics: Topics,
}

fn service_url(text: &str) -> Result<(String, String), String> {
    let known = || SERVICES.map(|service| service.name).join(", ");
    let (service, url) = text.split_once('=').ok_or("must be like order=http://127.0.0.1:8081")?;
    if SERVICES.iter().all(|known| known.name != service) {
        return Err(format!("`{service}` is none of {}", known()));
    }
    Ok((service.to_owned(), http(url)?.trim_end_matches('/').to_owned()))
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
        let usual = Scope::of(&self.suite, &self.topics);
        Scope { patience: self.wait, deadline: self.deadline, minutes: self.minutes, ..usual }
    }

    async fn all(&self, api: &Api) -> anyhow::Result<()> {
        let verdict = wait_until_quiescent(api, &self.scope()).await;
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
    let receipt = Receipt::read(api, id).await?;
    for line in receipt.lines() {
        say!("{line}");
    }
    let wrong = receipt.wrong();
    if !wrong.is_empty() {
        let wrong = wrong.join("\n  ");
        bail!(
            "what was done for the order {id} is not what its status says, or it is still being done\n  {wrong}"
        );
    }
    Ok(())
}
