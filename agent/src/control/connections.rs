//! Connections: so many at a time, and none that stays without saying what it wants.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Sleep, sleep, timeout},
};
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::certificates::Certificates;

/// How many connections a listener has at a time. More wait in the system's queue, where they cost
/// this process nothing.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// How long the handshake of a connection may take, and then its first words.
pub(super) const GREETING_TIME_MAX: Duration = Duration::from_secs(5);
/// How long to wait after a connection could not be taken: the process may be out of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Where connections come from.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What a client has to say in [`GREETING_TIME_MAX`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Greeting {
    /// The preface of HTTP/2, and the head of the frame after it.
    Http2 = 24 + 9,
    /// Anything: the server has its own bound for what comes then.
    Any = 1,
}

/// A stream of bytes.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection. It counts until it is dropped, and fails if its client says nothing.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    /// How many bytes are yet to be read, and until when.
    greeting: Option<(usize, Pin<Box<Sleep>>)>,
    _permit: OwnedSemaphorePermit,
}

/// Connections one after another, in the order in which they are ready.
pub(super) type Connections = mpsc::Receiver<io::Result<Connection>>;

/// Takes connections until nobody wants them any more.
pub(super) fn accept(
    listener: Listener,
    greeting: Greeting,
    certificates: Option<Arc<Certificates>>,
) -> Connections {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let next = async {
                let permit = Arc::clone(&permits).acquire_owned().await;
                (permit.expect("the semaphore is never closed"), listener.accept().await)
            };
            let (permit, stream) = tokio::select! {
                next = next => next,
                () = sender.closed() => return,
            };
            let stream = match stream {
                Ok(stream) => stream,
                Err(error) => {
                    warn!(%error, "a connection can't be taken");
                    sleep(ACCEPT_BACKOFF).await;
                    continue;
                }
            };
            let (certificates, sender) = (certificates.clone(), sender.clone());
            tokio::spawn(async move {
                match shake_hands(stream, certificates).await {
                    Ok(stream) => {
                        let greeting =
                            Some((greeting as usize, Box::pin(sleep(GREETING_TIME_MAX))));
                        let connection = Connection { stream, greeting, _permit: permit };
                        // Nobody wants it any more.
                        sender.send(Ok(connection)).await.ok();
                    }
                    Err(error) => debug!(%error, "a connection was refused"),
                }
            });
        }
    });
    receiver
}

impl Listener {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

async fn shake_hands(
    stream: Box<dyn Stream>,
    certificates: Option<Arc<Certificates>>,
) -> io::Result<Box<dyn Stream>> {
    let Some(certificates) = certificates else { return Ok(stream) };
    let shaken = timeout(GREETING_TIME_MAX, certificates.acceptor().accept(stream)).await;
    Ok(Box::new(shaken.map_err(|_| silent())??))
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client says nothing")
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some((_, deadline)) = &mut this.greeting
            && deadline.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(silent()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        this.greeting = this.greeting.take().and_then(|(left, deadline)| {
            let left = left.saturating_sub(read);
            (left > 0).then_some((left, deadline))
        });
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
