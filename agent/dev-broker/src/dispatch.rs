//! Which requests there are, in which versions, and who answers them.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiKey, ApiVersionsResponse, FetchRequest, JoinGroupRequest, ProduceRequest,
        ResponseHeader, SyncGroupRequest, api_versions_response::ApiVersion,
    },
    protocol::{Decodable, Encodable, HeaderVersion},
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{
    bounded,
    cluster::Cluster,
    error::ConnectionError,
    group::{Answer, Ticket},
    requests::{
        Context, admin, configs, fetch, groups, membership, metadata, offsets, produce,
        transactions,
    },
    server::Broker,
};

/// A request as it came.
pub(super) struct Call {
    pub(super) key: i16,
    pub(super) correlation_id: i32,
    pub(super) context: Context,
    pub(super) body: Bytes,
}

/// A frame to send; none for a request that wants no answer.
pub(super) type Reply = Result<Option<BytesMut>, ConnectionError>;

/// Answered at once, under the lock.
type Now = fn(&mut Cluster, Call) -> Reply;

/// May wait for something to happen.
type Later = fn(Arc<Broker>, Call) -> Pin<Box<dyn Future<Output = Reply> + Send>>;

pub(super) enum Handler {
    Now(Now),
    Later(Later),
}

/// A request that is offered.
struct Api {
    key: ApiKey,
    min: i16,
    max: i16,
    handler: Handler,
}

const fn now(key: ApiKey, min: i16, max: i16, handler: Now) -> Api {
    Api { key, min, max, handler: Handler::Now(handler) }
}

const fn later(key: ApiKey, min: i16, max: i16, handler: Later) -> Api {
    Api { key, min, max, handler: Handler::Later(handler) }
}

/// All requests that are offered. Transactions are those before version 2 of their protocol, in
/// which producing adds partitions by itself: clients go by these versions.
const APIS: &[Api] = {
    use ApiKey as Key;
    &[
        now(Key::Produce, 3, 11, produce_or_not),
        later(Key::Fetch, 4, 16, |broker, call| Box::pin(fetch_when_due(broker, call))),
        now(Key::ListOffsets, 1, 8, |cluster, call| call.answer(cluster, fetch::list_offsets)),
        now(Key::Metadata, 0, 13, |cluster, call| call.answer(cluster, metadata::metadata)),
        now(Key::OffsetCommit, 2, 9, |cluster, call| call.answer(cluster, offsets::commit)),
        now(Key::OffsetFetch, 1, 9, |cluster, call| call.answer(cluster, offsets::fetch)),
        now(Key::FindCoordinator, 0, 5, |cluster, call| {
            call.answer(cluster, metadata::find_coordinator)
        }),
        later(Key::JoinGroup, 0, 9, |broker, call| Box::pin(join(broker, call))),
        now(Key::Heartbeat, 0, 4, |cluster, call| call.answer(cluster, membership::heartbeat)),
        now(Key::LeaveGroup, 0, 5, |cluster, call| call.answer(cluster, membership::leave)),
        later(Key::SyncGroup, 0, 5, |broker, call| Box::pin(sync(broker, call))),
        now(Key::DescribeGroups, 0, 6, |cluster, call| call.answer(cluster, groups::describe)),
        now(Key::ListGroups, 0, 5, |cluster, call| call.answer(cluster, groups::list)),
        now(Key::ApiVersions, 0, 4, |_, call| call.encode(&api_versions())),
        now(Key::CreateTopics, 2, 7, |cluster, call| call.answer(cluster, admin::create_topics)),
        now(Key::DeleteTopics, 1, 6, |cluster, call| call.answer(cluster, admin::delete_topics)),
        now(Key::DeleteRecords, 0, 2, |cluster, call| call.answer(cluster, admin::delete_records)),
        now(Key::InitProducerId, 0, 5, |cluster, call| {
            call.answer(cluster, transactions::init_producer_id)
        }),
        now(Key::OffsetForLeaderEpoch, 2, 4, |cluster, call| {
            call.answer(cluster, fetch::offset_for_leader_epoch)
        }),
        now(Key::AddPartitionsToTxn, 0, 3, |cluster, call| {
            call.answer(cluster, transactions::add_partitions)
        }),
        now(Key::AddOffsetsToTxn, 0, 4, |cluster, call| {
            call.answer(cluster, transactions::add_offsets)
        }),
        now(Key::EndTxn, 0, 4, |cluster, call| call.answer(cluster, transactions::end)),
        now(Key::TxnOffsetCommit, 0, 4, |cluster, call| {
            call.answer(cluster, offsets::commit_in_transaction)
        }),
        now(Key::DescribeConfigs, 1, 4, |cluster, call| call.answer(cluster, configs::describe)),
        now(Key::AlterConfigs, 0, 2, |cluster, call| call.answer(cluster, configs::replace)),
        now(Key::CreatePartitions, 0, 3, |cluster, call| {
            call.answer(cluster, admin::create_partitions)
        }),
        now(Key::DeleteGroups, 0, 2, |cluster, call| call.answer(cluster, groups::delete)),
        now(Key::IncrementalAlterConfigs, 0, 1, |cluster, call| {
            call.answer(cluster, configs::change)
        }),
        now(Key::OffsetDelete, 0, 0, |cluster, call| call.answer(cluster, offsets::delete)),
        now(Key::DescribeCluster, 0, 1, |cluster, call| {
            call.answer(cluster, metadata::describe_cluster)
        }),
        now(Key::DescribeTransactions, 0, 0, |cluster, call| {
            call.answer(cluster, transactions::describe)
        }),
        now(Key::ListTransactions, 0, 1, |cluster, call| call.answer(cluster, transactions::list)),
    ]
};

fn find(key: i16) -> Option<&'static Api> {
    APIS.iter().find(|api| api.key as i16 == key)
}

/// Answers a request.
pub(super) async fn dispatch(broker: Arc<Broker>, mut call: Call) -> Reply {
    match handler(&mut call)? {
        Handler::Now(handler) => broker.with(|cluster, _| handler(cluster, call)),
        Handler::Later(handler) => handler(broker, call).await,
    }
}

/// Who answers a request, if it is offered.
pub(super) fn handler(call: &mut Call) -> Result<&'static Handler, ConnectionError> {
    let version = call.context.version;
    match find(call.key) {
        Some(api) if (api.min..=api.max).contains(&version) => Ok(&api.handler),
        Some(Api { key: ApiKey::ApiVersions, .. }) => {
            call.context.version = 0;
            Ok(&NEWER_CLIENT)
        }
        _ => Err(ConnectionError::NotOffered { key: call.key, version }),
    }
}

/// A newer client hears which versions there are, in the oldest one.
static NEWER_CLIENT: Handler = Handler::Now(|_, call| {
    let code = ResponseError::UnsupportedVersion.code();
    call.encode(&api_versions().with_error_code(code))
});

fn api_versions() -> ApiVersionsResponse {
    let offered = APIS.iter().map(|api| {
        ApiVersion::default()
            .with_api_key(api.key as i16)
            .with_min_version(api.min)
            .with_max_version(api.max)
    });
    ApiVersionsResponse::default().with_api_keys(offered.collect())
}

impl Call {
    pub(super) fn decode<Q: Decodable>(&self) -> Result<Q, ConnectionError> {
        let (key, version) = (self.key, self.context.version);
        bounded::decode(&self.body, version).map_err(|why| ConnectionError::Unreadable {
            key,
            version,
            why,
        })
    }

    fn unwritable(&self, why: &impl ToString) -> ConnectionError {
        let (key, version) = (self.key, self.context.version);
        ConnectionError::Unwritable { key, version, why: why.to_string() }
    }

    pub(super) fn encode<R: Encodable + HeaderVersion>(&self, response: &R) -> Reply {
        let version = self.context.version;
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        ResponseHeader::default()
            .with_correlation_id(self.correlation_id)
            .encode(&mut frame, R::header_version(version))
            .and_then(|()| response.encode(&mut frame, version))
            .map_err(|error| self.unwritable(&error))?;
        let length = i32::try_from(frame.len() - 4).map_err(|error| self.unwritable(&error))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        Ok(Some(frame))
    }

    /// The reply to a request that waited.
    pub(super) fn encode_answer(&self, answer: Answer) -> Reply {
        match answer {
            Answer::Join(outcome) => {
                self.encode(&membership::join_response(outcome, &self.context))
            }
            Answer::Sync(outcome) => self.encode(&membership::sync_response(outcome)),
        }
    }

    fn answer<Q: Decodable, R: Encodable + HeaderVersion>(
        self,
        cluster: &mut Cluster,
        handler: fn(&mut Cluster, Q, &Context) -> R,
    ) -> Reply {
        let request = self.decode()?;
        let response = handler(cluster, request, &self.context);
        self.encode(&response)
    }
}

/// A producer that wants no acknowledgement gets none.
#[allow(clippy::needless_pass_by_value, reason = "handlers own their calls")]
fn produce_or_not(cluster: &mut Cluster, call: Call) -> Reply {
    let request: ProduceRequest = call.decode()?;
    let acks = request.acks;
    let response = produce::produce(cluster, request, &call.context);
    if acks == 0 { Ok(None) } else { call.encode(&response) }
}

/// No fetch waits for longer, whatever a client asks for.
const FETCH_WAIT_MAX: Duration = Duration::from_secs(300);

async fn fetch_when_due(broker: Arc<Broker>, call: Call) -> Reply {
    let request: FetchRequest = call.decode()?;
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let until = Instant::now() + wait.min(FETCH_WAIT_MAX);
    loop {
        // Before looking, so that nothing that happens after the look is missed.
        let readable = broker.readable();
        let response = broker.with(|cluster, _| {
            let due = Instant::now() >= until || fetch::is_due(cluster, &request, &call.context);
            due.then(|| fetch::fetch(cluster, &request, &call.context))
        });
        if let Some(response) = response {
            return call.encode(&response);
        }
        // Whether it is time or there is more, the next look decides.
        drop(timeout_at(until, readable).await);
    }
}

async fn join(broker: Arc<Broker>, call: Call) -> Reply {
    let request: JoinGroupRequest = call.decode()?;
    let answer = waited(&broker, |cluster, ticket, unique| {
        membership::join(cluster, request, (ticket, unique), &call.context)
    });
    call.encode_answer(answer.await)
}

async fn sync(broker: Arc<Broker>, call: Call) -> Reply {
    let request: SyncGroupRequest = call.decode()?;
    let answer = waited(&broker, |cluster, ticket, _| {
        membership::sync(cluster, &request, ticket, &call.context)
    });
    call.encode_answer(answer.await)
}

/// The answer that a group gives at once, or under a ticket later.
async fn waited(
    broker: &Broker,
    ask: impl FnOnce(&mut Cluster, Ticket, String) -> Option<Answer>,
) -> Answer {
    let (sender, receiver) = oneshot::channel();
    let answer = broker.with_ticket(sender, ask);
    match answer {
        Some(answer) => answer,
        // The broker answers every ticket it has given out, and lives as long as its requests.
        None => receiver.await.expect("tickets are answered"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_can_be_encoded() {
        for api in APIS {
            let valid = api.key.valid_versions();
            let inside = valid.min <= api.min && api.min <= api.max && api.max <= valid.max;
            assert!(inside, "{:?} {} to {}", api.key, api.min, api.max);
            let same = APIS.iter().filter(|other| other.key as i16 == api.key as i16);
            assert_eq!(same.count(), 1, "{:?}", api.key);
        }
    }

    #[test]
    fn producers_do_not_use_the_second_protocol_of_transactions() {
        let offered = |key: ApiKey| find(key as i16).unwrap().max;
        assert!(offered(ApiKey::Produce) < 12 && offered(ApiKey::EndTxn) < 5);
        assert!(offered(ApiKey::TxnOffsetCommit) < 5 && offered(ApiKey::AddPartitionsToTxn) < 4);
    }
}
