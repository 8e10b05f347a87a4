//! A client of librdkafka: its configuration, its life.
#![allow(unsafe_code, reason = "owns C objects")]

use std::{
    ffi::{CString, c_char},
    ptr::{self, NonNull},
    slice,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use rdkafka::bindings as sys;

use super::{
    context::{self, Context, on_delivery, on_rebalance},
    failure::{Code, Failure, text},
    millis,
    properties::expected,
};

const ERROR_TEXT_BYTES: usize = 512;

/// How long the thread that drops a client waits for its end. librdkafka joins its own threads then,
/// each of which may still be amid a connection, and knows no bound itself.
const END_TIME_MAX: Duration = Duration::from_secs(5);

/// What a client is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kafka) enum Kind {
    /// A member of a group, whose rebalances are recorded in its context.
    Consumer,
    /// A consumer that is told what to read.
    Reader,
    /// A producer with delivery reports.
    Producer,
    /// A client for administration, technically a producer.
    Admin,
}

/// A client's configuration.
pub(in crate::kafka) struct Conf(NonNull<sys::rd_kafka_conf_t>);

impl Conf {
    /// librdkafka's own defaults.
    pub(in crate::kafka) fn new() -> Self {
        // SAFETY: allocates; never null.
        let conf = unsafe { sys::rd_kafka_conf_new() };
        Self(NonNull::new(conf).expect("librdkafka never returns a null configuration"))
    }

    /// Sets a property; says what librdkafka takes instead, where it does not take this value. (Its
    /// own words may repeat the value, which may be secret.)
    pub(in crate::kafka) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let no_zero = |_| "it contains a zero byte".to_owned();
        let key = CString::new(name).map_err(no_zero)?;
        let value = CString::new(value).map_err(no_zero)?;
        // SAFETY: the strings live during the call; there is no room for an error's text.
        let result = unsafe {
            let (conf, key, value) = (self.0.as_ptr(), key.as_ptr(), value.as_ptr());
            sys::rd_kafka_conf_set(conf, key, value, ptr::null_mut(), 0)
        };
        match result {
            sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK => Ok(()),
            sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_UNKNOWN => {
                Err("librdkafka has no such property".to_owned())
            }
            sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_INVALID => {
                Err(format!("it can't be this value; {}", expected(name)))
            }
        }
    }

    /// Makes a client; it connects in the background.
    pub(in crate::kafka) fn into_client(self, kind: Kind) -> Result<Client, String> {
        let context = Arc::new(Context::default());
        let conf = self.0.as_ptr();
        let mut error = [0 as c_char; ERROR_TEXT_BYTES];
        // SAFETY: the context lives in the client, which destroys the handle first. A handle that
        // was made owns the configuration; otherwise `self` still does.
        let raw = unsafe {
            context::register(conf, Arc::as_ptr(&context));
            match kind {
                Kind::Consumer => sys::rd_kafka_conf_set_rebalance_cb(conf, Some(on_rebalance)),
                Kind::Producer => sys::rd_kafka_conf_set_dr_msg_cb(conf, Some(on_delivery)),
                Kind::Reader | Kind::Admin => {}
            }
            sys::rd_kafka_new(native_kind(kind), conf, error.as_mut_ptr(), error.len())
        };
        let raw = NonNull::new(raw).ok_or_else(|| text(error.as_ptr()))?;
        std::mem::forget(self);
        Ok(Client { raw: Raw(raw), context })
    }
}

impl Drop for Conf {
    fn drop(&mut self) {
        // SAFETY: owned; forgotten when a client took it over.
        unsafe { sys::rd_kafka_conf_destroy(self.0.as_ptr()) }
    }
}

fn native_kind(kind: Kind) -> sys::rd_kafka_type_t {
    match kind {
        Kind::Consumer | Kind::Reader => sys::rd_kafka_type_t::RD_KAFKA_CONSUMER,
        Kind::Producer | Kind::Admin => sys::rd_kafka_type_t::RD_KAFKA_PRODUCER,
    }
}

/// A living client.
///
/// Dropped, a consumer stays a member of its group until its session ends, and a producer drops
/// what is not delivered. One that does not come to an end in time goes on ending by itself.
pub(in crate::kafka) struct Client {
    raw: Raw,
    context: Arc<Context>,
}

#[derive(Clone, Copy)]
struct Raw(NonNull<sys::rd_kafka_t>);

// SAFETY: librdkafka's handles may be used from any thread.
unsafe impl Send for Raw {}
// SAFETY: as above; its calls lock what they share.
unsafe impl Sync for Raw {}

impl Client {
    /// What the callbacks left.
    pub(in crate::kafka) fn context(&self) -> &Context {
        &self.context
    }

    /// The error that made the client unusable, if there is one.
    pub(in crate::kafka) fn fatal_error(&self) -> Option<Failure> {
        let mut error = [0 as c_char; ERROR_TEXT_BYTES];
        // SAFETY: the size is the buffer's.
        let code =
            unsafe { sys::rd_kafka_fatal_error(self.raw(), error.as_mut_ptr(), error.len()) };
        let failure = Failure { fatal: true, ..Failure::new(code, text(error.as_ptr())) };
        (code != Code::RD_KAFKA_RESP_ERR_NO_ERROR).then_some(failure)
    }

    /// Whether a broker answers within `timeout`.
    pub(in crate::kafka) fn reaches_broker(&self, timeout: Duration) -> bool {
        self.ask_for_metadata(false, timeout, |_| ()).is_some()
    }

    /// The names of all topics that this client may see; none if no broker answers in time.
    pub(in crate::kafka) fn topic_names(&self, timeout: Duration) -> Vec<String> {
        let names = |topics: &[sys::rd_kafka_metadata_topic_t]| {
            topics.iter().map(|topic| text(topic.topic)).collect()
        };
        self.ask_for_metadata(true, timeout, names).unwrap_or_default()
    }

    /// Asks anew who leads the partitions of the topics that were asked about before, and since
    /// which epoch. librdkafka leaves out what it holds to be valid, unless all topics are asked
    /// for; of those it keeps only what it knew.
    pub(in crate::kafka) fn refresh_leaders(&self, timeout: Duration) {
        self.ask_for_metadata(true, timeout, |_| ());
    }

    /// Asks anew about the brokers and the topics that this client has opened, so that it knows which
    /// of them are gone, and who the controller is.
    pub(in crate::kafka) fn refresh_topics(&self, timeout: Duration) {
        self.ask_for_metadata(false, timeout, |_| ());
    }

    fn ask_for_metadata<T>(
        &self,
        all_topics: bool,
        timeout: Duration,
        read: impl FnOnce(&[sys::rd_kafka_metadata_topic_t]) -> T,
    ) -> Option<T> {
        let mut metadata = ptr::null();
        // SAFETY: the metadata is written on success only, and freed once, after it was read.
        unsafe {
            let code = sys::rd_kafka_metadata(
                self.raw(),
                i32::from(all_topics),
                ptr::null_mut(),
                &raw mut metadata,
                millis(timeout),
            );
            if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
                return None;
            }
            let count = usize::try_from((*metadata).topic_cnt).unwrap_or(0);
            let answer = match count {
                0 => read(&[]),
                _ => read(slice::from_raw_parts((*metadata).topics, count)),
            };
            sys::rd_kafka_metadata_destroy(metadata);
            Some(answer)
        }
    }

    /// Serves callbacks, waiting for one up to `timeout`.
    pub(in crate::kafka) fn poll(&self, timeout: Duration) {
        // SAFETY: the handle is alive.
        unsafe { sys::rd_kafka_poll(self.raw(), millis(timeout)) };
    }

    pub(super) fn raw(&self) -> *mut sys::rd_kafka_t {
        self.raw.0.as_ptr()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.context.close();
        let (ended, end) = mpsc::channel::<()>();
        // The context goes along: callbacks use it until the client has ended.
        let (raw, context) = (self.raw, Arc::clone(&self.context));
        let ends = thread::Builder::new().name("client-end".to_owned()).spawn(move || {
            destroy(raw);
            drop((context, ended));
        });
        match ends {
            Ok(_) if end.recv_timeout(END_TIME_MAX) == Err(mpsc::RecvTimeoutError::Timeout) => {
                tracing::warn!(
                    waited_ms = millis(END_TIME_MAX),
                    "a Kafka client takes long to end; going on without it"
                );
            }
            Ok(_) => {}
            Err(_) => destroy(self.raw),
        }
    }
}

fn destroy(raw: Raw) {
    // SAFETY: called once, by the owner's drop. The flag keeps a consumer from waiting for callbacks
    // and from leaving its group, and means nothing to a producer.
    unsafe {
        sys::rd_kafka_destroy_flags(raw.0.as_ptr(), sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    }
}
