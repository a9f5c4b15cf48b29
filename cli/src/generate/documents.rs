//! What is generated: message schemas, catalogue, AsyncAPI, OpenAPI, settings, and the sagas' plans.

use std::fmt::Write as _;

use orchestrator::plan::Saga;
use orchestrator::sagas::PlaceOrder;
use schemas::catalog::{self, Entry};
use serde_json::{Value, json};
use shared::service::App;

use crate::serve::{Visit, visit};
use crate::suite::SERVICES;

/// Every document, by its path in the project.
pub fn all() -> anyhow::Result<Vec<(String, String)>> {
    let entries = catalog::all();
    let mut documents = Vec::new();
    for entry in &entries {
        documents.push((format!("schemas/json/{}.json", entry.kind), pretty(&schema(entry))?));
    }
    documents.push(("schemas/CATALOG.md".to_owned(), catalogue(&entries)));
    documents.push(("schemas/asyncapi.json".to_owned(), pretty(&asyncapi(&entries))?));
    for service in SERVICES {
        if let Some(openapi) = visit(service.name, OpenApi) {
            documents.push((format!("schemas/openapi/{}.json", service.name), pretty(&openapi?)?));
        }
    }
    documents.push(("docs/configuration.md".to_owned(), configuration()));
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
         The key of every record is the order id; a product's events have its sku.\n\
         Replies to commands are `saga.step_replied.v1` on `orchestrator.replies`.\n",
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
        Ok(serde_json::to_value(A::openapi())?)
    }
}

struct Settings;

impl Visit for Settings {
    type Output = clap::Command;

    fn visit<A: App>(self) -> clap::Command {
        shared::service::command::<A>()
    }
}

fn configuration() -> String {
    let mut text = String::from(
        "# Settings\n\nGenerated from the code by `cargo run -- generate`.\n\
         Each setting is a flag and an environment variable; `amends serve <service> --help` prints them too.\n\
         Beside these, `RUST_LOG` chooses what is logged and the standard `OTEL_*` variables rule the traces.\n",
    );
    let commands: Vec<clap::Command> =
        SERVICES.iter().filter_map(|service| visit(service.name, Settings)).collect();
    let shared_by_all =
        |id: &str| commands.iter().all(|command| command.get_arguments().any(|arg| arg.get_id() == id));
    let mut section = |title: &str, command: &clap::Command, common: bool| {
        let rows: Vec<String> = command
            .get_arguments()
            .filter(|arg| arg.get_env().is_some() && shared_by_all(arg.get_id().as_str()) == common)
            .map(row)
            .collect();
        if !rows.is_empty() {
            let head = "| Variable | Flag | Default | What it does |\n|---|---|---|---|\n";
            let _ = write!(text, "\n## {title}\n\n{head}{}", rows.concat());
        }
    };
    if let Some(first) = commands.first() {
        section("Every service", first, true);
    }
    for command in &commands {
        section(command.get_name(), command, false);
    }
    text
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
    let plan = PlaceOrder::plan();
    format!(
        "# Sagas\n\nGenerated from the plans by `cargo run -- generate`. Steps with the same number run side by side.\n\n\
         ## {}@{}\n\n{}\n```mermaid\n{}```\n",
        PlaceOrder::NAME,
        PlaceOrder::VERSION,
        plan.as_table(),
        plan.as_mermaid()
    )
}
