//! Every service's `/audit`: its consistency checks with the ids that violate them, its figures, and the status of each
//! of its aggregates.
//!
//! A service describes its part by implementing [`AuditFigures`], and serves it with [`report::router`].

mod outbox;
pub mod report;
mod standings;
mod statement;

pub(crate) use self::outbox::{document, router};
pub use self::report::AuditFigures;
pub use self::statement::StatementSpec;
