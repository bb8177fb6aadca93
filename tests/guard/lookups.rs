//! How AWS is asked: what is slow, comes in pages or passes by itself in life, and not in a stand-in.

use sim::{Reference, Volume};

use super::expectations::{Given, given, outcome};
use super::*;

const SNAPSHOT: &str = "snap-0a1b2c3d4e5f60001";
const PARENT_SNAPSHOT: &str = "snap-0a1b2c3d4e5f60002";
const VOLUME: &str = "vol-0a1b2c3d4e5f60001";
const COPY_OF_VOLUME: &str = "vol-0a1b2c3d4e5f60002";
const OTHER_AMI: &str = "ami-0a1b2c3d4e5f60002";

/// A search among everybody's images takes so long: by the parameter `Owners` with anything but `self`, or by filter.
pub(super) fn slow_among_others(harness: &Harness, delay: Duration) {
    let slow = FaultKind::Slow(delay);
    let by_account = ("Owner.1", "123456789012");
    let by_publisher = ("Filter.1.Name", "owner-alias");
    for (parameter, value) in [by_account, by_publisher] {
        harness.inject(Fault::always("DescribeImages", slow.clone()).with(parameter, value));
    }
}

fn of_amazon(image: &mut Image) {
    image.owner = "801119661308".into();
    image.owner_alias = Some("amazon".into());
    image.public = true;
}

fn of_a_volume() -> Given {
    given().taken_of_volume(Some(PARENT_SNAPSHOT))
}

#[tokio::test(crate = "crate::virtual_time")]
async fn where_searches_among_others_are_slow_own_images_speak_all_the_same() {
    let given = of_a_volume().bills("Windows");
    let given = given.other_image(PARENT_SNAPSHOT, "Windows", |_| ());
    let (harness, event) = given.harness("").await;
    slow_among_others(&harness, Duration::from_secs(8));
    let record = harness.record(event).await;
    assert_eq!(outcome(&record), "verified by lineage: none");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn where_searches_among_others_are_slow_a_wrong_tag_discards_nothing() {
    let wrong = || {
        let given = of_a_volume().bills("SUSE Linux").tag("Windows");
        given.other_image(PARENT_SNAPSHOT, "SUSE Linux", of_amazon)
    };
    // What answers late contradicts the tag.
    let (harness, event) = wrong().harness("").await;
    slow_among_others(&harness, Duration::from_secs(8));
    assert_eq!(
        outcome(&harness.record(event).await),
        "conflict by image-tag: alert"
    );
    assert!(harness.image_stands());

    // What does not answer at all is waited for.
    let (harness, event) = wrong().harness("").await;
    slow_among_others(&harness, Duration::from_secs(120));
    let error = harness.give(event.clone()).await.unwrap_err();
    assert!(matches!(error, Error::NotFoundOut { .. }), "{error}");
    let held = harness.journal.lock().unwrap().last().unwrap().clone();
    assert_eq!(
        outcome(&held),
        "mismatch/wrong by image-tag: hold (source-failed)"
    );
    harness.sim.heal();
    assert_eq!(
        outcome(&harness.record(event).await),
        "conflict by image-tag: alert"
    );
    assert!(harness.image_stands());
}

/// Where nothing is to be discarded, nobody waits for it.
#[tokio::test(crate = "crate::virtual_time")]
async fn a_search_without_an_answer_brings_no_event_back_unless_a_discard_is_due() {
    let (harness, event) = of_a_volume().harness("").await;
    slow_among_others(&harness, Duration::from_secs(120));
    assert_eq!(outcome(&harness.record(event).await), "unverifiable: none");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_page_without_items_is_not_the_last() {
    let (harness, event) = given()
        .bills("Windows")
        .taken_of_volume(Some(PARENT_SNAPSHOT))
        .other_image(PARENT_SNAPSHOT, "Windows", of_amazon)
        .harness("")
        .await;
    let empty = || FaultKind::EmptyPage;
    harness.inject(Fault::nth("DescribeImages", 1, empty()).with("Owner.1", "self"));
    let published = ("Filter.1.Name", "owner-alias");
    harness.inject(Fault::nth("DescribeImages", 1, empty()).with(published.0, published.1));
    for action in ["DescribeSnapshots", "DescribeVolumes"] {
        harness.inject(Fault::nth(action, 1, empty()));
    }
    assert_eq!(
        outcome(&harness.record(event).await),
        "verified by lineage: none"
    );

    let (harness, event) = given()
        .bills("Windows")
        .taken_of_root_of("Windows")
        .harness("")
        .await;
    harness.inject(Fault::nth("DescribeInstances", 1, empty()));
    assert_eq!(
        outcome(&harness.record(event).await),
        "verified by lineage: none"
    );

    let harness = Harness::of(expecting("Windows")).await;
    let reference = Reference {
        resource_type: "ssm:Parameter".into(),
        arn: "arn:aws:ssm:eu-west-1:123456789012:parameter/golden".into(),
    };
    let arn = reference.arn.clone();
    harness
        .sim
        .world()
        .references
        .insert(AMI.into(), vec![reference]);
    harness.inject(Fault::nth("DescribeImageReferences", 1, empty()));
    let record = harness.record(registered()).await;
    assert_eq!(record["held_by"], json!(["in-use"]));
    assert_eq!(record["references"], json!([arn]));
}

#[tokio::test(crate = "crate::virtual_time")]
async fn lookups_are_those_that_ec2_answers_fast() {
    let (harness, event) = given()
        .taken_of_root_of("Linux/UNIX")
        .volume(|volume| volume.snapshot_id = Some(PARENT_SNAPSHOT.into()))
        .tag("Windows")
        .harness("")
        .await;
    harness.record(event).await;
    let calls = harness.sim.calls();
    let has = |call: &sim::Call, parameter: &str| call.params.contains_key(parameter);
    let mut published = 0;
    for call in &calls {
        match call.action.as_str() {
            "DescribeImages" if has(call, "Owner.1") => {
                assert_eq!(call.params["Owner.1"], "self");
                assert!(has(call, "MaxResults") && !has(call, "Owner.2"), "{call:?}");
            }
            "DescribeImages" if has(call, "Filter.1.Name") => {
                assert_eq!(call.params["Filter.1.Name"], "owner-alias");
                assert!(has(call, "MaxResults"), "{call:?}");
                published += 1;
            }
            "DescribeImages" => assert!(has(call, "ImageId.1"), "{call:?}"),
            "DescribeVolumes" | "DescribeInstances" => {
                assert_eq!(call.params["IncludeManagedResources"], "true");
                assert!(!has(call, "Filter.1.Name"), "{call:?}");
            }
            "DescribeSnapshots" => assert!(has(call, "SnapshotId.1"), "{call:?}"),
            _ => {}
        }
    }
    assert_eq!(published, 1);
    let references = calls
        .iter()
        .find(|it| it.action == "DescribeImageReferences");
    let references = &references.unwrap().params;
    let types = (1..=6).map(|n| references.get(&format!("ResourceType.{n}.ResourceType")));
    let types: Vec<&str> = types.flatten().map(String::as_str).collect();
    assert_eq!(
        types,
        [
            "ec2:Instance",
            "ec2:LaunchTemplate",
            "ssm:Parameter",
            "imagebuilder:ImageRecipe",
            "imagebuilder:ContainerRecipe"
        ]
    );
    assert!(!references.contains_key("IncludeAllResourceTypes"));
}

/// The image that an instance was launched from is known by its id.
#[tokio::test(crate = "crate::virtual_time")]
async fn the_parent_of_an_instance_is_asked_for_by_its_id_before_anybody_is_searched_for() {
    let (harness, event) = given()
        .bills("Windows")
        .taken_of_root_of("Linux/UNIX")
        .volume(|volume| volume.snapshot_id = Some(PARENT_SNAPSHOT.into()))
        .other_image(PARENT_SNAPSHOT, "Windows", of_amazon)
        .harness("")
        .await;
    harness.inject(
        Fault::always("DescribeImages", FaultKind::AccessDenied)
            .with("Filter.1.Name", "owner-alias"),
    );
    assert_eq!(
        outcome(&harness.record(event).await),
        "verified by lineage: none"
    );
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_volume_that_was_copied_from_another_has_what_that_one_has() {
    // The snapshot is of a copy of the root volume of a Windows instance.
    let given = given().bills("Windows").taken_of_root_of("Windows");
    let given = given.with(|world| {
        let mut copy = Volume::new(COPY_OF_VOLUME);
        copy.source_volume_id = Some(VOLUME.into());
        copy.create_time = now() - TimeDelta::minutes(30);
        world.add_volume(copy);
        world.snapshots.get_mut(SNAPSHOT).unwrap().volume_id = COPY_OF_VOLUME.into();
    });
    let (harness, record) = given.clone().run("").await;
    assert_eq!(outcome(&record), "verified by lineage: none");
    assert_eq!(
        harness
            .calls()
            .iter()
            .filter(|it| *it == "DescribeVolumes")
            .count(),
        2
    );

    // It was copied before the volume was attached: the instance says nothing of it.
    let earlier = given.with(|world| {
        let copy = world.volumes.get_mut(COPY_OF_VOLUME).unwrap();
        copy.create_time = now() - TimeDelta::minutes(90);
    });
    assert_eq!(outcome(&earlier.run("").await.1), "unverifiable: none");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_image_that_others_were_copied_from_is_in_use() {
    for state in ["available", "pending", "disabled"] {
        let harness = Harness::of(expecting("Windows")).await;
        let mut copy = image();
        copy.id = OTHER_AMI.into();
        copy.state = state.into();
        copy.source_image_id = Some(AMI.into());
        copy.source_image_region = Some("eu-west-1".into());
        harness.sim.world().add_image(copy);
        let record = harness.record(registered()).await;
        assert_eq!(record["held_by"], json!(["in-use"]), "{state}");
        assert_eq!(
            record["references"],
            json!([format!("arn:aws:ec2:eu-west-1::image/{OTHER_AMI}")])
        );
        assert!(harness.image_stands());
    }
}

/// A search among everybody's images is slow.
#[tokio::test(crate = "crate::virtual_time")]
async fn one_image_that_is_gone_makes_no_search_of_a_question_by_ids() {
    let (harness, event) = given()
        .bills("Windows")
        .taken_of_root_of("Linux/UNIX")
        .volume(|volume| volume.snapshot_id = Some(PARENT_SNAPSHOT.into()))
        .harness("")
        .await;
    assert_eq!(outcome(&harness.record(event).await), "unverifiable: none");
    for call in harness.sim.calls() {
        let searched = call.action == "DescribeImages" && call.params.contains_key("Filter.1.Name");
        let alone = call
            .params
            .get("Filter.1.Name")
            .is_some_and(|it| it == "owner-alias");
        assert!(
            !searched || alone || call.params["Owner.1"] == "self",
            "{call:?}"
        );
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_remark_that_failed_holds_no_discard() {
    let (harness, event) = given()
        .taken_of_root_of("Windows")
        .tag("Windows")
        .harness("")
        .await;
    harness.inject(Fault::always(
        "DescribeSnapshotAttribute",
        FaultKind::Throttle,
    ));
    assert_eq!(harness.record(event).await["outcome"], "done");
}

/// EC2 refuses CreateTags while others tag the image.
#[tokio::test(crate = "crate::virtual_time")]
async fn tags_that_others_write_at_the_moment_are_waited_for() {
    let busy = || refuse("ConcurrentTagAccess", "Try again later.");
    let harness = Harness::of(expecting("Windows")).await;
    harness.inject(Fault::nth("CreateTags", 1, busy()));
    assert_eq!(harness.record(registered()).await["outcome"], "done");

    let harness = Harness::of(expecting("Windows")).await;
    harness.inject(Fault::always("CreateTags", busy()));
    let error = harness.give(registered()).await.unwrap_err();
    assert_eq!(error.error_type(), "Unavailable", "{error}");
    assert!(harness.image_stands());
    harness.sim.heal();
    assert_eq!(harness.record(registered()).await["outcome"], "done");
}

/// EC2 says of the instance that it is Windows, and that it is billed as Red Hat.
#[tokio::test(crate = "crate::virtual_time")]
async fn regression_a_witness_that_contradicts_itself_for_good_brings_the_event_back_for_a_while() {
    let given = || {
        let operation = Some("RunInstances:0010".into());
        let given = given().taken_of_root_of("Windows");
        given.instance(|instance| instance.usage_operation = operation)
    };
    let (harness, event) = given().harness("").await;
    let error = harness.give(event).await.unwrap_err();
    assert!(matches!(error, Error::NotFoundOut { .. }), "{error}");
    let (harness, _) = given().harness("").await;
    let record = harness
        .record(registered_at(now() - TimeDelta::minutes(31)))
        .await;
    assert_eq!(outcome(&record), "unverifiable: none");
}

/// What EC2's answer lacks of an instance is no matter where the instance is no witness anyway.
#[tokio::test(crate = "crate::virtual_time")]
async fn regression_an_instance_that_is_no_witness_needs_no_answer_that_is_whole() {
    let data_volume = |device: &str| {
        let given = given().taken_of_root_of("Windows");
        let device = device.to_owned();
        given.volume(|volume| volume.device_name = device)
    };
    for (device, comes_back) in [("/dev/sdf", false), ("/dev/xvda", true)] {
        let (harness, event) = data_volume(device).harness("").await;
        let without = FaultKind::Without("usageOperation".into());
        harness.inject(Fault::always("DescribeInstances", without));
        let answer = harness.give(event).await;
        assert_eq!(answer.is_err(), comes_back, "{device}: {answer:?}");
    }
}

/// The tag is wrong, and the only witness that could say so is shown in part, or contradicts itself: however late the event is
/// judged, nothing is discarded for it.
#[tokio::test(crate = "crate::virtual_time")]
async fn regression_a_witness_that_is_odd_holds_a_discard_however_old_the_event_is() {
    let given = || {
        let given = given().bills("Windows").tag("SUSE");
        given.taken_of_root_of("Windows")
    };
    let contradicting = given().instance(|instance| {
        instance.usage_operation = Some("RunInstances:0010".into());
    });
    for (given, without) in [
        (contradicting, None),
        (given(), Some("platformDetails")),
        (given(), Some("ownerId")),
        (given(), Some("instanceState")),
        (given(), Some("rootDeviceName")),
    ] {
        let (harness, _) = given.harness("").await;
        if let Some(element) = without {
            let without = FaultKind::Without(element.into());
            harness.inject(Fault::always("DescribeInstances", without));
        }
        for minutes in [6, 40, 600] {
            let registered = now() - TimeDelta::minutes(minutes);
            let age = |world: &mut World| {
                world.images.get_mut(AMI).unwrap().creation_date = registered;
            };
            age(&mut harness.sim.world());
            let error = harness.give(registered_at(registered)).await.unwrap_err();
            assert!(matches!(error, Error::NotFoundOut { .. }), "{error}");
            let record = harness.journal.lock().unwrap().last().unwrap().clone();
            assert_eq!(
                record["held_by"],
                json!(["source-failed"]),
                "{without:?}: {record}"
            );
            assert!(harness.image_stands());
        }
    }
}

/// A gate waits for an AMI that is being copied to another Region, which takes longer than a preview otherwise may.
#[tokio::test(crate = "crate::virtual_time")]
async fn a_preview_that_waits_long_for_an_image_then_judges_it_like_any_other() {
    let mut image = expecting("Windows");
    image.invisible_for = 500;
    let harness = Harness::of(image).await;
    let (image, account) = (AMI.parse().unwrap(), "123456789012".parse().unwrap());
    let consider = |wait| harness.guard.consider(&image, &account, wait);
    let error = consider(Duration::ZERO).await.unwrap_err();
    assert_eq!(error.error_type(), "NotVisibleYet");
    let record = json!(consider(Duration::from_secs(3600)).await.unwrap());
    assert_eq!(
        (&record["verdict"], &record["error"]),
        (&json!("mismatch"), &Value::Null)
    );
    assert_eq!(record["held_by"], json!(["identity-unknown"]));
}
