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

#[cfg(test)]
mod tests {
    use super::*;

    /// What a code means for an output and for a change.
    fn check(code: Code, output: Option<Fault>, change: Option<Fault>) {
        assert_eq!((fault(code, false), fault(code, true)), (output, change), "{code:?}");
    }

    #[test]
    fn what_is_refused_is_the_fault_of_a_record_a_place_or_nobody() {
        let same = |code, fault| check(code, Some(fault), Some(fault));
        same(Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, Fault::Size);
        same(Code::RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE, Fault::Size);
        same(Code::RD_KAFKA_RESP_ERR_INVALID_RECORD, Fault::Record);
        same(Code::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION, Fault::Passing);
        same(Code::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, Fault::Passing);
        same(Code::RD_KAFKA_RESP_ERR__MSG_TIMED_OUT, Fault::Passing);
        same(Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, Fault::Lasting);
        same(Code::RD_KAFKA_RESP_ERR_POLICY_VIOLATION, Fault::Lasting);
        same(Code::RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE, Fault::Lasting);
        // No module gives a change its time: passing its record over would not help the next one.
        let invalid = Code::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP;
        check(invalid, Some(Fault::Time), Some(Fault::Lasting));
        // The producer's own state: nothing is wrong with the records.
        for code in [
            Code::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
            Code::RD_KAFKA_RESP_ERR_INVALID_TXN_STATE,
            Code::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID,
            Code::RD_KAFKA_RESP_ERR__PURGE_QUEUE,
        ] {
            check(code, None, None);
        }
    }

    #[test]
    fn what_lasts_is_told_with_what_to_do() {
        let says = |code, is_change, what: &str| {
            let said = advice(code, is_change).unwrap_or_default();
            assert!(said.contains(what), "{code:?}: {said:?} does not say {what:?}");
        };
        says(Code::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP, true, "set its clock");
        says(Code::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP, false, "another time");
        says(Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, true, "this changelog");
        says(Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, false, "this topic");
        says(Code::RD_KAFKA_RESP_ERR_POLICY_VIOLATION, false, "policy");
        says(Code::RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE, false, "fewer punctuations");
        says(Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, true, "user read and write");
        assert_eq!(advice(Code::RD_KAFKA_RESP_ERR__PURGE_QUEUE, false), None);
    }
}
