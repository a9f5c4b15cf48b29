//! `amends serve <service>`: one service, as its own binary would run it.

mod visit;

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use shared::service::{App, main_from};

pub use self::visit::{Visit, visit};
use crate::output::{complain, say};
use crate::suite::SERVICES;

/// Runs one service until it is told to stop.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Serve {
    /// The service: order, payment, inventory, shipping, notification or orchestrator.
    #[arg(allow_hyphen_values = true)]
    service: String,
    /// The service's own flags.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<OsString>,
}

/// Tunes the allocator of a process that shares the machine with others: it returns memory after a second. A value that
/// the environment has wins.
pub(crate) fn share_machine(command: &mut Command) {
    if std::env::var_os("MALLOC_CONF").is_none() {
        command.env("MALLOC_CONF", "narenas:2,dirty_decay_ms:1000,muzzy_decay_ms:0");
    }
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
            let names = SERVICES.join(", ");
            if ["-h", "--help"].contains(&self.service.as_str()) {
                say!("Usage: amends serve SERVICE [FLAGS]");
                say!("");
                say!("Services: {names}");
                say!("`amends serve payment --help` lists its settings.");
                return ExitCode::SUCCESS;
            }
            complain!("amends: there is no service `{}`; there are {names}", self.service);
            ExitCode::from(64)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::Suite;

    struct NameAndPort;

    impl Visit for NameAndPort {
        type Output = (&'static str, u16);

        fn visit<A: App>(self) -> Self::Output {
            (A::NAME, A::PORT)
        }
    }

    #[test]
    fn every_service_has_a_type_with_its_name_and_its_port() {
        let suite = Suite::default();
        for service in SERVICES {
            assert_eq!(visit(service, NameAndPort), Some((service, suite.port(service))));
        }
        assert_eq!(visit("bench", NameAndPort), None);
    }
}
