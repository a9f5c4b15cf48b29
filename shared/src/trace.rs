//! The trace context of messages (W3C `traceparent`). It is stored in the outbox row, travels in the record's headers, and is
//! inherited by what the message causes.
//!
//! The core only passes the context on. A process that collects spans installs a [`Propagator`], as the feature `service`
//! does for OpenTelemetry; then the relay and the consumer make spans. Their attributes follow the OpenTelemetry semantic
//! conventions for messaging 1.36 (status: development).

use std::sync::OnceLock;

use tracing::{Span, info_span};

use crate::envelope::{Envelope, new_id};

/// Ties spans to trace contexts.
pub trait Propagator: Send + Sync + 'static {
    /// The trace context of a span.
    fn traceparent_of(&self, span: &Span) -> Option<String>;
    /// Makes a span the child of what a message came from, and links it to that too.
    fn adopt(&self, span: &Span, traceparent: &str);
}

static PROPAGATOR: OnceLock<Box<dyn Propagator>> = OnceLock::new();

/// Installs the process's propagator. The first call counts.
pub fn set_propagator(propagator: Box<dyn Propagator>) {
    let _ = PROPAGATOR.set(propagator);
}

/// Whether spans are collected.
pub(crate) fn enabled() -> bool {
    PROPAGATOR.get().is_some()
}

/// The trace context of a span; none if no spans are collected.
pub fn traceparent_of(span: &Span) -> Option<String> {
    PROPAGATOR.get()?.traceparent_of(span)
}

/// Whether a text is a W3C trace context (version 00) with ids that are not zero.
pub fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str, length| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let set = |part: &str| part.bytes().any(|byte| byte != b'0');
    matches!(parts[..], ["00", trace, span, flags]
        if hex(trace, 32) && hex(span, 16) && hex(flags, 2) && set(trace) && set(span))
}

/// A new trace context, not sampled: what an order's messages have in common where nobody collects spans.
pub fn new_traceparent() -> String {
    let (trace, span) = (new_id(), new_id());
    format!("00-{}-{:016x}-00", trace.simple(), span.as_u128() as u64)
}

fn adopt(span: &Span, traceparent: Option<&str>) {
    if let (Some(propagator), Some(traceparent)) = (PROPAGATOR.get(), traceparent) {
        propagator.adopt(span, traceparent);
    }
}

/// The span in which the relay sends a message.
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

/// Where a record came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordPlace<'r> {
    pub topic: &'r str,
    pub partition: i32,
    pub offset: i64,
    pub key: &'r str,
}

/// The span in which a message is handled.
pub(crate) fn process_span(place: RecordPlace<'_>, traceparent: Option<&str>, envelope: &Envelope) -> Span {
    if !enabled() {
        return Span::none();
    }
    let RecordPlace { topic, partition, offset, key } = place;
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
