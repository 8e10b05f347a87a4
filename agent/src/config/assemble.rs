//! From the file as it is written to the pipeline: which value of the file becomes which of the
//! pipeline. Goes on after a problem, to find them all.

use std::{path::Path, time::Duration};

use crate::config::{
    client_properties, control,
    file::{
        File, KafkaSection, STATE_DIRECTORY, ShutdownKeys, ShutdownSection, StateSection,
        StoreKeys, StoreSection, TransformSection,
    },
    module_config::module_config,
    pipeline::{Kafka, Pipeline, Properties, Shutdown, State, Store, Transform},
    reader::Reader,
    route,
    scalar::{Entries, Field, Located, Short},
    setting::Text,
    swap,
};

/// The typed pipeline; as far as it goes if there are problems, then `None` where a value
/// that can't be done without is missing.
pub(crate) fn pipeline(reader: &mut Reader<'_>, path: &Path, file: File) -> Option<Pipeline> {
    let application = reader.required("application", &file.application);
    let general = file.read(reader);
    reader.places.0.insert("transforms".to_owned(), file.transforms.at);
    let transforms: Vec<_> =
        file.transforms.value.into_iter().map(|section| transform(reader, section)).collect();
    let leaves_by_default = file.state.as_ref().is_none_or(|state| state.directory.is_none());
    let state = state(reader, file.state.unwrap_or_default(), application.as_deref());
    let control = control::control(reader, file.control.unwrap_or_default(), &state.directory);
    let kafka = kafka(reader, file.kafka);
    Some(Pipeline {
        path: path.into(),
        general,
        control,
        http: control::http(reader, file.http),
        kafka,
        state,
        limits: file.limits.unwrap_or_default().read(reader),
        swap: swap::swap(reader, &file.swap.unwrap_or_default()),
        shutdown: shutdown(reader, &file.shutdown.unwrap_or_default(), leaves_by_default),
        log: file.log.unwrap_or_default().read(reader),
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
        // Settled when all else is known.
        session_timeout: Duration::ZERO,
        transaction_timeout: Duration::ZERO,
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
        reader.sources.folder.join(STATE_DIRECTORY).join(name)
    };
    State { directory: given.unwrap_or_else(default) }
}

fn shutdown(
    reader: &mut Reader<'_>,
    section: &ShutdownSection,
    leaves_by_default: bool,
) -> Shutdown {
    let ShutdownKeys { deadline, leave_on_stop } = section.read(reader);
    Shutdown { deadline, leave_on_stop: leave_on_stop.unwrap_or(leaves_by_default) }
}

fn transform(reader: &mut Reader<'_>, section: TransformSection) -> Option<Transform> {
    let name = reader.required("name", &section.name);
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
    let retry = section.retry.map(|of| of.read(reader));
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

fn store(reader: &mut Reader<'_>, store: Located<Short<StoreSection>>) -> Option<Store> {
    let at = store.at;
    let (name, StoreKeys { kind }) = match store.value {
        Short::Name(name) => (reader.name("stores", &name, at)?, StoreKeys::default()),
        Short::Full(section) => (reader.required("name", &section.name)?, section.read(reader)),
    };
    Some(Store { name, at, kind })
}
