//! Technical failures, and the one decision about them: retry or give up. A business refusal is never a fault.

use std::error::Error;
use std::fmt;

/// What is to be done about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It may pass: the work is repeated with backoff and costs a message none of its tries.
    Retry,
    /// It will fail again in the same way: the message's key is parked until an operator decides.
    Permanent,
}

/// An error that knows whether repeating the work can help. Implement it by an exhaustive `match`, so that a new
/// variant is a decision and not an accident.
pub trait Classified: Error + Send + Sync + 'static {
    /// Whether repeating the work can help.
    fn class(&self) -> Class;

    /// Whether there was too much of it at once: a smaller part may pass where the whole never will.
    fn exhausts(&self) -> bool {
        false
    }
}

/// A classified failure with its cause, as handlers return it.
pub struct Fault {
    class: Class,
    exhausts: bool,
    source: Box<dyn Error + Send + Sync>,
}

impl Fault {
    /// A failure that repeating can't mend.
    pub fn permanent(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { class: Class::Permanent, exhausts: false, source: source.into() }
    }

    /// A failure that may pass.
    pub fn retry(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { class: Class::Retry, exhausts: false, source: source.into() }
    }

    /// A failure of too much at once, which may pass with less.
    pub fn exhausted(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { class: Class::Retry, exhausts: true, source: source.into() }
    }

    /// What is to be done about it.
    pub fn class(&self) -> Class {
        self.class
    }

    /// As [`Classified::exhausts`].
    pub fn exhausts(&self) -> bool {
        self.exhausts
    }

    /// The error and its causes on one line, for logs and for the parked table.
    pub fn chain(&self) -> String {
        let mut text = self.source.to_string();
        let mut next = self.source.source();
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            next = cause.source();
        }
        text
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.class, self.chain())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.chain())
    }
}

impl<E: Classified> From<E> for Fault {
    fn from(error: E) -> Self {
        Self { class: error.class(), exhausts: error.exhausts(), source: Box::new(error) }
    }
}

impl Classified for sqlx::Error {
    /// By SQLSTATE class where the server answered. `sqlx::Error` is non-exhaustive; what is not known here is a
    /// matter of the connection and may pass.
    fn class(&self) -> Class {
        match self {
            Self::Database(error) => error.code().map_or(Class::Retry, |code| sqlstate(&code)),
            Self::Configuration(_)
            | Self::RowNotFound
            | Self::TypeNotFound { .. }
            | Self::ColumnIndexOutOfBounds { .. }
            | Self::ColumnNotFound(_)
            | Self::ColumnDecode { .. }
            | Self::Encode(_)
            | Self::Decode(_) => Class::Permanent,
            _ => Class::Retry,
        }
    }

    fn exhausts(&self) -> bool {
        self.as_database_error().and_then(|error| error.code()).is_some_and(|code| exhausts(&code))
    }
}

/// Out of memory, of disk, of locks; a statement that took too long.
fn exhausts(code: &str) -> bool {
    code.starts_with("53") || code == "57014"
}

/// Data that does not fit, a broken constraint, a limit that was exceeded: these are the message's own. All else is the
/// connection's or the deployment's (a role, a missing table, a restore under way) and may pass; to give messages up
/// for it would empty a topic into the parked table.
fn sqlstate(code: &str) -> Class {
    match code.get(..2) {
        Some("22" | "23" | "54" | "P0") => Class::Permanent,
        // An earlier statement of the transaction failed, and its handler went on.
        _ if code == "25P02" => Class::Permanent,
        _ => Class::Retry,
    }
}

impl Classified for serde_json::Error {
    fn class(&self) -> Class {
        Class::Permanent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadlock_and_a_restart_are_retried_and_a_broken_constraint_is_not() {
        assert_eq!(sqlstate("40P01"), Class::Retry);
        assert_eq!(sqlstate("57P01"), Class::Retry);
        assert_eq!(sqlstate("28P01"), Class::Retry);
        assert_eq!(sqlstate("42P01"), Class::Retry);
        assert_eq!(sqlstate("23514"), Class::Permanent);
        assert_eq!(sqlstate("22P02"), Class::Permanent);
    }

    #[test]
    fn a_statement_that_took_too_long_is_retried_with_less() {
        for code in ["57014", "53200"] {
            assert!(exhausts(code) && sqlstate(code) == Class::Retry, "{code}");
        }
        assert!(!exhausts("40P01") && !exhausts("57P01"));
    }
}
