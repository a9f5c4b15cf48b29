//! `docs/configuration.md`: the settings of the services and of the command line.

use std::fmt::Write as _;

use shared::service::App;

use crate::serve::{Visit, visit};
use crate::suite::SERVICES;
use crate::up::Up;

struct Settings;

impl Visit for Settings {
    type Output = clap::Command;

    fn visit<A: App>(self) -> clap::Command {
        shared::service::command::<A>()
    }
}

/// The setting of the crate `local`, which is not a flag.
const SERVERS: &str = "| `AMENDS_SERVERS` | | `auto` | How PostgreSQL and Kafka are run: `local` as processes of this \
                       machine, `docker` in containers, `auto` as processes if Java and Maven are installed, else in \
                       containers |\n";
const TABLE: &str = "| Variable | Flag | Default | What it does |\n|---|---|---|---|\n";

pub fn document() -> String {
    let mut text = String::from(
        "# Settings\n\nGenerated from the code by `cargo run -- generate`.\n\
         Each setting is a flag and an environment variable; `amends serve <service> --help` prints them too.\n\
         In addition, `RUST_LOG` sets which events are logged, and the standard `OTEL_*` variables configure the traces.\n",
    );
    let _ = write!(text, "\n## Every service\n\n{TABLE}{}", common_settings());
    let up = <Up as clap::Args>::augment_args(clap::Command::new("up"));
    let up: String = up.get_arguments().filter(|arg| arg.get_env().is_some()).map(row).collect();
    let _ = write!(text, "\n## amends up, down, status, order, load\n\n{TABLE}{up}{SERVERS}");
    for command in commands() {
        let rows = rows(&command, false);
        if !rows.is_empty() {
            let _ = write!(text, "\n## {}\n\n{TABLE}{rows}", command.get_name());
        }
    }
    text
}

fn commands() -> Vec<clap::Command> {
    SERVICES.iter().filter_map(|service| visit(service, Settings)).collect()
}

fn common_settings() -> String {
    commands().first().map(|command| rows(command, true)).unwrap_or_default()
}

/// Returns the rows of a service's settings: those that all services have, or the others.
fn rows(command: &clap::Command, common: bool) -> String {
    let commands = commands();
    let in_all =
        |arg: &clap::Arg| commands.iter().all(|c| c.get_arguments().any(|a| a.get_id() == arg.get_id()));
    command.get_arguments().filter(|arg| arg.get_env().is_some() && in_all(arg) == common).map(row).collect()
}

fn row(arg: &clap::Arg) -> String {
    let env = arg.get_env().map(|env| env.to_string_lossy().into_owned()).unwrap_or_default();
    let default =
        arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    format!(
        "| `{env}` | `--{}` | {default} | {} |\n",
        arg.get_long().unwrap_or_default(),
        help.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.')
    )
}
