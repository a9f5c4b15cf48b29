//! Reads the JSON body of a request. What the service would not use or could misunderstand is refused, so that a client
//! learns of its mistake before money moves.

use std::collections::HashSet;
use std::fmt;

use axum::http::StatusCode;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::strict::Strict;
use crate::service::problem::{Invalid, Problem, member_pointer};
use crate::text::deceives;

/// At most so many mistakes of a kind are named, so that an answer is not much longer than the request.
const MOST_NAMED: usize = 10;
/// A longer pointer is cut.
const MOST_POINTER_CHARS: usize = 500;

/// What a text in a body may have beside printable characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Texts {
    /// Nothing: it is a name, a reason, an address and so on.
    OneLine,
    /// Line breaks and tabs: it is a part of a message, which may have been written elsewhere.
    Lines,
}

impl Texts {
    fn refuse(self, text: &str) -> bool {
        text.chars().any(|c| match self {
            Self::OneLine => deceives(c),
            Self::Lines => c.is_control() && !matches!(c, '\n' | '\r' | '\t'),
        })
    }
}

/// Reads a value. A repeated member is an error, because parsers differ in which of the two they take. An unknown member is an
/// error, because its sender means something by it. A control character is an error, because no text needs one: PostgreSQL
/// cannot store NUL, a terminal obeys an escape sequence, a line feed forges a line of a log, and an override of the direction
/// of writing shows another text than is there.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8], texts: Texts) -> Result<T, Problem> {
    let Mistakes { repeated, control } = mistakes(bytes, texts)?;
    if !repeated.is_empty() {
        return Err(invalid(repeated, "is there twice"));
    }
    if !control.is_empty() {
        return Err(invalid(control, "has no control characters"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut unknown = Vec::new();
    let mut note = |path: serde_ignored::Path<'_>| {
        if unknown.len() < MOST_NAMED {
            unknown.push(ignored_pointer(&path));
        }
    };
    let value =
        serde_path_to_error::deserialize(serde_ignored::Deserializer::new(Strict(&mut json), &mut note));
    let value: T = value.map_err(|error| {
        let pointer = pointer(error.path());
        let error = error.into_inner();
        if error.is_data() {
            Problem::invalid(vec![Invalid::new(pointer, without_position(&error))])
        } else {
            malformed(&error)
        }
    })?;
    if !unknown.is_empty() {
        return Err(invalid(unknown, "is not known"));
    }
    Ok(value)
}

fn invalid(pointers: Vec<String>, detail: &str) -> Problem {
    let short =
        pointers.into_iter().map(|pointer| pointer.chars().take(MOST_POINTER_CHARS).collect::<String>());
    Problem::invalid(short.map(|pointer| Invalid::new(pointer, detail)).collect())
}

fn malformed(error: &serde_json::Error) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "/problems/malformed-json", "The body is not JSON").detail(format!(
        "{} at line {}, column {}",
        without_position(error),
        error.line(),
        error.column()
    ))
}

fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter().fold(String::new(), |parent, segment| match segment {
        Segment::Seq { index } => format!("{parent}/{index}"),
        Segment::Map { key } => member_pointer(&parent, key),
        Segment::Enum { .. } | Segment::Unknown => parent,
    })
}

fn ignored_pointer(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}/{index}", ignored_pointer(parent)),
        Path::Map { parent, key } => member_pointer(&ignored_pointer(parent), key),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            ignored_pointer(parent)
        }
    }
}

/// The pointers of wrong values that any type would take.
#[derive(Default)]
struct Mistakes {
    /// Members that their object has more than once.
    repeated: Vec<String>,
    /// Texts and names of members with control characters.
    control: Vec<String>,
}

/// Returns what is wrong with a JSON value. Fails if the text is not one JSON value.
fn mistakes(bytes: &[u8], texts: Texts) -> Result<Mistakes, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut mistakes = Mistakes::default();
    let values = Values { at: At::Root, texts, mistakes: &mut mistakes };
    values.deserialize(&mut json).map_err(|error| malformed(&error))?;
    json.end().map_err(|error| malformed(&error))?;
    Ok(mistakes)
}

fn note(mistakes: &mut Vec<String>, at: At<'_>) {
    if mistakes.len() < MOST_NAMED {
        mistakes.push(at.pointer());
    }
}

/// The place of a value. It is written out only for a mistake, because a long name may have many values in it.
#[derive(Clone, Copy)]
enum At<'a> {
    Root,
    Member(&'a At<'a>, &'a str),
    Item(&'a At<'a>, usize),
}

impl At<'_> {
    fn pointer(self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Member(parent, key) => member_pointer(&parent.pointer(), key),
            Self::Item(parent, index) => format!("{}/{index}", parent.pointer()),
        }
    }
}

/// Visits a value, and collects mistakes.
struct Values<'a> {
    at: At<'a>,
    texts: Texts,
    mistakes: &'a mut Mistakes,
}

impl<'de> DeserializeSeed<'de> for Values<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Values<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let at = At::Member(&self.at, &key);
            if seen.contains(&key) {
                note(&mut self.mistakes.repeated, at);
            }
            if self.texts.refuse(&key) {
                note(&mut self.mistakes.control, at);
            }
            map.next_value_seed(Values { at, texts: self.texts, mistakes: &mut *self.mistakes })?;
            seen.insert(key);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut index = 0;
        loop {
            let at = At::Item(&self.at, index);
            let value = Values { at, texts: self.texts, mistakes: &mut *self.mistakes };
            if seq.next_element_seed(value)?.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if self.texts.refuse(text) {
            note(&mut self.mistakes.control, self.at);
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Line {
        #[expect(dead_code, reason = "only parsed")]
        quantity: u32,
        #[expect(dead_code, reason = "only parsed")]
        price: Option<Price>,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Price {
        #[expect(dead_code, reason = "only parsed")]
        amount: i64,
    }

    fn pointers<T: DeserializeOwned + fmt::Debug>(json: &str) -> Vec<String> {
        let problem = parse::<T>(json.as_bytes(), Texts::OneLine).expect_err("a member is wrong");
        assert_eq!(problem.status, 422);
        problem.errors.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn malformed_json_is_answered_with_its_position() {
        let problem = parse::<Line>(b"{\n  \"quantity\": }", Texts::OneLine).expect_err("malformed");
        assert_eq!(problem.status, 400);
        assert_eq!(problem.detail.as_deref(), Some("expected value at line 2, column 15"));
    }

    #[test]
    fn a_wrong_member_is_answered_with_its_pointer() {
        let problem = parse::<Vec<Line>>(br#"[{"quantity":1},{"quantity":"two"}]"#, Texts::OneLine)
            .expect_err("wrong type");
        assert_eq!(problem.status, 422);
        assert_eq!(problem.errors[0].pointer, "/1/quantity");
        assert!(problem.errors[0].detail.contains("invalid type"), "{problem:?}");
    }

    #[test]
    fn something_behind_the_json_is_malformed() {
        assert_eq!(parse::<Line>(br#"{"quantity":1} x"#, Texts::OneLine).expect_err("trailing").status, 400);
    }

    #[test]
    fn a_repeated_member_is_refused_at_every_depth_and_for_every_type() {
        let json = r#"{"quantity":2,"a/b":[0,{"x":1,"x":1}],"quantity":200}"#;
        assert_eq!(pointers::<Value>(json), ["/a~1b/1/x", "/quantity"]);
        assert_eq!(pointers::<Line>(r#"{"quantity":2,"quantity":2}"#), ["/quantity"]);
        assert_eq!(pointers::<Box<RawValue>>(r#"{"quantity":2,"\u0071uantity":3}"#), ["/quantity"]);
    }

    #[test]
    fn an_unknown_member_is_refused_at_every_depth() {
        let json = r#"[{"quantity":2,"price":{"amount":1,"vat":2},"coupon":"x"}]"#;
        assert_eq!(pointers::<Vec<Line>>(json), ["/0/price/vat", "/0/coupon"]);
    }

    #[test]
    fn a_control_character_is_refused_at_every_depth_and_for_every_type() {
        let json = r#"{"a":["\u0000",{"x/y":"\u001b]0;pwned\u0007"}],"b":"two\nlines","c\n":1,"d":"\u009b","e":"Größe"}"#;
        assert_eq!(pointers::<Value>(json), ["/a/0", "/a/1/x~1y", "/b", "/c\n", "/d"]);
        assert_eq!(pointers::<Box<RawValue>>(r#""\u007f""#), [""]);
    }

    #[test]
    fn a_message_may_have_lines() {
        let message = |json: &str| parse::<Box<RawValue>>(json.as_bytes(), Texts::Lines);
        assert!(message(r#"{"text":"a\r\n\tb"}"#).is_ok());
        for control in [r#"{"text":"\u0000"}"#, r#"{"text":"\u001b[2J"}"#] {
            assert_eq!(message(control).expect_err("a control character").errors[0].pointer, "/text");
        }
    }

    #[test]
    fn many_mistakes_make_no_long_answer() {
        let long = "k".repeat(1000);
        let twice = format!(r#"{{"{long}":[{{{}"x":1}}]}}"#, r#""x":1,"#.repeat(1000));
        let found = pointers::<Value>(&twice);
        assert_eq!((found.len(), found[0].len()), (MOST_NAMED, MOST_POINTER_CHARS));
        let unknown: String = (0..1000).map(|number| format!(r#","x{number}":1"#)).collect();
        assert_eq!(pointers::<Line>(&format!(r#"{{"quantity":2{unknown}}}"#)).len(), MOST_NAMED);
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let json = r#"{"a":[null,true,-1,1,1.5,"x",{}],"b":18446744073709551616}"#;
        assert!(parse::<Value>(json.as_bytes(), Texts::OneLine).is_ok());
        let raw: Box<RawValue> = parse(json.as_bytes(), Texts::OneLine).expect("JSON");
        assert_eq!(raw.get(), json);
    }
}
