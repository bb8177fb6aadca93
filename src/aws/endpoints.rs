//! The endpoints that the shared configuration file of AWS's SDK gives to services: `endpoint_url`, in the profile or in
//! its section of services (AWS SDKs and Tools Reference Guide, "Service-specific endpoints").
//!
//! The SDK panics at the first call to a service with an empty one. It passes over one in the profile that is not a URL,
//! and calls AWS's own endpoint instead.

use aws_config::SdkConfig;
use aws_types::service_config::ServiceConfigKey;

use crate::config::{ConfigError, is_url};

/// The ids of the services that are called, by the guard or for its credentials.
const SERVICES: [&str; 9] = [
    "EC2", "EBS", "rbin", "SNS", "SQS", "DynamoDB", "STS", "SSO", "SSO OIDC",
];

/// The variable of the SDK that goes before the file, and one that does not exist. The SDK's own clients for credentials
/// read the file also where the profile says `ignore_configured_endpoint_urls`.
const VARIABLES: [&str; 2] = ["AWS_ENDPOINT_URL", ""];

/// Checks the endpoints of all services. Those of variables are checked before: see
/// [`check_variables`](crate::config::check_variables).
///
/// # Errors
/// [`ConfigError`] for one that is not a URL.
pub(super) fn check(config: &SdkConfig) -> Result<(), ConfigError> {
    let Some(file) = config.service_config() else {
        return Ok(());
    };
    for service in SERVICES {
        let endpoint = VARIABLES.iter().find_map(|variable| {
            let key = ServiceConfigKey::builder().service_id(service);
            let key = key.env(variable).profile("endpoint_url").build().ok()?;
            file.load_config(key)
        });
        if let Some(value) = endpoint.filter(|value| !is_url(value)) {
            return Err(ConfigError::EndpointInFile { service, value });
        }
    }
    Ok(())
}
