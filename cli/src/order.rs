//! `amends order`: the order service's API from the shell.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use futures::StreamExt;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::Api;
use crate::events::Events;
use crate::json::text_of;
use crate::output::say;
use crate::suite::Suite;

/// What to do with orders.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Place an order and wait for it to settle.
    Place(Place),
    /// Show an order and its timeline.
    Get(One),
    /// List orders, the newest first.
    List(List),
    /// Follow an order until it has settled.
    Watch(One),
    /// Cancel an order, as long as its money is not taken.
    Cancel(One),
    /// Send an order back.
    Return(One),
}

/// An order to place.
#[derive(Debug, Args)]
pub struct Place {
    #[command(flatten)]
    suite: Suite,
    /// What to order: `lamp` or `lamp=2`; can be given several times.
    #[arg(long = "item", default_value = "lamp=1")]
    items: Vec<String>,
    #[arg(long, default_value = "ada")]
    customer: String,
    /// The card: tok_visa, tok_chargeDeclined, tok_insufficientFunds, tok_timeoutOnce or tok_unavailable.
    #[arg(long, default_value = "tok_visa")]
    token: String,
    /// The carrier does not deliver to 00000.
    #[arg(long, default_value = "89073")]
    postal_code: String,
    #[arg(long)]
    email: Option<String>,
    /// Repeats with the same key place one order.
    #[arg(long)]
    idempotency_key: Option<String>,
    /// How many seconds to wait for it to settle, at most 60; 0 returns at once.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(..=60))]
    wait: u64,
}

/// One order.
#[derive(Debug, Args)]
pub struct One {
    #[command(flatten)]
    suite: Suite,
    /// The order's id.
    id: Uuid,
}

/// Which orders.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    suite: Suite,
    /// pending, confirmed, shipped, delivered, rejected, cancelled or returned
    #[arg(long)]
    status: Option<String>,
    #[arg(long)]
    customer: Option<String>,
    #[arg(long, default_value_t = 20)]
    limit: u16,
    /// Go on behind this order.
    #[arg(long)]
    cursor: Option<Uuid>,
}

impl Command {
    pub fn run(self) -> anyhow::Result<()> {
        crate::runtime::block_on(async {
            match self {
                Self::Place(place) => place.run().await,
                Self::Get(one) => one.get().await,
                Self::List(list) => list.run().await,
                Self::Watch(one) => one.watch().await,
                Self::Cancel(one) => one.afterwards("cancellation").await,
                Self::Return(one) => one.afterwards("returns").await,
            }
        })
    }
}

impl Place {
    async fn run(self) -> anyhow::Result<()> {
        let items = self.items.iter().map(|item| line(item)).collect::<anyhow::Result<Vec<_>>>()?;
        let mut body = json!({
            "customerId": self.customer,
            "items": items,
            "paymentToken": self.token,
            "shippingAddress": {
                "name": self.customer, "line1": "Main St 1", "city": "Ulm", "postalCode": self.postal_code,
                "country": "DE",
            },
        });
        if let Some(email) = self.email {
            body["email"] = json!(email);
        }
        let api = Api::new(&self.suite);
        let response = api
            .request(|client| {
                let mut request = client.post(api.url("order", "/orders")).json(&body);
                if let Some(key) = &self.idempotency_key {
                    request = request.header("Idempotency-Key", key);
                }
                if self.wait > 0 {
                    request = request.header("Prefer", format!("wait={}", self.wait));
                    request = request.timeout(Duration::from_secs(self.wait + 10));
                }
                request
            })
            .await?;
        show(&response.json().await?)
    }
}

fn line(item: &str) -> anyhow::Result<Value> {
    let (sku, quantity) = item.split_once('=').unwrap_or((item, "1"));
    let quantity: i64 = quantity.parse().with_context(|| format!("`{item}` is not sku=quantity"))?;
    Ok(json!({"sku": sku, "quantity": quantity}))
}

impl One {
    async fn get(self) -> anyhow::Result<()> {
        show(&Api::new(&self.suite).get("order", &format!("/orders/{}", self.id)).await?)
    }

    async fn afterwards(self, what: &str) -> anyhow::Result<()> {
        let api = Api::new(&self.suite);
        let url = api.url("order", &format!("/orders/{}/{what}", self.id));
        let response = api.request(|client| client.post(url).header("Prefer", "wait=10")).await?;
        show(&response.json().await?)
    }

    async fn watch(self) -> anyhow::Result<()> {
        let api = Api::new(&self.suite);
        let url = api.url("order", &format!("/orders/{}/events", self.id));
        let response = api.request(|client| client.get(url)).await?;
        let mut chunks = response.bytes_stream();
        let (mut events, mut told) = (Events::default(), Vec::new());
        while let Some(chunk) = chunks.next().await {
            events.push(&chunk?, |kind, data| told.push((kind.to_owned(), data.to_owned())));
            for (kind, data) in told.drain(..) {
                let data: Value = serde_json::from_str(&data)?;
                if kind == "settled" {
                    say!("{}{}", data["status"].as_str().unwrap_or("settled"), because(&data));
                    return Ok(());
                }
                say!("{}  {:<13} {kind}", text_of(&data, "at"), text_of(&data, "service"));
            }
        }
        bail!("the stream broke off before the order had settled; watch it again")
    }
}

impl List {
    async fn run(self) -> anyhow::Result<()> {
        let api = Api::new(&self.suite);
        let mut query = vec![("limit", self.limit.to_string())];
        query.extend(self.status.map(|status| ("status", status)));
        query.extend(self.customer.map(|customer| ("customerId", customer)));
        query.extend(self.cursor.map(|cursor| ("cursor", cursor.to_string())));
        let url = api.url("order", "/orders");
        let page: Value = api.request(|client| client.get(url).query(&query)).await?.json().await?;
        for order in page["orders"].as_array().into_iter().flatten() {
            let total = &order["total"];
            say!(
                "{}  {}  {:<10} {:>10.2} {}  {}{}",
                text_of(order, "id"),
                text_of(order, "createdAt"),
                text_of(order, "status"),
                total["amount"].as_f64().unwrap_or_default() / 100.0,
                text_of(total, "currency"),
                text_of(order, "customerId"),
                because(order)
            );
        }
        Ok(())
    }
}

fn because(order: &Value) -> String {
    order["reason"].as_str().map(|reason| format!("  ({reason})")).unwrap_or_default()
}

fn show(order: &Value) -> anyhow::Result<()> {
    say!("{}", serde_json::to_string_pretty(order)?);
    Ok(())
}
