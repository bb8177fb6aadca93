//! Events that public reports describe: who registered an image, and what CloudTrail leaves out. The files of `events/`,
//! as if they had just happened to an image that is billed as Linux/UNIX and has the tag Windows.

use std::path::Path;

use super::expectations::outcome;
use super::*;

fn event(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("events");
    let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
    let mut event: Value = serde_json::from_str(&text).unwrap();
    event["time"] = json!(now() - TimeDelta::minutes(6));
    if let Some(id) = event.pointer_mut("/detail/responseElements/imageId") {
        *id = json!(AMI);
    }
    event
}

#[tokio::test(crate = "crate::virtual_time")]
async fn people_are_people_and_services_are_services_however_cloudtrail_says_so() {
    for (name, expected, service) in [
        (
            "register-image-assumed-role",
            "mismatch/wrong by image-tag: deregister",
            json!(null),
        ),
        (
            "register-image-console",
            "mismatch/wrong by image-tag: deregister",
            json!(null),
        ),
        (
            "register-image-console-session",
            "mismatch/wrong by image-tag: deregister",
            json!(null),
        ),
        (
            "register-image-omitted-request",
            "mismatch/wrong by image-tag: deregister",
            json!(null),
        ),
        (
            "register-image-internal-address",
            "mismatch/wrong by image-tag: hold (service-registered)",
            json!("AWS Internal/3"),
        ),
        (
            "register-image-own-automation",
            "mismatch/wrong by image-tag: hold (service-registered)",
            json!("ssm.amazonaws.com"),
        ),
        (
            "register-image-aws-service",
            "mismatch/wrong by image-tag: hold (service-registered)",
            json!("drs.amazonaws.com"),
        ),
    ] {
        let harness = Harness::of(expecting("Windows")).await;
        let record = harness.record(event(name)).await;
        assert_eq!(outcome(&record), expected, "{name}");
        assert_eq!(record["service"], service, "{name}");
        assert_eq!(
            harness.image_stands(),
            expected.contains("hold"),
            "{name}: {record}"
        );
        let alert = harness.published_on(TOPIC).remove(0);
        let text = alert.body("email");
        if let Some(service) = service.as_str() {
            // Who it is, and of what it is a sign: a recovery only where it is one.
            assert!(text.contains(&format!("the AWS service {service} registered the image")));
            let recovery = text.contains("recovery");
            assert_eq!(recovery, service == "drs.amazonaws.com", "{text}");
        }
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_console_session_that_a_service_uses_is_a_service() {
    let mut event = event("register-image-console-session");
    event["detail"]["userIdentity"]["invokedBy"] = json!("cloudformation.amazonaws.com");
    let harness = Harness::of(expecting("Windows")).await;
    let record = harness.record(event).await;
    assert_eq!(record["held_by"], json!(["service-registered"]));
    assert_eq!(record["service"], "cloudformation.amazonaws.com");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_image_with_a_service_s_signs_names_the_service() {
    let image = tagged(
        expecting("Windows"),
        "AWSElasticDisasterRecoveryManaged",
        "drs",
    );
    let harness = Harness::of(image).await;
    let record = harness.record(registered()).await;
    assert_eq!(record["held_by"], json!(["service-registered"]));
    assert_eq!(record["service"], "AWS Elastic Disaster Recovery");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_answer_of_null_without_an_error_is_malformed() {
    let harness = Harness::of(expecting("Windows")).await;
    let error = harness.give(event("register-image-without-answer")).await;
    assert_eq!(error.unwrap_err().error_type(), "MalformedEvent");
    assert!(harness.calls().is_empty());
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_event_in_an_envelope_of_sns_is_malformed_and_comes_back() {
    let harness = Harness::of(expecting("Windows")).await;
    let envelope = json!({
        "Type": "Notification", "MessageId": "n-1", "TopicArn": TOPIC,
        "Message": event("register-image-assumed-role").to_string(), "Timestamp": "2026-11-28T03:00:01Z",
    });
    let answer = harness.record(batch(&[envelope.to_string()])).await;
    assert_eq!(
        answer,
        json!({ "batchItemFailures": [{ "itemIdentifier": "m-0" }] })
    );
    assert!(harness.calls().is_empty());
}
