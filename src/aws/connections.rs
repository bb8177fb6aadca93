//! HTTP connections to AWS. Few idle connections are kept, and a dead one does not cost an attempt.
//!
//! Lambda freezes the process between two events, for minutes. A server, or a NAT gateway on the way, may close the
//! open connections meanwhile, and the frozen process does not notice. The pool still holds them afterwards, and every
//! request that takes one fails. All three attempts of a call can meet a dead connection.

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

/// Number of idle connections kept for each host. One event uses about this many at once. A batch needs more, but not
/// afterwards.
const MOST_IDLE: usize = 4;

/// How long an idle connection is kept. Servers close connections that are idle for much longer.
const IDLE: Duration = Duration::from_secs(15);

/// Largest response body, in bytes. A page of 500 images that have 50 long tags each takes about 15 MB. A body without
/// a limit could fill the function's memory.
pub(super) const MOST_OF_AN_ANSWER: usize = 32 << 20;

/// Number of connections to remember. More than are ever open at once.
const MOST_KNOWN: usize = 256;

/// HTTP client of all services. It is the SDK's own, with the changes that this module describes.
pub(super) fn client() -> SharedHttpClient {
    of(client_with(MOST_IDLE), client_with(0))
}

/// Applies the same changes to another HTTP client, which has no connections that could be dead.
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

/// The SDK's default client, with this many idle connections for each host.
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
    /// Opens a new connection for each request.
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
        // Reads the trusted certificates. The other client then finds them loaded.
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
        // Through this the SDK learns which connection the request used.
        let captured = request.extension::<CaptureSmithyConnection>().cloned();
        // A request whose body cannot be cloned is sent only once.
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
                    tracing::debug!("an idle connection was closed: {error}");
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

/// The answer, with its body limited to [`MOST_OF_AN_ANSWER`] bytes.
fn bounded(answer: HttpResponse) -> HttpResponse {
    answer.map(|body| SdkBody::from_body_1_x(Limited::new(body, MOST_OF_AN_ANSWER)))
}

/// Whether the connection ended before it delivered an answer. The request may have arrived nevertheless, as with the
/// SDK's own retries. A request that must not be repeated is therefore marked [`OnItsOwn`].
fn was_cut_off(error: &ConnectorError) -> bool {
    error.is_io() || error.as_other() == Some(ErrorKind::TransientError)
}

/// Local addresses of connections that have delivered an answer. A connection that is not among them was not idle in
/// the pool, so its failure counts as an ordinary failed attempt.
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

    /// Forgets a connection. Returns whether it was known.
    fn forget(&self, connection: SocketAddr) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.len();
        known.retain(|it| *it != connection);
        known.len() < before
    }
}

/// Marks a request that is sent over a connection of its own, and once for each attempt. Such a connection cannot have
/// died while idle. Used for changes to an image, and for alerts, which people would otherwise receive twice.
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
