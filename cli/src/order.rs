//! `amends order`: the API of the order service as commands.

mod text;

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use futures::StreamExt;
use serde_json::{Value, json};
use shared::service::config::duration;
use uuid::Uuid;

use crate::api::Api;
use crate::events::Events;
use crate::format::Format;
use crate::json::{money, text_of};
use crate::output::{print_json, say};
use crate::saga;
use crate::suite::Suite;

/// The commands about orders.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Place an order and wait for it to settle.
    Place(Place),
    /// Show an order and its timeline.
    Get(Shown),
    /// List orders, the newest first.
    List(List),
    /// Follow an order until it has settled.
    Watch(One),
    /// Cancel an order. It is refused once the order's money is captured.
    Cancel(Shown),
    /// Return a confirmed order: the money is refunded and the goods are restocked.
    Return(Shown),
}

/// The commands about returns. `amends order return` asks for one.
#[derive(Debug, Subcommand)]
pub enum Returns {
    /// Follow an order's return until its money is refunded and its goods are back on the shelf.
    Watch(One),
}

impl Returns {
    pub fn run(self) -> anyhow::Result<()> {
        let Self::Watch(One { id, suite }) = self;
        crate::runtime::block_on(async {
            let order = Api::new(&suite).get("order", &format!("/orders/{id}")).await?;
            let Some(undone) = order["return"]["id"].as_str() else {
                bail!("the order has no return; `amends order return {id}{}` asks for one", suite.flags());
            };
            saga::One::of(undone.parse()?, suite).watch().await
        })
    }
}

/// An order to place.
#[derive(Debug, Args)]
pub struct Place {
    /// A product and how many pieces of it, for example lamp or lamp=2; can be given several times.
    #[arg(long = "item", default_value = "lamp=1", value_name = "SKU[=PIECES]")]
    items: Vec<String>,
    /// The customer's id.
    #[arg(long, default_value = "ada")]
    customer: String,
    /// The card token. The simulated card provider knows tok_visa and tokens that fail.
    ///
    /// tok_visa is authorized. tok_chargeDeclined and tok_insufficientFunds are declined. tok_timeoutOnce is authorized,
    /// but its first answer is lost. tok_captureDeclined and tok_authorizationExpired are authorized, but not captured.
    /// tok_refundFail is authorized, but its refund is declined. tok_unavailable never gets an answer, so its order stays
    /// pending for a day, or until `amends saga resolve` ends it.
    #[arg(long, default_value = "tok_visa")]
    token: String,
    /// The postal code of the address. The simulated carrier refuses 00000.
    #[arg(long, default_value = "89073")]
    postal_code: String,
    /// The address for notices by mail.
    #[arg(long)]
    email: Option<String>,
    /// A key of the request: repeating the command with the same key places no second order.
    #[arg(long)]
    idempotency_key: Option<String>,
    /// How long to wait for the order to settle: whole seconds, at most 60s; 0s returns at once.
    #[arg(long, default_value = "10s", value_parser = wait, value_name = "DURATION")]
    wait: Duration,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    suite: Suite,
}

/// The longest time that the order service waits with its answer.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

fn wait(text: &str) -> Result<Duration, String> {
    let wait = duration(text)?;
    if wait.subsec_nanos() != 0 {
        return Err(format!("`{text}` is not a whole number of seconds; write for example 10s"));
    }
    if wait > LONGEST_WAIT {
        return Err(format!("`{text}` is too long: at most {}s", LONGEST_WAIT.as_secs()));
    }
    Ok(wait)
}

/// One order.
#[derive(Debug, Args)]
pub struct One {
    /// The order's id.
    id: Uuid,
    #[command(flatten)]
    suite: Suite,
}

/// One order, and how to print it.
#[derive(Debug, Args)]
pub struct Shown {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    format: Format,
}

/// Which orders.
#[derive(Debug, Args)]
pub struct List {
    /// Only orders with this status: pending, confirmed, shipped, delivered, rejected, cancelled or returned.
    #[arg(long)]
    status: Option<String>,
    /// Only orders of this customer.
    #[arg(long)]
    customer: Option<String>,
    /// The most orders to list.
    #[arg(long, default_value_t = 20)]
    limit: u16,
    /// The id of the last order of the previous page: the list continues with the next older one.
    #[arg(long, value_name = "ORDER_ID")]
    cursor: Option<Uuid>,
    /// Print the JSON answer of the service.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    suite: Suite,
}

impl Command {
    pub fn run(self) -> anyhow::Result<()> {
        crate::runtime::block_on(async {
            match self {
                Self::Place(place) => place.run().await,
                Self::Get(one) => one.get().await,
                Self::List(list) => list.run().await,
                Self::Watch(one) => one.watch().await,
                Self::Cancel(one) => one.request("cancellation").await,
                Self::Return(one) => one.request("returns").await,
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
                if self.wait > Duration::ZERO {
                    request = request.header("Prefer", format!("wait={}", self.wait.as_secs()));
                    request = request.timeout(self.wait + Duration::from_secs(10));
                }
                request
            })
            .await?;
        self.format.print(&response.json().await?, |order| text::print(order, &self.suite))
    }
}

fn line(item: &str) -> anyhow::Result<Value> {
    let (sku, quantity) = item.split_once('=').unwrap_or((item, "1"));
    let quantity: i64 = quantity.parse().with_context(|| format!("`{item}` is not SKU=PIECES"))?;
    Ok(json!({"sku": sku, "quantity": quantity}))
}

impl Shown {
    async fn get(self) -> anyhow::Result<()> {
        let Self { one: One { id, suite }, format } = self;
        let order = Api::new(&suite).get("order", &format!("/orders/{id}")).await?;
        format.print(&order, |order| text::print(order, &suite))
    }

    async fn request(self, what: &str) -> anyhow::Result<()> {
        let Self { one: One { id, suite }, format } = self;
        let api = Api::new(&suite);
        let url = api.url("order", &format!("/orders/{id}/{what}"));
        let response = api.request(|client| client.post(url).header("Prefer", "wait=10")).await?;
        format.print(&response.json().await?, |order| text::print(order, &suite))
    }
}

impl One {
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
        bail!("the event stream ended before the order had settled; run the command again")
    }
}

impl List {
    /// Reads as many pages as there must be for the wanted number of orders. A page may be short, with more behind it.
    async fn read(&self, api: &Api) -> anyhow::Result<Value> {
        let (url, limit) = (api.url("order", "/orders"), usize::from(self.limit));
        let (mut orders, mut cursor) = (Vec::new(), self.cursor.map(|cursor| cursor.to_string()));
        loop {
            let mut query = vec![("limit", (limit - orders.len()).to_string())];
            query.extend(self.status.clone().map(|status| ("status", status)));
            query.extend(self.customer.clone().map(|customer| ("customerId", customer)));
            query.extend(cursor.map(|cursor| ("cursor", cursor)));
            let page: Value = api.request(|client| client.get(&url).query(&query)).await?.json().await?;
            orders.extend(page["orders"].as_array().cloned().unwrap_or_default());
            cursor = page["next"].as_str().map(str::to_owned);
            if cursor.is_none() || orders.len() >= limit {
                return Ok(json!({"orders": orders}));
            }
        }
    }

    async fn run(self) -> anyhow::Result<()> {
        let api = Api::new(&self.suite);
        let page = self.read(&api).await?;
        if self.json {
            return print_json(&page);
        }
        for order in page["orders"].as_array().into_iter().flatten() {
            say!(
                "{}  {}  {:<10} {:>14}  {}{}",
                text_of(order, "id"),
                text_of(order, "createdAt"),
                text_of(order, "status"),
                money(&order["total"]),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_whole_seconds_of_at_most_a_minute() {
        assert_eq!(wait("0s"), Ok(Duration::ZERO));
        assert_eq!(wait("1m"), Ok(LONGEST_WAIT));
        for (text, said) in [("0", "no unit"), ("1500ms", "whole number of seconds"), ("61s", "at most 60s")]
        {
            assert!(wait(text).is_err_and(|error| error.contains(said)), "{text}");
        }
    }
}
