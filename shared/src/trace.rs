//! The trace context of messages (W3C `traceparent`). It is stored in the outbox row, sent in the record's headers,
//! and inherited by messages that the message causes.
//!
//! The core only passes the context on. A process that collects spans installs a [`Propagator`], as the feature
//! `service` does for OpenTelemetry. The relay and the consumer then create spans. Their attributes follow the
//! OpenTelemetry semantic conventions for messaging 1.36 (status: development).

use std::sync::OnceLock;

use tracing::{Span, info_span};

use crate::envelope::{Envelope, new_id};

/// Connects spans to trace contexts.
pub trait Propagator: Send + Sync + 'static {
    /// Returns the trace context of a span, or `None` if the span is not recorded.
    fn traceparent_of(&self, span: &Span) -> Option<String>;
    /// Makes a span a child of the span in `traceparent`, and links it to that span.
    fn adopt(&self, span: &Span, traceparent: &str);
}

static PROPAGATOR: OnceLock<Box<dyn Propagator>> = OnceLock::new();

/// Installs the process's propagator. Only the first call has an effect.
pub fn set_propagator(propagator: Box<dyn Propagator>) {
    let _ = PROPAGATOR.set(propagator);
}

/// Returns whether spans are collected.
pub(crate) fn enabled() -> bool {
    PROPAGATOR.get().is_some()
}

/// Returns the trace context of a span, or `None` if no spans are collected.
pub fn traceparent_of(span: &Span) -> Option<String> {
    PROPAGATOR.get()?.traceparent_of(span)
}

/// Returns whether a text is a W3C trace context (version 00) whose ids are not zero.
pub fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str, length| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let set = |part: &str| part.bytes().any(|byte| byte != b'0');
    matches!(parts[..], ["00", trace, span, flags]
        if hex(trace, 32) && hex(span, 16) && hex(flags, 2) && set(trace) && set(span))
}

/// Creates a new trace context that is not sampled. It groups the messages of an order even if no spans are
/// collected.
pub fn new_traceparent() -> String {
    let (trace, span) = (new_id(), new_id());
    format!("00-{}-{:016x}-00", trace.simple(), span.as_u128() as u64)
}

fn adopt(span: &Span, traceparent: Option<&str>) {
    if let (Some(propagator), Some(traceparent)) = (PROPAGATOR.get(), traceparent) {
        propagator.adopt(span, traceparent);
    }
}

/// Creates the span in which the relay sends a message.
pub(crate) fn publish_span(topic: &str, traceparent: Option<&str>) -> Span {
    if !enabled() {
        return Span::none();
    }
    let span = info_span!(
        "publish",
        otel.name = format!("publish {topic}"),
        otel.kind = "producer",
        messaging.system = "kafka",
        messaging.operation.type = "send",
        messaging.destination.name = topic,
    );
    adopt(&span, traceparent);
    span
}

/// The origin of a record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordOrigin<'r> {
    pub topic: &'r str,
    pub partition: i32,
    pub offset: i64,
    pub key: &'r str,
}

/// Creates the span in which a message is handled.
pub(crate) fn process_span(origin: RecordOrigin<'_>, traceparent: Option<&str>, envelope: &Envelope) -> Span {
    if !enabled() {
        return Span::none();
    }
    let RecordOrigin { topic, partition, offset, key } = origin;
    let span = info_span!(
        "process",
        otel.name = format!("process {topic}"),
        otel.kind = "consumer",
        messaging.system = "kafka",
        messaging.operation.type = "process",
        messaging.destination.name = topic,
        messaging.destination.partition.id = partition,
        messaging.kafka.offset = offset,
        messaging.kafka.message.key = key,
        messaging.message.id = %envelope.id,
        cloudevents.event_type = %envelope.kind,
        saga.step = envelope.metadata.step.as_deref(),
    );
    adopt(&span, traceparent);
    span
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trace_context_is_passed_on() {
        assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert!(is_traceparent(&new_traceparent()));
        for wrong in [
            "not a trace; drop",
            "",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert!(!is_traceparent(wrong), "{wrong}");
        }
    }
}
