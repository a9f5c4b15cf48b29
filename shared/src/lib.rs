#![doc = include_str!("../README.md")]
#![warn(missing_docs)]
#![cfg_attr(
    not(all(feature = "saga", feature = "service")),
    allow(rustdoc::broken_intra_doc_links, reason = "the crate's page describes all features")
)]

pub mod backoff;
pub mod circuit_breaker;
pub mod cloudevents;
pub mod consumer;
pub mod db;
pub mod deadline;
pub mod envelope;
pub mod fault;
pub mod housekeeper;
mod inbox;
pub mod incoming;
pub mod isolate;
pub mod kafka;
pub mod metric;
pub mod migrations;
pub mod operator_act;
pub mod outbox;
pub mod owner;
pub mod parked;
pub mod read_model;
pub mod relay;
pub mod retention;
pub mod router;
mod row;
#[cfg(feature = "saga")]
pub mod saga;
#[cfg(feature = "service")]
pub mod service;
pub mod step_outcome;
pub mod text;
pub mod trace;
pub mod unit_of_work;
