//! The calls of the control service.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, sleep},
};
use tokio_stream::{StreamExt, adapters::Map, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, async_trait};

use super::{
    Events, Operator, Refusal,
    proto::{
        self, DrainRequest, DrainResponse, GetRequest, GetResponse, GetStatusRequest, OtherLife,
        PauseRequest, PauseResponse, ResumeRequest, ResumeResponse, RetryRequest, RetryResponse,
        RollbackRequest, ScanRequest, ScanResponse, SwapRequest, SwapUpdate, WatchEventsRequest,
        WatchEventsResponse, control_server::Control, watch_events_response,
    },
    scan, uploads,
};

/// The most keys of one call.
pub(super) const KEYS_MAX: usize = 1_000;
/// The most bytes that one call's values may come to, below what clients take by default.
const VALUES_BYTES_MAX: usize = 3 << 20;
/// How many reads of state go on at the same time.
const READS_MAX: usize = 8;
/// How long a pause is waited for.
const PAUSE_TIME_MAX: Duration = Duration::from_secs(20);
/// How often to look whether all workers rest.
const PAUSE_INTERVAL: Duration = Duration::from_millis(5);
/// How many events are under way to a reader.
const EVENTS_UNDER_WAY_MAX: usize = 64;

/// How a swap goes on, as a stream of answers.
type Updates = Map<ReceiverStream<SwapUpdate>, fn(SwapUpdate) -> Result<SwapUpdate, Status>>;

/// The control service of an agent.
pub(super) struct Service {
    operator: Arc<dyn Operator>,
    events: Arc<Events>,
    reads: Arc<Semaphore>,
    module_bytes_max: u64,
    http_address: Option<SocketAddr>,
}

impl Service {
    /// Takes modules of at most `module_bytes_max`, and tells that probes and metrics are at
    /// `http_address`.
    pub(super) fn new(
        operator: Arc<dyn Operator>,
        events: Arc<Events>,
        module_bytes_max: u64,
        http_address: Option<SocketAddr>,
    ) -> Self {
        let reads = Arc::new(Semaphore::new(READS_MAX));
        Self { operator, events, reads, module_bytes_max, http_address }
    }

    /// Does what may wait for the disk, beside the threads that serve.
    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Operator) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let permit = Arc::clone(&self.reads).acquire_owned().await;
        let operator = Arc::clone(&self.operator);
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            read(operator.as_ref())
        });
        let done = work.await.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(done?))
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound(message) => Self::not_found(message),
            Refusal::NotReady(message) => Self::failed_precondition(message),
            Refusal::Busy(message) => Self::aborted(message),
            Refusal::Invalid(message) => Self::invalid_argument(message),
            Refusal::Failed(message) => Self::internal(message),
        }
    }
}

#[async_trait]
impl Control for Service {
    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<proto::Status>, Status> {
        let http_address = self.http_address.map_or(String::new(), |address| address.to_string());
        self.blocking(|operator| Ok(proto::Status { http_address, ..operator.status() })).await
    }

    async fn pause(&self, _: Request<PauseRequest>) -> Result<Response<PauseResponse>, Status> {
        self.operator.pause(true);
        let deadline = Instant::now() + PAUSE_TIME_MAX;
        while !self.operator.rests() && Instant::now() < deadline {
            sleep(PAUSE_INTERVAL).await;
        }
        Ok(Response::new(PauseResponse { committed: self.operator.rests() }))
    }

    async fn resume(&self, _: Request<ResumeRequest>) -> Result<Response<ResumeResponse>, Status> {
        self.operator.pause(false);
        Ok(Response::new(ResumeResponse {}))
    }

    async fn retry(
        &self,
        request: Request<RetryRequest>,
    ) -> Result<Response<RetryResponse>, Status> {
        let RetryRequest { tasks } = request.into_inner();
        let answer = |tasks| RetryResponse { tasks };
        self.blocking(move |operator| operator.retry(&tasks).map(answer)).await
    }

    async fn drain(
        &self,
        request: Request<DrainRequest>,
    ) -> Result<Response<DrainResponse>, Status> {
        self.operator.drain(request.into_inner().leave);
        Ok(Response::new(DrainResponse {}))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let request = request.into_inner();
        self.blocking(move |operator| get(operator, &request)).await
    }

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<ScanResponse>, Status> {
        let request = request.into_inner();
        self.blocking(move |operator| scan::page(operator, request)).await
    }

    type WatchEventsStream = ReceiverStream<Result<WatchEventsResponse, Status>>;

    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let (sender, receiver) = mpsc::channel(EVENTS_UNDER_WAY_MAX);
        tokio::spawn(send_events(Arc::clone(&self.events), sender, request.into_inner()));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    type SwapStream = Updates;

    async fn swap(&self, request: Request<SwapRequest>) -> Result<Response<Updates>, Status> {
        let request = request.into_inner();
        if request.module.is_empty() {
            return Err(Status::invalid_argument("the module is empty"));
        }
        if request.module.len() as u64 > self.module_bytes_max {
            return Err(uploads::too_large(self.module_bytes_max));
        }
        let receiver = self.blocking(move |operator| operator.swap(request)).await?;
        Ok(receiver.map(updates))
    }

    type RollbackStream = Updates;

    async fn rollback(
        &self,
        request: Request<RollbackRequest>,
    ) -> Result<Response<Updates>, Status> {
        let request = request.into_inner();
        let receiver = self.blocking(move |operator| operator.rollback(request)).await?;
        Ok(receiver.map(updates))
    }
}

fn updates(receiver: mpsc::Receiver<SwapUpdate>) -> Updates {
    ReceiverStream::new(receiver).map(Ok)
}

fn get(operator: &dyn Operator, request: &GetRequest) -> Result<GetResponse, Refusal> {
    if request.keys.is_empty() || request.keys.len() > KEYS_MAX {
        return Err(Refusal::Invalid(format!("ask for 1 to {KEYS_MAX} keys")));
    }
    let owners = request.keys.iter().map(|key| operator.owner(&request.store, key));
    let owners = owners.collect::<Result<Vec<_>, _>>()?;
    let partitions = match request.partition {
        Some(partition) => vec![partition],
        None => operator.partitions(&request.store)?,
    };
    let mut readings = Vec::new();
    let mut bytes = 0;
    for partition in partitions {
        let reading = operator.get(&request.store, partition, &request.keys)?;
        let values = reading.values.iter().filter_map(|value| value.value.as_ref());
        bytes += values.map(Vec::len).sum::<usize>();
        if bytes > VALUES_BYTES_MAX {
            return Err(Refusal::Invalid(format!(
                "the values come to more than {VALUES_BYTES_MAX} bytes; ask for fewer keys"
            )));
        }
        readings.push(reading);
    }
    Ok(GetResponse { readings, owners })
}

/// Sends events until there are no more, or nobody reads them.
async fn send_events(
    events: Arc<Events>,
    sender: mpsc::Sender<Result<WatchEventsResponse, Status>>,
    request: WatchEventsRequest,
) {
    use watch_events_response::What;
    let WatchEventsRequest { mut after, only_past, life } = request;
    if events.is_of_other_life(life, after) {
        let what = Some(What::OtherLife(OtherLife { life: events.life() }));
        if sender.send(Ok(WatchEventsResponse { what })).await.is_err() {
            return;
        }
        after = 0;
    }
    loop {
        let batch = match only_past {
            true => events.after(after, EVENTS_UNDER_WAY_MAX),
            false => {
                tokio::select! {
                    batch = events.wait_after(after, EVENTS_UNDER_WAY_MAX) => batch,
                    () = sender.closed() => return,
                }
            }
        };
        let over = batch.events.is_empty() && (only_past || batch.closed);
        let missed = (batch.missed > 0).then_some(What::Missed(batch.missed));
        for what in missed.into_iter().chain(batch.events.into_iter().map(What::Event)) {
            if let What::Event(event) = &what {
                after = event.sequence;
            }
            if sender.send(Ok(WatchEventsResponse { what: Some(what) })).await.is_err() {
                return;
            }
        }
        if over {
            return;
        }
    }
}
