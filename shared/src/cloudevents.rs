//! Maps the envelope's attributes to Kafka record headers in the CloudEvents 1.0 binary mode (`ce_*`,
//! `content-type`), and adds the W3C `traceparent`.
//! Routing and deduplication therefore need not parse the body. This is the only module that maps headers.

use std::borrow::Cow;

use rdkafka::message::{Header, Headers, OwnedHeaders};
use serde::Deserialize;

use crate::envelope::{Envelope, Outcome};

/// The record header with the W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// The record header with the message's type.
pub const TYPE: &str = "ce_type";
/// The record header with the outcome of a saga step. Only events that answer a command have it.
pub const OUTCOME: &str = "ce_outcome";
/// The record header with the message's position in its service's outbox. It is a CloudEvents extension that the
/// relay adds. Positions of one key rise, and all copies of a message have the same position. A reader can therefore
/// detect missing and late messages.
pub const POSITION: &str = "ce_outboxposition";

const CONTENT_TYPE: &str = "application/json";

/// Returns the record headers of the message with this JSON body and this `position` in its service's outbox.
///
/// # Errors
/// Fails if the body is not an envelope.
pub fn headers(
    body: &[u8],
    position: i64,
    traceparent: Option<&str>,
) -> Result<OwnedHeaders, serde_json::Error> {
    let envelope: Attributes<'_> = serde_json::from_slice(body)?;
    let set = |headers: OwnedHeaders, key, value: &str| headers.insert(Header { key, value: Some(value) });
    let mut headers = OwnedHeaders::new_with_capacity(15);
    headers = set(headers, "content-type", CONTENT_TYPE);
    headers = set(headers, "ce_specversion", "1.0");
    headers = set(headers, "ce_id", &envelope.id);
    headers = set(headers, TYPE, &envelope.kind);
    // CloudEvents requires a URI reference; a service's name is one.
    headers = set(headers, "ce_source", &envelope.source);
    headers = set(headers, "ce_subject", &envelope.subject);
    headers = set(headers, "ce_time", &envelope.timestamp);
    headers = set(headers, "ce_dataversion", &envelope.data_version);
    headers = set(headers, "ce_correlationid", &envelope.correlation_id);
    if let Some(id) = envelope.causation_id {
        headers = set(headers, "ce_causationid", &id);
    }
    if let Some(sequence) = envelope.sequence {
        headers = set(headers, "ce_sequence", &sequence.to_string());
    }
    if let Some(outcome) = envelope.metadata.outcome {
        headers = set(headers, OUTCOME, outcome.as_str());
    }
    headers = set(headers, POSITION, &position.to_string());
    if let Some(traceparent) = traceparent {
        headers = set(headers, TRACEPARENT, traceparent);
    }
    Ok(headers)
}

/// The attributes that become headers. Ids and times stay text, because the relay does this for every record. Readers
/// of the envelope validate them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attributes<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    subject: Cow<'a, str>,
    #[serde(borrow)]
    data_version: Cow<'a, str>,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    #[serde(borrow)]
    correlation_id: Cow<'a, str>,
    #[serde(borrow, default)]
    causation_id: Option<Cow<'a, str>>,
    #[serde(default)]
    sequence: Option<i64>,
    #[serde(default)]
    metadata: Answered,
}

/// The part of the metadata that becomes a header.
#[derive(Default, Deserialize)]
struct Answered {
    #[serde(default)]
    outcome: Option<Outcome>,
}

/// Returns the text of a header, or `None` if the header is absent or is not UTF-8.
pub fn header<'h, H: Headers>(headers: Option<&'h H>, key: &str) -> Option<&'h str> {
    headers?.iter().find(|header| header.key == key)?.value.and_then(|value| std::str::from_utf8(value).ok())
}

/// Parses a record's value into an envelope.
///
/// # Errors
/// Fails if the value is not JSON or lacks a required member.
pub fn envelope<'b, D: Deserialize<'b>>(body: &'b [u8]) -> Result<Envelope<D>, serde_json::Error> {
    serde_json::from_slice(body)
}

#[cfg(test)]
mod tests {
    use cloudevents::AttributesReader;
    use cloudevents::event::SpecVersion;
    use cloudevents::message::{self, BinaryDeserializer, BinarySerializer, MessageAttributeValue};

    use super::*;

    const BODY: &[u8] =
        br#"{"id":"0197e3a0-0000-7000-8000-000000000001","type":"order.created.v1","source":"order",
        "subject":"o-1","dataVersion":"1.2.0","timestamp":"2026-11-21T10:00:00Z","sequence":3,
        "correlationId":"0197e3a0-0000-7000-8000-000000000002","data":{"a":1}}"#;

    /// A record as the official SDK reads it, by the CloudEvents 1.0 protocol binding for Kafka.
    struct Record<'r>(&'r OwnedHeaders, &'r [u8]);

    impl BinaryDeserializer for Record<'_> {
        fn deserialize_binary<R: Sized, V: BinarySerializer<R>>(self, visitor: V) -> message::Result<R> {
            let mut visitor = visitor.set_spec_version(SpecVersion::V10)?;
            for header in self.0.iter() {
                let text = String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned();
                let value = MessageAttributeValue::String(text);
                visitor = match header.key.strip_prefix("ce_") {
                    Some("specversion") => visitor,
                    Some(name) if SpecVersion::V10.attribute_names().contains(&name) => {
                        visitor.set_attribute(name, value)?
                    }
                    Some(name) => visitor.set_extension(name, value)?,
                    None if header.key == "content-type" => {
                        visitor.set_attribute("datacontenttype", value)?
                    }
                    None => visitor,
                };
            }
            visitor.end_with_data(self.1.to_vec())
        }
    }

    #[test]
    fn the_official_sdk_reads_a_record() {
        let headers = headers(BODY, 42, Some("00-aa-bb-01")).expect("an envelope");
        let event = Record(&headers, BODY).into_event().expect("a CloudEvent");
        assert_eq!(event.id(), "0197e3a0-0000-7000-8000-000000000001");
        assert_eq!(event.ty(), "order.created.v1");
        assert_eq!(event.source(), "order");
        assert_eq!(event.subject(), Some("o-1"));
        assert_eq!(event.time().map(|time| time.timestamp()), Some(1_795_255_200));
        assert_eq!(event.datacontenttype(), Some("application/json"));
        let extension = |name| event.extension(name).map(ToString::to_string);
        assert_eq!(extension("outboxposition").as_deref(), Some("42"));
        assert_eq!(extension("sequence").as_deref(), Some("3"));
        assert_eq!(extension("dataversion").as_deref(), Some("1.2.0"));
        assert_eq!(extension("correlationid").as_deref(), Some("0197e3a0-0000-7000-8000-000000000002"));
    }

    #[test]
    fn absent_attributes_have_no_header_and_the_trace_has_its_own() {
        let headers = headers(BODY, 42, Some("00-aa-bb-01")).expect("an envelope");
        assert_eq!(header(Some(&headers), "ce_causationid"), None);
        assert_eq!(header(Some(&headers), TRACEPARENT), Some("00-aa-bb-01"));
        assert_eq!(header(Some(&headers), TYPE), Some("order.created.v1"));
    }
}
