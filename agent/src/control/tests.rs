//! A real server and a real client, with an agent that does what a test says.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    path::Path,
    sync::{Arc, Barrier, Mutex},
    time::Duration,
};

use prost::Message;
use tokio::sync::mpsc;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use super::{
    client::{Client, Error, Target},
    connections::CONNECTIONS_MAX,
    proto::{
        GetRequest, RollbackRequest, ScanRequest, SwapPhase, SwapPlan, SwapRequest, SwapUpdate,
        WatchEventsRequest, watch_events_response::What,
    },
    *,
};
use crate::config::{Control, Listen, ReadOnly};

/// A free port of the loopback address.
const ANY_PORT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
/// How large a module may be here.
const MODULE_BYTES_MAX: u64 = 6 << 20;

/// What a test's agent answers a swap with.
type Answer = Box<dyn Fn() -> Result<mpsc::Receiver<SwapUpdate>, Refusal> + Send + Sync>;

/// An agent that does nothing but remember how it was asked.
struct Asked {
    answer: Answer,
    swaps: Mutex<Vec<SwapRequest>>,
    rollbacks: Mutex<Vec<RollbackRequest>>,
}

impl Operator for Asked {
    fn status(&self) -> proto::Status {
        proto::Status::default()
    }

    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn pause(&self, _: bool) {}

    fn rests(&self) -> bool {
        true
    }

    fn drain(&self, _: Option<bool>) {}

    fn retry(&self, _: &[String]) -> Result<Vec<proto::Retried>, Refusal> {
        Ok(Vec::new())
    }

    fn owner(&self, _: &str, _: &[u8]) -> Result<proto::Owner, Refusal> {
        Ok(proto::Owner::default())
    }

    fn partitions(&self, _: &str) -> Result<Vec<i32>, Refusal> {
        Ok(Vec::new())
    }

    fn get(&self, _: &str, _: i32, _: &[Vec<u8>]) -> Result<proto::Reading, Refusal> {
        Ok(proto::Reading::default())
    }

    fn scan(&self, _: &str, _: i32, _: &Range) -> Result<Page, Refusal> {
        Ok(Page::default())
    }

    fn swap(&self, request: SwapRequest) -> Result<mpsc::Receiver<SwapUpdate>, Refusal> {
        self.swaps.lock().unwrap().push(request);
        (self.answer)()
    }

    fn rollback(&self, request: RollbackRequest) -> Result<mpsc::Receiver<SwapUpdate>, Refusal> {
        self.rollbacks.lock().unwrap().push(request);
        (self.answer)()
    }

    fn metrics(&self) -> (String, &'static str) {
        (String::new(), "text/plain")
    }
}

/// An agent that listens on a socket until it is dropped.
struct Listening {
    agent: Arc<Asked>,
    target: Target,
    events: Arc<Events>,
    // In this order: the server removes its socket.
    server: Server,
    _folder: Option<tempfile::TempDir>,
}

impl Listening {
    fn start(
        answer: impl Fn() -> Result<mpsc::Receiver<SwapUpdate>, Refusal> + Send + Sync + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listening = Self::start_in(folder.path(), answer);
        Self { _folder: Some(folder), ..listening }
    }

    /// Its socket lies in a folder that is there for longer.
    fn start_in(
        folder: &Path,
        answer: impl Fn() -> Result<mpsc::Receiver<SwapUpdate>, Refusal> + Send + Sync + 'static,
    ) -> Self {
        let socket = folder.join("socket");
        let agent = Arc::new(Asked {
            answer: Box::new(answer),
            swaps: Mutex::default(),
            rollbacks: Mutex::default(),
        });
        let operator: Arc<dyn Operator> = Arc::<Asked>::clone(&agent);
        let target = Target { address: address(&socket), ..Target::default() };
        let read_only = ReadOnly { listen: Listen::Tcp(ANY_PORT), token_file: None };
        let control = Control {
            listen: Listen::Unix(socket),
            tls: None,
            token_file: None,
            read_only: Some(read_only),
        };
        let events = Arc::new(Events::default());
        let (http, module_max) = (Some(ANY_PORT), MODULE_BYTES_MAX);
        let server = Server::start(&control, http, module_max, &operator, &events).unwrap();
        Self { agent, target, events, server, _folder: None }
    }

    /// Where it answers those who only read.
    fn reader(&self) -> SocketAddr {
        self.server.read_only_address().unwrap()
    }

    fn client(&self) -> Client {
        Client::connect(&self.target).unwrap()
    }
}

fn address(socket: &Path) -> String {
    format!("unix:{}", socket.display())
}

fn update(phase: SwapPhase, message: &str) -> SwapUpdate {
    SwapUpdate { phase: phase.into(), message: message.to_owned(), plan: None }
}

/// Updates that are all there from the start.
fn told(updates: &[SwapUpdate]) -> mpsc::Receiver<SwapUpdate> {
    let (sender, receiver) = mpsc::channel(updates.len());
    updates.iter().for_each(|update| sender.try_send(update.clone()).unwrap());
    receiver
}

fn module(bytes: usize) -> SwapRequest {
    let module = vec![7; bytes];
    SwapRequest {
        transform: "count".into(),
        module,
        name: "m.wasm".into(),
        ..SwapRequest::default()
    }
}

#[test]
fn a_swap_and_a_rollback_tell_how_they_go_on() {
    let plan = SwapPlan { tasks: 4, differences: vec!["new import".into()], ..SwapPlan::default() };
    let planned = SwapUpdate { plan: Some(plan), ..update(SwapPhase::Planned, "") };
    let updates =
        [update(SwapPhase::Compiling, "m.wasm"), planned, update(SwapPhase::Kept, "all is well")];
    let expected = updates.to_vec();
    let agent = Listening::start(move || Ok(told(&updates)));
    // More than a message may have otherwise.
    let request = module(5 << 20);
    let mut found = Vec::new();
    let take = |update| {
        found.push(update);
        true
    };
    agent.client().swap(request.clone(), take).unwrap();
    assert_eq!(found, expected);
    assert_eq!(*agent.agent.swaps.lock().unwrap(), [request]);
    let request = RollbackRequest { transform: "count".into(), digest: "3f".into() };
    let mut count = 0;
    let take = |_| {
        count += 1;
        count < 2
    };
    agent.client().rollback(request.clone(), take).unwrap();
    assert_eq!(count, 2, "a reader may stop");
    assert_eq!(*agent.agent.rollbacks.lock().unwrap(), [request]);
}

#[test]
fn a_module_has_a_limit_and_other_messages_keep_theirs() {
    let agent = Listening::start(|| Ok(told(&[update(SwapPhase::Kept, "")])));
    let max = usize::try_from(MODULE_BYTES_MAX).unwrap();
    agent.client().swap(module(max), |_| true).unwrap();
    for bytes in [0, max + 1, max + (1 << 20)] {
        let refused = agent.client().swap(module(bytes), |_| true).unwrap_err();
        let message = refused.to_string();
        assert!(matches!(refused, Error::Refused(_)), "{bytes}: {refused:?}");
        let says = if bytes == 0 { "empty" } else { "limits.module_bytes_max" };
        assert!(message.contains(says), "{bytes}: {message}");
    }
    let keys = vec![vec![7; max - (1 << 20)]];
    let get = GetRequest { store: "counts".into(), keys, ..GetRequest::default() };
    let refused = agent.client().get(get).unwrap_err();
    assert!(matches!(&refused, Error::Refused(m) if m.contains("too large")), "{refused:?}");
    let digest = "0".repeat(max - (1 << 20));
    let rollback = RollbackRequest { transform: "count".into(), digest };
    let refused = agent.client().rollback(rollback, |_| true).unwrap_err();
    assert!(matches!(&refused, Error::Refused(m) if m.contains("too large")), "{refused:?}");
    assert_eq!(agent.agent.swaps.lock().unwrap().len(), 1, "the others never reach the agent");
    assert!(agent.agent.rollbacks.lock().unwrap().is_empty());
}

#[test]
fn what_the_agent_refuses_is_told_as_what_to_do() {
    for refusal in [
        Refusal::NotFound("there is no transform `cuont`; there are: count".into()),
        Refusal::NotReady("the agent is starting".into()),
        Refusal::Busy("a swap of `count` is under way".into()),
    ] {
        let answer = refusal.clone();
        let agent = Listening::start(move || Err(answer.clone()));
        let failed = agent.client().swap(module(1), |_| true).unwrap_err();
        assert_eq!(failed.to_string(), refusal.to_string());
        let busy = matches!(failed, Error::Busy(_));
        assert_eq!(busy, matches!(refusal, Refusal::Busy(_)), "{failed:?}");
        let rollback = RollbackRequest::default();
        let failed = agent.client().rollback(rollback, |_| true).unwrap_err();
        assert_eq!(failed.to_string(), refusal.to_string());
    }
}

#[test]
fn one_module_is_taken_in_at_a_time() {
    let (reached, goes_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let agent = Listening::start({
        let (reached, goes_on) = (Arc::clone(&reached), Arc::clone(&goes_on));
        move || {
            reached.wait();
            goes_on.wait();
            Ok(told(&[update(SwapPhase::Kept, "")]))
        }
    });
    std::thread::scope(|scope| {
        let first = scope.spawn(|| agent.client().swap(module(1), |_| true));
        reached.wait();
        let second = agent.client().swap(module(1), |_| true);
        let others = agent.client().status();
        goes_on.wait();
        assert!(matches!(second, Err(Error::Busy(_))), "{second:?}");
        assert!(others.is_ok(), "{others:?}");
        first.join().unwrap().unwrap();
    });
    assert_eq!(agent.agent.swaps.lock().unwrap().len(), 1);
}

#[test]
fn an_agent_learns_that_its_reader_has_gone_and_a_reader_that_the_agent_has() {
    let (sender, receiver) = mpsc::channel(4);
    let receiver = Mutex::new(Some(receiver));
    let agent = Listening::start(move || Ok(receiver.lock().unwrap().take().unwrap()));
    sender.try_send(update(SwapPhase::Compiling, "")).unwrap();
    agent.client().swap(module(1), |_| false).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let closed = async { tokio::time::timeout(Duration::from_secs(30), sender.closed()).await };
    runtime.block_on(closed).unwrap();
    // A stream that ends without its last phase ends for the reader as well.
    let agent = Listening::start(|| Ok(told(&[update(SwapPhase::Switching, "")])));
    let mut phases = Vec::new();
    let take = |update: SwapUpdate| {
        phases.push(update.phase());
        true
    };
    agent.client().swap(module(1), take).unwrap();
    assert_eq!(phases, [SwapPhase::Switching]);
}

#[test]
fn who_may_only_read_changes_nothing() {
    let agent = Listening::start(|| panic!("nothing gets here"));
    let target = Target { address: format!("http://{}", agent.reader()), ..Target::default() };
    let mut client = Client::connect(&target).unwrap();
    client.status().unwrap();
    client.health("").unwrap();
    client.services().unwrap();
    let get = GetRequest { store: "s".into(), keys: vec![vec![1]], ..GetRequest::default() };
    client.get(get).unwrap();
    client.events(WatchEventsRequest { only_past: true, ..Default::default() }, |_| true).unwrap();
    // There is no such store, which is an answer.
    let scan = client.scan(ScanRequest::default()).unwrap_err();
    assert!(!scan.to_string().contains("read_only"), "{scan}");
    let refused = [
        ("Pause", client.pause().map(drop)),
        ("Resume", client.resume()),
        ("Retry", client.retry(Vec::new()).map(drop)),
        ("Drain", client.drain(None)),
        ("Swap", client.swap(module(1), |_| true)),
        ("Rollback", client.rollback(RollbackRequest::default(), |_| true)),
    ];
    for (call, outcome) in refused {
        let refusal = outcome.unwrap_err();
        let told = refusal.to_string();
        assert!(matches!(refusal, Error::Refused(_)), "{refusal:?}");
        assert!(told.contains("control.read_only") && told.contains(call), "{told}");
    }
    assert!(agent.client().resume().is_ok(), "elsewhere it may");
}

/// The names of all calls of the control service, by its description.
fn all_calls() -> Vec<String> {
    let files = prost_types::FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap().file;
    let control = files.iter().flat_map(|file| &file.service).filter(|of| of.name() == "Control");
    control.flat_map(|of| &of.method).map(|method| method.name().to_owned()).collect()
}

/// What comes of a call of this name, with nothing in its message.
async fn call(channel: &Channel, name: &str) -> Result<(), tonic::Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = format!("/sidestream.control.v1.Control/{name}").parse().unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    client.server_streaming(tonic::Request::new(()), path, codec).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_not_known_to_read_alone_is_refused_to_who_may_only_read() {
    const READS: [&str; 4] = ["GetStatus", "Get", "Scan", "WatchEvents"];
    let agent = tokio::task::spawn_blocking(|| Listening::start(|| panic!("nothing gets here")));
    let agent = agent.await.unwrap();
    let address = format!("http://{}", agent.reader());
    let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
    let calls = all_calls();
    assert!(READS.iter().all(|read| calls.iter().any(|call| call == read)), "{calls:?}");
    assert!(["Retry", "Swap", "Drain"].iter().all(|name| calls.iter().any(|call| call == name)));
    for name in calls.iter().map(String::as_str).chain(["Unheard"]) {
        let refusal = call(&channel, name).await.err();
        let is_refused = refusal.is_some_and(|told| {
            told.code() == Code::PermissionDenied && told.message().contains("control.read_only")
        });
        assert_eq!(is_refused, !READS.contains(&name), "{name}");
    }
    tokio::task::spawn_blocking(|| drop(agent)).await.unwrap();
}

/// Waits until the server has closed a connection.
fn wait_for_end(mut silent: TcpStream) {
    silent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut left = [0; 1024];
    loop {
        match silent.read(&mut left) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("it stays open: {error}"),
        }
    }
}

#[test]
fn clients_that_say_nothing_keep_nobody_out() {
    let agent = Listening::start(|| Ok(told(&[])));
    let http = agent.server.http_address().unwrap();
    let begun = |address: SocketAddr, words: &[u8]| {
        let connect = |_| {
            let mut silent = TcpStream::connect(address).unwrap();
            silent.write_all(words).unwrap();
            silent
        };
        (0..CONNECTIONS_MAX + 8).map(connect).collect::<Vec<_>>()
    };
    let half = begun(http, b"GET /met");
    let preface = begun(agent.reader(), b"PRI * HTTP/2.0");
    let mut probe = TcpStream::connect(http).unwrap();
    write!(probe, "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    probe.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let target = Target { address: format!("http://{}", agent.reader()), ..Target::default() };
    Client::connect(&target).unwrap().status().unwrap();
    half.into_iter().chain(preface).for_each(wait_for_end);
    // One that rests after an answer is closed as well.
    let mut resting = TcpStream::connect(http).unwrap();
    write!(resting, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    wait_for_end(resting);
}

#[test]
fn who_follows_events_is_told_that_the_agent_was_started_anew() {
    let agent = Listening::start(|| Ok(told(&[])));
    (0..3).for_each(|number| agent.events.tell("number", number.to_string()));
    let follow = |after, life| {
        let mut found = Vec::new();
        let watch = WatchEventsRequest { after, only_past: true, life };
        let take = |what| {
            found.push(match what {
                What::Event(event) => format!("{}", event.sequence),
                What::Missed(missed) => format!("missed {missed}"),
                What::OtherLife(other) => {
                    assert_eq!(other.life, agent.events.life());
                    "other life".to_owned()
                }
            });
            true
        };
        agent.client().events(watch, take).unwrap();
        found
    };
    assert_eq!(follow(1, 0), ["2", "3"]);
    assert_eq!(follow(1, agent.events.life()), ["2", "3"]);
    for (after, life) in [(5_000, 0), (u64::MAX, 0), (2, agent.events.life() - 1)] {
        assert_eq!(follow(after, life), ["other life", "1", "2", "3"], "{after} {life}");
    }
}

#[test]
fn a_client_finds_an_agent_again_that_was_started_anew() {
    let folder = tempfile::tempdir().unwrap();
    let start = || Listening::start_in(folder.path(), || panic!("nobody swaps"));
    let first = start();
    let mut client = first.client();
    client.status().unwrap();
    drop(first);
    let away = client.status().unwrap_err();
    assert!(matches!(away, Error::Unreachable { .. }), "{away:?}");
    let _second = start();
    client.status().unwrap();
}
