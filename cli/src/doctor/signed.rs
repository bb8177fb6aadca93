//! Calls to Lambda and CloudWatch with the SDK's own signer, retries and time limits.
//!
//! The SDK's crates for these two services turn on features of the crates that all services share. Every build of this
//! workspace would then compile the whole SDK a second time, for three calls of the command line.

use std::time::Duration;

use ami_billing_guard::{Error, classify};
use aws_config::SdkConfig;
use aws_config::timeout::TimeoutConfig;
use aws_runtime::auth::SigV4OperationSigningConfig;
use aws_runtime::auth::sigv4::{SCHEME_ID, SigV4AuthScheme};
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime::client::retries::classifiers::{
    HttpStatusCodeClassifier, TransientErrorClassifier,
};
use aws_smithy_runtime_api::client::auth::static_resolver::StaticAuthSchemeOptionResolver;
use aws_smithy_runtime_api::client::auth::{AuthSchemeOptionResolverParams, SharedAuthScheme};
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_runtime_api::client::identity::SharedIdentityResolver;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponentsBuilder;
use aws_smithy_runtime_api::client::runtime_plugin::StaticRuntimePlugin;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::Layer;
use aws_smithy_types::error::ErrorMetadata;
use aws_types::SigningName;
use aws_types::region::SigningRegion;
use aws_types::service_config::ServiceConfigKey;
use serde_json::Value;

/// A service that has no client in this program.
pub(super) struct Service {
    /// The id by which settings name its endpoint.
    id: &'static str,
    /// The first part of its host name, which is also the name in signatures.
    host: &'static str,
}

pub(super) const LAMBDA: Service = Service {
    id: "Lambda",
    host: "lambda",
};

pub(super) const CLOUDWATCH: Service = Service {
    id: "CloudWatch",
    host: "monitoring",
};

/// A request: its body is JSON, and so is the answer's.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Value,
}

/// An answer of a service that is not an error of that service's.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// Whether the header `x-amz-function-error` says that the function failed.
    pub(super) function_failed: bool,
    pub(super) body: Value,
}

/// Sends a request, and waits for the answer for at most `limit`.
///
/// # Errors
/// [`Error`] if there is no answer. `call` and `resource` name the call in it.
pub(super) async fn send(
    config: &SdkConfig,
    service: &Service,
    call: &'static str,
    resource: &str,
    request: Request,
    limit: Duration,
) -> Result<Answer, Error> {
    let unavailable = |message: &str| Error::Unavailable {
        call,
        resource: resource.to_owned(),
        message: message.to_owned(),
    };
    let (Some(region), Some(credentials), Some(client)) = (
        config.region(),
        config.credentials_provider(),
        config.http_client(),
    ) else {
        return Err(unavailable("there are no credentials or no Region"));
    };
    let mut signing = Layer::new("signing");
    signing.store_put(AuthSchemeOptionResolverParams::new(()));
    signing.store_put(SigningName::from_static(service.host));
    signing.store_put(SigningRegion::from(region.clone()));
    signing.store_put(SigV4OperationSigningConfig::default());
    let signer = RuntimeComponentsBuilder::new("signer")
        .with_auth_scheme(SharedAuthScheme::new(SigV4AuthScheme::new()))
        .with_auth_scheme_option_resolver(Some(StaticAuthSchemeOptionResolver::new(vec![
            SCHEME_ID,
        ])))
        .with_identity_resolver(SCHEME_ID, SharedIdentityResolver::new(credentials));
    let signing = StaticRuntimePlugin::new()
        .with_config(signing.freeze())
        .with_runtime_components(signer);
    let limits = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(2))
        .operation_timeout(limit)
        .build();
    let mut operation = Operation::builder()
        .service_name(service.id)
        .operation_name(call)
        .behavior_version(BehaviorVersion::v2026_01_12())
        .http_client(client)
        .endpoint_url(&endpoint(config, service, region.as_ref()))
        .runtime_plugin(signing)
        .timeout_config(limits)
        .retry_classifier(HttpStatusCodeClassifier::default())
        .retry_classifier(TransientErrorClassifier::<ErrorMetadata>::new())
        .with_connection_poisoning();
    if let Some(retries) = config.retry_config() {
        operation = operation.standard_retry(retries);
    }
    if let Some(sleep) = config.sleep_impl() {
        operation = operation.sleep_impl(sleep);
    }
    if let Some(time) = config.time_source() {
        operation = operation.time_source(time);
    }
    let operation = operation.serializer(serialise).deserializer(read).build();
    // Boxed because the SDK's futures are large.
    let answer = Box::pin(operation.invoke(request)).await;
    answer.map_err(|error| classify(call, resource, &error))
}

/// The endpoint that the environment or the profile sets, otherwise AWS's own (AWS General Reference, "Service endpoints
/// and quotas").
fn endpoint(config: &SdkConfig, service: &Service, region: &str) -> String {
    let set = ServiceConfigKey::builder()
        .service_id(service.id)
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok()
        .and_then(|key| config.service_config()?.load_config(key));
    if let Some(endpoint) = set.or_else(|| config.endpoint_url().map(str::to_owned)) {
        return endpoint;
    }
    let host = service.host;
    let fips = match config.use_fips() {
        Some(true) => "-fips",
        _ => "",
    };
    let domain = match region.split('-').next() {
        Some("cn") => "amazonaws.com.cn",
        Some("eusc") => "amazonaws.eu",
        _ => "amazonaws.com",
    };
    format!("https://{host}{fips}.{region}.{domain}")
}

fn serialise(request: Request) -> Result<HttpRequest, Box<dyn std::error::Error + Send + Sync>> {
    let body = request.body.to_string();
    let length = body.len().to_string();
    let mut http = HttpRequest::new(SdkBody::from(body));
    http.set_method("POST")?;
    http.set_uri(request.path)?;
    let headers = http.headers_mut();
    headers.try_insert("content-length", length)?;
    headers.try_insert(
        "user-agent",
        concat!("ami-guard/", env!("CARGO_PKG_VERSION")),
    )?;
    for (name, value) in request.headers {
        headers.try_insert(name, value)?;
    }
    Ok(http)
}

/// Reads an answer. Both services put an error's code into a header or into `__type`.
fn read(response: &HttpResponse) -> Result<Answer, OrchestratorError<ErrorMetadata>> {
    let bytes = response.body().bytes().unwrap_or_default();
    let body: Result<Value, _> = serde_json::from_slice(bytes);
    if response.status().is_success() {
        return Ok(Answer {
            function_failed: response.headers().get("x-amz-function-error").is_some(),
            body: body.map_err(OrchestratorError::other)?,
        });
    }
    let body = body.unwrap_or_default();
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let code = response.headers().get("x-amzn-errortype");
    let code = code.or_else(|| text("__type")).unwrap_or_default();
    // `com.amazonaws.cloudwatch#AccessDenied` and `ThrottlingException:http://…` are the longer forms.
    let code = code.rsplit('#').next().unwrap_or_default();
    let code = code.split(':').next().unwrap_or_default();
    let message = text("message").or_else(|| text("Message"));
    let error = ErrorMetadata::builder()
        .code(code)
        .message(message.unwrap_or("no message"));
    Err(OrchestratorError::operation(error.build()))
}
