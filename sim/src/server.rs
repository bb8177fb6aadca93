//! A running simulator: serves a world over HTTP, and lets a test read, change and disturb it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::fault::{Call, Fault};
use crate::handler::handle;
use crate::state::{State, lock};
use crate::wire::{InProcess, exchange};
use crate::world::World;

/// A running simulator. Dropping it stops the server and all its connections.
#[derive(Debug)]
pub struct Sim {
    state: Arc<State>,
    /// Address and task of the server, or `None` if it serves only this process.
    server: Option<(SocketAddr, JoinHandle<()>)>,
}

impl Drop for Sim {
    fn drop(&mut self) {
        if let Some((_, server)) = &self.server {
            server.abort();
        }
    }
}

impl Sim {
    /// Serves this world on a free port of 127.0.0.1, on the current tokio runtime.
    ///
    /// # Errors
    /// If the port cannot be opened.
    pub async fn start(world: World) -> io::Result<Sim> {
        Sim::start_on(0, world).await
    }

    /// Serves this world on this port of 127.0.0.1 (0 for a free one), on the current tokio runtime.
    ///
    /// # Errors
    /// If the port cannot be opened.
    pub async fn start_on(port: u16, world: World) -> io::Result<Sim> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let state = State::of(world);
        let server = tokio::spawn(serve(listener, Arc::clone(&state)));
        Ok(Sim {
            state,
            server: Some((address, server)),
        })
    }

    /// Serves this world only to this process, without a socket, through [`Sim::client`].
    pub fn in_process(world: World) -> Sim {
        let state = State::of(world);
        Sim {
            state,
            server: None,
        }
    }

    /// `http://127.0.0.1:PORT`, for all services. Without a socket, an address that does not exist.
    pub fn endpoint(&self) -> String {
        match &self.server {
            Some((address, _)) => format!("http://{address}"),
            None => "http://simulator.invalid".to_owned(),
        }
    }

    /// An HTTP client for the SDKs of this process. The simulator answers its requests without a socket.
    pub fn client(&self) -> SharedHttpClient {
        SharedHttpClient::new(InProcess(Arc::clone(&self.state)))
    }

    /// Answers a request of this process, like [`Sim::client`].
    ///
    /// # Errors
    /// The error of a client whose connection ends before the answer.
    pub async fn answer(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        exchange(Arc::clone(&self.state), request).await
    }

    /// From now on, delays each request and each answer of this process by a random time up to `most`. `fastrand::seed`
    /// makes the delays repeatable.
    pub fn delay_at_random(&self, most: Duration) {
        *lock(&self.state.most_delay) = most;
    }

    /// The world, to read or change. The server waits while the lock is held, so do not hold it while a request is
    /// under way.
    pub fn world(&self) -> MutexGuard<'_, World> {
        let mut world = lock(&self.state.world);
        world.forget_index();
        world
    }

    /// Every call, in order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.state.log).calls().to_vec()
    }

    /// Whether any call matches.
    pub fn was_called(&self, is_it: impl Fn(&Call) -> bool) -> bool {
        lock(&self.state.log).calls().iter().any(is_it)
    }

    /// From now on, keeps every answer as it is before a fault disturbs it, with its action.
    pub fn keep_answers(&self) {
        self.state.keeps_answers.store(true, Ordering::Relaxed);
    }

    /// The kept answers in order, each as action and text.
    pub fn answers(&self) -> Vec<(String, String)> {
        lock(&self.state.answers).clone()
    }

    /// Clears the log of calls.
    pub fn forget_calls(&self) {
        lock(&self.state.log).forget_calls();
    }

    /// Disturbs future calls.
    pub fn inject(&self, fault: Fault) {
        lock(&self.state.log).inject(fault);
    }

    /// Resets every connection that waits for a request, and returns their number. A client notices the reset only when
    /// it sends its next request.
    pub fn reset_idle_connections(&self) -> usize {
        self.state.connections.reset_idle()
    }

    /// Removes all faults.
    pub fn heal(&self) {
        lock(&self.state.log).heal();
    }
}

/// Accepts connections forever. They are tasks in this task's set, so they end with it.
async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let state = Arc::clone(&state);
                let (connection, stream) = state.connections.open(stream);
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let (state, serving) = (Arc::clone(&state), connection.serving());
                        async move {
                            let answer = handle(request, state).await;
                            drop(serving);
                            answer
                        }
                    });
                    // An error means that the client disconnected, or that a fault closed the connection. Both are
                    // expected.
                    let _ended = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
            // It may succeed later, for example if file descriptors are exhausted.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}
