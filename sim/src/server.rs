//! The HTTP server: reads requests, applies faults, and writes what the services answer.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Sleep;

use crate::fault::{Answer, Call, Fault, FaultKind, Log, Service};
use crate::form::Form;
use crate::refusal::Refusal;
use crate::world::World;
use crate::{ec2, sns};

/// Far above what the services take (SNS: 1 MiB), and small enough for a test machine.
const LARGEST_REQUEST: usize = 4 << 20;

/// A running server. It stops, with all its connections, when it is dropped.
#[derive(Debug)]
pub struct Sim {
    address: SocketAddr,
    state: Arc<State>,
    server: JoinHandle<()>,
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.server.abort();
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
        let state = Arc::new(State {
            world: Mutex::new(world),
            log: Mutex::new(Log::default()),
            requests: AtomicU64::new(1),
        });
        let server = tokio::spawn(serve(listener, Arc::clone(&state)));
        Ok(Sim {
            address,
            state,
            server,
        })
    }

    /// `http://127.0.0.1:PORT`, for both services.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The world, to look at or to change. The server waits while the guard lives: do not hold it
    /// while a request is under way.
    pub fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.state.world)
    }

    /// Every call in the order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.state.log).calls().to_vec()
    }

    /// Empties the log of calls.
    pub fn forget_calls(&self) {
        lock(&self.state.log).forget_calls();
    }

    /// Disturbs calls to come.
    pub fn inject(&self, fault: Fault) {
        lock(&self.state.log).inject(fault);
    }

    /// Takes all faults away.
    pub fn heal(&self) {
        lock(&self.state.log).heal();
    }
}

/// Locked in this order: the world, then the log.
#[derive(Debug)]
struct State {
    world: Mutex<World>,
    log: Mutex<Log>,
    /// Gives each answer its request id.
    requests: AtomicU64,
}

/// A test that failed while it held the lock must not make every other one fail.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Accepts connections for ever. They live in this task's set, so they end with it.
async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let state = Arc::clone(&state);
                connections.spawn(async move {
                    let service = service_fn(move |request| handle(request, Arc::clone(&state)));
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

/// Ends the connection without an answer: hyper closes it when a service fails.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed on purpose")]
struct Closed;

type ReplyBody = Either<Full<Bytes>, HalfBody>;

/// What goes back: a status and an XML document.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: String,
}

async fn handle(
    request: Request<Incoming>,
    state: Arc<State>,
) -> Result<Response<ReplyBody>, Closed> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let Some(body) = body_of(request).await else {
        let refusal = Refusal::new("RequestEntityTooLarge", "The request is too large.");
        return response(ec2::refused(&refusal.with_status(413), ""), false);
    };
    let params: BTreeMap<String, String> = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .chain(form_urlencoded::parse(&body).into_owned())
        .collect();

    let (reply, fault) = answer(&state, params);
    match (reply, fault) {
        (None, _) | (_, Some(FaultKind::ResetAfter)) => Err(Closed),
        (Some(reply), Some(FaultKind::Slow(delay))) => {
            tokio::time::sleep(delay).await;
            response(reply, false)
        }
        (Some(reply), Some(FaultKind::CutBody)) => response(reply, true),
        (Some(mut reply), Some(FaultKind::CutShort(bytes))) => {
            reply.body.truncate(reply.body.floor_char_boundary(bytes));
            response(reply, false)
        }
        (Some(reply), _) => response(reply, false),
    }
}

/// The body of a request, unless it is too large or the client went away.
async fn body_of(request: Request<Incoming>) -> Option<Bytes> {
    // What announces itself as too large is not even waited for.
    if request.body().size_hint().lower() > LARGEST_REQUEST as u64 {
        return None;
    }
    let body = Limited::new(request.into_body(), LARGEST_REQUEST);
    Some(body.collect().await.ok()?.to_bytes())
}

/// Serves one call, and logs it; the reply is absent if the fault leaves none.
///
/// The world stays locked throughout, so that the log's order is that of the effects.
fn answer(state: &State, params: BTreeMap<String, String>) -> (Option<Reply>, Option<FaultKind>) {
    let mut world = lock(&state.world);
    let action = params.get("Action").cloned().unwrap_or_default();
    let service = match params.get("Version").map(String::as_str) {
        Some(sns::VERSION) => Service::Sns,
        _ => Service::Ec2,
    };
    let fault = lock(&state.log).fault_for(&action);
    let form = Form::new(&params);
    let result = match &fault {
        Some(FaultKind::ResetBefore) => None,
        Some(FaultKind::Throttle) => Some(Err(match service {
            Service::Ec2 => {
                Refusal::new("RequestLimitExceeded", "Request limit exceeded.").with_status(503)
            }
            Service::Sns => Refusal::new("Throttling", "Rate exceeded"),
        })),
        Some(FaultKind::InternalError) => Some(Err(Refusal::new(
            "InternalError",
            "An internal error has occurred",
        )
        .with_status(500))),
        Some(FaultKind::AccessDenied) => Some(Err(match service {
            Service::Ec2 => ec2::denied(&world, &action, &form),
            Service::Sns => sns::denied(&world, &action, &form),
        })),
        Some(FaultKind::Refuse { code, message }) => Some(Err(Refusal::new(code, message))),
        None
        | Some(
            FaultKind::ResetAfter
            | FaultKind::Slow(_)
            | FaultKind::CutBody
            | FaultKind::CutShort(_),
        ) => Some(match service {
            Service::Ec2 => ec2::call(&mut world, &action, &form),
            Service::Sns => sns::call(&mut world, &action, &form),
        }),
    };
    let answer = match (&fault, &result) {
        (Some(kind), _) => Answer::Fault(kind.clone()),
        (None, Some(Err(refusal))) => Answer::Refused(refusal.code.clone()),
        (None, _) => Answer::Ok,
    };
    let reply = result.map(|result| {
        let number = state.requests.fetch_add(1, Ordering::Relaxed);
        let request_id = format!("00000000-0000-4000-8000-{number:012x}");
        match service {
            Service::Ec2 => ec2::reply(&action, &request_id, result),
            Service::Sns => sns::reply(&action, &request_id, result),
        }
    });
    lock(&state.log).record(Call {
        service,
        action,
        params,
        answer,
    });
    (reply, fault)
}

fn response(reply: Reply, cut: bool) -> Result<Response<ReplyBody>, Closed> {
    let length = reply.body.len();
    let bytes = Bytes::from(reply.body);
    let body = if cut {
        Either::Right(HalfBody::of(&bytes))
    } else {
        Either::Left(Full::new(bytes))
    };
    Response::builder()
        .status(reply.status)
        .header(CONTENT_TYPE, "text/xml;charset=UTF-8")
        .header(CONTENT_LENGTH, length)
        .body(body)
        .map_err(|_| Closed)
}

/// The first half of a document, and then an error, upon which hyper closes the connection.
#[derive(Debug)]
struct HalfBody {
    half: Option<Bytes>,
    end: Pin<Box<Sleep>>,
}

impl HalfBody {
    fn of(whole: &Bytes) -> HalfBody {
        HalfBody {
            half: Some(whole.slice(..whole.len() / 2)),
            // hyper does not send what is in its buffer any more when a body fails: so fail later.
            end: Box::pin(tokio::time::sleep(Duration::from_millis(20))),
        }
    }
}

impl Body for HalfBody {
    type Data = Bytes;
    type Error = Closed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Closed>>> {
        match self.half.take() {
            Some(half) => Poll::Ready(Some(Ok(Frame::data(half)))),
            None => self.end.as_mut().poll(context).map(|()| Some(Err(Closed))),
        }
    }
}
