//! What is generated: message schemas, catalogue, AsyncAPI, OpenAPI, settings, and the sagas' plans.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use orchestrator::sagas::{PlaceOrder, ReturnOrder};
use schemas::catalog::{self, Entry};
use serde_json::{Value, json};
use shared::saga::plan::Saga;
use shared::service::App;

use crate::serve::{Visit, visit};
use crate::suite::SERVICES;

/// Every document, by its path in the project.
pub fn all(root: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let entries = catalog::all();
    let mut documents = Vec::new();
    for entry in &entries {
        documents.push((format!("schemas/json/{}.json", entry.kind), pretty(&schema(entry))?));
    }
    documents.push(("schemas/CATALOG.md".to_owned(), catalogue(&entries)));
    documents.push(("schemas/asyncapi.json".to_owned(), pretty(&asyncapi(&entries))?));
    for service in SERVICES {
        if let Some(openapi) = visit(service, OpenApi) {
            documents.push((format!("schemas/openapi/{service}.json"), pretty(&openapi?)?));
        }
    }
    documents.push(("docs/configuration.md".to_owned(), configuration()));
    documents.push(("README.md".to_owned(), readme(root)?));
    documents.push(("docs/sagas.md".to_owned(), sagas()));
    Ok(documents)
}

fn pretty(value: &Value) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

fn schema(entry: &Entry) -> Value {
    let mut schema = entry.schema.as_value().clone();
    schema["$id"] = json!(format!("urn:amends:{}", entry.kind));
    schema["x-topic"] = json!(entry.topic);
    schema["x-data-version"] = json!(entry.data_version);
    if let Some((reply, refusal)) = &entry.answers {
        schema["x-reply"] = reply.as_value().clone();
        schema["x-refusal"] = refusal.as_value().clone();
    }
    schema
}

fn first_sentence(entry: &Entry) -> String {
    let text = entry.schema.get("description").and_then(Value::as_str).unwrap_or_default();
    text.split_inclusive(". ").next().unwrap_or_default().trim().replace('\n', " ")
}

fn catalogue(entries: &[Entry]) -> String {
    let mut text = String::from(
        "# Messages\n\nGenerated from the types in this crate by `cargo run -- generate`.\n\
         The key of every record is the order id; a product's events have its sku, a customer's the customer id.\n\
         A command is answered with `saga.step_replied.v1`, whose `result` is the command's reply or refusal.\n\
         While an outside gives no answer, it says that the step is `failing`, with the `error` and the `attempts`; the \
         answer follows.\n",
    );
    let mut owner = "";
    for entry in entries {
        if entry.owner() != owner {
            owner = entry.owner();
            let _ = write!(
                text,
                "\n## {owner}\n\n| Type | Topic | Version | What it says |\n|---|---|---|---|\n"
            );
        }
        let (kind, topic, version) = (entry.kind, entry.topic, entry.data_version);
        let _ = writeln!(
            text,
            "| [`{kind}`](json/{kind}.json) | `{topic}` | {version} | {} |",
            first_sentence(entry)
        );
    }
    text
}

fn asyncapi(entries: &[Entry]) -> Value {
    let mut channels = serde_json::Map::new();
    let mut messages = serde_json::Map::new();
    let mut operations = serde_json::Map::new();
    for entry in entries {
        let reference = |place: &str| json!({"$ref": format!("#/{place}/{}", entry.kind)});
        let channel =
            channels.entry(entry.topic).or_insert_with(|| json!({"address": entry.topic, "messages": {}}));
        if entry.topic.contains("{service}") {
            channel["parameters"] = json!({"service": {"enum": SERVICES}});
        }
        channel["messages"][entry.kind] = reference("components/messages");
        let payload = json!({"$ref": format!("json/{}.json", entry.kind)});
        messages.insert(
            entry.kind.to_owned(),
            json!({"name": entry.kind, "contentType": "application/json", "payload": payload,
                   "summary": first_sentence(entry)}),
        );
        let action = if entry.answers.is_some() { "receive" } else { "send" };
        operations.entry(format!("{}-{action}-{}", entry.owner(), entry.topic)).or_insert_with(
            || json!({"action": action, "channel": {"$ref": format!("#/channels/{}", entry.topic)}}),
        );
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {"title": "Amends", "version": env!("CARGO_PKG_VERSION"),
                 "description": "The payload is the `data` of the envelope; the headers are CloudEvents 1.0 in binary mode."},
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    })
}

struct OpenApi;

impl Visit for OpenApi {
    type Output = anyhow::Result<Value>;

    fn visit<A: App>(self) -> Self::Output {
        Ok(serde_json::to_value(shared::service::openapi::<A>())?)
    }
}

struct Settings;

impl Visit for Settings {
    type Output = clap::Command;

    fn visit<A: App>(self) -> clap::Command {
        shared::service::command::<A>()
    }
}

const TABLE: &str = "| Variable | Flag | Default | What it does |\n|---|---|---|---|\n";

fn configuration() -> String {
    let mut text = String::from(
        "# Settings\n\nGenerated from the code by `cargo run -- generate`.\n\
         Each setting is a flag and an environment variable; `amends serve <service> --help` prints them too.\n\
         Beside these, `RUST_LOG` chooses what is logged and the standard `OTEL_*` variables rule the traces.\n",
    );
    let _ = write!(text, "\n## Every service\n\n{TABLE}{}", common_settings());
    let up = <crate::CommandLine as clap::CommandFactory>::command();
    if let Some(up) = up.find_subcommand("up") {
        let rows: String = up.get_arguments().filter(|arg| arg.get_env().is_some()).map(row).collect();
        let backend = "| `AMENDS_BACKEND` | | `auto` | How PostgreSQL and Kafka are run: `native`, `docker`, or what is there |\n";
        let _ = write!(text, "\n## amends up, down, status, order, load\n\n{TABLE}{rows}{backend}");
    }
    for command in commands() {
        let rows = rows(&command, false);
        if !rows.is_empty() {
            let _ = write!(text, "\n## {}\n\n{TABLE}{rows}", command.get_name());
        }
    }
    text
}

/// README with the settings of every service between its marks.
fn readme(root: &Path) -> anyhow::Result<String> {
    const END: &str = "<!-- end of settings -->";
    let text = std::fs::read_to_string(root.join("README.md")).context("README.md can't be read")?;
    let (before, rest) =
        text.split_once("<!-- settings").context("README.md has no mark for the settings")?;
    let (mark, rest) = rest.split_once("-->").context("the mark for the settings does not end")?;
    let (_, after) = rest.split_once(END).context("README.md has no end mark for the settings")?;
    Ok(format!("{before}<!-- settings{mark}-->\n{TABLE}{}{END}{after}", common_settings()))
}

fn commands() -> Vec<clap::Command> {
    SERVICES.iter().filter_map(|service| visit(service, Settings)).collect()
}

fn common_settings() -> String {
    commands().first().map(|command| rows(command, true)).unwrap_or_default()
}

/// The settings of a service: those that all have, or those of its own.
fn rows(command: &clap::Command, common: bool) -> String {
    let commands = commands();
    let in_all =
        |arg: &clap::Arg| commands.iter().all(|c| c.get_arguments().any(|a| a.get_id() == arg.get_id()));
    command.get_arguments().filter(|arg| arg.get_env().is_some() && in_all(arg) == common).map(row).collect()
}

fn row(arg: &clap::Arg) -> String {
    let env = arg.get_env().map(|env| env.to_string_lossy().into_owned()).unwrap_or_default();
    let default =
        arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    format!(
        "| `{env}` | `--{}` | {default} | {} |\n",
        arg.get_long().unwrap_or_default(),
        help.replace('\n', " ")
    )
}

fn sagas() -> String {
    let head = "# Sagas\n\nGenerated from the plans by `cargo run -- generate`. Steps with the same number run side by side.\n";
    format!("{head}{}{}", saga::<PlaceOrder>(), saga::<ReturnOrder>())
}

fn saga<S: Saga>() -> String {
    let plan = S::plan();
    let (table, diagram) = (plan.as_table(), plan.as_mermaid());
    format!("\n## {}@{}\n\n{table}\n```mermaid\n{diagram}```\n", S::NAME, S::VERSION)
}
