//! What the suite is made of, and where each part listens.

use std::path::PathBuf;

use local::Ports;
use shared::kafka::Kafka;

/// A service as the command line knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceInfo {
    pub name: &'static str,
    /// How far its port is from the suite's first one.
    pub offset: u16,
}

const fn service(name: &'static str, offset: u16) -> ServiceInfo {
    ServiceInfo { name, offset }
}

/// The services, in the order in which they are started.
pub const SERVICES: [ServiceInfo; 6] = [
    service("order", 1),
    service("payment", 2),
    service("inventory", 3),
    service("shipping", 4),
    service("notification", 5),
    service("orchestrator", 6),
];

const POSTGRES: u16 = 10;
const KAFKA: u16 = 11;
const KAFKA_CONTROLLER: u16 = 12;

/// Which suite is meant. Suites with different ports run side by side.
#[derive(Debug, Clone, clap::Args)]
pub struct Suite {
    /// The first of the suite's thirteen ports: order listens on the next one, and so on.
    #[arg(long, env = "AMENDS_PORTS_FROM", default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1024..=65000))]
    pub ports_from: u16,
    /// Where the services are, if not on these ports of this machine: a URL in which `{service}` stands for the name and
    /// `{port}` for the port, for example `http://{service}.example.com:{port}`.
    #[arg(long, env = "AMENDS_URLS", value_parser = http)]
    pub urls: Option<String>,
}

/// How a Kafka is used, wherever its brokers are.
#[derive(Debug, clap::Args)]
pub struct Cluster {
    /// Put before every topic.
    #[arg(long, env = "TOPIC_PREFIX", default_value = "")]
    topic_prefix: String,
    /// Further librdkafka settings, key=value separated by commas.
    #[arg(long, env = "KAFKA_SETTINGS", default_value = "", value_parser = shared::service::config::settings, hide_env_values = true)]
    kafka_settings: shared::service::config::Settings,
}

impl Cluster {
    pub fn kafka(&self, brokers: String) -> Kafka {
        let settings = self.kafka_settings.0.clone();
        Kafka { prefix: self.topic_prefix.clone(), settings, ..Kafka::new(brokers) }
    }
}

/// A URL that can be asked.
pub fn http(text: &str) -> Result<String, String> {
    if text.starts_with("http://") {
        return Ok(text.to_owned());
    }
    Err("must begin with http://: amends speaks no TLS, so what is behind it is reached from inside"
        .to_owned())
}

impl Default for Suite {
    fn default() -> Self {
        Self { ports_from: 8080, urls: None }
    }
}

impl Suite {
    pub fn port(&self, service: ServiceInfo) -> u16 {
        self.ports_from + service.offset
    }

    /// The base of a service's URLs.
    pub fn url(&self, service: &str) -> String {
        let offset = SERVICES.iter().find(|known| known.name == service).map_or(0, |known| known.offset);
        let port = (self.ports_from + offset).to_string();
        let urls = self.urls.as_deref().unwrap_or("http://127.0.0.1:{port}");
        urls.trim_end_matches('/').replace("{service}", service).replace("{port}", &port)
    }

    pub fn server_ports(&self) -> Ports {
        Ports {
            postgres: self.ports_from + POSTGRES,
            kafka: self.ports_from + KAFKA,
            kafka_controller: self.ports_from + KAFKA_CONTROLLER,
        }
    }

    /// Where the suite keeps its data and logs, unless told otherwise.
    pub fn default_state(&self) -> PathBuf {
        PathBuf::from(".amends").join(self.ports_from.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_found_by_port_or_by_name() {
        let here = Suite { ports_from: 9300, ..Suite::default() };
        assert_eq!(here.url("payment"), "http://127.0.0.1:9302");
        let named = |urls: &str| Suite { urls: Some(urls.to_owned()), ..Suite::default() }.url("order");
        assert_eq!(named("http://{service}:{port}/"), "http://order:8081");
        assert!(http("https://{service}.example.com").is_err());
    }
}
