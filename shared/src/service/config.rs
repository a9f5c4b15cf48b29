//! Settings that every service has. Each is a flag and an environment variable; `<service> --help` prints them, and
//! docs/configuration.md is made from the same definitions.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

use crate::service::telemetry::LogFormat;

/// Settings of every service.
#[derive(Debug, Clone, clap::Args)]
pub struct Common {
    /// Where HTTP is served. The default is loopback and the service's own port.
    #[arg(long, env = "HTTP_ADDR")]
    pub http_addr: Option<SocketAddr>,
    /// The service's own database. The password can be left out where PGPASSWORD or a password file has it.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<PgConnectOptions>,
    /// Most connections to the database.
    #[arg(long, env = "DATABASE_CONNECTIONS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(3..=500))]
    pub database_connections: u32,
    /// The Kafka brokers, host:port, separated by commas.
    #[arg(long, env = "KAFKA_BROKERS", default_value = "127.0.0.1:9092")]
    pub kafka_brokers: String,
    /// Further librdkafka settings, key=value separated by commas, for example for TLS and SASL. `partitioner` has no
    /// effect: keys are always divided by CRC-32.
    #[arg(long, env = "KAFKA_SETTINGS", default_value = "", value_parser = settings, hide_env_values = true)]
    pub kafka_settings: Settings,
    /// Put before every topic and consumer group, so that several installations can share a cluster.
    #[arg(long, env = "TOPIC_PREFIX", default_value = "")]
    pub topic_prefix: String,
    /// The name of this replica. It must outlive a restart and differ between replicas; a restarted replica then
    /// gets its partitions back at once. Without it a name is made up at every start.
    #[arg(long, env = "INSTANCE")]
    pub instance: Option<String>,
    /// Most messages that one transaction takes from Kafka.
    #[arg(long, env = "CONSUMER_BATCH", default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=5000))]
    pub consumer_batch: u16,
    /// Most outbox rows that the relay sends at once.
    #[arg(long, env = "RELAY_BATCH", default_value_t = 2000, value_parser = clap::value_parser!(u16).range(1..=20000))]
    pub relay_batch: u16,
    /// Into how many shards, by hash of key, the outbox is divided. All replicas must agree, and the outbox must be
    /// empty when it is changed.
    #[arg(long, env = "OUTBOX_SHARDS", default_value_t = 1, value_parser = clap::value_parser!(i16).range(1..=64))]
    pub outbox_shards: i16,
    /// How long the inbox remembers the ids of messages, so that one that comes again has no second effect. It must be
    /// longer than the topics keep messages; an older message is parked.
    #[arg(long, env = "INBOX_RETENTION", default_value = "14d", value_parser = duration)]
    pub inbox_retention: Duration,
    /// How long the outcomes of saga steps are kept, so that a command that is asked again gets its first answer
    /// again. It must be longer than the longest saga and than the topics keep messages.
    #[arg(long, env = "STEP_RETENTION", default_value = "14d", value_parser = duration)]
    pub step_retention: Duration,
    /// How long a stopping service finishes what it has begun.
    #[arg(long, env = "SHUTDOWN_GRACE", default_value = "25s", value_parser = duration)]
    pub shutdown_grace: Duration,
    /// How logs are written.
    #[arg(long, env = "LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Settings as `key=value,key=value`.
#[derive(Debug, Clone, Default)]
pub struct Settings(pub BTreeMap<String, String>);

/// Reads [`Settings`].
///
/// # Errors
/// If a part is not `key=value`.
pub fn settings(text: &str) -> Result<Settings, String> {
    let pair = |part: &str| {
        let (key, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is not key=value"))?;
        Ok((key.trim().to_owned(), value.trim().to_owned()))
    };
    let parts = text.split(',').filter(|part| !part.trim().is_empty());
    parts.map(pair).collect::<Result<_, String>>().map(Settings)
}

/// A duration with its unit: `250ms`, `10s`, `5m`, `2h` or `7d`.
///
/// # Errors
/// If the text is something else.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("`{text}` does not begin with a whole number"))?;
    let seconds = match unit {
        "ms" => return Ok(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(format!("`{text}` has no unit; write ms, s, m, h or d, for example 250ms")),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| format!("`{text}` is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert!(duration("10").is_err_and(|error| error.contains("no unit")));
        assert!(duration("s").is_err());
    }

    #[test]
    fn kafka_settings_are_pairs() {
        let read = settings("security.protocol=ssl, ssl.ca.location=/ca.pem").expect("pairs");
        assert_eq!(read.0["ssl.ca.location"], "/ca.pem");
        assert!(settings("nonsense").is_err());
    }
}
