//! `amends saga resolve`: states the outcome of a step whose provider does not answer.

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::One;
use crate::api::Api;
use crate::json::{array, text_of};
use crate::output::say;
use crate::suite::SERVICES;

/// The outcome of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Outcome {
    /// The provider has done it.
    Done,
    /// The provider has not done it. It is told to take it back if it has, or does so later.
    Refused,
}

/// Which step, and its outcome.
#[derive(Debug, Args)]
#[command(
    after_help = "Ask the provider first what it did. The service that called the provider records the outcome as if the \
                  provider had answered so, and answers the saga. A later answer changes nothing."
)]
pub struct Resolve {
    #[command(flatten)]
    one: One,
    /// The step, for example `capture_payment`. `amends saga show` lists the steps.
    #[arg(long)]
    step: String,
    /// Resolve the undo of the step.
    #[arg(long)]
    undo: bool,
    /// What the provider did.
    #[arg(long, value_enum)]
    outcome: Outcome,
    /// The code of the refusal, for example `card_declined`; needed if the step is refused.
    #[arg(long, required_if_eq("outcome", "refused"))]
    code: Option<String>,
    /// What the service must know of the provider's answer, as a JSON object, for example `{"authorizationId": "..."}`.
    #[arg(long)]
    reply: Option<String>,
    /// How you know. The service keeps the reason.
    #[arg(long)]
    reason: String,
    /// Who resolves it. The service keeps the name.
    #[arg(long, env = "USER", default_value = "operator")]
    by: String,
}

impl Resolve {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let api = Api::new(&self.one.suite);
        let saga = text_of(&self.one.get(&api).await?, "id").to_owned();
        let direction = if self.undo { "undo" } else { "do" };
        let outcome = if self.outcome == Outcome::Done { "done" } else { "refused" };
        let mut body =
            json!({"direction": direction, "outcome": outcome, "reason": self.reason, "by": self.by});
        if let Some(code) = &self.code {
            body["code"] = json!(code);
        }
        if let Some(reply) = &self.reply {
            body["reply"] = serde_json::from_str(reply).context("--reply is not JSON")?;
        }
        let service = self.owner(&api, &saga, direction).await?;
        let answer = api.post(service, &format!("/steps/{saga}/{}/resolution", self.step), &body).await?;
        let step = array(&answer["steps"]).iter().find(|step| self.is_meant(step, direction));
        let status = step.map_or(outcome, |step| text_of(step, "status"));
        say!("{service}  {}  {status}; the saga goes on: amends saga show {saga} --saga-id", self.step);
        if step.is_some_and(|step| step["withdrawing"] == true) {
            say!("the provider is told to take it back if it has done it, until it answers");
        }
        Ok(())
    }

    fn is_meant(&self, step: &Value, direction: &str) -> bool {
        text_of(step, "step") == self.step && text_of(step, "direction") == direction
    }

    /// Returns the service that has the step on record.
    async fn owner(&self, api: &Api, saga: &str, direction: &str) -> anyhow::Result<&'static str> {
        for service in SERVICES {
            let Some(steps) = api.find(service, &format!("/steps/{saga}")).await? else { continue };
            if array(&steps["steps"]).iter().any(|step| self.is_meant(step, direction)) {
                return Ok(service);
            }
        }
        bail!(
            "no service has the step {} ({direction}) of the saga {saga} on record: it was not asked for, or its message is \
             parked (`amends parked list`), or its service has not read it yet (`amends status`)",
            self.step
        )
    }
}
