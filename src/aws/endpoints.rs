//! Endpoints that the AWS SDK's shared configuration file sets for services. They are `endpoint_url` in the profile or
//! in its services section (AWS SDKs and Tools Reference Guide, "Service-specific endpoints").
//!
//! The SDK panics at the first call to a service whose endpoint is empty. It ignores an endpoint in the profile that is
//! not a URL, and calls AWS's own endpoint instead.

use aws_config::SdkConfig;
use aws_types::service_config::ServiceConfigKey;

use crate::config::{ConfigError, is_url};

/// Ids of the services that the guard or its command line calls, for itself or to obtain its credentials.
const SERVICES: [&str; 13] = [
    "EC2",
    "EBS",
    "rbin",
    "SNS",
    "SQS",
    "DynamoDB",
    "STS",
    "SSO",
    "SSO OIDC",
    "CloudFormation",
    "CloudTrail",
    "Lambda",
    "CloudWatch",
];

/// Variable names to look up endpoints with. The first is the SDK's variable, which takes precedence over the file. The
/// empty name matches no variable, so only the file is read. The SDK's own clients for credentials read the file even
/// if the profile sets `ignore_configured_endpoint_urls`.
const VARIABLES: [&str; 2] = ["AWS_ENDPOINT_URL", ""];

/// Checks the endpoints of all services in the file. [`check_variables`](crate::config::check_variables) has checked
/// those in environment variables before.
///
/// # Errors
/// [`ConfigError`] for an endpoint that is not a URL.
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
