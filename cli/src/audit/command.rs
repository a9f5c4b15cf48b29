//! `amends audit`: whether the books of a running suite are in order, and the receipt of one order.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::Value;
use shared::config::duration;
use uuid::Uuid;

use super::at_rest;
use crate::api::Api;
use crate::json::{array, text_of};
use crate::output::say;
use crate::suite::Suite;

/// What to audit.
#[derive(Debug, Args)]
pub struct Audit {
    #[command(flatten)]
    suite: Suite,
    /// Print what was done for this order instead, in the order in which it was done, with sums.
    #[arg(long)]
    order: Option<Uuid>,
    /// How long to wait for orders under way, without which sums can't be compared.
    #[arg(long, default_value = "10s", value_parser = duration)]
    wait: Duration,
}

impl Audit {
    pub fn run(self) -> anyhow::Result<()> {
        crate::block_on(async {
            let api = Api::new(&self.suite);
            match self.order {
                Some(order) => receipt(&api, order).await,
                None => self.all(&api).await,
            }
        })
    }

    async fn all(&self, api: &Api) -> anyhow::Result<()> {
        let verdict = at_rest(api, self.wait).await;
        for service in super::AUDITED {
            for statement in array(&api.get(service, "/audit").await?["statements"]) {
                let holds = if statement["holds"] == true { "holds " } else { "BROKEN" };
                say!("{holds}  {service:<12}  {}", text_of(statement, "says"));
            }
        }
        for (what, holds) in [("money", verdict.money), ("stock", verdict.stock)] {
            let (holds, says) = match holds {
                Some(true) => ("holds ", "adds up over all services"),
                Some(false) => ("BROKEN", "does not add up"),
                None => ("open  ", "can't be compared while orders are under way"),
            };
            say!("{holds}  {:<12}  {what} {says}", "all");
        }
        if verdict.holds() {
            return Ok(());
        }
        bail!("the books are not in order, or not at rest:\n  {}", verdict.findings.join("\n  "))
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
