//! Why brokers do not answer, in words that name their addresses and what to do.

use std::time::Duration;

use sidestream_core::ports::PortError;

use super::{
    error::call_failed,
    native::{Client, Code, Failure},
};

/// What may be wrong if brokers answer, but none of them takes a transactional id.
pub(super) const NO_COORDINATOR: &str = "the brokers are there, but none of them keeps transactions \
    now: it may still start; else `__transaction_state` can't be made or written, because \
    transaction.state.log.replication.factor (3 unless set) or transaction.state.log.min.isr of the \
    brokers is more than there are brokers";

/// The error of a call that changes nothing when it fails. Where brokers did not answer, it tells
/// what came of the connections to them; where they did, `otherwise` what else may be wrong. Not for
/// consumers, which are served by their own poll alone.
pub(super) fn unanswered(
    client: &Client,
    doing: &str,
    failure: &Failure,
    otherwise: &str,
) -> PortError {
    if failure.fatal || !is_silence(failure.code) {
        return call_failed(doing, failure);
    }
    client.poll(Duration::ZERO);
    let told = told(&client.context().connection_errors());
    PortError::Unavailable(match (told.is_empty(), otherwise) {
        (false, _) => format!("{doing}: {}", told.join("; ")),
        (true, "") => format!("{doing}: {failure}"),
        (true, otherwise) => format!("{doing}: {failure}; {otherwise}"),
    })
}

/// A failure of what has to be done within the time of a commit, in own words if it was the time.
pub(super) fn in_time(doing: &str, failure: Failure, time_max: Duration) -> Failure {
    if failure.fatal || failure.code != Code::RD_KAFKA_RESP_ERR__TIMED_OUT {
        return failure;
    }
    let message = format!(
        "{doing} took longer than {} ms (`limits.revoke_time_max`): brokers are away or slow, or too few \
         replicas of a topic are in sync (`min.insync.replicas`)",
        time_max.as_millis()
    );
    Failure { message, ..failure }
}

/// Whether nobody answered, or nobody who could.
fn is_silence(code: Code) -> bool {
    matches!(
        code,
        Code::RD_KAFKA_RESP_ERR__TIMED_OUT
            | Code::RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE
            | Code::RD_KAFKA_RESP_ERR__TRANSPORT
            | Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN
            | Code::RD_KAFKA_RESP_ERR__RESOLVE
            | Code::RD_KAFKA_RESP_ERR__WAIT_COORD
            | Code::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT
            | Code::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE
            | Code::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS
    )
}

/// What came of the connections to brokers, each once.
pub(super) fn told(errors: &[(Code, String)]) -> Vec<String> {
    let mut told = Vec::new();
    for (code, text) in errors {
        let one = in_words(*code, text);
        if !told.contains(&one) {
            told.push(one);
        }
    }
    told
}

/// An error of a connection as librdkafka tells it, `NAME: TEXT (after .. in state ..)`, in which
/// the name is that of the pipeline file if it ends with `/bootstrap`, else the brokers' own.
fn in_words(code: Code, text: &str) -> String {
    let text = text.rsplit_once(" (after ").map_or(text, |(text, _)| text);
    let (name, what) = text.split_once(": ").unwrap_or(("a broker", text));
    let address = name.rsplit_once("://").map_or(name, |(_, address)| address);
    let (address, is_configured) = match address.strip_suffix("/bootstrap") {
        Some(address) => (address, true),
        None => (address.split('/').next().unwrap_or(address), false),
    };
    let whose = match is_configured {
        true => "`bootstrap.servers`",
        false => "`advertised.listeners` of the brokers, which name it so,",
    };
    match code {
        Code::RD_KAFKA_RESP_ERR__RESOLVE => {
            let why = what.rsplit_once(": ").map_or(what, |(_, why)| why);
            format!("{address} does not resolve ({why}): correct {whose} or the name service")
        }
        Code::RD_KAFKA_RESP_ERR__TRANSPORT if what.contains("Connection refused") => {
            format!("{address} refuses connections: start the broker, or correct {whose}")
        }
        Code::RD_KAFKA_RESP_ERR__AUTHENTICATION => {
            format!("{address}: {what}: correct the `sasl.*` properties")
        }
        Code::RD_KAFKA_RESP_ERR__SSL => {
            format!("{address}: {what}: correct `security.protocol` and the `ssl.*` properties")
        }
        _ => format!("{address}: {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_fail_are_told_by_address_and_once() {
        let refused =
            "127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused";
        let errors = [
            (Code::RD_KAFKA_RESP_ERR__TRANSPORT, format!("{refused} (after 0ms in state CONNECT)")),
            (Code::RD_KAFKA_RESP_ERR__TRANSPORT, format!("{refused} (after 9ms in state CONNECT)")),
            (
                Code::RD_KAFKA_RESP_ERR__RESOLVE,
                "sasl_ssl://kafka:9092/1: Failed to resolve 'kafka:9092': Name or service not known \
                 (after 2ms in state CONNECT)"
                    .to_owned(),
            ),
            (Code::RD_KAFKA_RESP_ERR__SSL, "ssl://b:1/bootstrap: SSL handshake failed: x".to_owned()),
        ];
        assert_eq!(
            told(&errors),
            [
                "127.0.0.1:1 refuses connections: start the broker, or correct `bootstrap.servers`",
                "kafka:9092 does not resolve (Name or service not known): correct \
                 `advertised.listeners` of the brokers, which name it so, or the name service",
                "b:1: SSL handshake failed: x: correct `security.protocol` and the `ssl.*` properties",
            ]
        );
        assert_eq!(told(&[(Code::RD_KAFKA_RESP_ERR__FAIL, "odd".to_owned())]), ["a broker: odd"]);
    }
}
