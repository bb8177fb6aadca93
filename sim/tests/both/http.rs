//! The server as a client meets it: real requests, real faults.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use sim::{Answer, Fault, FaultKind, Image, Limit, Service, Sim, World};
use tokio::time::Instant;

use super::{exchange, open};
use crate::Received;

const IMAGE: &str = "ami-0123456789abcdef0";
const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:ami-billing-guard";
const TABLE: &str = "ami-billing-guard";

fn sim_with_image() -> impl Future<Output = io::Result<Sim>> {
    let mut world = World::default();
    world.add_image(Image::new(IMAGE));
    open(world)
}

fn post(sim: &Sim, parameters: &[(&str, &str)]) -> io::Result<Received> {
    post_with(sim, "", parameters)
}

/// A request with further headers, each with its line's end.
fn post_with(sim: &Sim, headers: &str, parameters: &[(&str, &str)]) -> io::Result<Received> {
    let body = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters)
        .finish();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: sim\r\nconnection: close\r\n{headers}\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    exchange(sim, (head + &body).as_bytes())
}

fn ec2(sim: &Sim, action: &str, parameters: &[(&str, &str)]) -> io::Result<Received> {
    let mut all = vec![("Action", action), ("Version", "2016-11-15")];
    all.extend(parameters);
    post(sim, &all)
}

fn describe(sim: &Sim) -> io::Result<Received> {
    ec2(sim, "DescribeImages", &[("ImageId.1", IMAGE)])
}

fn deregister(sim: &Sim) -> io::Result<Received> {
    ec2(sim, "DeregisterImage", &[("ImageId", IMAGE)])
}

fn publish(sim: &Sim, message: &str) -> io::Result<Received> {
    post(
        sim,
        &[
            ("Action", "Publish"),
            ("Version", "2010-03-31"),
            ("TopicArn", TOPIC),
            ("Message", message),
        ],
    )
}

fn dynamodb(sim: &Sim, action: &str, body: &Value) -> io::Result<Received> {
    let body = body.to_string();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: sim\r\nconnection: close\r\n\
         content-type: application/x-amz-json-1.0\r\nx-amz-target: DynamoDB_20120810.{action}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    exchange(sim, (head + &body).as_bytes())
}

/// Writes an item that must not be there yet.
fn put(sim: &Sim, id: &str) -> io::Result<Received> {
    let mut body = write(id);
    body["ConditionExpression"] = "attribute_not_exists(#n)".into();
    dynamodb(sim, "UpdateItem", &body)
}

/// The update that writes an item.
fn write(id: &str) -> Value {
    json!({
        "TableName": TABLE,
        "Key": {"id": {"S": id}},
        "UpdateExpression": "SET #n = :one",
        "ExpressionAttributeNames": {"#n": "n"},
        "ExpressionAttributeValues": {":one": {"N": "1"}},
    })
}

/// Whether the item that [`put`] puts is there.
fn has_item(sim: &Sim, id: &str) -> bool {
    sim.world().tables[TABLE].items.contains_key(id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ec2_answers_in_its_own_xml() {
    let sim = sim_with_image().await.unwrap();
    let answer = describe(&sim).unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.promised(), answer.text().len());
    assert!(answer.text().contains(
        "<DescribeImagesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>"
    ));
    assert!(
        answer
            .text()
            .contains(&format!("<imagesSet><item><imageId>{IMAGE}</imageId>"))
    );

    let refused = ec2(
        &sim,
        "DescribeImages",
        &[("ImageId.1", "ami-0aaaaaaaaaaaaaaaa")],
    )
    .unwrap();
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains(
        "<Response><Errors><Error><Code>InvalidAMIID.NotFound</Code><Message>The image id \
         &apos;[ami-0aaaaaaaaaaaaaaaa]&apos; does not exist</Message></Error></Errors><RequestID>"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sns_answers_in_its_own_xml() {
    let sim = open(World::default()).await.unwrap();
    let answer = publish(&sim, "hello").unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains(
        "<PublishResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishResult><MessageId>"
    ));
    assert_eq!(sim.world().messages[0].message, "hello");

    let refused = publish(&sim, "").unwrap();
    assert_eq!(refused.status, 400);
    assert!(
        refused
            .text()
            .contains("<Error><Type>Sender</Type><Code>InvalidParameter</Code>")
    );

    let attributes = post(
        &sim,
        &[
            ("Action", "GetTopicAttributes"),
            ("Version", "2010-03-31"),
            ("TopicArn", TOPIC),
        ],
    )
    .unwrap();
    assert!(
        attributes
            .text()
            .contains("<entry><key>SubscriptionsConfirmed</key><value>1</value></entry>")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sts_answers_in_its_own_xml() {
    let sim = open(World::default()).await.unwrap();
    let who = [("Action", "GetCallerIdentity"), ("Version", "2011-06-15")];
    let answer = post(&sim, &who).unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains(
        "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <GetCallerIdentityResult><Arn>arn:aws:sts::123456789012:assumed-role/guard/guard</Arn>"
    ));
    for (kind, status, code) in [
        (FaultKind::AccessDenied, 403, "AccessDenied"),
        (FaultKind::Throttle, 400, "Throttling"),
    ] {
        sim.inject(Fault::nth("GetCallerIdentity", 1, kind));
        let refused = post(&sim, &who).unwrap();
        assert_eq!(refused.status, status);
        assert!(refused.text().contains(&format!("<Code>{code}</Code>")));
    }
    assert_eq!(sim.calls()[0].service, Service::Sts);
}

/// A call of EC2 that is signed for a Region.
fn ec2_in(sim: &Sim, region: &str, action: &str) -> Received {
    let authorization = format!(
        "authorization: AWS4-HMAC-SHA256 Credential=key/20260101/{region}/ec2/aws4_request, \
         SignedHeaders=host, Signature=0\r\n"
    );
    let parameters = [("Action", action), ("Version", "2016-11-15")];
    post_with(sim, &authorization, &parameters).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_region_has_resources_of_its_own() {
    let mut world = World::default();
    world.add_image(Image::new(IMAGE));
    let elsewhere = "ami-0aaaaaaaaaaaaaaaa";
    world
        .in_region("us-east-1")
        .add_image(Image::new(elsewhere));
    world.in_region("eu-north-1");
    let sim = open(world).await.unwrap();
    for (region, image) in [
        ("eu-west-1", Some(IMAGE)),
        ("us-east-1", Some(elsewhere)),
        ("eu-south-1", None),
        ("eu-north-1", None),
        // There is no such Region.
        ("eu-west-1-0", Some(IMAGE)),
    ] {
        let answer = ec2_in(&sim, region, "DescribeImages");
        assert_eq!(answer.status, 200);
        for id in [IMAGE, elsewhere] {
            assert_eq!(
                answer.text().contains(id),
                image == Some(id),
                "{region} {id}"
            );
        }
        assert_eq!(sim.calls().last().unwrap().region, region);
        let answer = ec2_in(&sim, region, "DescribeRegions");
        assert_eq!(answer.text().matches("<regionName>").count(), 4);
    }
    assert!(sim.world().in_region("eu-south-1").images.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_without_opt_in_knows_no_credentials() {
    let sim = sim_with_image().await.unwrap();
    let refused = ec2_in(&sim, "ap-east-1", "DescribeImages");
    assert_eq!(refused.status, 401);
    assert!(refused.text().contains("<Code>AuthFailure</Code>"));
    assert_eq!(sim.calls()[0].answer, Answer::Refused("AuthFailure".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_calls_ec2_too_often_is_throttled_in_each_region_by_itself() {
    let sim = sim_with_image().await.unwrap();
    let two_calls = |per_second| {
        Some(Limit {
            burst: 2,
            per_second,
        })
    };
    sim.world().throttling.non_mutating = two_calls(0);
    for status in [200, 200, 503] {
        assert_eq!(describe(&sim).unwrap().status, status);
    }
    let refused = describe(&sim).unwrap();
    assert!(refused.text().contains("<Code>RequestLimitExceeded</Code>"));
    let answer = Answer::Refused("RequestLimitExceeded".into());
    assert_eq!(sim.calls()[3].answer, answer);
    assert_eq!(ec2_in(&sim, "us-east-1", "DescribeImages").status, 200);
    assert_eq!(deregister(&sim).unwrap().status, 200);
    sim.world().throttling.non_mutating = two_calls(1000);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(describe(&sim).unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dynamodb_answers_in_its_own_json() {
    let sim = open(World::default()).await.unwrap();
    let answer = put(&sim, "caf\u{e9}").unwrap();
    assert_eq!((answer.status, answer.text()), (200, "{}"));
    let get = json!({"TableName": TABLE, "Key": {"id": {"S": "caf\u{e9}"}}});
    let answer = dynamodb(&sim, "GetItem", &get).unwrap();
    assert_eq!(answer.headers["content-type"], "application/x-amz-json-1.0");
    assert!(answer.headers["x-amzn-requestid"].starts_with("0000"));
    assert_eq!(answer.promised(), answer.text().len());
    let body: Value = serde_json::from_str(answer.text()).unwrap();
    let item = json!({"id": {"S": "caf\u{e9}"}, "n": {"N": "1"}});
    assert_eq!(body, json!({ "Item": item }));

    let refused = put(&sim, "caf\u{e9}").unwrap();
    assert_eq!(refused.status, 400);
    let body: Value = serde_json::from_str(refused.text()).unwrap();
    let code = "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException";
    assert_eq!(
        body,
        json!({"__type": code, "message": "The conditional request failed"})
    );

    let calls = sim.calls();
    assert_eq!(calls[1].service, Service::DynamoDb);
    assert_eq!(calls[1].action, "GetItem");
    assert_eq!(calls[1].params["TableName"], TABLE);
    assert_eq!(calls[1].body(), get);
    assert_eq!(
        calls[2].answer,
        Answer::Refused("ConditionalCheckFailedException".into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_logged_in_order_with_its_answer() {
    let sim = sim_with_image().await.unwrap();
    sim.inject(Fault::nth("Publish", 1, FaultKind::Throttle));
    describe(&sim).unwrap();
    publish(&sim, "hello").unwrap();
    deregister(&sim).unwrap();
    deregister(&sim).unwrap();
    ec2(&sim, "RunInstances", &[]).unwrap();
    let calls = sim.calls();
    let summary: Vec<_> = calls
        .iter()
        .map(|call| (call.service, call.action.as_str(), call.answer.clone()))
        .collect();
    assert_eq!(
        summary,
        [
            (Service::Ec2, "DescribeImages", Answer::Ok),
            (Service::Sns, "Publish", Answer::Fault(FaultKind::Throttle)),
            (Service::Ec2, "DeregisterImage", Answer::Ok),
            (
                Service::Ec2,
                "DeregisterImage",
                Answer::Refused("InvalidAMIID.Unavailable".into())
            ),
            (
                Service::Ec2,
                "RunInstances",
                Answer::Refused("InvalidAction".into())
            ),
        ]
    );
    assert_eq!(calls[0].params["ImageId.1"], IMAGE);
    sim.forget_calls();
    assert!(sim.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_that_refuse_change_nothing() {
    for (kind, status, code) in [
        (FaultKind::Throttle, 503, "RequestLimitExceeded"),
        (FaultKind::InternalError, 500, "InternalError"),
        (FaultKind::AccessDenied, 403, "UnauthorizedOperation"),
        (
            FaultKind::Refuse {
                code: "OperationNotPermitted".into(),
                message: "Not now.".into(),
            },
            400,
            "OperationNotPermitted",
        ),
    ] {
        let sim = sim_with_image().await.unwrap();
        sim.inject(Fault::nth("DeregisterImage", 1, kind));
        let refused = deregister(&sim).unwrap();
        assert_eq!(refused.status, status);
        assert!(refused.text().contains(&format!("<Code>{code}</Code>")));
        assert!(sim.world().images.contains_key(IMAGE));
        assert_eq!(deregister(&sim).unwrap().status, 200);
    }
    for (kind, status, code) in [
        (FaultKind::Throttle, 400, "Throttling"),
        (FaultKind::InternalError, 500, "InternalError"),
        (FaultKind::AccessDenied, 403, "AuthorizationError"),
    ] {
        let sim = open(World::default()).await.unwrap();
        sim.inject(Fault::nth("Publish", 1, kind));
        let refused = publish(&sim, "hello").unwrap();
        assert_eq!(refused.status, status);
        assert!(refused.text().contains(&format!("<Code>{code}</Code>")));
        assert!(sim.world().messages.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_that_refuse_in_dynamodb_change_nothing() {
    for (kind, status, code) in [
        (
            FaultKind::Throttle,
            400,
            "v20120810#ProvisionedThroughputExceededException",
        ),
        (
            FaultKind::InternalError,
            500,
            "v20120810#InternalServerError",
        ),
        (
            FaultKind::AccessDenied,
            400,
            "service#AccessDeniedException",
        ),
        (
            FaultKind::TransactionConflict,
            400,
            "v20120810#TransactionConflictException",
        ),
        (
            FaultKind::Refuse {
                code: "RequestLimitExceeded".into(),
                message: "Not now.".into(),
            },
            400,
            "v20120810#RequestLimitExceeded",
        ),
    ] {
        let sim = open(World::default()).await.unwrap();
        sim.inject(Fault::nth("UpdateItem", 1, kind.clone()));
        let refused = put(&sim, "a").unwrap();
        assert_eq!(refused.status, status);
        let body: Value = serde_json::from_str(refused.text()).unwrap();
        assert!(body["__type"].as_str().unwrap().ends_with(code), "{body}");
        assert!(!has_item(&sim, "a"));
        assert_eq!(sim.calls()[0].answer, Answer::Fault(kind));
        assert_eq!(put(&sim, "a").unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_cancels_a_transaction() {
    let sim = open(World::default()).await.unwrap();
    sim.inject(Fault::nth(
        "TransactWriteItems",
        1,
        FaultKind::TransactionConflict,
    ));
    let body = json!({"TransactItems": [{"Update": write("a")}, {"Update": write("b")}]});
    let refused = dynamodb(&sim, "TransactWriteItems", &body).unwrap();
    let error: Value = serde_json::from_str(refused.text()).unwrap();
    assert_eq!(error["CancellationReasons"][0]["Code"], "None");
    assert_eq!(
        error["CancellationReasons"][1]["Code"],
        "TransactionConflict"
    );
    assert!(!has_item(&sim, "a"));
    let done = dynamodb(&sim, "TransactWriteItems", &body).unwrap();
    assert_eq!(done.status, 200);
    assert!(has_item(&sim, "b"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_was_lost_meets_itself_when_it_is_repeated() {
    for (kind, again) in [
        (FaultKind::ResetBefore, 200),
        (FaultKind::ResetAfter, 400),
        (FaultKind::CutBody, 400),
        (FaultKind::CutShort(1), 400),
    ] {
        let sim = open(World::default()).await.unwrap();
        sim.inject(Fault::nth("UpdateItem", 1, kind.clone()));
        if let Ok(answer) = put(&sim, "a") {
            assert_eq!(answer.text(), "{");
        }
        assert_eq!(has_item(&sim, "a"), kind.takes_effect());
        assert_eq!(put(&sim, "a").unwrap().status, again, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_before_does_nothing_and_a_reset_after_does_all() {
    for (kind, image_is_left) in [
        (FaultKind::ResetBefore, true),
        (FaultKind::ResetAfter, false),
    ] {
        let sim = sim_with_image().await.unwrap();
        sim.inject(Fault::nth("DeregisterImage", 1, kind.clone()));
        let error = deregister(&sim).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(sim.world().images.contains_key(IMAGE), image_is_left);
        assert_eq!(sim.calls()[0].answer, Answer::Fault(kind));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_body_promises_the_whole_and_brings_half() {
    let sim = sim_with_image().await.unwrap();
    let whole = describe(&sim).unwrap();
    sim.inject(Fault::nth("DescribeImages", 1, FaultKind::CutBody));
    let cut = describe(&sim).unwrap();
    assert_eq!(cut.status, 200);
    assert_eq!(cut.promised(), whole.text().len());
    assert_eq!(cut.text().len(), cut.promised() / 2);

    sim.inject(Fault::nth("DeregisterImage", 1, FaultKind::CutBody));
    deregister(&sim).unwrap();
    assert!(!sim.world().images.contains_key(IMAGE));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_answer_comes_late_and_takes_effect_at_once() {
    let sim = sim_with_image().await.unwrap();
    let delay = Duration::from_secs(3);
    sim.inject(Fault::nth("DeregisterImage", 1, FaultKind::Slow(delay)));
    let start = Instant::now();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| deregister(&sim).unwrap().status);
        while sim.calls().is_empty() {
            std::thread::yield_now();
        }
        assert!(!sim.world().images.contains_key(IMAGE));
        // Others are served meanwhile.
        assert_eq!(describe(&sim).unwrap().status, 200);
        assert!(!slow.is_finished());
        assert_eq!(slow.join().unwrap(), 200);
    });
    assert!(start.elapsed() >= delay);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lasting_fault_lasts_until_it_is_healed() {
    let sim = sim_with_image().await.unwrap();
    sim.inject(Fault::from_nth(
        "DescribeImages",
        2,
        FaultKind::InternalError,
    ));
    let statuses: Vec<_> = (0..4).map(|_| describe(&sim).unwrap().status).collect();
    assert_eq!(statuses, [200, 500, 500, 500]);
    sim.heal();
    assert_eq!(describe(&sim).unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_disturbs_any_action_by_its_name() {
    let sim = open(World::example()).await.unwrap();
    for (action, parameters) in [
        (
            "DescribeVolumes",
            vec![("VolumeId.1", "vol-0000000000000b001")],
        ),
        (
            "DescribeInstances",
            vec![("InstanceId.1", "i-0000000000000c001")],
        ),
        (
            "DescribeSnapshotAttribute",
            vec![
                ("SnapshotId", "snap-0000000000000a001"),
                ("Attribute", "productCodes"),
            ],
        ),
    ] {
        sim.inject(Fault::nth(action, 1, FaultKind::AccessDenied));
        assert_eq!(ec2(&sim, action, &parameters).unwrap().status, 403);
        assert_eq!(ec2(&sim, action, &parameters).unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_refused_and_the_next_request_is_served() {
    let sim = sim_with_image().await.unwrap();
    assert_eq!(post(&sim, &[]).unwrap().status, 400);
    let head = "POST / HTTP/1.1\r\nhost: sim\r\nconnection: close\r\ncontent-length: 4\r\n\r\n";
    let mut request = head.as_bytes().to_vec();
    request.extend(b"\xff%&=");
    assert_eq!(exchange(&sim, &request).unwrap().status, 400);
    let not_json = "POST / HTTP/1.1\r\nhost: sim\r\nconnection: close\r\n\
                    x-amz-target: DynamoDB_20120810.Scan\r\ncontent-length: 4\r\n\r\n{\"\"}";
    assert_eq!(exchange(&sim, not_json.as_bytes()).unwrap().status, 400);
    assert_eq!(describe(&sim).unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_in_the_address_is_served_like_a_form() {
    let sim = sim_with_image().await.unwrap();
    let request = "GET /?Action=DescribeImages&Version=2016-11-15 HTTP/1.1\r\n\
                   host: sim\r\nconnection: close\r\n\r\n";
    assert!(
        exchange(&sim, request.as_bytes())
            .unwrap()
            .text()
            .contains(IMAGE)
    );
}
