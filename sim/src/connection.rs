//! Open connections, and the reset of idle ones.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// State of a connection, apart from its stream.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    /// Number of requests under way.
    busy: AtomicUsize,
    dead: AtomicBool,
}

impl Connection {
    /// Marks a request as under way until the result is dropped.
    pub(crate) fn serving(self: &Arc<Connection>) -> Serving {
        self.busy.fetch_add(1, Ordering::SeqCst);
        Serving(Arc::clone(self))
    }
}

/// See [`Connection::serving`].
#[derive(Debug)]
pub(crate) struct Serving(Arc<Connection>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

/// All open connections.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<Vec<Weak<Connection>>>);

impl Connections {
    pub(crate) fn open(&self, stream: TcpStream) -> (Arc<Connection>, Line) {
        let connection = Arc::new(Connection::default());
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|it| it.strong_count() > 0);
        open.push(Arc::downgrade(&connection));
        let line = Line {
            stream,
            connection: Arc::clone(&connection),
        };
        (connection, line)
    }

    /// Resets the connections that wait for a request, and returns their number.
    pub(crate) fn reset_idle(&self) -> usize {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = open.iter().filter_map(Weak::upgrade);
        let idle = alive.filter(|it| it.busy.load(Ordering::SeqCst) == 0);
        idle.filter(|it| !it.dead.swap(true, Ordering::SeqCst))
            .count()
    }
}

/// The stream of a connection. After a reset, the client notices only when it sends something, as with a NAT gateway
/// that has dropped the connection.
#[derive(Debug)]
pub(crate) struct Line {
    stream: TcpStream,
    connection: Arc<Connection>,
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.connection.dead.load(Ordering::SeqCst) {
            ready!(self.stream.poll_read_ready(context))?;
            // The received bytes stay unread, so that the operating system resets the connection instead of closing it.
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Line {
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
        if self.connection.dead.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
