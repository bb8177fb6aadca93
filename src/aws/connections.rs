//! The connections to AWS: few of them wait for the next request, and one that has died costs no attempt.
//!
//! Between two events Lambda freezes the process, for minutes: nobody sees then that a server, or a NAT gateway on the
//! way, ends the connections that are open. Afterwards the pool still has them, and every request that takes one out
//! fails: three attempts can meet three of them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::retry::ErrorKind;
use aws_sdk_ec2::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_ec2::config::{ConfigBag, Intercept, RuntimeComponents, SharedHttpClient};
use aws_sdk_ec2::error::{BoxError, ConnectorError};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponentsBuilder;
use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;

/// So many connections to a host wait for the next request: what one event has under way at once, about. A batch needs
/// more of them, but not afterwards.
const MOST_IDLE: usize = 4;

/// For so long they do. Servers end those that wait for much longer.
const IDLE: Duration = Duration::from_secs(15);

/// The most bytes of an answer. A page of 500 images that have 50 long tags each takes some 15 MB; what goes on for longer
/// fills the function's memory.
pub(super) const MOST_OF_AN_ANSWER: usize = 32 << 20;

/// So many connections are remembered: more than there are ever open.
const MOST_KNOWN: usize = 256;

/// The HTTP client of all services: the SDK's own, but for what this module says.
pub(super) fn client() -> SharedHttpClient {
    of(client_with(MOST_IDLE), client_with(0))
}

/// The same around another HTTP client, which has no connections that could be dead.
pub(super) fn around(client: SharedHttpClient) -> SharedHttpClient {
    of(client.clone(), client)
}

fn of(pooled: SharedHttpClient, single: SharedHttpClient) -> SharedHttpClient {
    SharedHttpClient::new(Client {
        pooled,
        single,
        known: Known::default(),
    })
}

/// The SDK's default, with so many idle connections a host.
fn client_with(most_idle: usize) -> SharedHttpClient {
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = Connector::builder()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .pool_max_idle_per_host(most_idle)
            .pool_idle_timeout(IDLE);
        builder.set_connector_settings(settings.cloned());
        builder.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        builder.set_proxy_config(Some(ProxyConfig::from_env()));
        builder.build()
    })
}

#[derive(Debug)]
struct Client {
    pooled: SharedHttpClient,
    /// A connection for each request.
    single: SharedHttpClient,
    known: Known,
}

impl HttpClient for Client {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Connections {
            pooled: self.pooled.http_connector(settings, components),
            single: self.single.http_connector(settings, components),
            known: self.known.clone(),
        })
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        // Reads the certificates that are trusted; the other client finds them read.
        self.pooled.validate_base_client_config(components, config)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.pooled.connector_metadata()
    }
}

#[derive(Debug)]
struct Connections {
    pooled: SharedHttpConnector,
    single: SharedHttpConnector,
    known: Known,
}

impl HttpConnector for Connections {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        if request.extension::<OnItsOwn>().is_some() {
            let call = self.single.call(request);
            return HttpConnectorFuture::new(async move { call.await.map(bounded) });
        }
        // The SDK asks here which connection it was.
        let captured = request.extension::<CaptureSmithyConnection>().cloned();
        // Where the body can not be sent twice, it is sent once.
        let again = request.try_clone();
        let (single, known) = (self.single.clone(), self.known.clone());
        let first = self.pooled.call(request);
        HttpConnectorFuture::new(async move {
            let answer = first.await;
            let connection = captured.as_ref().and_then(CaptureSmithyConnection::get);
            let connection = connection.and_then(|connection| connection.local_addr());
            match (answer, again, connection) {
                (Err(error), Some(mut request), Some(connection))
                    if was_cut_off(&error) && known.forget(connection) =>
                {
                    tracing::debug!("a connection that had been waiting was dead: {error}");
                    if let Some(captured) = captured {
                        request.add_extension(captured);
                    }
                    single.call(request).await.map(bounded)
                }
                (answer, _, connection) => {
                    if let (Ok(_), Some(connection)) = (&answer, connection) {
                        known.remember(connection);
                    }
                    answer.map(bounded)
                }
            }
        })
    }
}

/// The answer, of which no more can be read than it may have.
fn bounded(answer: HttpResponse) -> HttpResponse {
    answer.map(|body| SdkBody::from_body_1_x(Limited::new(body, MOST_OF_AN_ANSWER)))
}

/// Whether the connection ended before it brought an answer. What was sent over it may have arrived all the same, as
/// with the SDK's own attempts: whatever must not be repeated is [`OnItsOwn`].
fn was_cut_off(error: &ConnectorError) -> bool {
    error.is_io() || error.as_other() == Some(ErrorKind::TransientError)
}

/// The local ends of connections that have brought an answer: what fails on another one was not waiting in the pool,
/// and is an attempt like any other.
#[derive(Clone, Debug, Default)]
struct Known(Arc<Mutex<VecDeque<SocketAddr>>>);

impl Known {
    fn remember(&self, connection: SocketAddr) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(&connection) {
            known.truncate(MOST_KNOWN - 1);
            known.push_front(connection);
        }
    }

    /// Whether it was known.
    fn forget(&self, connection: SocketAddr) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.len();
        known.retain(|it| *it != connection);
        known.len() < before
    }
}

/// Marks a request that goes out over a connection of its own, which can not have died while it waited, and once for
/// each attempt: an act, and whatever people would hear twice.
#[derive(Clone, Copy, Debug)]
pub(super) struct OnItsOwn;

impl Intercept for OnItsOwn {
    fn name(&self) -> &'static str {
        "OnItsOwn"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        context.request_mut().add_extension(OnItsOwn);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_known_until_it_has_failed_once() {
        let known = Known::default();
        let of = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert!(!known.forget(of(1)));
        known.remember(of(1));
        known.remember(of(1));
        assert!(known.forget(of(1)));
        assert!(!known.forget(of(1)));
        for port in 0..1000 {
            known.remember(of(port));
        }
        assert!(!known.forget(of(1)), "of the oldest nothing is kept");
        assert!(known.forget(of(999)));
    }

    #[test]
    fn a_connection_that_could_not_be_used_is_not_one_that_was_slow() {
        assert!(was_cut_off(&ConnectorError::io("reset".into())));
        let incomplete = Some(ErrorKind::TransientError);
        assert!(was_cut_off(&ConnectorError::other(
            "end".into(),
            incomplete
        )));
        assert!(!was_cut_off(&ConnectorError::other("?".into(), None)));
        assert!(!was_cut_off(&ConnectorError::timeout("slow".into())));
        assert!(!was_cut_off(&ConnectorError::user("wrong".into())));
    }
}
