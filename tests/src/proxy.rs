//! A proxy before a broker that can hold back the end of a transaction and deliver it late, also
//! when the client has long given up on it; or deliver it and answer with an error of its own.
//!
//! It forwards Kafka's requests and answers whole. A request is its length of four bytes, the API
//! key of two, the version of two, the correlation id of four, and more; an answer its length, the
//! correlation id, and more. The broker must be started as [`Options::behind`] says: it gives
//! the proxy's port as its own, so that clients know no other way.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

#[cfg(doc)]
use crate::broker::Options;
use crate::broker::free_port;

/// The API key of EndTxn.
const END_TXN: [u8; 2] = 26_i16.to_be_bytes();

/// The most bytes of one request or answer that are taken.
const FRAME_BYTES_MAX: usize = 128 << 20;

/// The most requests of one connection that wait behind one that is held.
const REQUESTS_WAITING_MAX: usize = 1_000;

/// A running proxy. Dropping it closes its connections.
pub struct Proxy {
    port: u16,
    target: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    closed: AtomicBool,
    plan: Mutex<Plan>,
    held: AtomicU64,
    delivered_late: AtomicU64,
    refused: AtomicU64,
    connections: Mutex<Vec<TcpStream>>,
}

/// What is to become of the next ends of transactions.
#[derive(Default)]
struct Plan {
    ends_to_hold: u32,
    delay: Duration,
    ends_to_refuse: u32,
    error: i16,
}

/// The answers of one connection that are to be replaced by an error: by correlation id.
type Refusals = Mutex<BTreeMap<[u8; 4], i16>>;

impl Proxy {
    /// Listens on a free port of loopback, and chooses another one for the broker.
    pub fn start() -> Result<Self> {
        let (port, target) = (free_port()?, free_port()?);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let shared = Arc::new(Shared::default());
        let accepted = Arc::clone(&shared);
        thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            for client in listener.incoming() {
                if accepted.closed.load(Ordering::Relaxed) {
                    break;
                }
                // One that can't be served is closed by being dropped, and the client tries again.
                let served = client.and_then(|client| serve(&accepted, client, target));
                drop(served);
            }
        })?;
        Ok(Self { port, target, shared })
    }

    /// The port that clients connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port that it forwards to.
    #[must_use]
    pub fn target(&self) -> u16 {
        self.target
    }

    /// Its `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Holds each of the next `count` ends of transactions back for `delay`.
    pub fn hold_ends(&self, count: u32, delay: Duration) {
        let mut plan = self.shared.plan();
        (plan.ends_to_hold, plan.delay) = (count, delay);
    }

    /// Delivers each of the next `count` ends of transactions, but answers with the error of this
    /// code, as a coordinator does that has carried an end out before and is asked again.
    pub fn refuse_ends(&self, count: u32, error: i16) {
        let mut plan = self.shared.plan();
        (plan.ends_to_refuse, plan.error) = (count, error);
    }

    /// How many ends of transactions were carried out and yet answered with an error.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// How many ends of transactions were held back so far.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.shared.held.load(Ordering::Relaxed)
    }

    /// How many of those have reached the broker after all.
    #[must_use]
    pub fn delivered_late(&self) -> u64 {
        self.shared.delivered_late.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        // Wakes the listener; if that fails, it is gone already.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        let connections = self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
        for connection in connections.iter() {
            // One that is closed already is as good.
            drop(connection.shutdown(Shutdown::Both));
        }
    }
}

impl Shared {
    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long this request is to be held; none if it may go on at once.
    fn delay(&self, request: &[u8]) -> Option<Duration> {
        if request.get(4..6) != Some(&END_TXN) {
            return None;
        }
        let mut plan = self.plan();
        plan.ends_to_hold = plan.ends_to_hold.checked_sub(1)?;
        self.held.fetch_add(1, Ordering::Relaxed);
        Some(plan.delay)
    }

    /// Remembers the answer to this request to be replaced, if it is.
    fn plan_refusal(&self, request: &[u8], refusals: &Refusals) {
        if request.get(4..6) != Some(&END_TXN) {
            return;
        }
        let mut plan = self.plan();
        let Some(left) = plan.ends_to_refuse.checked_sub(1) else { return };
        plan.ends_to_refuse = left;
        if let Some(Ok(correlation)) = request.get(8..12).map(TryInto::try_into) {
            let mut refusals = refusals.lock().unwrap_or_else(PoisonError::into_inner);
            refusals.insert(correlation, plan.error);
        }
    }
}

/// Forwards one connection until either side closes it.
fn serve(shared: &Arc<Shared>, client: TcpStream, target: u16) -> io::Result<()> {
    let broker = TcpStream::connect((Ipv4Addr::LOCALHOST, target))?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    {
        let mut open = shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
        open.push(client.try_clone()?);
        open.push(broker.try_clone()?);
    }
    let (queue, requests) = mpsc::sync_channel(REQUESTS_WAITING_MAX);
    let (from_client, to_broker) = (client.try_clone()?, broker.try_clone()?);
    let refusals = Arc::new(Refusals::default());
    let (reader, planned) = (Arc::clone(shared), Arc::clone(&refusals));
    thread::spawn(move || read_requests(&reader, from_client, &queue, &planned));
    let writer = Arc::clone(shared);
    thread::spawn(move || write_requests(&writer, &requests, to_broker));
    let answerer = Arc::clone(shared);
    thread::spawn(move || answers(&answerer, broker, client, &refusals));
    Ok(())
}

/// A request, when it may go on, and whether that is late.
struct Waiting {
    request: Vec<u8>,
    not_before: Option<Instant>,
}

fn read_requests(
    shared: &Shared,
    mut client: TcpStream,
    queue: &mpsc::SyncSender<Waiting>,
    refusals: &Refusals,
) {
    while let Ok(request) = read_frame(&mut client) {
        shared.plan_refusal(&request, refusals);
        let not_before = shared.delay(&request).map(|delay| Instant::now() + delay);
        if queue.send(Waiting { request, not_before }).is_err() {
            break;
        }
    }
}

/// A request or an answer, with its length.
fn read_frame(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let bytes = usize::try_from(i32::from_be_bytes(length)).ok();
    let bytes =
        bytes.filter(|bytes| *bytes <= FRAME_BYTES_MAX).ok_or(io::ErrorKind::InvalidData)?;
    let mut frame = length.to_vec();
    frame.resize(4 + bytes, 0);
    from.read_exact(&mut frame[4..])?;
    Ok(frame)
}

/// The connection to the broker outlives the client's until what was held is delivered.
fn write_requests(shared: &Shared, requests: &mpsc::Receiver<Waiting>, mut broker: TcpStream) {
    for Waiting { request, not_before } in requests {
        if let Some(moment) = not_before {
            thread::sleep(moment.saturating_duration_since(Instant::now()));
        }
        if broker.write_all(&request).is_err() {
            break;
        }
        shared.delivered_late.fetch_add(u64::from(not_before.is_some()), Ordering::Relaxed);
    }
    // The broker answers what it has before it closes; an error means that it has closed.
    drop(broker.shutdown(Shutdown::Write));
}

/// Forwards answers; those to a client that is gone are read and forgotten, so that the broker
/// does not stop working on what was delivered late.
fn answers(shared: &Shared, mut broker: TcpStream, mut client: TcpStream, refusals: &Refusals) {
    while let Ok(mut answer) = read_frame(&mut broker) {
        let error = answer.get(4..8).and_then(|correlation| {
            let mut refusals = refusals.lock().unwrap_or_else(PoisonError::into_inner);
            refusals.remove(correlation)
        });
        if let Some(error) = error
            && let Some(code) = answer.last_chunk_mut()
        {
            // The answer to an end of a transaction finishes with its error code.
            *code = error.to_be_bytes();
            shared.refused.fetch_add(1, Ordering::Relaxed);
        }
        drop(client.write_all(&answer));
    }
    drop(client.shutdown(Shutdown::Both));
}
