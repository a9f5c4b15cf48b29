//! The orchestrator's own SQL statements. Those of the sagas are in [`shared::saga::store`].

pub mod audit;
