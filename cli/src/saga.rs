//! `amends saga`: shows the state of sagas, and retries or resolves one that is stuck.

mod rehearse;
mod resolve;
mod sentences;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use uuid::Uuid;

use self::sentences::{line_of, retry_command, status_of};
use crate::api::Api;
use crate::json::{array, text_of};
use crate::output::{print_json, say};
use crate::suite::Suite;

/// How often `watch` reads the saga.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// The commands about sagas.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List sagas, the newest first.
    List(List),
    /// Show a saga: its steps, the reason if it is stuck, and its log.
    Show(Show),
    /// Follow a saga's log until the saga has ended.
    Watch(One),
    /// Send the commands of a saga's open steps again, now.
    Retry(Retry),
    /// State the outcome of a step whose provider does not answer.
    Resolve(resolve::Resolve),
    /// Replay recorded sagas with another plan, and list decisions that would differ.
    Rehearse(rehearse::Rehearse),
}

/// Which sagas.
#[derive(Debug, Args)]
pub struct List {
    /// Only sagas with this status: running, compensating, completed, compensated or stuck.
    #[arg(long)]
    status: Option<String>,
    /// The most sagas to list.
    #[arg(long, default_value_t = 20)]
    limit: u16,
    /// The id of the last saga of the previous page: the list continues with the next older one.
    #[arg(long, value_name = "SAGA_ID")]
    cursor: Option<Uuid>,
    /// Print the JSON answer of the service.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    suite: Suite,
}

/// One saga.
#[derive(Debug, Args)]
pub struct One {
    /// The id of the saga, or of the order. An order's id means its saga that is under way, or else its newest.
    id: Uuid,
    /// Take the id for a saga's only. The saga that placed an order has the order's id, and a return has another one.
    #[arg(long)]
    saga_id: bool,
    #[command(flatten)]
    suite: Suite,
}

/// What to show.
#[derive(Debug, Args)]
pub struct Show {
    #[command(flatten)]
    one: One,
    /// Print the JSON answer of the service.
    #[arg(long)]
    json: bool,
}

/// What to retry.
#[derive(Debug, Args)]
pub struct Retry {
    #[command(flatten)]
    one: One,
    /// Why it should work now. The saga's log keeps it.
    #[arg(long)]
    reason: String,
    /// Who retries it. The saga's log keeps the name.
    #[arg(long, env = "USER", default_value = "operator")]
    by: String,
}

impl Command {
    pub fn run(self) -> anyhow::Result<()> {
        crate::runtime::block_on(async {
            match self {
                Self::List(list) => list.run().await,
                Self::Show(show) => show.run().await,
                Self::Watch(one) => one.watch().await,
                Self::Retry(retry) => retry.run().await,
                Self::Resolve(resolve) => resolve.run().await,
                Self::Rehearse(rehearse) => rehearse.run().await,
            }
        })
    }
}

impl List {
    async fn run(self) -> anyhow::Result<()> {
        let api = Api::new(&self.suite);
        let mut query = vec![("limit", self.limit.to_string())];
        query.extend(self.status.map(|status| ("status", status)));
        query.extend(self.cursor.map(|cursor| ("cursor", cursor.to_string())));
        let url = api.url("orchestrator", "/sagas");
        let page: Value = api.request(|client| client.get(url).query(&query)).await?.json().await?;
        if self.json {
            return print_json(&page);
        }
        for saga in array(&page["sagas"]) {
            say!(
                "{}  {}  {:<15} {:<12} {}",
                text_of(saga, "id"),
                text_of(saga, "startedAt"),
                text_of(saga, "definition"),
                text_of(saga, "status"),
                saga["stuck"]["reason"].as_str().or(saga["reason"].as_str()).unwrap_or_default()
            );
        }
        Ok(())
    }
}

impl One {
    /// The saga with this id.
    pub fn of(id: Uuid, suite: Suite) -> Self {
        Self { id, saga_id: true, suite }
    }

    async fn get(&self, api: &Api) -> anyhow::Result<Value> {
        api.get("orchestrator", &self.path("")).await
    }

    /// The path of the saga, or of something below it.
    fn path(&self, below: &str) -> String {
        format!("/sagas/{}{below}?sagaId={}", self.id, self.saga_id)
    }

    pub async fn watch(self) -> anyhow::Result<()> {
        let api = Api::new(&self.suite);
        let mut told = 0;
        // The saga begins a moment after the request that causes it. A silent service is an error at once.
        if api.find("orchestrator", &self.path("")).await?.is_none() {
            api.until("the saga to begin", async || {
                Ok(api.find("orchestrator", &self.path("")).await?.is_some())
            })
            .await?;
        }
        // Another saga about the order may begin meanwhile, so keep to this one's id.
        let id = text_of(&self.get(&api).await?, "id").to_owned();
        loop {
            let saga = api.get("orchestrator", &format!("/sagas/{id}?sagaId=true")).await?;
            let log = array(&saga["log"]);
            for entry in log.iter().skip(told) {
                say!("{}", line_of(entry));
            }
            told = log.len();
            if matches!(text_of(&saga, "status"), "completed" | "compensated") {
                say!("{}", text_of(&saga, "status"));
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Show {
    async fn run(self) -> anyhow::Result<()> {
        let saga = self.one.get(&Api::new(&self.one.suite)).await?;
        if self.json {
            print_json(&saga)?;
        } else {
            show(&saga, &self.one.suite);
        }
        Ok(())
    }
}

impl Retry {
    async fn run(self) -> anyhow::Result<()> {
        let api = Api::new(&self.one.suite);
        let body = json!({"by": self.by, "reason": self.reason});
        show(&api.post("orchestrator", &self.one.path("/retry"), &body).await?, &self.one.suite);
        Ok(())
    }
}

fn show(saga: &Value, suite: &Suite) {
    let reason = saga["reason"].as_str().map(|reason| format!(" ({reason})")).unwrap_or_default();
    say!("{} {}: {}{reason}", text_of(saga, "definition"), text_of(saga, "id"), text_of(saga, "status"));
    say!("order {}, began {}", text_of(saga, "orderId"), text_of(saga, "startedAt"));
    say!("");
    for step in array(&saga["steps"]) {
        let asked = match step["attempts"].as_u64().unwrap_or_default() {
            0 | 1 => String::new(),
            times => format!("asked {times} times"),
        };
        let error = step["lastError"].as_str().map(|error| format!("  {error}")).unwrap_or_default();
        say!("  {:<20} {:<10} {asked}{error}", text_of(step, "name"), status_of(step, saga));
    }
    if let Some(stuck) = saga["stuck"].as_object().map(|_| &saga["stuck"]) {
        say!("");
        say!("stuck: {}", text_of(stuck, "reason"));
        if let Some(error) = stuck["lastError"].as_str() {
            say!("said:  {error}");
        }
        say!(
            "next:  {}; from the shell: {}",
            text_of(stuck, "nextAction"),
            retry_command(saga, &suite.flags())
        );
    }
    say!("");
    for entry in array(&saga["log"]) {
        say!("{}", line_of(entry));
    }
}
