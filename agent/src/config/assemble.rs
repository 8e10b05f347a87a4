//! From the file as it is written to the pipeline: which value of the file becomes which of the
//! pipeline. Goes on after a problem, to find them all.

use std::path::Path;

use crate::config::{
    client_properties, control, defaults,
    file::{
        File, KafkaSection, LimitsSection, LogSection, RetrySection, ShutdownSection, StateSection,
        StoreSection, TransformSection,
    },
    module_config::module_config,
    pipeline::{
        Kafka, Limits, Log, Pipeline, Properties, Retry, Shutdown, State, Store, Transform,
    },
    reader::Reader,
    route,
    scalar::{Entries, Field, Located, Short},
    setting::{Count, Name, Setting, Size, Text},
    swap, timeouts,
};

/// The typed pipeline; as far as it goes if there are problems, then `None` where a value
/// that can't be done without is missing.
pub(crate) fn pipeline(reader: &mut Reader<'_>, path: &Path, file: File) -> Option<Pipeline> {
    let application = reader.required("application", &file.application).map(|Name(name)| name);
    reader.places.0.insert("transforms".to_owned(), file.transforms.at);
    let transforms: Vec<_> =
        file.transforms.value.into_iter().map(|section| transform(reader, section)).collect();
    let commit_interval =
        reader.optional("commit_interval", file.commit_interval, defaults::COMMIT_INTERVAL);
    let Count(workers) = reader.optional("workers", file.workers, defaults::WORKERS);
    let identity =
        file.identity.and_then(|field| reader.required("identity", &field)).map(|Name(id)| id);
    let leaves_by_default = file.state.as_ref().is_none_or(|state| state.directory.is_none());
    let state = state(reader, file.state.unwrap_or_default(), application.as_deref());
    let control = control::control(reader, file.control.unwrap_or_default(), &state.directory);
    let kafka = kafka(reader, file.kafka);
    Some(Pipeline {
        path: path.into(),
        control,
        http: control::http(reader, file.http),
        kafka,
        guarantee: reader.optional("guarantee", file.guarantee, defaults::GUARANTEE),
        commit_interval,
        workers,
        identity,
        state,
        memory_bytes_max: size(reader, "memory_max", file.memory_max, defaults::MEMORY_MAX),
        limits: limits(reader, file.limits.unwrap_or_default()),
        swap: swap::swap(reader, file.swap.unwrap_or_default()),
        task_idle_max: reader.optional(
            "max_task_idle",
            file.max_task_idle,
            defaults::MAX_TASK_IDLE,
        ),
        shutdown: shutdown(reader, &file.shutdown.unwrap_or_default(), leaves_by_default),
        log: log(reader, file.log.unwrap_or_default()),
        application: application?,
        transforms: transforms.into_iter().collect::<Option<_>>()?,
        places: std::mem::take(&mut reader.places),
    })
}

/// The properties of all clients.
fn kafka(reader: &mut Reader<'_>, section: Located<KafkaSection>) -> Kafka {
    let Located { value: section, at } = section;
    reader.places.0.insert("kafka".to_owned(), at);
    let before = reader.problems.len();
    let kafka = Kafka {
        common: properties(reader, "kafka", section.common),
        consumer: properties(reader, "kafka.consumer", section.consumer),
        producer: properties(reader, "kafka.producer", section.producer),
        admin: properties(reader, "kafka.admin", section.admin),
        session_timeout: timeouts::default(defaults::SESSION_TIMEOUT),
        transaction_timeout: timeouts::default(defaults::TRANSACTION_TIMEOUT),
        message_bytes_max: 0,
    };
    client_properties::check_security(&kafka, &reader.places, &mut reader.problems);
    if reader.problems.len() == before {
        reader.problems.extend(client_properties::check_servers(&kafka, at));
    }
    kafka
}

fn properties(reader: &mut Reader<'_>, section: &str, entries: Entries<Field<Text>>) -> Properties {
    let read = entries.0.into_iter().filter_map(|(name, field)| {
        let key = format!("{section}.{}", name.value);
        reader.places.0.insert(key.clone(), name.at);
        let named = client_properties::check_name(section, &name, reader.sources);
        let Some(value) = reader.text(&key, &field.text, field.at) else {
            reader.problems.extend(named);
            return None;
        };
        let refused = named.or_else(|| {
            client_properties::check_value(&key, &name, &field, &value, reader.sources)
        });
        let is_refused = refused.is_some();
        reader.problems.extend(refused);
        (!is_refused).then_some((name.value, value))
    });
    Properties(read.collect())
}

fn state(reader: &mut Reader<'_>, section: StateSection, application: Option<&str>) -> State {
    let given = section.directory.and_then(|field| reader.path("state.directory", &field));
    let default = || {
        let name = application.unwrap_or_default();
        reader.sources.folder.join(defaults::STATE_DIRECTORY).join(name)
    };
    State { directory: given.unwrap_or_else(default) }
}

fn size(reader: &mut Reader<'_>, key: &str, field: Option<Field<Size>>, default: &str) -> u64 {
    reader.optional(key, field, default).0
}

#[rustfmt::skip]
fn limits(reader: &mut Reader<'_>, section: LimitsSection) -> Limits {
    Limits {
        guest_memory_bytes_max: size(reader, "limits.guest_memory_max", section.guest_memory_max, defaults::GUEST_MEMORY_MAX),
        guest_stack_bytes_max: size(reader, "limits.guest_stack_max", section.guest_stack_max, defaults::GUEST_STACK_MAX),
        guest_table_elements_max: reader.optional("limits.guest_table_elements_max", section.guest_table_elements_max, defaults::GUEST_TABLE_ELEMENTS_MAX).0,
        batch_time_max: reader.optional("limits.batch_time_max", section.batch_time_max, defaults::BATCH_TIME_MAX),
        batch_records_max: reader.optional("limits.batch_records_max", section.batch_records_max, defaults::BATCH_RECORDS_MAX).0,
        record_bytes_max: size(reader, "limits.record_bytes_max", section.record_bytes_max, defaults::RECORD_BYTES_MAX),
        output_bytes_max: size(reader, "limits.output_bytes_max", section.output_bytes_max, defaults::OUTPUT_BYTES_MAX),
        module_bytes_max: size(reader, "limits.module_bytes_max", section.module_bytes_max, defaults::MODULE_BYTES_MAX),
        compile_time_max: reader.optional("limits.compile_time_max", section.compile_time_max, defaults::COMPILE_TIME_MAX),
        compile_memory_bytes_max: size(reader, "limits.compile_memory_max", section.compile_memory_max, defaults::COMPILE_MEMORY_MAX),
        uncommitted_bytes_max: size(reader, "limits.uncommitted_bytes_max", section.uncommitted_bytes_max, defaults::UNCOMMITTED_BYTES_MAX),
        buffered_bytes_max: size(reader, "limits.buffered_bytes_max", section.buffered_bytes_max, defaults::BUFFERED_BYTES_MAX),
        log_lines_per_second_max: reader.optional("limits.log_lines_per_second_max", section.log_lines_per_second_max, defaults::LOG_LINES_PER_SECOND_MAX).0,
        retry_attempts_max: reader.optional("limits.retry_attempts_max", section.retry_attempts_max, defaults::RETRY_ATTEMPTS_MAX).0,
        retry_backoff: reader.optional("limits.retry_backoff", section.retry_backoff, defaults::RETRY_BACKOFF),
        revoke_time_max: reader.optional("limits.revoke_time_max", section.revoke_time_max, defaults::REVOKE_TIME_MAX),
    }
}

fn shutdown(
    reader: &mut Reader<'_>,
    section: &ShutdownSection,
    leaves_by_default: bool,
) -> Shutdown {
    let leave = section.leave_on_stop.as_ref();
    let deadline = section.deadline.as_ref();
    Shutdown {
        deadline: deadline
            .and_then(|field| reader.required("shutdown.deadline", field))
            .unwrap_or_else(|| {
                Setting::parse(defaults::SHUTDOWN_DEADLINE).expect("the default is valid")
            }),
        leave_on_stop: leave
            .and_then(|field| reader.required("shutdown.leave_on_stop", field))
            .unwrap_or(leaves_by_default),
    }
}

fn log(reader: &mut Reader<'_>, section: LogSection) -> Log {
    Log {
        level: reader.optional("log.level", section.level, defaults::LOG_LEVEL),
        format: reader.optional("log.format", section.format, defaults::LOG_FORMAT),
    }
}

fn transform(reader: &mut Reader<'_>, section: TransformSection) -> Option<Transform> {
    let name = reader.required("name", &section.name).map(|Name(name)| name);
    let module = reader.path("module", &section.module);
    let inputs: Vec<_> =
        section.inputs.into_iter().map(|input| route::input(reader, input)).collect();
    let stores: Vec<_> =
        section.stores.unwrap_or_default().into_iter().map(|of| store(reader, of)).collect();
    let outputs: Vec<_> = section
        .outputs
        .unwrap_or_default()
        .0
        .into_iter()
        .map(|(name, output)| route::output(reader, &name, output))
        .collect();
    let on_error = route::on_error(reader, section.on_error);
    let retry = section.retry.map(|of| retry(reader, &of));
    Some(Transform {
        at: section.name.at,
        module_at: section.module.at,
        config: module_config(reader, section.config)?,
        on_error: on_error?,
        retry,
        name: name?,
        module: module?,
        inputs: inputs.into_iter().collect::<Option<_>>()?,
        stores: stores.into_iter().collect::<Option<_>>()?,
        outputs: outputs.into_iter().collect::<Option<_>>()?,
    })
}

fn retry(reader: &mut Reader<'_>, section: &RetrySection) -> Retry {
    let attempts = section.attempts.as_ref();
    let backoff = section.backoff.as_ref();
    Retry {
        attempts: attempts
            .and_then(|field| reader.required("retry.attempts", field))
            .map(|Count(attempts)| attempts),
        backoff: backoff.and_then(|field| reader.required("retry.backoff", field)),
    }
}

fn store(reader: &mut Reader<'_>, store: Located<Short<StoreSection>>) -> Option<Store> {
    let at = store.at;
    let (name, kind) = match store.value {
        Short::Name(name) => (reader.name("stores", &name, at)?, None),
        Short::Full(section) => (reader.required("name", &section.name)?.0, section.kind),
    };
    Some(Store { name, at, kind: reader.optional("kind", kind, defaults::STORE_KIND) })
}
