//! From the file as it is written to typed values: references replaced, defaults filled in. Goes
//! on after a problem, to find them all.

use std::path::{Path, PathBuf};

use crate::config::{
    client_properties, defaults,
    file::{
        File, KafkaSection, LimitsSection, LogSection, RetrySection, ShutdownSection, StateSection,
        StoreSection, TransformSection,
    },
    interpolate::Sources,
    pipeline::{
        Kafka, Limits, Log, Pipeline, Places, Properties, Retry, Shutdown, State, Store, Transform,
    },
    problem::{Position, Problem},
    route,
    scalar::{Entries, Field, Located, Short},
    setting::{Count, Name, Setting, Size, Text},
    source::Source,
    timeouts,
};

/// Reads values, keeps what is wrong with them.
pub(crate) struct Resolver<'a> {
    pub(crate) sources: &'a Sources,
    pub(crate) source: Source<'a>,
    pub(crate) problems: Vec<Problem>,
    places: Places,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(sources: &'a Sources, source: Source<'a>) -> Self {
        Self { sources, source, problems: Vec::new(), places: Places::default() }
    }

    /// The typed pipeline; as far as it goes if there are problems, then `None` where a value
    /// that can't be done without is missing.
    pub(crate) fn pipeline(&mut self, path: &Path, file: File) -> Option<Pipeline> {
        let application = self.required("application", &file.application).map(|Name(name)| name);
        self.places.0.insert("transforms".to_owned(), file.transforms.at);
        let transforms: Vec<_> =
            file.transforms.value.into_iter().map(|section| self.transform(section)).collect();
        let commit_interval =
            self.optional("commit_interval", file.commit_interval, defaults::COMMIT_INTERVAL);
        let Count(workers) = self.optional("workers", file.workers, defaults::WORKERS);
        let identity =
            file.identity.and_then(|field| self.required("identity", &field)).map(|Name(id)| id);
        let leaves_by_default = file.state.as_ref().is_none_or(|state| state.directory.is_none());
        let state = self.state(file.state.unwrap_or_default(), application.as_deref());
        let control = self.control(file.control.unwrap_or_default(), &state.directory);
        let kafka = self.kafka(file.kafka);
        Some(Pipeline {
            path: path.into(),
            control,
            http: self.http(file.http),
            kafka,
            guarantee: self.optional("guarantee", file.guarantee, defaults::GUARANTEE),
            commit_interval,
            workers,
            identity,
            state,
            memory_bytes_max: self.size("memory_max", file.memory_max, defaults::MEMORY_MAX),
            limits: self.limits(file.limits.unwrap_or_default()),
            swap: self.swap(file.swap.unwrap_or_default()),
            task_idle_max: self.optional(
                "max_task_idle",
                file.max_task_idle,
                defaults::MAX_TASK_IDLE,
            ),
            shutdown: self.shutdown(&file.shutdown.unwrap_or_default(), leaves_by_default),
            log: self.log(file.log.unwrap_or_default()),
            application: application?,
            transforms: transforms.into_iter().collect::<Option<_>>()?,
            places: std::mem::take(&mut self.places),
        })
    }

    /// Reads a scalar.
    pub(crate) fn required<T: Setting>(&mut self, key: &str, field: &Field<T>) -> Option<T> {
        self.places.0.insert(key.to_owned(), field.at);
        let text = self.text(key, &field.text, field.at)?;
        match T::parse(&text) {
            Ok(value) => Some(value),
            Err(expected) => {
                let message = format!("`{key}` can't be `{}`", field.text);
                self.problems.push(Problem::new(field.at, message, expected));
                None
            }
        }
    }

    /// Reads a scalar that may be left out.
    pub(crate) fn optional<T: Setting>(
        &mut self,
        key: &str,
        field: Option<Field<T>>,
        default: &str,
    ) -> T {
        field
            .and_then(|field| self.required(key, &field))
            .unwrap_or_else(|| T::parse(default).expect("every default is a valid value"))
    }

    fn size(&mut self, key: &str, field: Option<Field<Size>>, default: &str) -> u64 {
        self.optional(key, field, default).0
    }

    /// Replaces the references in a text.
    pub(crate) fn text(&mut self, key: &str, text: &str, at: Position) -> Option<String> {
        match self.sources.interpolate(text) {
            Ok(text) => Some(text),
            Err(missing) => {
                let message = format!("`{key}`: {}", missing.message);
                self.problems.push(Problem::new(at, message, missing.remedy));
                None
            }
        }
    }

    /// The properties of all clients.
    fn kafka(&mut self, section: Located<KafkaSection>) -> Kafka {
        let Located { value: section, at } = section;
        self.places.0.insert("kafka".to_owned(), at);
        let before = self.problems.len();
        let kafka = Kafka {
            common: self.properties("kafka", section.common),
            consumer: self.properties("kafka.consumer", section.consumer),
            producer: self.properties("kafka.producer", section.producer),
            admin: self.properties("kafka.admin", section.admin),
            session_timeout: timeouts::default(defaults::SESSION_TIMEOUT),
            transaction_timeout: timeouts::default(defaults::TRANSACTION_TIMEOUT),
            message_bytes_max: 0,
        };
        client_properties::check_security(&kafka, &self.places, &mut self.problems);
        if self.problems.len() == before {
            self.problems.extend(client_properties::check_servers(&kafka, at));
        }
        kafka
    }

    fn properties(&mut self, section: &str, entries: Entries<Field<Text>>) -> Properties {
        let read = entries.0.into_iter().filter_map(|(name, field)| {
            let key = format!("{section}.{}", name.value);
            self.places.0.insert(key.clone(), name.at);
            let named = client_properties::check_name(section, &name, self.sources);
            let Some(value) = self.text(&key, &field.text, field.at) else {
                self.problems.extend(named);
                return None;
            };
            let refused = named.or_else(|| {
                client_properties::check_value(&key, &name, &field, &value, self.sources)
            });
            let is_refused = refused.is_some();
            self.problems.extend(refused);
            (!is_refused).then_some((name.value, value))
        });
        Properties(read.collect())
    }

    fn state(&mut self, section: StateSection, application: Option<&str>) -> State {
        let given = section.directory.and_then(|field| self.path("state.directory", &field));
        let default = || {
            let name = application.unwrap_or_default();
            self.sources.folder.join(defaults::STATE_DIRECTORY).join(name)
        };
        State { directory: given.unwrap_or_else(default) }
    }

    /// Reads a path; a relative one starts at the file's folder.
    pub(crate) fn path(&mut self, key: &str, field: &Field<Text>) -> Option<PathBuf> {
        self.required(key, field).map(|Text(path)| self.absolute(&path))
    }

    /// A path that starts at the file's folder if it is relative.
    pub(crate) fn absolute(&self, path: &str) -> PathBuf {
        self.sources.folder.join(path)
    }

    #[rustfmt::skip]
    fn limits(&mut self, section: LimitsSection) -> Limits {
        Limits {
            guest_memory_bytes_max: self.size("limits.guest_memory_max", section.guest_memory_max, defaults::GUEST_MEMORY_MAX),
            guest_stack_bytes_max: self.size("limits.guest_stack_max", section.guest_stack_max, defaults::GUEST_STACK_MAX),
            guest_table_elements_max: self.optional("limits.guest_table_elements_max", section.guest_table_elements_max, defaults::GUEST_TABLE_ELEMENTS_MAX).0,
            batch_time_max: self.optional("limits.batch_time_max", section.batch_time_max, defaults::BATCH_TIME_MAX),
            batch_records_max: self.optional("limits.batch_records_max", section.batch_records_max, defaults::BATCH_RECORDS_MAX).0,
            record_bytes_max: self.size("limits.record_bytes_max", section.record_bytes_max, defaults::RECORD_BYTES_MAX),
            output_bytes_max: self.size("limits.output_bytes_max", section.output_bytes_max, defaults::OUTPUT_BYTES_MAX),
            module_bytes_max: self.size("limits.module_bytes_max", section.module_bytes_max, defaults::MODULE_BYTES_MAX),
            compile_time_max: self.optional("limits.compile_time_max", section.compile_time_max, defaults::COMPILE_TIME_MAX),
            compile_memory_bytes_max: self.size("limits.compile_memory_max", section.compile_memory_max, defaults::COMPILE_MEMORY_MAX),
            uncommitted_bytes_max: self.size("limits.uncommitted_bytes_max", section.uncommitted_bytes_max, defaults::UNCOMMITTED_BYTES_MAX),
            buffered_bytes_max: self.size("limits.buffered_bytes_max", section.buffered_bytes_max, defaults::BUFFERED_BYTES_MAX),
            log_lines_per_second_max: self.optional("limits.log_lines_per_second_max", section.log_lines_per_second_max, defaults::LOG_LINES_PER_SECOND_MAX).0,
            retry_attempts_max: self.optional("limits.retry_attempts_max", section.retry_attempts_max, defaults::RETRY_ATTEMPTS_MAX).0,
            retry_backoff: self.optional("limits.retry_backoff", section.retry_backoff, defaults::RETRY_BACKOFF),
            revoke_time_max: self.optional("limits.revoke_time_max", section.revoke_time_max, defaults::REVOKE_TIME_MAX),
        }
    }

    fn shutdown(&mut self, section: &ShutdownSection, leaves_by_default: bool) -> Shutdown {
        let leave = section.leave_on_stop.as_ref();
        let deadline = section.deadline.as_ref();
        Shutdown {
            deadline: deadline
                .and_then(|field| self.required("shutdown.deadline", field))
                .unwrap_or_else(|| {
                    Setting::parse(defaults::SHUTDOWN_DEADLINE).expect("the default is valid")
                }),
            leave_on_stop: leave
                .and_then(|field| self.required("shutdown.leave_on_stop", field))
                .unwrap_or(leaves_by_default),
        }
    }

    fn log(&mut self, section: LogSection) -> Log {
        Log {
            level: self.optional("log.level", section.level, defaults::LOG_LEVEL),
            format: self.optional("log.format", section.format, defaults::LOG_FORMAT),
        }
    }

    fn transform(&mut self, section: TransformSection) -> Option<Transform> {
        let name = self.required("name", &section.name).map(|Name(name)| name);
        let module = self.path("module", &section.module);
        let inputs: Vec<_> =
            section.inputs.into_iter().map(|input| route::input(self, input)).collect();
        let stores: Vec<_> =
            section.stores.unwrap_or_default().into_iter().map(|store| self.store(store)).collect();
        let outputs: Vec<_> = section
            .outputs
            .unwrap_or_default()
            .0
            .into_iter()
            .map(|(name, output)| route::output(self, &name, output))
            .collect();
        let on_error = route::on_error(self, section.on_error);
        let retry = section.retry.map(|retry| self.retry(&retry));
        Some(Transform {
            at: section.name.at,
            module_at: section.module.at,
            config: self.module_config(section.config)?,
            on_error: on_error?,
            retry,
            name: name?,
            module: module?,
            inputs: inputs.into_iter().collect::<Option<_>>()?,
            stores: stores.into_iter().collect::<Option<_>>()?,
            outputs: outputs.into_iter().collect::<Option<_>>()?,
        })
    }

    fn retry(&mut self, section: &RetrySection) -> Retry {
        let attempts = section.attempts.as_ref();
        let backoff = section.backoff.as_ref();
        Retry {
            attempts: attempts
                .and_then(|field| self.required("retry.attempts", field))
                .map(|Count(attempts)| attempts),
            backoff: backoff.and_then(|field| self.required("retry.backoff", field)),
        }
    }

    fn store(&mut self, store: Located<Short<StoreSection>>) -> Option<Store> {
        let at = store.at;
        let (name, kind) = match store.value {
            Short::Name(name) => (self.name("stores", &name, at)?, None),
            Short::Full(section) => (self.required("name", &section.name)?.0, section.kind),
        };
        Some(Store { name, at, kind: self.optional("kind", kind, defaults::STORE_KIND) })
    }

    /// Reads a name that stands alone.
    pub(crate) fn name(&mut self, key: &str, written: &str, at: Position) -> Option<String> {
        let text = self.text(key, written, at)?;
        match Name::parse(&text) {
            Ok(Name(name)) => Some(name),
            Err(expected) => {
                let message = format!("`{key}` can't be `{written}`");
                self.problems.push(Problem::new(at, message, expected));
                None
            }
        }
    }
}
