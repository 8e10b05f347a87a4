//! Where the agent can be spoken to, and by whom.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{
    problem::{Position, Problem},
    reader::Reader,
    scalar::Field,
    setting::{Setting, Text, or_reference},
};

/// The control interface: where it listens, and who may use it.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ControlSection {
    /// `unix:` and the path of a socket, an address and a port, or `off`. Without it, a socket in
    /// the state directory. Beyond this machine only with `tls`, and a token or client
    /// certificates.
    #[schemars(extend("default" = format!("unix:<state.directory>/{SOCKET}")))]
    pub listen: Option<Field<ControlAddress>>,
    /// The certificate that it shows.
    pub tls: Option<TlsSection>,
    /// A file with the token that every call has to bring, as `authorization: Bearer <token>`.
    pub token_file: Option<Field<Text>>,
    /// A second place to listen, for those who may read status, state and events, and change nothing.
    pub read_only: Option<ReadOnlySection>,
}

/// Where those are served who may only read: with the certificate of `control.tls`, if it is an
/// address.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadOnlySection {
    /// `unix:` and the path of a socket, which the agent's user and group can open, or an address and
    /// a port. Beyond this machine only with `control.tls`, and a token or client certificates.
    pub listen: Field<ControlAddress>,
    /// A file with the token that every call has to bring, another one than `control.token_file`.
    pub token_file: Option<Field<Text>>,
}

/// The certificate of the control interface; all files are PEM.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsSection {
    /// The file of the certificate, and those between it and its root.
    pub certificate: Field<Text>,
    /// The file of its key.
    pub key: Field<Text>,
    /// The file of the root that clients' certificates are to be from; without it they need none.
    pub client_ca: Option<Field<Text>>,
}

/// Probes and metrics over HTTP, read-only.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpSection {
    /// A port on the loopback address, or an address and a port.
    pub listen: Field<HttpAddress>,
}

/// Where the agent can be spoken to, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Where it listens.
    pub listen: Listen,
    /// Its certificate, if it has one.
    pub tls: Option<Tls>,
    /// The file of the token that every call has to bring.
    pub token_file: Option<PathBuf>,
    /// Where those are served who may only read.
    pub read_only: Option<ReadOnly>,
}

/// Where those are served who may only read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadOnly {
    /// Where it listens.
    pub listen: Listen,
    /// The file of the token that every call has to bring.
    pub token_file: Option<PathBuf>,
}

/// Where the control interface listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// On a socket that only the agent's user can open.
    Unix(PathBuf),
    /// On an address.
    Tcp(SocketAddr),
}

/// The files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The root that clients' certificates are from, if they need one.
    pub client_ca: Option<PathBuf>,
}

/// How a listening address is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlAddress {
    /// `off`.
    Off,
    /// `unix:` and a path.
    Unix(String),
    /// An address and a port.
    Tcp(SocketAddr),
}

/// An address, or a port of the loopback address.
pub enum HttpAddress {}

/// The socket below the state directory; its folder begins with a dot, as no application's does.
const SOCKET: &str = ".control/socket";

/// What systems take as the path of a socket, in bytes.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

impl Setting for ControlAddress {
    type Value = Self;

    fn parse(text: &str) -> Result<Self, String> {
        let hint = "write `unix:/path/of/a/socket`, an address such as `127.0.0.1:9465`, or `off`";
        match text.strip_prefix("unix:") {
            Some("") => Err(hint.into()),
            Some(path) => Ok(Self::Unix(path.into())),
            None if text == "off" => Ok(Self::Off),
            None => address(text).map(Self::Tcp).ok_or_else(|| hint.into()),
        }
    }

    fn schema() -> Value {
        or_reference(&json!({
            "title": "address",
            "type": "string",
            "examples": ["unix:/run/sidestream/control", "127.0.0.1:9465", "off"]
        }))
    }
}

impl Setting for HttpAddress {
    type Value = SocketAddr;

    fn parse(text: &str) -> Result<SocketAddr, String> {
        let port = text.parse().ok().map(|port: u16| (Ipv4Addr::LOCALHOST, port).into());
        let hint = "write a port such as `9464`, or an address such as `0.0.0.0:9464`";
        port.or_else(|| address(text)).ok_or_else(|| hint.into())
    }

    fn schema() -> Value {
        or_reference(&json!({
            "title": "port or address",
            "type": ["string", "integer"],
            "examples": [9464, "0.0.0.0:9464"]
        }))
    }
}

fn address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some((IpAddr::from(Ipv4Addr::LOCALHOST), port.parse().ok()?).into()),
        None => text.parse().ok(),
    }
}

/// The control interface of an agent whose state is in `state`.
pub(crate) fn control(reader: &mut Reader<'_>, section: ControlSection, state: &Path) -> Control {
    let at = section.listen.as_ref().map(|field| field.at);
    let given = section.listen.and_then(|field| reader.required("control.listen", &field));
    let listen = match given {
        None => Listen::Unix(state.join(SOCKET)),
        Some(address) => listen(reader, address),
    };
    let tls = section.tls.and_then(|tls| {
        Some(Tls {
            certificate: reader.path("control.tls.certificate", &tls.certificate)?,
            key: reader.path("control.tls.key", &tls.key)?,
            client_ca: tls.client_ca.and_then(|field| reader.path("control.tls.client_ca", &field)),
        })
    });
    let token_file = section.token_file.and_then(|field| reader.path("control.token_file", &field));
    let read_only_at = section.read_only.as_ref().map(|section| section.listen.at);
    let read_only = section.read_only.and_then(|section| read_only(reader, section));
    let control = Control { listen, tls, token_file, read_only };
    let start = Position { line: 1, column: 1 };
    let at = at.unwrap_or(start);
    reader.problems.extend(control.problems((at, read_only_at.unwrap_or(at))));
    control
}

fn read_only(reader: &mut Reader<'_>, section: ReadOnlySection) -> Option<ReadOnly> {
    let address = reader.required("control.read_only.listen", &section.listen)?;
    let token_file =
        section.token_file.and_then(|field| reader.path("control.read_only.token_file", &field));
    Some(ReadOnly { listen: listen(reader, address), token_file })
}

fn listen(reader: &Reader<'_>, address: ControlAddress) -> Listen {
    match address {
        ControlAddress::Off => Listen::Off,
        ControlAddress::Tcp(address) => Listen::Tcp(address),
        ControlAddress::Unix(path) => Listen::Unix(reader.absolute(&path)),
    }
}

/// Where probes and metrics are.
pub(crate) fn http(reader: &mut Reader<'_>, section: Option<HttpSection>) -> Option<SocketAddr> {
    reader.required("http.listen", &section?.listen)
}

impl Control {
    /// What can't be; with the places of the two that listen.
    fn problems(&self, (at, read_only_at): (Position, Position)) -> Vec<Problem> {
        let mut problems = Vec::new();
        let own = ("control", &self.listen, self.token_file.is_some());
        problems.extend(self.problem(at, own));
        if let Some(ReadOnly { listen, token_file }) = &self.read_only {
            let own = ("control.read_only", listen, token_file.is_some());
            problems.extend(self.problem(read_only_at, own));
            if *listen == self.listen && *listen != Listen::Off {
                problems.push(Problem::new(
                    read_only_at,
                    "`control.read_only.listen` and `control.listen` are the same",
                    "give each its own",
                ));
            }
        }
        let read_only = self.read_only.as_ref().map_or(&Listen::Off, |of| &of.listen);
        let is_address = [&self.listen, read_only].iter().any(|of| matches!(of, Listen::Tcp(_)));
        if self.tls.is_some() && !is_address {
            problems.push(Problem::new(
                at,
                "`control.tls` is for an address and a port",
                "set `control.listen` to one, or remove `control.tls`",
            ));
        }
        problems
    }

    /// What can't be of a place to listen: whoever reaches it may see or change what the agent does.
    fn problem(
        &self,
        at: Position,
        (section, listen, has_token): (&str, &Listen, bool),
    ) -> Option<Problem> {
        let asks_who = has_token || self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        match listen {
            Listen::Tcp(address)
                if !address.ip().is_loopback() && (self.tls.is_none() || !asks_who) =>
            {
                Some(Problem::new(
                    at,
                    format!(
                        "`{section}.listen` is {address}, which others than this machine reach"
                    ),
                    format!(
                        "add `control.tls`, and `{section}.token_file` or `control.tls.client_ca`; or \
                         listen on 127.0.0.1"
                    ),
                ))
            }
            Listen::Unix(path) if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX => {
                Some(Problem::new(
                    at,
                    format!(
                        "the control socket's path {} has more than {SOCKET_PATH_BYTES_MAX} bytes",
                        path.display()
                    ),
                    format!("set `{section}.listen` to `unix:` and a shorter path, or to `off`"),
                ))
            }
            Listen::Tcp(_) | Listen::Unix(_) | Listen::Off => None,
        }
    }
}
