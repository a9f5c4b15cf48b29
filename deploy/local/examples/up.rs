//! Starts both servers and stops them when stdin closes: `cargo run -p local --example up [STATE [CACHE]]`.

use std::io::Write;
use std::time::Instant;

fn main() -> anyhow::Result<()> {
    let state = std::env::args().nth(1).unwrap_or_else(|| "target/local-servers".to_owned());
    let mut options = local::Options::new(state);
    options.ports = local::Ports::free()?;
    options.cache = std::env::args().nth(2).map(Into::into);
    options.backend = local::Backend::from_env()?;
    let mut out = std::io::stderr();

    let begun = Instant::now();
    let servers = local::Servers::start(&options, &local::Terminal::new())?;
    writeln!(
        out,
        "ready after {:.2?}: {} and {}",
        begun.elapsed(),
        servers.admin_url(),
        servers.kafka_brokers()
    )?;
    writeln!(
        out,
        "pids {:?} and {:?}; close stdin to stop",
        servers.postgres().pid(),
        servers.kafka().pid()
    )?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;

    let begun = Instant::now();
    servers.stop();
    writeln!(out, "stopped in {:.2?}", begun.elapsed())?;
    Ok(())
}
