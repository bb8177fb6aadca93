//! A running simulator: serves a world over HTTP, and lets a test look at it, change it and disturb it.

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

/// A running server. It stops, with all its connections, when it is dropped.
#[derive(Debug)]
pub struct Sim {
    state: Arc<State>,
    /// Where it listens, unless it serves this process alone.
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
    /// If the port can not be opened.
    pub async fn start(world: World) -> io::Result<Sim> {
        Sim::start_on(0, world).await
    }

    /// Serves this world on this port of 127.0.0.1 (0: a free one), on the current tokio runtime.
    ///
    /// # Errors
    /// If the port can not be opened.
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

    /// Serves this world to this process alone, without a socket: through [`Sim::client`].
    pub fn in_process(world: World) -> Sim {
        let state = State::of(world);
        Sim {
            state,
            server: None,
        }
    }

    /// `http://127.0.0.1:PORT`, for all services; of a simulator without a socket an address at which nobody is.
    pub fn endpoint(&self) -> String {
        match &self.server {
            Some((address, _)) => format!("http://{address}"),
            None => "http://simulator.invalid".to_owned(),
        }
    }

    /// An HTTP client for the SDKs of this process, whose requests this simulator answers without a socket.
    pub fn client(&self) -> SharedHttpClient {
        SharedHttpClient::new(InProcess(Arc::clone(&self.state)))
    }

    /// Answers a request of this process, as [`Sim::client`] does.
    ///
    /// # Errors
    /// What a client makes of a connection that ends before there is an answer.
    pub async fn answer(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        exchange(Arc::clone(&self.state), request).await
    }

    /// From now on each request of this process is up to so much longer on its way, and so is each answer: how much,
    /// chance says, which `fastrand::seed` makes the same again.
    pub fn delay_at_random(&self, most: Duration) {
        *lock(&self.state.most_delay) = most;
    }

    /// The world, to look at or to change. The server waits while the guard lives: do not hold it
    /// while a request is under way.
    pub fn world(&self) -> MutexGuard<'_, World> {
        let mut world = lock(&self.state.world);
        world.forget_index();
        world
    }

    /// Every call in the order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.state.log).calls().to_vec()
    }

    /// Whether there was such a call.
    pub fn was_called(&self, is_it: impl Fn(&Call) -> bool) -> bool {
        lock(&self.state.log).calls().iter().any(is_it)
    }

    /// From now on keeps what it answers, as it is before a fault disturbs it: action and text.
    pub fn keep_answers(&self) {
        self.state.keeps_answers.store(true, Ordering::Relaxed);
    }

    /// The answers that were kept, in the order in which they were made.
    pub fn answers(&self) -> Vec<(String, String)> {
        lock(&self.state.answers).clone()
    }

    /// Empties the log of calls.
    pub fn forget_calls(&self) {
        lock(&self.state.log).forget_calls();
    }

    /// Disturbs calls to come.
    pub fn inject(&self, fault: Fault) {
        lock(&self.state.log).inject(fault);
    }

    /// Resets every connection that waits for a request: whoever sends one over it is told so by its end, and by
    /// nothing before. How many there were.
    pub fn reset_idle_connections(&self) -> usize {
        self.state.connections.reset_idle()
    }

    /// Takes all faults away.
    pub fn heal(&self) {
        lock(&self.state.log).heal();
    }
}

/// Accepts connections for ever. They live in this task's set, so they end with it.
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
                    // An error is a client that went away, or one of the faults: both are as meant.
                    let _ended = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
            // Out of file descriptors, say: later it may go on.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}
