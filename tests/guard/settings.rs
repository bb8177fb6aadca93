//! The function, as it is run: a setting that is wrong stops it before the first event, with an error that names it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::Command;

use super::READER;

const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:alerts";

/// Runs the function, and holds that it does not start, and says this.
#[track_caller]
fn refuses(variables: &[(&str, &OsStr)], words: &str) {
    let output = Command::new(READER)
        .env_clear()
        .env("AWS_ACCESS_KEY_ID", "testing")
        .env("AWS_SECRET_ACCESS_KEY", "testing")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("GUARD_ALERT_TOPIC_ARN", TOPIC)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let log = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{log}");
    let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
    let said: Vec<serde_json::Value> = lines.collect();
    let refusal = said.iter().find(|line| line["error_type"] == "Settings");
    assert!(refusal.is_some(), "{log}");
    let message = refusal.unwrap()["message"].as_str().unwrap();
    assert_eq!(message, format!("the guard does not start: {words}"));
}

#[test]
fn regression_an_endpoint_of_the_configuration_file_that_is_no_url_stops_the_function() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("settings-config");
    for (service, text) in [
        ("EC2", "[default]\nendpoint_url =\n"),
        (
            "DynamoDB",
            "[default]\nservices = own\n[services own]\ndynamodb =\n  endpoint_url =\n",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let words = format!(
            "endpoint_url in the AWS configuration file is \"\" for {service}. Accepted: an http:// or https:// URL \
             with a host, such as http://localhost:4566. Remove it to use AWS's own endpoint"
        );
        refuses(&[("AWS_CONFIG_FILE", file.as_os_str())], &words);
    }
}

#[test]
fn regression_a_log_level_or_a_variable_of_lambdas_that_is_not_utf_8_stops_the_function() {
    let broken = OsString::from_vec(b"a\xFFb".to_vec());
    for name in [
        "AWS_LAMBDA_LOG_LEVEL",
        "RUST_LOG",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_PROFILE",
    ] {
        let words = format!("{name} is \"a\\xFFb\", which is not UTF-8. Accepted: UTF-8 text");
        refuses(&[(name, &broken)], &words);
    }
}
