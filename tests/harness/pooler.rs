//! PgBouncer in front of a suite's PostgreSQL.

use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use local::{Signal, free_port, spawn_bound};
use sqlx::postgres::PgConnectOptions;

use super::Suite;
use super::servers::folder;

/// A PgBouncer. It ends when it is dropped.
pub struct Pooler {
    pub port: u16,
    child: Child,
}

impl Pooler {
    /// Starts a PgBouncer with the settings that it has by default, except for the pool mode. Returns `None` if Debian's
    /// package `pgbouncer` is not installed.
    pub fn start(suite: &Suite, mode: &str) -> Option<Self> {
        if !std::path::Path::new("/usr/sbin/pgbouncer").exists() {
            eprintln!("NOT TESTED: PgBouncer, because the package pgbouncer is not installed");
            return None;
        }
        let port = free_port().expect("a free port");
        let server: PgConnectOptions = suite.servers.admin_url().parse().expect("a URL");
        let users = folder().join(format!("{}-{mode}.users", suite.name));
        std::fs::write(&users, "\"postgres\" \"\"\n").expect("a file");
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = {mode}\n",
            server.get_port(),
            users.display(),
        );
        let file = folder().join(format!("{}-{mode}.ini", suite.name));
        std::fs::write(&file, settings).expect("a file");
        for path in [&users, &file] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).expect("permissions");
        }
        let mut command = Command::new("/usr/sbin/pgbouncer");
        // It refuses to run as root.
        if rustix::process::getuid().is_root() {
            command.args(["-u", "nobody"]);
        }
        command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Some(Self { port, child: spawn_bound(command, Signal::KILL).expect("a process") })
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
