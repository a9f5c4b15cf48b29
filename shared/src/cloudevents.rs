//! The envelope's attributes as Kafka record headers in the CloudEvents 1.0 binary mode (`ce_*`, `content-type`), and
//! the W3C `traceparent`: routing and dedupe need not parse the body. This is the only module that maps them.

use rdkafka::message::{Header, Headers, OwnedHeaders};
use serde::Deserialize;
use serde::de::IgnoredAny;
use time::format_description::well_known::Rfc3339;

use crate::envelope::Envelope;

/// The record header with the W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// The record header with the message's type.
pub const TYPE: &str = "ce_type";

const CONTENT_TYPE: &str = "application/json";

/// The headers of the message with this JSON body.
///
/// # Errors
/// If the body is not an envelope.
pub fn headers(body: &[u8], traceparent: Option<&str>) -> Result<OwnedHeaders, serde_json::Error> {
    let envelope: Envelope<IgnoredAny> = serde_json::from_slice(body)?;
    let mut headers = OwnedHeaders::new_with_capacity(13);
    let mut set = |key: &str, value: &str| {
        let with = std::mem::take(&mut headers);
        headers = with.insert(Header { key, value: Some(value) });
    };
    set("content-type", CONTENT_TYPE);
    set("ce_specversion", "1.0");
    set("ce_id", envelope.id.hyphenated().encode_lower(&mut [0; 36]));
    set(TYPE, &envelope.kind);
    // CloudEvents wants a URI reference; a service's name is one.
    set("ce_source", &envelope.source);
    set("ce_subject", &envelope.subject);
    if let Ok(time) = envelope.timestamp.format(&Rfc3339) {
        set("ce_time", &time);
    }
    set("ce_dataversion", &envelope.data_version);
    set("ce_correlationid", envelope.correlation_id.hyphenated().encode_lower(&mut [0; 36]));
    if let Some(id) = envelope.causation_id {
        set("ce_causationid", id.hyphenated().encode_lower(&mut [0; 36]));
    }
    if let Some(sequence) = envelope.sequence {
        set("ce_sequence", &sequence.to_string());
    }
    if let Some(traceparent) = traceparent {
        set(TRACEPARENT, traceparent);
    }
    Ok(headers)
}

/// The text of a header, or `None` where it is absent or not UTF-8.
pub fn header<'h, H: Headers>(headers: Option<&'h H>, key: &str) -> Option<&'h str> {
    headers?.iter().find(|header| header.key == key)?.value.and_then(|value| std::str::from_utf8(value).ok())
}

/// The envelope of a record's value.
///
/// # Errors
/// If the value is not JSON or lacks a member that an envelope must have.
pub fn envelope<'b, D: Deserialize<'b>>(body: &'b [u8]) -> Result<Envelope<D>, serde_json::Error> {
    serde_json::from_slice(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_carry_what_the_envelope_says() {
        let body =
            br#"{"id":"0197e3a0-0000-7000-8000-000000000001","type":"order.created.v1","source":"order",
            "subject":"o-1","dataVersion":"1.2.0","timestamp":"2026-11-21T10:00:00Z","sequence":3,
            "correlationId":"0197e3a0-0000-7000-8000-000000000002","data":{"a":1}}"#;
        let headers = headers(body, Some("00-aa-bb-01")).expect("an envelope");
        let get = |key| header(Some(&headers), key);
        assert_eq!(get("ce_specversion"), Some("1.0"));
        assert_eq!(get("ce_id"), Some("0197e3a0-0000-7000-8000-000000000001"));
        assert_eq!(get("ce_type"), Some("order.created.v1"));
        assert_eq!(get("ce_source"), Some("order"));
        assert_eq!(get("ce_subject"), Some("o-1"));
        assert_eq!(get("ce_time"), Some("2026-11-21T10:00:00Z"));
        assert_eq!(get("ce_sequence"), Some("3"));
        assert_eq!(get("ce_causationid"), None);
        assert_eq!(get("content-type"), Some("application/json"));
        assert_eq!(get("traceparent"), Some("00-aa-bb-01"));
    }
}
