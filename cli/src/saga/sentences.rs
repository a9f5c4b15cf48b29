//! A saga's log and its steps in sentences.

use serde_json::Value;

use crate::json::{array, text_of};

/// Formats an entry of the log on one line: what came, and what the saga decided.
pub fn line_of(entry: &Value) -> String {
    let decided: Vec<String> = array(&entry["decisions"]).iter().map(decision).collect();
    let arrow = if decided.is_empty() { "" } else { "  ->  " };
    format!(
        "{:>3}  {}  {}{arrow}{}",
        entry["sequence"].as_i64().unwrap_or_default(),
        text_of(entry, "at"),
        input(&entry["input"]),
        decided.join(", ")
    )
}

/// Returns what is the state of a step. A step of a saga that is undone or over will not be asked any more.
pub fn status_of<'v>(step: &'v Value, saga: &Value) -> &'v str {
    let turned = saga["reason"].is_string() || matches!(text_of(saga, "status"), "completed" | "compensated");
    match text_of(step, "status") {
        "waiting" if turned => "not run",
        "unknown" => "no answer",
        other => other,
    }
}

/// Returns the command that has a stuck saga's step asked at once.
pub fn retry_command(saga: &Value, flags: &str) -> String {
    let id = text_of(saga, "id");
    format!("amends saga retry --saga-id {id} --reason 'it works again'{flags}")
}

fn input(input: &Value) -> String {
    let action = action(input);
    match text_of(input, "input") {
        "started" => "the saga begins".to_owned(),
        "done" => format!("{action} is done"),
        "refused" => format!("{action} is refused ({})", text_of(&input["refusal"], "code")),
        "failing" => format!("{action} can't be answered yet: {}", text_of(input, "error")),
        "cancel" => "the customer cancels".to_owned(),
        "retry" => format!("{} retries: {}", text_of(input, "by"), text_of(input, "reason")),
        "due" => "time has passed".to_owned(),
        other => other.replace('_', " "),
    }
}

fn decision(decision: &Value) -> String {
    let (action, reason) = (action(decision), text_of(decision, "reason").replace('_', " "));
    match text_of(decision, "decision") {
        "ask" => format!("ask: {action}"),
        "compensate" => format!("undo what is done ({reason})"),
        "stuck" => format!("stuck: {action} gets no answer"),
        "refuse_cancellation" => format!("refuse the cancellation ({reason})"),
        "complete" => "completed".to_owned(),
        "compensated" => format!("all is undone ({reason})"),
        other => other.replace('_', " "),
    }
}

/// The step of an input or a decision, with its direction.
fn action(value: &Value) -> String {
    let step = text_of(value, "step").replace('_', " ");
    if value["direction"] == "undo" { format!("the undo of {step}") } else { step }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_entry_of_the_log_has_its_input_and_its_decisions() {
        for (input, decisions, said) in [
            (
                json!({"input": "retry", "by": "ada", "reason": "it is mended"}),
                json!([{"decision": "ask", "step": "book_shipment", "direction": "undo"}]),
                "ada retries: it is mended  ->  ask: the undo of book shipment",
            ),
            (
                json!({"input": "refused", "step": "authorize_payment", "refusal": {"code": "card_declined"}}),
                json!([
                    {"decision": "compensate", "step": "authorize_payment", "reason": "card_declined"},
                    {"decision": "ask", "step": "reserve_stock", "direction": "undo"},
                ]),
                "authorize payment is refused (card_declined)  ->  undo what is done (card declined), ask: the undo of \
                 reserve stock",
            ),
            (
                json!({"input": "done", "step": "capture_payment", "direction": "do"}),
                json!([]),
                "capture payment is done",
            ),
            (
                json!({"input": "started"}),
                json!([{"decision": "complete"}]),
                "the saga begins  ->  completed",
            ),
        ] {
            let entry = json!({
                "sequence": 7, "at": "2026-01-01T00:00:00Z", "input": input, "decisions": decisions,
            });
            assert_eq!(line_of(&entry), format!("  7  2026-01-01T00:00:00Z  {said}"));
        }
    }

    #[test]
    fn a_step_that_will_never_run_does_not_wait() {
        let step = json!({"status": "waiting"});
        assert_eq!(status_of(&step, &json!({"status": "running"})), "waiting");
        assert_eq!(
            status_of(&step, &json!({"status": "compensating", "reason": "card_declined"})),
            "not run"
        );
        assert_eq!(status_of(&json!({"status": "unknown"}), &json!({"status": "running"})), "no answer");
    }
}
