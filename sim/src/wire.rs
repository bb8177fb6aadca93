//! Connects an SDK with a simulator in the same process, without a socket. All delays follow tokio's clock.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::ErrorKind;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::CONTENT_LENGTH;
use hyper::{Request, Response, Uri};

use crate::handler::{Closed, ReplyBody, handle};
use crate::state::State;

/// An HTTP client whose requests a simulator in this process answers.
pub(crate) struct InProcess(pub(crate) Arc<State>);

impl fmt::Debug for InProcess {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("InProcess")
    }
}

impl HttpClient for InProcess {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Wire {
            state: Arc::clone(&self.0),
            limit: settings.read_timeout(),
        })
    }
}

struct Wire {
    state: Arc<State>,
    limit: Option<Duration>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Wire")
    }
}

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let exchange = exchange(Arc::clone(&self.state), request);
        let limit = self.limit;
        HttpConnectorFuture::new(async move {
            match limit {
                None => exchange.await,
                Some(limit) => match tokio::time::timeout(limit, exchange).await {
                    Ok(answer) => answer,
                    Err(late) => Err(ConnectorError::timeout(late.into())),
                },
            }
        })
    }
}

pub(crate) async fn exchange(
    state: Arc<State>,
    request: HttpRequest,
) -> Result<HttpResponse, ConnectorError> {
    let request = request.try_into_http1x();
    let request = request.map_err(|error| ConnectorError::user(error.into()))?;
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(ConnectorError::user)?;
    let mut request = Request::from_parts(head, Full::new(body.to_bytes()));
    // On a connection, a header names the server, so the URI has only the path.
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    // In a task of its own, because a server continues when its client disconnects.
    let answer = tokio::spawn(async move {
        state.on_the_way().await;
        let answer = handle(request, Arc::clone(&state)).await;
        state.on_the_way().await;
        answer
    });
    let answer = match answer.await {
        Ok(answer) => answer,
        // A panic is a bug in the simulator, not a network error.
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Closed),
    };
    // The SDK's error for a connection that hyper found closed.
    let answer = answer
        .map_err(|closed| ConnectorError::other(closed.into(), Some(ErrorKind::TransientError)))?;
    let answer = framed(answer);
    HttpResponse::try_from(answer).map_err(|error| ConnectorError::other(error.into(), None))
}

/// The answer with a body that is checked against its declared length, as on a connection.
fn framed(answer: Response<ReplyBody>) -> Response<SdkBody> {
    let length = answer.headers().get(CONTENT_LENGTH);
    let left = length.and_then(|length| length.to_str().ok()?.parse().ok());
    answer.map(|body| SdkBody::from_body_1_x(Framed(Mutex::new((body, left.unwrap_or(0))))))
}

/// A response body with the number of bytes left. The SDK requires bodies that threads may share, so there is a mutex,
/// but no other thread uses it.
struct Framed(Mutex<(ReplyBody, u64)>);

#[derive(Debug, thiserror::Error)]
#[error("the connection ended in the middle of the answer")]
struct Short;

impl Body for Framed {
    type Data = Bytes;
    type Error = Short;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Short>>> {
        let (body, left) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if *left == 0 {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(body).poll_frame(context));
        Poll::Ready(Some(match frame {
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                *left = left.saturating_sub(data.len() as u64);
                Ok(Frame::data(data))
            }
            Some(Err(_)) | None => Err(Short),
        }))
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        SizeHint::with_exact(inner.1)
    }
}
