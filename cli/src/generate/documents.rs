//! The generated documents: message schemas, catalogue, AsyncAPI, OpenAPI, settings, metrics, and the sagas' plans.

use std::fmt::Write as _;

use orchestrator::sagas::{PlaceOrder, ReturnOrder};
use schemas::catalog::{self, Entry};
use serde_json::{Value, json};
use shared::saga::plan::Saga;
use shared::service::App;

use super::{configuration, metrics};
use crate::serve::{Visit, visit};
use crate::suite::SERVICES;

/// Returns every document with its path in the project.
pub fn all() -> anyhow::Result<Vec<(String, String)>> {
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
    documents.push(("docs/configuration.md".to_owned(), configuration::document()));
    documents.push(("docs/metrics.md".to_owned(), metrics::document()));
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
        schema["x-reply"] = json!(reply);
        if let Some(refusal) = refusal {
            schema["x-refusal"] = json!(refusal);
        }
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
         The key of a record is the id of the order; events about a product have its SKU, events about a customer the customer's id.\n\
         A participant answers a command with an event on its own topic. The event's metadata has the saga, the step, its \
         direction and the outcome: `done` or `refused`.\n\
         A step that is asked again gets its recorded answer in `saga.step_answered.v1`. While an external dependency does \
         not answer, `saga.step_failing.v1` says so, with the outcome `failing`.\n",
    );
    let mut owner = "";
    for entry in entries {
        if entry.owner() != owner {
            owner = entry.owner();
            let _ = write!(text, "\n## {owner}\n\n| Type | Topic | Version | Meaning |\n|---|---|---|---|\n");
        }
        let (kind, topic, version) = (entry.kind, entry.topic, entry.data_version);
        let _ = writeln!(
            text,
            "| [`{kind}`](json/{kind}.json) | `{topic}` | {version} | {}{} |",
            first_sentence(entry),
            answers(entry)
        );
    }
    text
}

/// Returns a sentence about the events that answer a command.
fn answers(entry: &Entry) -> String {
    match entry.answers {
        None => String::new(),
        Some((reply, None)) => format!(" Answered by `{reply}`."),
        Some((reply, Some(refusal))) => format!(" Answered by `{reply}` or `{refusal}`."),
    }
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
                 "description": "The payload is the `data` of the envelope; the headers are CloudEvents 1.0 in binary mode. \
                                 An event with the header `ce_outcome` also answers a command."},
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

fn sagas() -> String {
    let head = "# Sagas\n\nGenerated from the plans by `cargo run -- generate`. Steps with the same number run in parallel.\n";
    format!("{head}{}{}", saga::<PlaceOrder>(), saga::<ReturnOrder>())
}

fn saga<S: Saga>() -> String {
    let plan = S::plan();
    let (table, diagram) = (plan.as_table(), plan.as_mermaid());
    format!("\n## {}@{}\n\n{table}\n```mermaid\n{diagram}```\n", S::NAME, S::VERSION)
}
