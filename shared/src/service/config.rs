//! The settings that every service has. Each is a flag and an environment variable. `<service> --help` prints them,
//! and docs/configuration.md is generated from the same definitions.

use std::net::SocketAddr;
use std::time::Duration;

use crate::service::secret::Secret;
use crate::service::telemetry::LogFormat;

/// Settings of every service.
#[derive(Debug, Clone, clap::Args)]
pub struct Common {
    /// The address of the HTTP interface. The default is loopback and the service's own port.
    #[arg(long, env = "HTTP_ADDR")]
    pub http_addr: Option<SocketAddr>,
    /// The largest number of open HTTP connections. At the limit, a new connection takes the place of one that waits
    /// for a request. If all have one, a new connection gets 503. A smaller limit of open files lowers the number.
    #[arg(long, env = "HTTP_CONNECTIONS", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub http_connections: u32,
    /// The URL of the service's own database. In the password, percent-encode characters that URLs reserve, or leave the
    /// password out if PGPASSWORD or a password file has it. DATABASE_URL_FILE may name a file with the URL instead.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<Secret>,
    /// The largest number of connections to the database, without two for each shard's relay. Of ten, five are for
    /// messages, three for requests, and two for lists and audits, so that none of these can delay another.
    #[arg(long, env = "DATABASE_CONNECTIONS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(3..=500))]
    pub database_connections: u32,
    /// The addresses of Kafka brokers, host:port, separated by commas.
    #[arg(long, env = "KAFKA_BROKERS", default_value = "127.0.0.1:9092")]
    pub kafka_brokers: String,
    /// Further librdkafka settings, name=value, separated by commas or line ends, for example for TLS and SASL. A value
    /// with a comma stands in double quotes: `sasl.password="a,b"`; there `\"` is a quote, `\\` a backslash and `\n` a line
    /// end. `partitioner` has no effect: a CRC-32 of the key always selects the partition. KAFKA_SETTINGS_FILE may name a
    /// file with the settings instead.
    #[arg(long, env = "KAFKA_SETTINGS", hide_env_values = true)]
    pub kafka_settings: Option<Secret>,
    /// The prefix of every topic and consumer group, so that several installations can share a cluster.
    #[arg(long, env = "TOPIC_PREFIX", default_value = "")]
    pub topic_prefix: String,
    /// The number of partitions over which the keys of each topic are spread. All services and `amends topics apply`
    /// must use the same number. A topic may have more partitions; the others then get no messages. The default is the
    /// number that the release declares. docs/operations.md says how to change it.
    #[arg(long, env = "TOPIC_PARTITIONS", value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub topic_partitions: Option<i32>,
    /// The name of this replica. It must survive a restart and differ between replicas. A restarted replica then gets
    /// its partitions back at once. A second process with the same name ends. The default is a new name at every
    /// start.
    #[arg(long, env = "INSTANCE")]
    pub instance: Option<String>,
    /// The largest number of Kafka messages in one transaction.
    #[arg(long, env = "CONSUMER_BATCH", default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=5000))]
    pub consumer_batch: u16,
    /// How long a failure that may pass, such as a timeout, may hold up a partition if it concerns one message alone. The
    /// message is parked then. While the database commits nothing at all, it is waited for without a limit.
    #[arg(long, env = "CONSUMER_PATIENCE", default_value = "10m", value_parser = duration)]
    pub consumer_patience: Duration,
    /// The largest number of outbox rows that the relay reads at once.
    #[arg(long, env = "RELAY_BATCH", default_value_t = 2000, value_parser = clap::value_parser!(u16).range(1..=20000))]
    pub relay_batch: u16,
    /// The number of shards of the outbox. A hash of the key selects the shard. All replicas must use the same
    /// number, so stop all of them before you change it. Unsent messages are then moved to their new shards.
    #[arg(long, env = "OUTBOX_SHARDS", default_value_t = 1, value_parser = clap::value_parser!(i16).range(1..=64))]
    pub outbox_shards: i16,
    /// How long the inbox remembers message ids, so that a repeated message has no second effect. It must be longer
    /// than the topics keep messages. An older message is parked.
    #[arg(long, env = "INBOX_RETENTION", default_value = "14d", value_parser = duration)]
    pub inbox_retention: Duration,
    /// How long the outcomes of saga steps are kept, so that a repeated command gets its first answer again. It must
    /// be longer than the longest saga, and longer than the topics keep messages.
    #[arg(long, env = "STEP_RETENTION", default_value = "14d", value_parser = duration)]
    pub step_retention: Duration,
    /// After how long a call that its provider does not answer is given up. The step then counts as refused with the code
    /// `timed_out`, and the provider is told to take back what it may have done. Captures, refunds, undos and notices are
    /// never given up.
    #[arg(long, env = "CALL_DEADLINE", default_value = "1d", value_parser = duration)]
    pub call_deadline: Duration,
    /// How long the answer under an `Idempotency-Key` is kept. After that a request with the key is a new one.
    #[arg(long, env = "IDEMPOTENCY_KEY_RETENTION", default_value = "24h", value_parser = duration)]
    pub idempotency_key_retention: Duration,
    /// How long a stopping service may take to finish its running work. At most a third of it is for what it has
    /// accepted, and HTTP requests get at most five seconds.
    #[arg(long, env = "SHUTDOWN_GRACE", default_value = "25s", value_parser = duration)]
    pub shutdown_grace: Duration,
    /// The format of the log.
    #[arg(long, env = "LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Parses a duration with its unit: `250ms`, `10s`, `5m`, `2h` or `7d`.
///
/// # Errors
/// Fails if the text is not a whole number with one of these units.
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
}
