//! The SQL statements of the orchestrator's own; those of the sagas are in [`shared::saga::store`].

pub mod audit;
