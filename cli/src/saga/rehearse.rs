//! `amends saga rehearse`: replays the logs of recorded sagas with another plan, and compares the decisions.

use anyhow::{Context, bail};
use clap::Args;
use orchestrator::sagas::all;
use serde_json::Value;
use shared::saga::rehearsal::{Divergence, Recorded};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::api::Api;
use crate::json::{array, text_of};
use crate::output::say;
use crate::suite::Suite;

/// How many sagas a request asks for.
const PAGE: usize = 200;

/// Which plan.
#[derive(Debug, Args)]
pub struct Rehearse {
    /// The name and the version of a plan that this program has, for example place_order@2.
    #[arg(long, value_parser = definition, value_name = "NAME@VERSION")]
    definition: (String, i32),
    /// The value of ORCHESTRATOR_STEP_DEADLINE when the logs were written, if it was set.
    #[arg(long, value_parser = shared::service::config::duration)]
    step_deadline: Option<std::time::Duration>,
    /// The most sagas to replay, the newest first.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    #[command(flatten)]
    suite: Suite,
}

fn definition(text: &str) -> Result<(String, i32), String> {
    let parts =
        text.split_once('@').and_then(|(name, version)| Some((name.to_owned(), version.parse().ok()?)));
    parts.ok_or_else(|| format!("`{text}` is not NAME@VERSION"))
}

impl Rehearse {
    pub async fn run(self) -> anyhow::Result<()> {
        let (name, version) = &self.definition;
        let registry = all(self.step_deadline);
        // An unknown plan is an error before the first request.
        registry.rehearse(name, *version, &[])?;
        let api = Api::new(&self.suite);
        let (mut rehearsed, mut diverged) = (0, 0);
        let mut next = Value::Null;
        while rehearsed < self.limit {
            let cursor = next.as_str().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let page = api.get("orchestrator", &format!("/sagas?limit={PAGE}{cursor}")).await?;
            let same = |saga: &&Value| text_of(saga, "definition").split('@').next() == Some(name);
            for saga in array(&page["sagas"]).iter().filter(same).take(self.limit - rehearsed) {
                rehearsed += 1;
                let id = text_of(saga, "id");
                let full = api.get("orchestrator", &format!("/sagas/{id}?sagaId=true")).await?;
                let log = array(&full["log"]).iter().map(recorded).collect::<anyhow::Result<Vec<_>>>()?;
                if let Some(Divergence { sequence, recorded, rehearsed }) =
                    registry.rehearse(name, *version, &log)?
                {
                    diverged += 1;
                    say!("{id}  {}  at entry {sequence}", text_of(saga, "definition"));
                    say!("  was decided:      {recorded}");
                    say!("  would be decided: {rehearsed}");
                }
            }
            next = page["next"].clone();
            if next.is_null() {
                break;
            }
        }
        if diverged > 0 {
            bail!("{diverged} of {rehearsed} sagas would go another way under {name}@{version}");
        }
        say!("{rehearsed} sagas would go the same way under {name}@{version}");
        Ok(())
    }
}

fn recorded(entry: &Value) -> anyhow::Result<Recorded> {
    let sequence = entry["sequence"].as_i64().context("an entry of the log has no sequence")?;
    Ok(Recorded {
        sequence,
        at: OffsetDateTime::parse(text_of(entry, "at"), &Rfc3339)?,
        input: entry["input"].to_string(),
        decisions: entry["decisions"].to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_a_name_and_a_version() {
        assert_eq!(definition("place_order@2"), Ok(("place_order".to_owned(), 2)));
        assert!(definition("place_order").is_err() && definition("place_order@two").is_err());
    }
}
