//! The HTTP server: reads requests, applies faults, and writes what the services answer.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::{Body, Frame};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, Sleep};

use crate::connection::Connections;
use crate::ec2::EMPTY_PAGE;
use crate::fault::{Answer, Call, Fault, FaultKind, Log, Service};
use crate::form::Form;
use crate::recording::Heard;
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::wire::{InProcess, exchange};
use crate::world::World;
use crate::{clock, dynamodb, ebs, ec2, query, rbin, rest_json, sns, sqs, sts, without};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long a request or an answer is on its way in this process, at least.
const ON_THE_WAY: Duration = Duration::from_millis(1);

/// Far above what the services take (SNS: 1 MiB), and small enough for a test machine.
const LARGEST_REQUEST: usize = 4 << 20;

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

/// Locked in this order: the world, then the log.
#[derive(Debug)]
pub(crate) struct State {
    world: Mutex<World>,
    log: Mutex<Log>,
    /// Gives each answer its request id.
    requests: AtomicU64,
    connections: Connections,
    keeps_answers: AtomicBool,
    /// What was answered, by the action.
    answers: Mutex<Vec<(String, String)>>,
    /// How long a request or an answer is on its way at most, without a socket.
    most_delay: Mutex<Duration>,
}

impl State {
    fn of(mut world: World) -> Arc<State> {
        world.forget_index();
        Arc::new(State {
            world: Mutex::new(world),
            log: Mutex::new(Log::default()),
            requests: AtomicU64::new(1),
            connections: Connections::default(),
            keeps_answers: AtomicBool::new(false),
            answers: Mutex::default(),
            most_delay: Mutex::default(),
        })
    }

    /// Waits for what is on its way: no call takes no time at all.
    pub(crate) async fn on_the_way(&self) {
        let most = *lock(&self.most_delay);
        let delay = ON_THE_WAY + most.mul_f64(fastrand::f64());
        tokio::time::sleep(delay).await;
    }
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

/// Ends the connection without an answer: hyper closes it when a service fails.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed on purpose")]
pub(crate) struct Closed;

pub(crate) type ReplyBody = Either<Full<Bytes>, HalfBody>;

/// A request as all services have it.
#[derive(Debug)]
struct Question {
    service: Service,
    action: String,
    params: BTreeMap<String, String>,
}

impl Question {
    /// A request whose action is in the query or in the form that is its body.
    fn of_form(query: &str, body: &[u8]) -> Question {
        let params: BTreeMap<String, String> = form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .chain(form_urlencoded::parse(body).into_owned())
            .collect();
        Question {
            service: match params.get("Version").map(String::as_str) {
                Some(sns::VERSION) => Service::Sns,
                Some(sts::VERSION) => Service::Sts,
                _ => Service::Ec2,
            },
            action: params.get("Action").cloned().unwrap_or_default(),
            params,
        }
    }

    /// A request of DynamoDB or SQS, whose action a header names.
    fn of_json(service: Service, action: &str, body: &[u8]) -> Question {
        let body = String::from_utf8_lossy(body).into_owned();
        let mut params = match service {
            Service::Sqs => sqs::params(&body),
            _ => BTreeMap::new(),
        };
        if service == Service::DynamoDb
            && let Some(tables) = dynamodb::table_names(&body)
        {
            params.insert("TableName".to_owned(), tables);
        }
        params.insert("Body".to_owned(), body);
        Question {
            service,
            action: action.to_owned(),
            params,
        }
    }

    /// A request of the EBS direct APIs or of the Recycle Bin, whose action its path names.
    fn of_path(method: &str, path: &str, query: &str) -> Option<Question> {
        let ebs = ebs::question(method, path, query).map(|question| (Service::Ebs, question));
        let found = ebs.or_else(|| Some((Service::Rbin, rbin::question(method, path)?)));
        let (service, (action, params)) = found?;
        Some(Question {
            service,
            action,
            params,
        })
    }

    fn form(&self) -> Form<'_> {
        Form::new(&self.params)
    }

    /// The body of a request of DynamoDB or SQS.
    fn json(&self) -> &str {
        self.params.get("Body").map_or("", String::as_str)
    }
}

pub(crate) async fn handle<B: Body<Data: Send, Error: Into<BoxError>>>(
    request: Request<B>,
    state: Arc<State>,
) -> Result<Response<ReplyBody>, Closed> {
    let arrival = Instant::now();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let of_path = Question::of_path(request.method().as_str(), request.uri().path(), &query);
    let target = request.headers().get("x-amz-target");
    let target = target.and_then(|target| target_of(target.to_str().ok()?));
    let region = signed_for(request.headers());
    let heard = Heard::of(&request);
    let Some(body) = body_of(request).await else {
        let refusal = Refusal::new("RequestEntityTooLarge", "The request is too large.");
        return response(ec2::refused(&refusal.with_status(413), ""), false);
    };
    let question = match (of_path, target) {
        (Some(question), _) => question,
        (None, Some((service, action))) => Question::of_json(service, &action, &body),
        (None, None) => Question::of_form(&query, &body),
    };

    let (service, action) = (question.service, question.action.clone());
    let Outcome {
        pending,
        fault,
        latency,
    } = answer(&state, region, question);
    let reply = match pending {
        None => None,
        Some(Pending::Reply(reply)) => Some(reply),
        Some(Pending::Reading(request_id, reading)) => {
            // Where nobody else waits, it is read at once, so that the same is always done in the same order.
            if clock::is_virtual() {
                Some(ebs::read(&request_id, reading))
            } else {
                let read = tokio::task::spawn_blocking(move || ebs::read(&request_id, reading));
                Some(read.await.map_err(|_| Closed)?)
            }
        }
    };
    if let Some(heard) = heard {
        heard.record(service, &action, &body, fault.is_some(), reply.as_ref());
    }
    let mut reply = reply.ok_or(Closed)?;
    if state.keeps_answers.load(Ordering::Relaxed) {
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        lock(&state.answers).push((action.clone(), text));
    }
    let early = latency.saturating_sub(arrival.elapsed());
    // Even a sleep of no time at all takes up to a millisecond.
    if !early.is_zero() {
        tokio::time::sleep(early).await;
    }
    match fault {
        Some(FaultKind::ResetAfter) => Err(Closed),
        Some(FaultKind::Slow(delay)) => {
            tokio::time::sleep(delay).await;
            response(reply, false)
        }
        Some(FaultKind::CutBody) => response(reply, true),
        Some(FaultKind::CutShort(bytes)) => {
            reply.body.truncate(bytes);
            response(reply, false)
        }
        Some(FaultKind::Padded(spaces)) => {
            let mut body = reply.body.to_vec();
            body.resize(body.len() + spaces, b' ');
            reply.body = body.into();
            response(reply, false)
        }
        Some(FaultKind::Without(name)) => {
            reply.body = without::element(&reply.body, &name);
            response(reply, false)
        }
        Some(FaultKind::FlipBit) => {
            reply.body = with_a_bit_flipped(&reply.body);
            response(reply, false)
        }
        _ => response(reply, false),
    }
}

/// The service and the action that the header `X-Amz-Target` names.
fn target_of(target: &str) -> Option<(Service, String)> {
    let of = |service, prefix| Some((service, target.strip_prefix(prefix)?.to_owned()));
    of(Service::DynamoDb, dynamodb::TARGET).or_else(|| of(Service::Sqs, sqs::TARGET))
}

/// The Region in the scope of a request's signature, `Credential=KEY/DATE/REGION/SERVICE/aws4_request`.
fn signed_for(headers: &HeaderMap) -> Option<String> {
    let authorization = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (_, scope) = authorization.split_once("Credential=")?;
    scope.split('/').nth(2).map(str::to_owned)
}

fn with_a_bit_flipped(body: &Bytes) -> Bytes {
    let mut body = body.to_vec();
    let middle = body.len() / 2;
    if let Some(byte) = body.get_mut(middle) {
        *byte ^= 1;
    }
    body.into()
}

/// The body of a request, unless it is too large or the client went away.
async fn body_of<B: Body<Error: Into<BoxError>>>(request: Request<B>) -> Option<Bytes> {
    // What announces itself as too large is not even waited for.
    if request.body().size_hint().lower() > LARGEST_REQUEST as u64 {
        return None;
    }
    let body = Limited::new(request.into_body(), LARGEST_REQUEST);
    Some(body.collect().await.ok()?.to_bytes())
}

/// What came of a call while the world was locked.
#[derive(Debug)]
struct Outcome {
    /// Absent if the fault leaves no reply.
    pending: Option<Pending>,
    fault: Option<FaultKind>,
    /// How long the call takes at least.
    latency: Duration,
}

/// A reply, or what leads to it.
#[derive(Debug)]
enum Pending {
    Reply(Reply),
    /// The answer to the request of this id needs the disk.
    Reading(String, ebs::Reading),
}

/// Serves one call, and logs it.
///
/// The world stays locked throughout, so that the log's order is that of the effects. Only what a call reads
/// from a disk it reads afterwards.
fn answer(state: &State, region: Option<String>, mut question: Question) -> Outcome {
    let mut world = lock(&state.world);
    let region = region.unwrap_or_else(|| world.region.clone());
    let world = world.signed_for(&region);
    let fault = lock(&state.log).fault_for(&question.action, &question.params);
    let latency = match question.service {
        Service::Ebs => world.ebs.latency,
        Service::Ec2
        | Service::Sns
        | Service::Sqs
        | Service::Sts
        | Service::DynamoDb
        | Service::Rbin => Duration::ZERO,
    };
    let (pending, answer) = if fault == Some(FaultKind::ResetBefore) {
        (None, Answer::Ok)
    } else {
        let refusal = fault
            .as_ref()
            .and_then(|fault| refusal_of(fault, world, &question))
            .or_else(|| (!world.is_usable()).then(|| not_opted_in(question.service)));
        let number = state.requests.fetch_add(1, Ordering::Relaxed);
        let request_id = format!("00000000-0000-4000-8000-{number:012x}");
        if fault == Some(FaultKind::EmptyPage) {
            question.params.insert(EMPTY_PAGE.into(), String::new());
        }
        let (pending, answer) = serve_or_refuse(world, &question, request_id, refusal);
        question.params.remove(EMPTY_PAGE);
        (Some(pending), answer)
    };
    lock(&state.log).record(Call {
        service: question.service,
        region,
        action: question.action,
        params: question.params,
        answer: match &fault {
            Some(kind) => Answer::Fault(kind.clone()),
            None => answer,
        },
    });
    Outcome {
        pending,
        fault,
        latency,
    }
}

/// How the service refuses the call because of the fault, if that is what the fault does.
fn refusal_of(fault: &FaultKind, world: &World, question: &Question) -> Option<Refusal> {
    let Question {
        service, action, ..
    } = question;
    Some(match (fault, service) {
        (FaultKind::Throttle, Service::Ec2) => ec2::throttled(),
        (FaultKind::Throttle, Service::Sns | Service::Sts) => query::throttled(),
        (FaultKind::Throttle, Service::DynamoDb) => dynamodb::throttled(),
        (FaultKind::Throttle, Service::Ebs) => ebs::throttled(action),
        (FaultKind::Throttle, Service::Rbin) => rbin::throttled(),
        (FaultKind::Throttle, Service::Sqs) => sqs::throttled(),
        (FaultKind::InternalError, Service::DynamoDb) => dynamodb::failed(),
        (FaultKind::InternalError, Service::Sqs) => sqs::failed(),
        // Both services have the same error.
        (FaultKind::InternalError, Service::Ebs | Service::Rbin) => rest_json::failed(),
        (FaultKind::InternalError, _) => {
            Refusal::new("InternalError", "An internal error has occurred").with_status(500)
        }
        (FaultKind::AccessDenied, Service::Ec2) => ec2::denied(world, action, &question.form()),
        (FaultKind::AccessDenied, Service::Sns) => sns::denied(world, action, &question.form()),
        (FaultKind::AccessDenied, Service::Sts) => sts::denied(world, action),
        (FaultKind::AccessDenied, Service::DynamoDb) => {
            dynamodb::denied(world, action, question.json())
        }
        (FaultKind::AccessDenied, Service::Ebs) => ebs::denied(world, action, &question.params),
        (FaultKind::AccessDenied, Service::Rbin) => rbin::denied(world, action, &question.params),
        (FaultKind::AccessDenied, Service::Sqs) => sqs::denied(world, action, &question.params),
        (FaultKind::TransactionConflict, _) => dynamodb::conflicting(action, question.json()),
        (FaultKind::Refuse { code, message }, Service::Ebs | Service::Rbin) => {
            rest_json::refusal(code, message)
        }
        (FaultKind::Refuse { code, message }, _) => Refusal::new(code, message),
        (
            FaultKind::ResetBefore
            | FaultKind::ResetAfter
            | FaultKind::Slow(_)
            | FaultKind::CutBody
            | FaultKind::CutShort(_)
            | FaultKind::EmptyPage
            | FaultKind::Without(_)
            | FaultKind::Padded(_)
            | FaultKind::FlipBit,
            _,
        ) => return None,
    })
}

/// How a service refuses an account that has not opted in to its Region: it does not know its credentials.
fn not_opted_in(service: Service) -> Refusal {
    let invalid_token = "The security token included in the request is invalid.";
    match service {
        Service::Ec2 => Refusal::new(
            "AuthFailure",
            "AWS was not able to validate the provided access credentials",
        )
        .with_status(401),
        Service::Sns | Service::Sts => {
            Refusal::new("InvalidClientTokenId", invalid_token).with_status(403)
        }
        Service::DynamoDb => Refusal::new("UnrecognizedClientException", invalid_token),
        Service::Ebs | Service::Rbin | Service::Sqs => {
            Refusal::new("UnrecognizedClientException", invalid_token).with_status(403)
        }
    }
}

/// What the service answers: the refusal, if there is one, or what the call leads to.
fn serve_or_refuse(
    world: &mut World,
    question: &Question,
    request_id: String,
    refusal: Option<Refusal>,
) -> (Pending, Answer) {
    let action = question.action.as_str();
    let (reply, answer) = match question.service {
        Service::Ec2 => {
            let form = question.form();
            ec2::prepare(world, action, &form);
            put_into_words(
                refusal.map_or_else(|| ec2::call(world, action, &form), Err),
                |result| ec2::reply(action, &request_id, result),
            )
        }
        Service::Sns => put_into_words(
            refusal.map_or_else(|| sns::call(world, action, &question.form()), Err),
            |result| query::reply(sns::NAMESPACE, action, &request_id, result),
        ),
        Service::Sts => put_into_words(
            refusal.map_or_else(|| sts::call(world, action, &question.form()), Err),
            |result| query::reply(sts::NAMESPACE, action, &request_id, result),
        ),
        Service::DynamoDb => put_into_words(
            refusal.map_or_else(|| dynamodb::call(world, action, question.json()), Err),
            |result| dynamodb::reply(&request_id, result),
        ),
        Service::Sqs => put_into_words(
            refusal.map_or_else(|| sqs::call(world, action, question.json()), Err),
            |result| sqs::reply(&request_id, result),
        ),
        Service::Rbin => put_into_words(
            refusal.map_or_else(|| rbin::call(world, action, &question.params), Err),
            |result| rbin::reply(&request_id, result),
        ),
        Service::Ebs => {
            return put_into_words(
                refusal.map_or_else(|| ebs::call(world, action, &question.params), Err),
                |result| match result {
                    Ok(reading) => Pending::Reading(request_id, reading),
                    Err(refusal) => Pending::Reply(rest_json::refused(&request_id, refusal)),
                },
            );
        }
    };
    (Pending::Reply(reply), answer)
}

fn put_into_words<T, R>(
    result: Result<T, Refusal>,
    reply: impl FnOnce(Result<T, Refusal>) -> R,
) -> (R, Answer) {
    let answer = match &result {
        Ok(_) => Answer::Ok,
        Err(refusal) => Answer::Refused(refusal.code.clone()),
    };
    (reply(result), answer)
}

fn response(reply: Reply, cut: bool) -> Result<Response<ReplyBody>, Closed> {
    let length = reply.body.len();
    let body = if cut {
        Either::Right(HalfBody::of(&reply.body))
    } else {
        Either::Left(Full::new(reply.body))
    };
    let mut response = Response::builder()
        .status(reply.status)
        .header(CONTENT_TYPE, reply.content_type)
        .header(CONTENT_LENGTH, length);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(body).map_err(|_| Closed)
}

/// The first half of a document, and then an error, upon which hyper closes the connection.
#[derive(Debug)]
pub(crate) struct HalfBody {
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
