//! Servers as `amends up` runs them. Their network can't be cut, so they are frozen instead.

use local::{Backend, Options, Ports, Silent};

use super::{Network, Server, Servers, blocking, folder};

pub fn start(name: &str, backend: Backend) -> local::Servers {
    let ports = Ports::free().expect("free ports");
    let options = Options {
        ports,
        fresh: true,
        backend,
        counts_statements: true,
        // The topics of all suites of a run stay until its end.
        kafka_heap_mb: 1024,
        ..Options::new(folder().join(name))
    };
    let servers = local::Servers::start(&options, &Silent);
    let servers = servers.unwrap_or_else(|error| panic!("the servers start: {error}"));
    servers.speed_up_later_starts();
    servers
}

impl Servers for local::Servers {
    fn postgres_url(&self, database: &str, user: &str) -> String {
        local::Servers::postgres_url(self, database, user, None)
    }

    fn kafka_brokers(&self) -> String {
        local::Servers::kafka_brokers(self)
    }

    fn kill(&self, server: Server) {
        match server {
            Server::Postgres => self.postgres().kill9(),
            Server::Kafka => self.kafka().kill9(),
        }
        .expect("killed");
    }

    fn restart(&self, server: Server) {
        blocking(|| match server {
            Server::Postgres => self.postgres().restart(),
            Server::Kafka => self.kafka().restart(),
        })
        .expect("restarted");
    }

    fn freeze(&self, server: Server) {
        match server {
            Server::Postgres => self.postgres().sigstop(),
            Server::Kafka => self.kafka().sigstop(),
        }
        .expect("frozen");
    }

    fn thaw(&self, server: Server) {
        match server {
            Server::Postgres => self.postgres().sigcont(),
            Server::Kafka => self.kafka().sigcont(),
        }
        .expect("going on");
    }

    fn network(&self) -> Option<&dyn Network> {
        None
    }
}
