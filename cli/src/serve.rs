//! `amends serve <service>`: one service, as its own binary would run it.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use shared::service::{App, main_from};

use crate::output::{complain, say};
use crate::suite::SERVICES;

/// Runs one service until it is told to stop.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Serve {
    /// order, payment, inventory, shipping, notification or orchestrator
    #[arg(allow_hyphen_values = true)]
    service: String,
    /// The service's own flags.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<OsString>,
}

/// Tunes the allocator of a service that is one of many on this machine, unless the environment says otherwise: it gives
/// memory back after a second.
pub(crate) fn share_machine(command: &mut Command) {
    if std::env::var_os("MALLOC_CONF").is_none() {
        command.env("MALLOC_CONF", "narenas:2,dirty_decay_ms:1000,muzzy_decay_ms:0");
    }
}

/// Does something with each service's type.
pub(crate) trait Visit {
    type Output;
    fn visit<A: App>(self) -> Self::Output;
}

/// Gives the service of this name to a visitor.
pub(crate) fn visit<V: Visit>(name: &str, visitor: V) -> Option<V::Output> {
    Some(match name {
        "order" => visitor.visit::<order::Order>(),
        "payment" => visitor.visit::<payment::Payment>(),
        "inventory" => visitor.visit::<inventory::Inventory>(),
        "shipping" => visitor.visit::<shipping::Shipping>(),
        "notification" => visitor.visit::<notification::Notification>(),
        "orchestrator" => visitor.visit::<orchestrator::Orchestrator>(),
        _ => return None,
    })
}

struct Run(Vec<OsString>);

impl Visit for Run {
    type Output = ExitCode;

    fn visit<A: App>(self) -> ExitCode {
        let program = OsString::from(format!("amends serve {}", A::NAME));
        main_from::<A>(std::iter::once(program).chain(self.0))
    }
}

impl Serve {
    pub fn run(self) -> ExitCode {
        visit(&self.service, Run(self.flags)).unwrap_or_else(|| {
            let names = SERVICES.map(|service| service.name).join(", ");
            if ["-h", "--help"].contains(&self.service.as_str()) {
                say!("Usage: amends serve SERVICE [FLAGS]\n\nServices: {names}\n`amends serve payment --help` lists its settings.");
                return ExitCode::SUCCESS;
            }
            complain!("amends: there is no service `{}`; there are {names}", self.service);
            ExitCode::from(64)
        })
    }
}
