//! A service without routes, handlers and tables. What is left is the relay.

use clap::Args;
use serde::{Deserialize, Serialize};
use shared::envelope::{Event, Message};
use shared::service::{App, Service};

pub struct Relayed;

#[derive(Debug, Args)]
pub struct Config {}

impl App for Relayed {
    const NAME: &'static str = "relayed";
    const PORT: u16 = 0;
    type Config = Config;

    fn openapi() -> utoipa::openapi::OpenApi {
        utoipa::openapi::OpenApi::default()
    }

    fn run(_: &mut Service<Config>) -> anyhow::Result<()> {
        Ok(())
    }
}

/// The message that is relayed.
#[derive(Serialize, Deserialize)]
pub struct Counted {
    /// Counted within the key.
    pub number: u32,
    pub filler: String,
}

impl Message for Counted {
    const TYPE: &'static str = "relayed.counted.v1";
    const TOPIC: &'static str = "relayed.events";
}

impl Event for Counted {}
