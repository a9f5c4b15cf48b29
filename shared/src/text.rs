//! Text from strangers: requests, records, and whatever other services say. A terminal obeys escape sequences, a line feed
//! forges a line of a log, and a bidirectional override shows text in another order than it has.

use std::borrow::Cow;

/// Returns whether a terminal, a log or a reader would take this character for something else than text: a control character
/// (NUL, line feed, escape and so on), a separator of lines, or an override of the direction of writing.
pub(crate) fn deceives(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns text that can be printed as a part of one line. Whatever is not plain text is escaped as in JSON: `\u001b`.
pub fn line(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// Returns text that can be printed. Its line feeds and tabs stay. JSON stays JSON with the same meaning, because what is
/// escaped is in its strings.
pub fn lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| matches!(c, '\n' | '\t'))
}

fn escape(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let escaped = |c: char| deceives(c) && !stays(c);
    if !text.chars().any(escaped) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if !escaped(c) => plain.push(c),
            '\n' => plain.push_str("\\n"),
            '\r' => plain.push_str("\\r"),
            '\t' => plain.push_str("\\t"),
            // All of them are in the basic plane, so four digits are enough.
            c => plain.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    Cow::Owned(plain)
}

/// Returns JSON text without the escape `\u0000`. PostgreSQL stores it in a column of type `json`, and fails at every
/// statement that reads a member of such a value.
pub fn json_without_nul(json: &str) -> Cow<'_, str> {
    const NUL: &str = "\\u0000";
    if !json.contains(NUL) {
        return Cow::Borrowed(json);
    }
    let mut plain = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let escape = &rest[at..];
        let length = if escape.starts_with(NUL) {
            plain.push_str("\\ufffd");
            NUL.len()
        } else {
            // An escaped backslash must not be taken for the begin of the next escape.
            let length = 1 + escape[1..].chars().next().map_or(0, char::len_utf8);
            plain.push_str(&escape[..length]);
            length
        };
        rest = &escape[length..];
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_as_it_is() {
        for text in ["", "Ada", "Größe 7 \"L\" \\ é 日本語 שלום 👍🏽", "a\u{301}"] {
            assert!(matches!(line(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        assert_eq!(line("a\u{1b}]0;pwned\u{7}b"), "a\\u001b]0;pwned\\u0007b");
        assert_eq!(line("a\r\nb\tc\u{0}\u{7f}\u{9b}2J"), "a\\r\\nb\\tc\\u0000\\u007f\\u009b2J");
        assert_eq!(line("gpj.\u{202e}exe\u{2066}\u{2028}"), "gpj.\\u202eexe\\u2066\\u2028");
        assert_eq!(lines("a\n\tb\r\u{1b}"), "a\n\tb\\r\\u001b");
    }

    #[test]
    fn json_keeps_its_meaning() {
        let value = serde_json::json!({"name": "a\u{1b}\u{9b}\u{202e}\n"});
        let pretty = serde_json::to_string_pretty(&value).expect("JSON");
        let printed = lines(&pretty);
        assert!(printed.chars().all(|c| c == '\n' || !deceives(c)), "{printed:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&printed).expect("JSON"), value);
    }

    #[test]
    fn json_has_no_nul_and_is_otherwise_the_same() {
        let with = |text: &str| serde_json::json!({ "x": text }).to_string();
        for text in ["a\u{0}b", "\u{0}\u{0}", "\\u0000", "\\\u{0}", "\\\\u0000\u{0}é\\", "plain"] {
            let json = with(text);
            assert_eq!(
                json_without_nul(&json),
                with(&text.replace('\u{0}', "\u{fffd}")).replace('\u{fffd}', "\\ufffd")
            );
        }
    }
}
