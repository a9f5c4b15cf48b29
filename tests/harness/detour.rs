//! A way to PostgreSQL that can fall silent, as a frozen proxy or a firewall that forgets its connections does.

use std::future::pending;

use sqlx::postgres::PgConnectOptions;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Suite;

/// A way around, in front of a suite's PostgreSQL.
pub struct Detour {
    port: u16,
    silence: watch::Sender<()>,
    accepting: JoinHandle<()>,
}

impl Detour {
    #[expect(clippy::disallowed_methods, reason = "the test ends the tasks")]
    pub async fn start(suite: &Suite) -> Self {
        let server: PgConnectOptions = suite.servers.admin_url().parse().expect("a URL");
        let server = ("127.0.0.1", server.get_port());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let silence = watch::Sender::new(());
        let silenced = silence.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut silenced = silenced.subscribe();
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(server).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        // Both sides stay open, and hear nothing.
                        _ = silenced.changed() => pending().await,
                    }
                });
            }
        });
        Self { port, silence, accepting }
    }

    /// Returns the URL of a service's database by this way.
    pub fn url(&self, suite: &Suite, service: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{}_{service}", self.port, suite.name)
    }

    /// Lets all open connections fall silent. New ones work.
    pub fn fall_silent(&self) {
        self.silence.send_replace(());
    }
}

impl Drop for Detour {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
