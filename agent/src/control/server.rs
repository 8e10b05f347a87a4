//! Where the control service, probes and metrics listen.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, UnixListener},
    runtime::Runtime,
    sync::watch,
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{
    service::interceptor::InterceptedService,
    transport::{
        self,
        server::{Router, TcpIncoming},
    },
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tracing::{info, warn};

use super::{
    Error, Events, Operator,
    access::{self, Access},
    http, proto,
    service::Service,
    uploads::Uploads,
};
use crate::config::{Control, Listen};

/// Threads that serve; what reads state has its own.
const THREADS: usize = 2;
/// Threads that read state and write metrics.
const BLOCKING_THREADS_MAX: usize = 12;
/// How many calls of one connection are served at the same time.
const CALLS_MAX: usize = 32;
/// How often the health service learns what the agent says.
const HEALTH_INTERVAL: Duration = Duration::from_millis(250);
/// How long calls under way may take once the agent has ended.
const END_TIME_MAX: Duration = Duration::from_secs(1);
/// The health service's name for the control service.
const CONTROL: &str = "sidestream.control.v1.Control";

/// Listens until it is dropped.
pub struct Server {
    runtime: Option<Runtime>,
    end: watch::Sender<bool>,
    events: Arc<Events>,
    socket: Option<PathBuf>,
    control_address: Option<SocketAddr>,
    http_address: Option<SocketAddr>,
    module_bytes_max: u64,
}

impl Server {
    /// Listens where `control` and `http` say, and takes modules of at most `module_bytes_max`.
    pub fn start(
        control: &Control,
        http: Option<SocketAddr>,
        module_bytes_max: u64,
        operator: &Arc<dyn Operator>,
        events: &Arc<Events>,
    ) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("control")
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        let mut server = Self {
            runtime: None,
            end: watch::Sender::new(false),
            events: Arc::clone(events),
            socket: None,
            control_address: None,
            http_address: None,
            module_bytes_max,
        };
        {
            let _inside = runtime.enter();
            server.serve_control(control, operator)?;
            if let Some(address) = http {
                server.serve_http(address, operator)?;
            }
        }
        server.runtime = Some(runtime);
        Ok(server)
    }

    /// Where probes and metrics are.
    #[must_use]
    pub const fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Where the control service is, unless it is on a socket or off.
    #[must_use]
    pub const fn control_address(&self) -> Option<SocketAddr> {
        self.control_address
    }

    fn serve_control(
        &mut self,
        control: &Control,
        operator: &Arc<dyn Operator>,
    ) -> Result<(), Error> {
        let access = Access::read(control.token_file.as_deref())?;
        match &control.listen {
            Listen::Off => Ok(()),
            Listen::Unix(path) => {
                let listener = bind_socket(path)?;
                self.socket = Some(path.clone());
                info!(socket = %path.display(), "the control interface listens");
                let router = self.router(None, &access, operator);
                self.spawn(
                    router.serve_with_incoming_shutdown(
                        UnixListenerStream::new(listener),
                        self.ended(),
                    ),
                );
                Ok(())
            }
            &Listen::Tcp(address) => {
                let tls = match &control.tls {
                    Some(files) => {
                        let mut tls = transport::Server::builder();
                        let config = access::tls(files)?;
                        tls = tls.tls_config(config).map_err(|error| Error::File {
                            key: "control.tls",
                            path: files.certificate.clone(),
                            reason: chain(&error),
                        })?;
                        Some(tls)
                    }
                    None => None,
                };
                let listener = bind_tcp("control.listen", address)?;
                self.control_address = listener.local_addr().ok();
                let address = self.control_address.unwrap_or(address);
                info!(%address, tls = control.tls.is_some(), "the control interface listens");
                let router = self.router(tls, &access, operator);
                self.spawn(router.serve_with_incoming_shutdown(
                    TcpIncoming::from(listener).with_nodelay(Some(true)),
                    self.ended(),
                ));
                Ok(())
            }
        }
    }

    fn router(
        &self,
        server: Option<transport::Server>,
        access: &Access,
        operator: &Arc<dyn Operator>,
    ) -> Router {
        let check = |access: &Access| {
            let access = access.clone();
            move |request| access.check(request)
        };
        let (reporter, health) = tonic_health::server::health_reporter();
        tokio::spawn(report_health(reporter, Arc::clone(operator)));
        let events = Arc::clone(&self.events);
        let service = Service::new(Arc::clone(operator), events, self.module_bytes_max);
        let service = Uploads::new(service, self.module_bytes_max);
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .expect("the descriptions were made by the build");
        server
            .unwrap_or_else(transport::Server::builder)
            .concurrency_limit_per_connection(CALLS_MAX)
            .add_service(health)
            .add_service(InterceptedService::new(service, check(access)))
            .add_service(InterceptedService::new(reflection, check(access)))
    }

    fn serve_http(
        &mut self,
        address: SocketAddr,
        operator: &Arc<dyn Operator>,
    ) -> Result<(), Error> {
        let listener = bind_tcp("http.listen", address)?;
        self.http_address = listener.local_addr().ok();
        info!(address = %self.http_address.unwrap_or(address), "probes and metrics listen");
        let router = http::router(Arc::clone(operator));
        let ended = self.ended();
        self.spawn(async { axum::serve(listener, router).with_graceful_shutdown(ended).await });
        Ok(())
    }

    fn spawn<E: std::error::Error>(
        &self,
        serve: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        tokio::spawn(async move {
            if let Err(error) = serve.await {
                warn!(error = %chain(&error), "the control interface has ended");
            }
        });
    }

    fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut end = self.end.subscribe();
        async move {
            // An error says that the server is gone, which is the same.
            end.wait_for(|ended| *ended).await.ok();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.events.close();
        self.end.send_replace(true);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(END_TIME_MAX);
        }
        if let Some(socket) = &self.socket
            && let Err(error) = fs::remove_file(socket)
        {
            warn!(%error, socket = %socket.display(), "the control socket can't be removed");
        }
    }
}

/// Tells the health service what the agent says, until the runtime ends.
async fn report_health(reporter: HealthReporter, operator: Arc<dyn Operator>) {
    loop {
        let status = match operator.ready() {
            Ok(()) => ServingStatus::Serving,
            Err(_) => ServingStatus::NotServing,
        };
        for service in ["", CONTROL] {
            reporter.set_service_status(service, status).await;
        }
        tokio::time::sleep(HEALTH_INTERVAL).await;
    }
}

fn bind_tcp(key: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    bind().map_err(|source| Error::Listen { key, address: address.to_string(), source })
}

/// Makes a socket that only this user can open. What an agent before left behind is replaced.
fn bind_socket(path: &Path) -> Result<UnixListener, Error> {
    if UnixStream::connect(path).is_ok() {
        return Err(Error::InUse(path.to_owned()));
    }
    let bind = || -> io::Result<UnixListener> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let there = folder.is_dir();
        fs::create_dir_all(folder)?;
        if !there {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        }
        // Made private in a folder of its own before anybody can find it.
        let hidden = folder.join(format!(".{}", std::process::id()));
        if hidden.exists() {
            // One that was killed right here; in a container process ids come again.
            fs::remove_dir_all(&hidden)?;
        }
        fs::create_dir(&hidden)?;
        let made = || -> io::Result<UnixListener> {
            fs::set_permissions(&hidden, fs::Permissions::from_mode(0o700))?;
            let socket = hidden.join("s");
            let listener = UnixListener::bind(&socket)?;
            fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
            fs::rename(&socket, path)?;
            Ok(listener)
        }();
        fs::remove_dir_all(&hidden)?;
        made
    };
    let address = path.display().to_string();
    bind().map_err(|source| Error::Listen { key: "control.listen", address, source })
}

/// An error and its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
