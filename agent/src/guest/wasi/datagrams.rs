//! Sending of datagrams, which leads nowhere: defined with the types that WASI gives it, so that a
//! list of them takes no more of the host than is counted.

#![allow(
    dead_code,
    reason = "the types are held against those of a module; nobody reads the values"
)]

use wasmtime::component::{ComponentType, Lift, LinkerInstance, Lower, Resource};

use super::{
    Context,
    closed::{Closed, SEND},
};
use crate::guest::host::Host;

type Ipv6 = (u16, u16, u16, u16, u16, u16, u16, u16);

#[derive(ComponentType, Lift)]
#[component(record)]
struct Ipv4SocketAddress {
    port: u16,
    address: (u8, u8, u8, u8),
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct Ipv6SocketAddress {
    port: u16,
    #[component(name = "flow-info")]
    flow_info: u32,
    address: Ipv6,
    #[component(name = "scope-id")]
    scope_id: u32,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum IpSocketAddress {
    #[component(name = "ipv4")]
    Ipv4(Ipv4SocketAddress),
    #[component(name = "ipv6")]
    Ipv6(Ipv6SocketAddress),
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct OutgoingDatagram {
    data: Vec<u8>,
    #[component(name = "remote-address")]
    remote_address: Option<IpSocketAddress>,
}

#[derive(Clone, Copy, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
enum ErrorCode {
    #[component(name = "unknown")]
    Unknown,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "not-supported")]
    NotSupported,
    #[component(name = "invalid-argument")]
    InvalidArgument,
    #[component(name = "out-of-memory")]
    OutOfMemory,
    #[component(name = "timeout")]
    Timeout,
    #[component(name = "concurrency-conflict")]
    ConcurrencyConflict,
    #[component(name = "not-in-progress")]
    NotInProgress,
    #[component(name = "would-block")]
    WouldBlock,
    #[component(name = "invalid-state")]
    InvalidState,
    #[component(name = "new-socket-limit")]
    NewSocketLimit,
    #[component(name = "address-not-bindable")]
    AddressNotBindable,
    #[component(name = "address-in-use")]
    AddressInUse,
    #[component(name = "remote-unreachable")]
    RemoteUnreachable,
    #[component(name = "connection-refused")]
    ConnectionRefused,
    #[component(name = "connection-reset")]
    ConnectionReset,
    #[component(name = "connection-aborted")]
    ConnectionAborted,
    #[component(name = "datagram-too-large")]
    DatagramTooLarge,
    #[component(name = "name-unresolvable")]
    NameUnresolvable,
    #[component(name = "temporary-resolver-failure")]
    TemporaryResolverFailure,
    #[component(name = "permanent-resolver-failure")]
    PermanentResolverFailure,
}

/// Defines [`SEND`]: it is denied.
pub(super) fn deny_send(instance: &mut LinkerInstance<'_, Host>) -> wasmtime::Result<()> {
    type Arguments = (Resource<Closed>, Vec<OutgoingDatagram>);
    type Answer = Result<u64, ErrorCode>;
    instance
        .func_wrap(SEND, |_: Context<'_>, _: Arguments| Ok((Answer::Err(ErrorCode::AccessDenied),)))
}
