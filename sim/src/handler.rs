//! One HTTP exchange: reads the request, and disturbs the answer if there is a fault.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::{Body, Frame};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use hyper::{Request, Response};
use tokio::time::{Instant, Sleep};

use crate::dispatch::{Outcome, Pending, Question, answer, target_of};
use crate::fault::FaultKind;
use crate::recording::Heard;
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::state::{State, lock};
use crate::{clock, ebs, ec2, without};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Maximum size of a request, in bytes. Far above the services' limits (SNS: 1 MiB), and small enough for a test
/// machine.
const LARGEST_REQUEST: usize = 4 << 20;

/// Closes the connection without an answer, because hyper closes it when a service fails.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed on purpose")]
pub(crate) struct Closed;

pub(crate) type ReplyBody = Either<Full<Bytes>, HalfBody>;

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
            // With virtual time the read runs inline, so that the order of events is always the same.
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
    // Even a sleep of zero takes up to a millisecond.
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

/// The body of a request, or `None` if it is too large or the client disconnected.
async fn body_of<B: Body<Error: Into<BoxError>>>(request: Request<B>) -> Option<Bytes> {
    // A body that is declared too large is refused without reading it.
    if request.body().size_hint().lower() > LARGEST_REQUEST as u64 {
        return None;
    }
    let body = Limited::new(request.into_body(), LARGEST_REQUEST);
    Some(body.collect().await.ok()?.to_bytes())
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

/// The first half of a document, then an error that makes hyper close the connection.
#[derive(Debug)]
pub(crate) struct HalfBody {
    half: Option<Bytes>,
    end: Pin<Box<Sleep>>,
}

impl HalfBody {
    fn of(whole: &Bytes) -> HalfBody {
        HalfBody {
            half: Some(whole.slice(..whole.len() / 2)),
            // The error comes later, because hyper discards its buffer when a body fails.
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
