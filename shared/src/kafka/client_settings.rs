//! Further settings of the Kafka clients, such as those for TLS and SASL. Their values are secrets: no error and no debug
//! output contains them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::{Chars, FromStr};

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

/// Settings of librdkafka by their names.
///
/// As text they are `name=value`, separated by commas or line ends. A value with a comma, a line end, or a quote or space at
/// its beginning stands in double quotes: `sasl.password="a,b"`. Within the quotes, `\"` is a quote, `\\` a backslash and
/// `\n` a line end. A value without quotes around it is taken as it is.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClientSettings(BTreeMap<String, String>);

/// Why text is not [`ClientSettings`]. It names the setting, but never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientSettingsError {
    /// A part has no `=`. It may be the rest of a password.
    #[error(
        "{0} is not name=value; a value with a comma must be in double quotes, for example sasl.password=\"a,b\""
    )]
    NoPair(Part),
    /// A value begins with a quote, and no quote ends it.
    #[error("the value of {0} begins with a double quote, and none ends it")]
    Unended(Part),
    /// A value has a backslash that begins no known escape.
    #[error("the value of {0} has a backslash before another character than \", \\ or n")]
    Escape(Part),
    /// Something follows a value in quotes.
    #[error("the value of {0} goes on behind its closing double quote; a quote within it is written \\\"")]
    Behind(Part),
    /// A name is there twice.
    #[error("{0} is there twice")]
    Twice(Part),
    /// librdkafka has no such setting.
    #[error("{0} is no setting of librdkafka")]
    Unknown(Part),
    /// librdkafka does not take the value.
    #[error("librdkafka does not take the value of {0}")]
    Value(Part),
}

/// A part of the text: its name, or its number if the name may be the rest of a value that has a comma.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part(String);

impl Part {
    fn new(number: usize, name: &str) -> Self {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_');
        let is_name = name.contains('.') && name.chars().all(plain);
        Self(if is_name { format!("`{name}`") } else { format!("part {number}") })
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ClientSettings {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

impl fmt::Debug for ClientSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl FromStr for ClientSettings {
    type Err = ClientSettingsError;

    fn from_str(text: &str) -> Result<Self, ClientSettingsError> {
        let mut settings = BTreeMap::new();
        let mut rest = text.chars();
        let mut number = 0;
        while let Some((name, value)) = pair(&mut rest, &mut number)? {
            let part = Part::new(number, &name);
            // librdkafka's own error would contain the value.
            match ClientConfig::new().set(&name, &value).create_native_config() {
                Ok(_) => {}
                Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
                    return Err(ClientSettingsError::Unknown(part));
                }
                Err(_) => return Err(ClientSettingsError::Value(part)),
            }
            if settings.insert(name, value).is_some() {
                return Err(ClientSettingsError::Twice(part));
            }
        }
        Ok(Self(settings))
    }
}

/// Reads the next name and value, and counts the parts.
fn pair(rest: &mut Chars<'_>, number: &mut usize) -> Result<Option<(String, String)>, ClientSettingsError> {
    const SEPARATORS: [char; 2] = [',', '\n'];
    *rest = rest.as_str().trim_start_matches(|c: char| SEPARATORS.contains(&c) || c.is_whitespace()).chars();
    if rest.as_str().is_empty() {
        return Ok(None);
    }
    *number += 1;
    let text = rest.as_str();
    let part = &text[..text.find(SEPARATORS).unwrap_or(text.len())];
    let Some((name, value)) = part.split_once('=') else {
        return Err(ClientSettingsError::NoPair(Part::new(*number, "")));
    };
    let name = name.trim().to_owned();
    let known_as = Part::new(*number, &name);
    if !value.trim_start().starts_with('"') {
        *rest = text[part.len()..].chars();
        return Ok(Some((name, value.trim().to_owned())));
    }
    let opening = part.len() - value.trim_start().len();
    *rest = text[opening + 1..].chars();
    let value = quoted(rest, &known_as)?;
    let behind = rest.as_str();
    let behind = &behind[..behind.find(SEPARATORS).unwrap_or(behind.len())];
    if !behind.trim().is_empty() {
        return Err(ClientSettingsError::Behind(known_as));
    }
    Ok(Some((name, value)))
}

/// Reads up to the closing quote.
fn quoted(rest: &mut Chars<'_>, part: &Part) -> Result<String, ClientSettingsError> {
    let mut value = String::new();
    loop {
        match rest.next() {
            None => return Err(ClientSettingsError::Unended(part.clone())),
            Some('"') => return Ok(value),
            Some('\\') => match rest.next() {
                Some(escaped @ ('"' | '\\')) => value.push(escaped),
                Some('n') => value.push('\n'),
                _ => return Err(ClientSettingsError::Escape(part.clone())),
            },
            Some(other) => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> BTreeMap<String, String> {
        text.parse::<ClientSettings>().unwrap_or_else(|error| panic!("{text}: {error}")).0
    }

    #[test]
    fn values_are_taken_as_they_are_or_stand_in_quotes() {
        let read_one = |text: &str| read(&format!("sasl.password={text}"))["sasl.password"].clone();
        for (text, value) in [
            ("S3cr3t", "S3cr3t"),
            ("a=b\\c\"d", "a=b\\c\"d"),
            (" S3cr3t ", "S3cr3t"),
            (r#""a,b""#, "a,b"),
            (r#"" \"a\", \\b\nc ""#, " \"a\", \\b\nc "),
            ("\"one\ntwo\"", "one\ntwo"),
            ("\"\"", ""),
        ] {
            assert_eq!(read_one(text), value, "{text}");
        }
        let several = read("security.protocol=ssl, ssl.ca.location=\"/a,b.pem\" ,\nsasl.username=ada\r\n");
        assert_eq!(several.len(), 3);
        assert_eq!(several["ssl.ca.location"], "/a,b.pem");
        assert_eq!(several["sasl.username"], "ada");
        assert!(read(" ,\n, ").is_empty());
    }

    #[test]
    fn no_error_contains_a_value() {
        for (text, said) in [
            ("sasl.password=S3cr3t,w0rd", "part 2 is not name=value"),
            ("sasl.password=S3cr3t,w0=rd", "part 2 is no setting"),
            ("sasl.passwort=S3cr3t", "`sasl.passwort` is no setting"),
            ("S3cr3t", "part 1 is not name=value"),
            ("sasl.password=\"S3cr3t", "`sasl.password` begins with a double quote"),
            ("sasl.password=\"S3c\\r3t\"", "`sasl.password` has a backslash"),
            ("sasl.password=\"S3\"cr3t", "`sasl.password` goes on behind"),
            ("sasl.password=S3cr3t,sasl.password=S3cr3t", "`sasl.password` is there twice"),
            ("security.protocol=S3cr3t", "the value of `security.protocol`"),
            ("socket.timeout.ms=S3cr3t", "the value of `socket.timeout.ms`"),
        ] {
            let error = text.parse::<ClientSettings>().expect_err(text);
            let told = format!("{error} {error:?}");
            assert!(told.contains(said), "{told}");
            for secret in ["S3", "cr3t", "r3t", "w0", "rd\""] {
                assert!(!told.contains(secret), "{secret} in {told}");
            }
        }
    }

    #[test]
    fn debug_output_has_only_names() {
        let settings: ClientSettings = "sasl.password=S3cr3t".parse().expect("settings");
        let kafka = crate::kafka::Kafka { settings, ..crate::kafka::Kafka::new("localhost:9092") };
        let debug = format!("{kafka:?}");
        assert!(debug.contains("sasl.password") && !debug.contains("S3cr3t"), "{debug}");
    }
}
