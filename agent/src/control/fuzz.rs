//! What a fuzzer asks of this room; the test of the corpus asks the same of what was found.

use std::{
    convert::Infallible,
    ops::Bound,
    sync::{Arc, LazyLock},
};

use axum::body::to_bytes;
use prost::Message;
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
};
use tonic::{
    Code, Status,
    body::Body,
    codegen::{
        Service as Tower,
        http::{Request, Response},
    },
};

use super::{
    Events, Operator, Page, Range, Refusal, proto,
    roles::Role,
    scan,
    service::{KEYS_MAX, Service},
    uploads::Uploads,
};

/// How large a module may be here.
const MODULE_BYTES_MAX: u64 = 1 << 10;

/// How large an answer can be here.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// The calls, and one that is not there.
const CALLS: [&str; 11] = [
    "GetStatus",
    "Pause",
    "Resume",
    "Retry",
    "Drain",
    "Get",
    "Scan",
    "WatchEvents",
    "Swap",
    "Rollback",
    "Other",
];

/// A bit of the first byte: the caller may only read.
const READS_ONLY: u8 = 0x10;

/// A bit of the first byte: what follows is the body of the call as it stands, and otherwise a message
/// for which the frame is made.
const FRAMED: u8 = 0x20;

/// Takes `data` for a call of the control service: which one, and its message.
///
/// Panics if the service does not answer, if a refusal has no reason, if the agent is asked for more
/// than its bounds, and if the pages of a scan have no end.
pub fn request(data: &[u8]) {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        Builder::new_current_thread().enable_time().build().expect("a runtime can be made")
    });
    let Some((&kind, message)) = data.split_first() else { return };
    let call = CALLS[usize::from(kind & 0x0f) % CALLS.len()];
    let body = match kind & FRAMED {
        0 => frame(message),
        _ => message.to_vec(),
    };
    RUNTIME.block_on(ask(call, body, kind & READS_ONLY != 0));
    check_message(call, message);
}

/// A message as gRPC sends it: not compressed, with its length.
fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0], &length.to_be_bytes()[..], message].concat()
}

async fn ask(call: &str, body: Vec<u8>, reads_only: bool) {
    let events = Arc::new(Events::default());
    events.tell("started", "the agent has started");
    events.tell("paused", "all workers rest");
    // So that those who watch come to an end.
    events.close();
    let service = Uploads::new(
        Service::new(Arc::new(Fixed), events, MODULE_BYTES_MAX, None),
        MODULE_BYTES_MAX,
    );
    let mut role = match reads_only {
        true => Role::read_only(service),
        false => Role::full(service),
    };
    let request = Request::post(format!("http://agent/sidestream.control.v1.Control/{call}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(axum::body::Body::from(body)))
        .expect("a request is well-formed");
    let answer: Result<Response<Body>, Infallible> = Tower::call(&mut role, request).await;
    let Ok(answer) = answer;
    if let Some(status) = Status::from_header_map(answer.headers()) {
        check_status(&status);
    }
    let body = axum::body::Body::new(answer.into_body());
    assert!(to_bytes(body, ANSWER_BYTES_MAX).await.is_ok(), "the answer of {call} breaks off");
}

fn check_status(status: &Status) {
    let is_ours = !matches!(status.code(), Code::Ok | Code::Unimplemented);
    assert!(!is_ours || !status.message().is_empty(), "{status:?}");
    let panicked = status.code() == Code::Internal && status.message().contains("panicked");
    assert!(!panicked, "{status:?}");
}

/// Whatever can be read is written as what comes to the same.
fn check_message(call: &str, message: &[u8]) {
    match call {
        "Retry" => check_written::<proto::RetryRequest>(message),
        "Drain" => check_written::<proto::DrainRequest>(message),
        "Get" => check_written::<proto::GetRequest>(message),
        "Scan" => {
            check_written::<proto::ScanRequest>(message);
            check_pages(message);
        }
        "WatchEvents" => check_written::<proto::WatchEventsRequest>(message),
        "Swap" => check_written::<proto::SwapRequest>(message),
        "Rollback" => check_written::<proto::RollbackRequest>(message),
        _ => {}
    }
}

fn check_written<M: Message + Default + PartialEq>(bytes: &[u8]) {
    let Ok(message) = M::decode(bytes) else { return };
    let again = M::decode(&message.encode_to_vec()[..]);
    assert!(again.is_ok_and(|again| again == message), "it is written otherwise");
}

/// From whatever token, the pages lead to an end.
fn check_pages(message: &[u8]) {
    let Ok(mut request) = proto::ScanRequest::decode(message) else { return };
    for _ in 0..=Fixed::PARTITIONS.len() * Fixed::KEYS.len() {
        let Ok(page) = scan::page(&Fixed, request.clone()) else { return };
        if page.next_page_token.is_empty() {
            return;
        }
        request.page_token = page.next_page_token;
    }
    assert!(request.page_token.is_empty(), "the pages of {request:?} have no end");
}

/// An agent that always answers the same.
struct Fixed;

impl Fixed {
    const STORE: &str = "words";
    const PARTITIONS: [i32; 3] = [0, 2, 7];
    const KEYS: [&[u8]; 5] = [b"", b"a", b"ab", b"b", b"\xff"];

    fn store(store: &str) -> Result<(), Refusal> {
        match store == Self::STORE {
            true => Ok(()),
            false => Err(Refusal::NotFound(format!("there is no store `{store}`"))),
        }
    }

    fn updates(transform: &str) -> Result<mpsc::Receiver<proto::SwapUpdate>, Refusal> {
        if transform != "count" {
            return Err(Refusal::NotFound(format!("there is no transform `{transform}`")));
        }
        let (sender, receiver) = mpsc::channel(1);
        // The receiver is here, and has room.
        sender.try_send(proto::SwapUpdate::default()).ok();
        Ok(receiver)
    }
}

impl Operator for Fixed {
    fn status(&self) -> proto::Status {
        proto::Status { application: "fuzz".to_owned(), ..proto::Status::default() }
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

    fn retry(&self, tasks: &[String]) -> Result<Vec<proto::Retried>, Refusal> {
        let retried = |task: &String| proto::Retried { task: task.clone(), ..Default::default() };
        Ok(tasks.iter().map(retried).collect())
    }

    fn owner(&self, store: &str, _: &[u8]) -> Result<proto::Owner, Refusal> {
        Self::store(store).map(|()| proto::Owner::default())
    }

    fn partitions(&self, store: &str) -> Result<Vec<i32>, Refusal> {
        Self::store(store).map(|()| Self::PARTITIONS.to_vec())
    }

    fn get(&self, store: &str, _: i32, keys: &[Vec<u8>]) -> Result<proto::Reading, Refusal> {
        assert!((1..=KEYS_MAX).contains(&keys.len()), "asked for {} keys", keys.len());
        Self::store(store)?;
        let value = |key: &Vec<u8>| proto::Value { value: Some(key.clone()) };
        Ok(proto::Reading { values: keys.iter().map(value).collect(), ..Default::default() })
    }

    fn scan(&self, store: &str, partition: i32, range: &Range) -> Result<Page, Refusal> {
        Self::store(store)?;
        if !Self::PARTITIONS.contains(&partition) {
            return Err(Refusal::NotFound(format!("partition {partition} is not here")));
        }
        assert!((1..=1_000).contains(&range.entries_max), "{range:?}");
        let is_inside = |key: &[u8]| {
            let is_after = match &range.from {
                Bound::Unbounded => true,
                Bound::Included(from) => key >= &from[..],
                Bound::Excluded(from) => key > &from[..],
            };
            let is_before = match &range.to {
                Bound::Unbounded => true,
                Bound::Included(to) => key <= &to[..],
                Bound::Excluded(to) => key < &to[..],
            };
            is_after && is_before
        };
        let mut keys: Vec<_> = Self::KEYS.into_iter().filter(|key| is_inside(key)).collect();
        if range.reverse {
            keys.reverse();
        }
        let more = keys.len() > range.entries_max;
        keys.truncate(range.entries_max);
        let entry = |key: &[u8]| proto::Entry { key: key.to_vec(), value: b"1".to_vec() };
        let entries = keys.into_iter().map(entry).collect();
        Ok(Page { position: proto::Position::default(), entries, more })
    }

    fn swap(
        &self,
        request: proto::SwapRequest,
    ) -> Result<mpsc::Receiver<proto::SwapUpdate>, Refusal> {
        let bytes = request.module.len() as u64;
        assert!((1..=MODULE_BYTES_MAX).contains(&bytes), "a module of {bytes} bytes");
        Self::updates(&request.transform)
    }

    fn rollback(
        &self,
        request: proto::RollbackRequest,
    ) -> Result<mpsc::Receiver<proto::SwapUpdate>, Refusal> {
        Self::updates(&request.transform)
    }

    fn metrics(&self) -> (String, &'static str) {
        (String::new(), "text/plain")
    }
}
