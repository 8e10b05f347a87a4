//! A generator of load: records at a steady pace into a topic, from a seed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, Producer},
};

use crate::random::Random;

/// A record to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Decides the partition, as the Java client does it; any partition if there is none.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// Milliseconds since 1970; now, if there is none.
    pub timestamp: Option<i64>,
}

/// Makes the record of a number. It must depend on its arguments alone.
pub type Maker = fn(number: u64, random: &mut Random) -> Record;

/// Records on their way into a topic until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Load {
    /// Begins to send `per_second` records a second to `topic`.
    pub fn start(
        bootstrap: &str,
        topic: &str,
        (seed, maker): (u64, Maker),
        per_second: u64,
    ) -> Result<Self> {
        let producer = producer(bootstrap)?;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count, topic) = (Arc::clone(&stop), Arc::clone(&sent), topic.to_owned());
        let thread = thread::Builder::new().name("load".to_owned()).spawn(move || {
            let mut random = Random::new(seed);
            let start = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                let number = count.load(Ordering::Relaxed);
                send(&producer, &topic, &maker(number, &mut random))?;
                count.store(number + 1, Ordering::Relaxed);
                let due = Duration::from_micros(1_000_000 * (number + 1) / per_second);
                producer.poll(Duration::ZERO);
                thread::sleep(due.saturating_sub(start.elapsed()));
            }
            producer.flush(Duration::from_secs(120)).context("records were not delivered")
        })?;
        Ok(Self { stop, sent, thread: Some(thread) })
    }

    /// How many records were sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops, waits until the broker has everything, and says how many records that is.
    pub fn finish(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the load was finished before")?;
        thread.join().map_err(|_| anyhow!("the load panicked"))??;
        Ok(self.sent())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Its thread ends by itself; nobody is left to hear how.
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Sends `count` records as fast as the broker takes them, and waits until it has them.
pub fn send_all(
    bootstrap: &str,
    topic: &str,
    (seed, maker): (u64, Maker),
    count: u64,
) -> Result<()> {
    let producer = producer(bootstrap)?;
    let mut random = Random::new(seed);
    for number in 0..count {
        send(&producer, topic, &maker(number, &mut random))?;
    }
    producer.flush(Duration::from_secs(120)).context("records were not delivered")
}

/// Idempotent, so that it repeats nothing and reorders nothing when a broker dies; the verifier
/// takes what is in the topic for the truth anyway.
fn producer(bootstrap: &str) -> Result<BaseProducer> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "5")
        .set("message.timeout.ms", "120000")
        .set("reconnect.backoff.max.ms", "500")
        .create()?)
}

fn send(producer: &BaseProducer, topic: &str, record: &Record) -> Result<()> {
    loop {
        let mut next = BaseRecord::<[u8], [u8]>::to(topic);
        next.key = record.key.as_deref();
        next.payload = record.value.as_deref();
        next.timestamp = record.timestamp;
        match producer.send(next) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                producer.poll(Duration::from_millis(50));
            }
            Err((error, _)) => return Err(error).context("can't send"),
        }
    }
}
