//! A plain consumer, which checks that it gets every row, in the order of its key.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use shared::kafka::Kafka;

use super::app::{RowWritten, TOPIC, topic};

/// The rows that have come so far.
pub struct Received {
    /// When each row came first.
    pub first: Vec<Option<Instant>>,
    pub duplicates: usize,
    /// Rows whose first copy came behind a later row of their key.
    pub out_of_order: usize,
    last: HashMap<Vec<u8>, u32>,
}

impl Received {
    pub fn missing(&self) -> usize {
        self.first.iter().filter(|came| came.is_none()).count()
    }

    fn take(&mut self, key: &[u8], body: &[u8], now: Instant) -> anyhow::Result<bool> {
        let envelope: shared::envelope::Envelope<RowWritten> = serde_json::from_slice(body)?;
        let row: usize = envelope.data.row.parse()?;
        let sequence: u32 = envelope.data.sequence.parse()?;
        let first = self.first.get_mut(row).context("a row that nobody wrote")?;
        if first.replace(first.unwrap_or(now)).is_some() {
            self.duplicates += 1;
            return Ok(false);
        }
        let last = self.last.entry(key.to_vec()).or_default();
        if sequence < *last {
            self.out_of_order += 1;
        }
        *last = sequence.max(*last);
        Ok(true)
    }
}

/// The consumer. It has a thread of its own, so that nothing else delays it.
pub struct Reader {
    stop: Arc<AtomicBool>,
    came: Arc<AtomicUsize>,
    received: Arc<Mutex<Received>>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Reader {
    /// Starts to read the topic from its beginning.
    pub fn start(kafka: &Kafka, rows: usize) -> anyhow::Result<Self> {
        let consumer: BaseConsumer = kafka
            .client()
            .set("group.id", kafka.name("bench"))
            .set("enable.auto.commit", "false")
            .create()
            .context("the consumer could not be made")?;
        let mut partitions = TopicPartitionList::new();
        for partition in 0..topic().partitions {
            partitions.add_partition_offset(&kafka.name(TOPIC), partition, Offset::Beginning)?;
        }
        consumer.assign(&partitions)?;
        let stop = Arc::new(AtomicBool::new(false));
        let came = Arc::new(AtomicUsize::new(0));
        let received =
            Received { first: vec![None; rows], duplicates: 0, out_of_order: 0, last: HashMap::new() };
        let received = Arc::new(Mutex::new(received));
        let thread = std::thread::Builder::new().name("reader".into()).spawn({
            let (stop, came, received) = (Arc::clone(&stop), Arc::clone(&came), Arc::clone(&received));
            move || read(&consumer, &stop, &came, &received)
        })?;
        Ok(Self { stop, came, received, thread })
    }

    /// Waits until every row has come, or until no row has come for the time of the patience.
    pub async fn until_quiet(&self, rows: usize, patience: Duration) {
        let mut last = (self.came.load(Ordering::Acquire), Instant::now());
        while last.0 < rows && last.1.elapsed() < patience {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let came = self.came.load(Ordering::Acquire);
            if came != last.0 {
                last = (came, Instant::now());
            }
        }
    }

    /// Ends the consumer, and returns the rows that came.
    pub fn end(self) -> anyhow::Result<Received> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| anyhow::anyhow!("the consumer panicked"))??;
        let received = Arc::into_inner(self.received).context("the consumer still runs")?;
        Ok(received.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read(
    consumer: &BaseConsumer,
    stop: &AtomicBool,
    came: &AtomicUsize,
    received: &Mutex<Received>,
) -> anyhow::Result<()> {
    while !stop.load(Ordering::Acquire) {
        let Some(record) = consumer.poll(Duration::from_millis(50)) else { continue };
        let now = Instant::now();
        // Errors of the client are transient. Rows that do not come are counted as missing.
        let Ok(record) = record else { continue };
        let (key, body) = (record.key().unwrap_or_default(), record.payload().unwrap_or_default());
        let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
        if received.take(key, body, now)? {
            came.fetch_add(1, Ordering::AcqRel);
        }
    }
    Ok(())
}
