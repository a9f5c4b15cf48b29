//! Technical failures, and the decision between retrying and parking. A business refusal is never a fault.

use std::error::Error;
use std::fmt;

use crate::db::retire_if_stale;

/// The reaction to a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The failure may pass. The work is repeated with backoff, and the message uses up none of its attempts.
    Retry,
    /// The work will fail again in the same way. The message's key is parked until an operator decides.
    Permanent,
}

/// An error that knows whether repeating the work can help. Implement it by an exhaustive `match`, so that a new
/// variant needs an explicit decision.
pub trait Classified: Error + Send + Sync + 'static {
    /// Returns whether repeating the work can help.
    fn class(&self) -> Class;

    /// Returns whether the work was too large. A smaller part may then succeed where the whole never will.
    fn exhausts(&self) -> bool {
        false
    }
}

/// A classified failure with its cause. Handlers return it.
pub struct Fault {
    class: Class,
    exhausts: bool,
    source: Box<dyn Error + Send + Sync>,
}

impl Fault {
    /// Creates a failure that repeating cannot fix.
    pub fn permanent(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { class: Class::Permanent, exhausts: false, source: source.into() }
    }

    /// Creates a failure that may pass.
    pub fn retry(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { class: Class::Retry, exhausts: false, source: source.into() }
    }

    /// Creates a failure of work that was too large. A smaller part may succeed.
    pub fn exhausted(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { class: Class::Retry, exhausts: true, source: source.into() }
    }

    /// Returns the reaction to this failure.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Returns whether the work was too large. See [`Classified::exhausts`].
    pub fn exhausts(&self) -> bool {
        self.exhausts
    }

    /// Returns the error and its causes on one line, for logs and for the table of parked messages.
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
    /// Classifies by the SQLSTATE code if the server answered. `sqlx::Error` is non-exhaustive; an unknown variant
    /// counts as a connection problem, which may pass.
    fn class(&self) -> Class {
        match self {
            Self::Database(error) if error.constraint().is_some_and(is_optimistic_lock) => Class::Retry,
            Self::Database(error) => {
                retire_if_stale(&**error);
                error.code().map_or(Class::Retry, |code| sqlstate(&code))
            }
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

/// Returns whether the constraint's name says that its violation is a lost race between two writers.
fn is_optimistic_lock(constraint: &str) -> bool {
    constraint.ends_with("_optimistic_lock")
}

/// Returns whether the code means a lack of memory, disk or locks, or a statement that took too long.
fn exhausts(code: &str) -> bool {
    code.starts_with("53") || code == "57014"
}

/// Returns the class of a SQLSTATE code. Invalid data, a violated constraint and an exceeded limit are faults of the
/// message. All other codes concern the connection or the deployment (a role, a missing table, a restore) and may
/// pass. Parking messages for those would move a whole topic into the parked table.
fn sqlstate(code: &str) -> Class {
    match code.get(..2) {
        Some("22" | "23" | "54" | "P0") => Class::Permanent,
        // An earlier statement of the transaction failed, and its handler ignored the error.
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
