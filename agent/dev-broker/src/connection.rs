//! A client's connection: requests read and answered one after another, as Kafka does.

use std::{net::SocketAddr, sync::Arc};

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiKey, RequestHeader},
    protocol::Decodable,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    dispatch::{Call, dispatch},
    error::ConnectionError,
    requests::Context,
    server::Broker,
};

/// `socket.request.max.bytes`.
const REQUEST_BYTES_MAX: usize = 104_857_600;

/// Key, version and correlation id.
pub(super) const REQUEST_BYTES_MIN: usize = 8;

/// Serves a client until it goes.
pub(super) async fn serve(
    broker: Arc<Broker>,
    mut stream: TcpStream,
    peer: SocketAddr,
) -> Result<(), ConnectionError> {
    stream.set_nodelay(true)?;
    let mut input = BytesMut::new();
    while let Some(frame) = read_frame(&mut stream, &mut input).await? {
        let call = read_call(frame, peer, broker.now_ms())?;
        if let Some(reply) = dispatch(Arc::clone(&broker), call).await? {
            stream.write_all(&reply).await?;
        }
    }
    Ok(())
}

/// The next request; none if the client has gone.
async fn read_frame(
    stream: &mut TcpStream,
    input: &mut BytesMut,
) -> Result<Option<Bytes>, ConnectionError> {
    loop {
        if let Some(size) = input.first_chunk::<4>() {
            let size = i32::from_be_bytes(*size);
            let length = usize::try_from(size).unwrap_or(0);
            if !(REQUEST_BYTES_MIN..=REQUEST_BYTES_MAX).contains(&length) {
                return Err(ConnectionError::RequestSize(size));
            }
            if input.len() >= 4 + length {
                input.advance(4);
                return Ok(Some(input.split_to(length).freeze()));
            }
        }
        if stream.read_buf(input).await? == 0 {
            return Ok(None);
        }
    }
}

/// Takes the header off a request.
pub(super) fn read_call(
    mut body: Bytes,
    peer: SocketAddr,
    now_ms: i64,
) -> Result<Call, ConnectionError> {
    let (mut peek, size) = (body.clone(), body.len());
    if size < REQUEST_BYTES_MIN {
        return Err(ConnectionError::RequestSize(i32::try_from(size).unwrap_or(i32::MAX)));
    }
    let (key, version) = (peek.get_i16(), peek.get_i16());
    let api = ApiKey::try_from(key).map_err(|()| ConnectionError::NotOffered { key, version })?;
    let header = RequestHeader::decode(&mut body, api.request_header_version(version))
        .map_err(|error| ConnectionError::Unreadable { key, version, why: error.to_string() })?;
    let client_id = header.client_id.as_ref().map(|id| id.to_string()).unwrap_or_default();
    let client_host = format!("/{}", peer.ip());
    let context = Context { version, client_id, client_host, now_ms };
    Ok(Call { key, correlation_id: header.correlation_id, context, body })
}
