//! The parts of the suite, and the port that each of them listens on.

use std::path::PathBuf;
use std::str::FromStr;

use local::Ports;
pub use schemas::SERVICES;
use shared::kafka::{ClientSettings, Kafka};
use shared::service::secret::{Secret, SettingError};

/// Where `--help` shows the flags that say which suite is meant: behind the flags of the command itself.
pub const SUITE: &str = "Which suite";
/// Where `--help` shows the flags that say how Kafka is reached.
pub const KAFKA: &str = "Kafka";

/// How far each server's port is from the suite's first one.
const POSTGRES: u16 = 10;
const BROKER: u16 = 11;
const CONTROLLER: u16 = 12;

/// The suite that a command is about. Suites with different ports run side by side.
#[derive(Debug, Clone, clap::Args)]
pub struct Suite {
    /// The first of the suite's thirteen ports; the order service listens on the next one, and so on.
    #[arg(long, help_heading = SUITE, env = "AMENDS_PORTS_FROM", default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1024..=65000))]
    pub ports_from: u16,
    /// The URL of a service that does not run on this machine; {service} stands for its name, {port} for its port.
    ///
    /// For example `http://{service}.example.com:{port}`.
    #[arg(long, help_heading = SUITE, env = "AMENDS_URLS", value_parser = http, hide_env_values = true)]
    pub urls: Option<String>,
}

/// How a Kafka cluster is used, wherever its brokers are.
#[derive(Debug, clap::Args)]
pub struct Cluster {
    /// The prefix of every topic's name.
    #[arg(long, help_heading = KAFKA, env = "TOPIC_PREFIX", default_value = "")]
    topic_prefix: String,
    /// Further settings of librdkafka, name=value, separated by commas; a value with a comma stands in double quotes.
    ///
    /// Other users of this machine see the flag in the list of processes, but not the variable KAFKA_SETTINGS, nor the file
    /// that KAFKA_SETTINGS_FILE may name.
    #[arg(long, help_heading = KAFKA, env = "KAFKA_SETTINGS", hide_env_values = true)]
    kafka_settings: Option<Secret>,
}

impl Cluster {
    /// Returns the clients' settings for these brokers.
    ///
    /// # Errors
    /// Fails if the further settings cannot be used.
    pub fn kafka(&self, brokers: String) -> Result<Kafka, SettingError> {
        let given = self.kafka_settings.as_ref();
        let settings = Secret::parse(given, "KAFKA_SETTINGS", ClientSettings::from_str)?.unwrap_or_default();
        Ok(Kafka { prefix: self.topic_prefix.clone(), settings, ..Kafka::new(brokers) })
    }
}

/// Reads a URL that a request can be sent to.
pub fn http(text: &str) -> Result<String, String> {
    if text.starts_with("http://") {
        return Ok(text.to_owned());
    }
    Err("must begin with http://, because amends does not speak TLS; run it inside the network of the services"
        .to_owned())
}

impl Default for Suite {
    fn default() -> Self {
        Self { ports_from: 8080, urls: None }
    }
}

impl Suite {
    /// Returns the port of a service: they follow the suite's first port in the order of [`SERVICES`].
    pub fn port(&self, service: &str) -> u16 {
        let position = SERVICES.iter().position(|known| *known == service);
        self.ports_from + position.map_or(0, |position| position as u16 + 1)
    }

    /// Returns the base of a service's URLs.
    pub fn url(&self, service: &str) -> String {
        let port = self.port(service).to_string();
        let urls = self.urls.as_deref().unwrap_or("http://127.0.0.1:{port}");
        urls.trim_end_matches('/').replace("{service}", service).replace("{port}", &port)
    }

    /// Returns the flags that name this suite in a command that is printed; empty if they have their defaults.
    pub fn flags(&self) -> String {
        match self.shown_urls() {
            Some(urls) => format!(" --urls '{urls}'"),
            None if self.ports_from == Self::default().ports_from => String::new(),
            None => format!(" --ports-from {}", self.ports_from),
        }
    }

    /// Returns the URLs of a suite that runs elsewhere, without the user's name and the password.
    pub fn shown_urls(&self) -> Option<String> {
        let urls = self.urls.as_deref()?;
        let (scheme, rest) = urls.split_once("://")?;
        let authority = rest.split('/').next()?.len();
        let host = rest[..authority].rfind('@').map_or(0, |at| at + 1);
        Some(format!("{scheme}://{}", &rest[host..]))
    }

    pub fn server_ports(&self) -> Ports {
        Ports {
            postgres: self.ports_from + POSTGRES,
            kafka: self.ports_from + BROKER,
            kafka_controller: self.ports_from + CONTROLLER,
        }
    }

    /// Returns the folder for data and logs of a suite that was started without `--state`.
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
        assert_eq!(SERVICES.map(|service| here.port(service)), [9301, 9302, 9303, 9304, 9305, 9306]);
        let named = |urls: &str| Suite { urls: Some(urls.to_owned()), ..Suite::default() }.url("order");
        assert_eq!(named("http://{service}:{port}/"), "http://order:8081");
        assert!(http("https://{service}.example.com").is_err());
        let shown = |urls: &str| Suite { urls: Some(urls.to_owned()), ..Suite::default() }.shown_urls();
        assert_eq!(shown("http://ada:S3cr3t@{service}/@x").as_deref(), Some("http://{service}/@x"));
        assert_eq!(shown("http://{service}:{port}").as_deref(), Some("http://{service}:{port}"));
    }
}
