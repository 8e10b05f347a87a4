//! What brokers and librdkafka refuse, in terms of whose fault it is and what to do about it.

use sidestream_core::task::Fault;

use super::{error::remedy, native::Code};

/// Whose fault it is that a record was not delivered; `None` if that is the producer's state or
/// nothing that is known to be about the record or its partition.
pub(super) const fn fault(code: Code, is_change: bool) -> Option<Fault> {
    Some(match code {
        Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE
        | Code::RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE
        | Code::RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE => Fault::Size,
        // A change has the time of its writing.
        Code::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP if is_change => Fault::Lasting,
        Code::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP => Fault::Time,
        Code::RD_KAFKA_RESP_ERR_INVALID_MSG | Code::RD_KAFKA_RESP_ERR_INVALID_RECORD => {
            Fault::Record
        }
        Code::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION
        | Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
        | Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
        | Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID
        | Code::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE
        | Code::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION
        | Code::RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE
        | Code::RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH
        | Code::RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH
        | Code::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS
        | Code::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND
        | Code::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR
        | Code::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT
        | Code::RD_KAFKA_RESP_ERR__MSG_TIMED_OUT => Fault::Passing,
        Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
        | Code::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION
        | Code::RD_KAFKA_RESP_ERR_POLICY_VIOLATION
        | Code::RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS
        | Code::RD_KAFKA_RESP_ERR_INVALID_CONFIG
        | Code::RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT
        | Code::RD_KAFKA_RESP_ERR_UNSUPPORTED_COMPRESSION_TYPE
        | Code::RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE => Fault::Lasting,
        _ => return None,
    })
}

/// What a person can do about it.
pub(super) fn advice(code: Code, is_change: bool) -> Option<&'static str> {
    match code {
        Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE
        | Code::RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE
        | Code::RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE
            if is_change =>
        {
            Some(
                "let the module keep smaller values, or raise `message.max.bytes` of the producer \
                 and `max.message.bytes` of this changelog",
            )
        }
        Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE
        | Code::RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE
        | Code::RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE => {
            Some("raise `message.max.bytes` of the producer and `max.message.bytes` of this topic")
        }
        Code::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP if is_change => Some(
            "changes have this machine's time: set its clock, or raise \
             `message.timestamp.after.max.ms` of this changelog",
        ),
        Code::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP => Some(
            "give it another time, or raise `message.timestamp.after.max.ms` and \
             `message.timestamp.before.max.ms` of this topic",
        ),
        Code::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION
        | Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
        | Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
        | Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID => {
            Some("create it again with as many partitions as it had; its tasks wait for it")
        }
        Code::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS
        | Code::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND => Some(
            "it has fewer replicas in sync than its `min.insync.replicas` asks for; its tasks wait",
        ),
        Code::RD_KAFKA_RESP_ERR_POLICY_VIOLATION => {
            Some("ask whoever runs the brokers which policy that is")
        }
        Code::RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE => {
            Some("raise `offset.metadata.max.bytes` of the brokers, or ask for fewer punctuations")
        }
        code => remedy(code),
    }
}
