//! `ami-guard audit`: small accounts as people see them, larger ones by what is asked of EC2, and audits that are
//! stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Output, Stdio};
use std::sync::LazyLock;
use tokio::time::Instant;

use chrono::TimeDelta;
use serde_json::{Value, json};
use sim::{
    AttachedVolume, Fault, FaultKind, Image, Instance, Limit, Sim, Snapshot, Throttling, World,
};

use tokio::io::AsyncReadExt;

use super::{
    EXPECT, GOOD, LOST, TABLE, TOPIC, account, before, changes, code, err, lines, out, pinned,
    program, says, simulated, temporary,
};

/// An account of so many images: of ten, six say by a tag that they are Red Hat, two are from Windows instances, one is
/// an upload, and one is from a Windows instance and lost its code.
fn large(images: usize) -> World {
    let mut world = World::default();
    for number in 0..images {
        let id = |kind: &str| format!("{kind}-{number:017x}");
        let mut snapshot = Snapshot::new(id("snap"));
        let image = Image {
            name: format!("image {number}"),
            creation_date: sim::clock::now() - TimeDelta::days(2),
            ..Image::new(id("ami"))
        };
        let bills =
            |details: &str, operation: &str| (Some(details.to_owned()), Some(operation.to_owned()));
        let (platform_details, usage_operation) = match number % 10 {
            0..=5 => bills("Red Hat Enterprise Linux", "RunInstances:0010"),
            6 | 7 => bills("Windows", "RunInstances:0002"),
            _ => bills("Linux/UNIX", "RunInstances"),
        };
        let tag = (number % 10 < 6).then(|| (EXPECT.to_owned(), "RedHat".to_owned()));
        if let 6 | 7 | 9 = number % 10 {
            snapshot.volume_id = id("vol");
            let attached = AttachedVolume {
                attach_time: sim::clock::now() - TimeDelta::days(400),
                ..AttachedVolume::new("/dev/sda1", id("vol"))
            };
            world.add_instance(Instance {
                platform_details: Some("Windows".into()),
                usage_operation: Some("RunInstances:0002".into()),
                usage_operation_update_time: Some(sim::clock::now() - TimeDelta::days(400)),
                root_device_name: Some("/dev/sda1".into()),
                volumes: vec![attached],
                ..Instance::new(id("i"), "ami-0000000000000d001")
            });
        }
        world.add_snapshot(snapshot);
        world.add_image(Image {
            tags: tag.into_iter().collect(),
            platform_details,
            usage_operation,
            ..image
        });
    }
    world
}

/// A policy file that has lineage asked when it is needed. Written once: others may be reading it.
fn when_needed() -> String {
    static PATH: LazyLock<String> = LazyLock::new(|| {
        let path = temporary("when-needed.toml");
        std::fs::write(&path, "version = 1\n[evidence]\nlineage = 'when-needed'").unwrap();
        path.to_str().unwrap().to_owned()
    });
    PATH.clone()
}

fn state(name: &str) -> String {
    let path = temporary(&format!("{name}.jsonl"));
    // Of an earlier run.
    let _ = std::fs::remove_file(&path);
    path.to_str().unwrap().to_owned()
}

/// How often each action was called.
fn counted(sim: &Sim) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for call in sim.calls() {
        *counted.entry(call.action).or_default() += 1;
    }
    counted
}

/// What was found of each image.
fn found(rows: &[Value]) -> BTreeMap<String, Value> {
    let found: BTreeMap<String, Value> = rows
        .iter()
        .map(|row| (row["image_id"].as_str().unwrap().to_owned(), row.clone()))
        .collect();
    assert_eq!(found.len(), rows.len(), "an image is there twice");
    found
}

#[tokio::test]
async fn every_image_is_judged_and_those_that_need_attention_are_listed() {
    let sim = simulated().await;
    let small = state("small");
    for (name, more) in [("audit", vec![]), ("audit-all", vec!["--all"])] {
        let mut arguments = vec!["audit", "--state", &small];
        arguments.extend(more);
        let output = before(&sim, &arguments).await;
        pinned(name, &arguments, &output);
        assert_eq!(code(&output), 1);
    }
    let output = before(&sim, &["audit", "--json", "--state", &small]).await;
    let verdicts: BTreeSet<_> = lines(&output)
        .iter()
        .map(|row| row["verdict"].to_string())
        .collect();
    assert_eq!(verdicts.len(), 4, "{verdicts:?}");
    assert!(err(&output).contains("4 AMIs: 1 gone, 1 mismatch/wrong, 1 unverifiable, 1 verified"));
    assert_eq!(changes(&sim), Vec::<String>::new());

    sim.world().images.retain(|id, _| id == GOOD);
    let arguments = ["audit", "--state", &small];
    let output = before(&sim, &arguments).await;
    pinned("audit-verified", &arguments, &output);
    assert_eq!(code(&output), 0);
    sim.inject(Fault::always("DescribeImages", FaultKind::AccessDenied));
    let output = before(&sim, &arguments).await;
    pinned("audit-denied", &arguments, &output);
    assert_eq!(code(&output), 3);
}

#[tokio::test]
async fn an_audit_says_of_each_image_what_check_says_of_it_but_for_disks_that_no_verdict_needs() {
    let sim = Sim::start(large(40)).await.unwrap();
    let audited = before(
        &sim,
        &["audit", "--json", "--disk", "--state", &state("as-check")],
    )
    .await;
    let ids: Vec<String> = sim.world().images.keys().cloned().collect();
    let mut arguments = vec!["check", "--json"];
    arguments.extend(ids.iter().map(String::as_str));
    let checked = found(&lines(&before(&sim, &arguments).await));
    for (id, mut row) in found(&lines(&audited)) {
        let mut checked = checked[&id].clone();
        let evidence = |row: &mut Value| row["evidence"].as_array_mut().unwrap().pop().unwrap();
        let (of_audit, of_check) = (evidence(&mut row), evidence(&mut checked));
        assert_eq!(of_audit["source"], "disk");
        if of_audit["state"] != "skipped" {
            assert_eq!(of_audit, of_check, "{id}");
        }
        for key in [
            "verdict", "kind", "reason", "actual", "expected", "evidence", "action", "fix",
        ] {
            assert_eq!(row[key], checked[key], "{id} {key}");
        }
    }
}

#[tokio::test]
async fn what_tags_decide_costs_no_call_and_the_rest_is_asked_for_two_hundred_at_a_time() {
    let sim = Sim::start(large(4000)).await.unwrap();
    let policy = when_needed();
    let arguments = [
        "audit",
        "--json",
        "--policy",
        &policy,
        "--state",
        &state("calls"),
    ];
    let output = before(&sim, &arguments).await;
    assert_eq!(code(&output), 1);
    let verdicts = lines(&output)
        .iter()
        .fold(BTreeMap::new(), |mut verdicts, row| {
            *verdicts.entry(row["verdict"].to_string()).or_insert(0) += 1;
            verdicts
        });
    let expected = [
        ("\"mismatch\"", 400),
        ("\"unverifiable\"", 400),
        ("\"verified\"", 3200),
    ];
    assert_eq!(
        verdicts,
        BTreeMap::from(expected.map(|(verdict, number)| (verdict.to_owned(), number)))
    );
    // Of each page 200 images need their snapshot, 150 of these a volume and an instance, and 50 another image.
    let calls = [
        ("DescribeImages", 8 + 8),
        ("DescribeInstances", 8),
        ("DescribeReservedInstances", 1),
        ("DescribeSnapshots", 8),
        ("DescribeVolumes", 8),
        ("GetCallerIdentity", 1),
    ];
    assert_eq!(
        counted(&sim),
        BTreeMap::from(calls.map(|(action, number)| (action.to_owned(), number)))
    );

    // All of them tagged: nothing but the pages.
    sim.world().images.retain(|_, image| !image.tags.is_empty());
    sim.forget_calls();
    assert_eq!(code(&before(&sim, &arguments).await), 0);
    let calls = [
        ("DescribeImages", 5),
        ("DescribeReservedInstances", 1),
        ("GetCallerIdentity", 1),
    ];
    assert_eq!(
        counted(&sim),
        BTreeMap::from(calls.map(|(action, number)| (action.to_owned(), number)))
    );
}

/// EC2 counts the values of all of a call's filters together, and takes 200 of them.
#[tokio::test]
async fn regression_images_are_looked_for_by_two_hundred_snapshots_in_a_call_and_not_by_more() {
    let mut world = World::default();
    for number in 0..600 {
        let id = |kind: &str| format!("{kind}-{number:017x}");
        world.add_snapshot(Snapshot::new(id("snap")));
        world.add_image(Image::new(id("ami")));
    }
    let sim = Sim::start(world).await.unwrap();
    let output = before(&sim, &["audit", "--json", "--state", &state("many")]).await;
    for row in lines(&output) {
        let evidence = row["evidence"].as_array().unwrap();
        let mut failed = evidence.iter().filter(|it| it["state"] == "failed");
        assert_eq!(failed.next(), None, "{row}");
    }
    // A page of 500, and one of 100.
    assert_eq!(counted(&sim)["DescribeImages"], (1 + 3) + (1 + 1));
}

#[tokio::test]
async fn a_call_that_many_images_wait_for_and_that_is_denied_leaves_them_unverifiable() {
    let sim = Sim::start(large(20)).await.unwrap();
    sim.inject(Fault::always("DescribeVolumes", FaultKind::AccessDenied));
    let output = before(&sim, &["audit", "--json", "--state", &state("denied")]).await;
    assert_eq!(code(&output), 3);
    let rows = found(&lines(&output));
    let lineage = |row: &Value| {
        let evidence = row["evidence"].as_array().unwrap();
        let mut lineage = evidence
            .iter()
            .filter(|statement| statement["source"] == "lineage");
        lineage.next().unwrap().clone()
    };
    for (id, row) in rows {
        let number = id.strip_prefix("ami-").unwrap();
        if let 6 | 7 | 9 = usize::from_str_radix(number, 16).unwrap() % 10 {
            assert_eq!(row["verdict"], "unverifiable", "{row}");
            assert_eq!(lineage(&row)["state"], "failed");
            assert!(
                lineage(&row)["detail"]
                    .as_str()
                    .unwrap()
                    .contains("ec2:DescribeVolumes")
            );
        }
    }
}

#[tokio::test]
async fn all_regions_are_swept_and_one_that_is_forbidden_does_not_stop_the_others() {
    let sim = simulated().await;
    let elsewhere = Image {
        platform_details: None,
        usage_operation: None,
        ..Image::new("ami-0a1b2c3d4e5f60009")
    };
    sim.world().in_region("us-east-1").add_image(elsewhere);
    let regions = state("regions");
    let arguments = ["audit", "--all-regions", "--state", &regions];
    let output = before(&sim, &arguments).await;
    pinned("audit-regions", &arguments, &output);
    assert_eq!(code(&output), 1);
    // The first Region by name is eu-south-1.
    sim.inject(Fault::nth("DescribeImages", 1, FaultKind::AccessDenied));
    let output = before(&sim, &arguments).await;
    assert_eq!(code(&output), 1);
    says(&out(&output), "eu-south-1 was not audited: access denied");
}

#[tokio::test]
async fn only_images_since_then_are_swept() {
    let sim = simulated().await;
    sim.world().images.get_mut(LOST).unwrap().creation_date =
        sim::clock::now() - TimeDelta::days(40);
    let since = state("since");
    let audited = async |since_when: &str| {
        let options = ["audit", "--json", "--force", "--since", since_when];
        let arguments = [&options[..], &["--state", &since]].concat();
        found(&lines(&before(&sim, &arguments).await)).contains_key(LOST)
    };
    assert!(!audited("30d").await && !audited("24h").await);
    let day = (sim::clock::now() - TimeDelta::days(50))
        .format("%Y-%m-%d")
        .to_string();
    assert!(audited("41d").await && audited(&day).await);
}

#[tokio::test]
async fn enforcing_discards_what_the_deployed_guard_would_and_nothing_else() {
    let mut world = account();
    // Older than the policy lets the guard discard.
    world.add_image(Image {
        tags: [(EXPECT.to_owned(), "Windows".to_owned())].into(),
        creation_date: sim::clock::now() - TimeDelta::days(30),
        ..Image::new("ami-0a1b2c3d4e5f60009")
    });
    let sim = Sim::start(world).await.unwrap();
    let state = state("enforce");
    let deployed = [
        "audit",
        "--enforce",
        "--yes",
        "--topic",
        TOPIC,
        "--ledger",
        TABLE,
        "--state",
        &state,
    ];
    // Nobody says who registered them.
    assert_eq!(code(&before(&sim, &deployed).await), 1);
    assert_eq!(changes(&sim), Vec::<String>::new());
    let policy = temporary("audit-discards.toml");
    std::fs::write(
        &policy,
        "version = 1\n[discard]\nservice_registered = 'discard'",
    )
    .unwrap();
    let more = ["--force", "--policy", policy.to_str().unwrap()];
    let with_policy = [&deployed[..], &more].concat();
    let output = before(&sim, &with_policy).await;
    assert_eq!(code(&output), 1);
    says(&out(&output), "1 AMI discarded");
    let discarded: Vec<String> = sim.world().deregistered.keys().cloned().collect();
    assert_eq!(discarded, [LOST]);
    assert_eq!(sim.world().messages.len(), 1, "the alert");
    // Stopped before the end of the page: what was done then is not found again, and is told all the same.
    let kept = std::fs::read_to_string(&state).unwrap();
    let (cut, _) = kept.split_once("{\"page\":").unwrap();
    std::fs::write(&state, cut).unwrap();
    let resume = [&deployed[..], &more[1..], &["--resume"]].concat();
    let acted = changes(&sim);
    for _ in 0..2 {
        says(&out(&before(&sim, &resume).await), "1 AMI discarded");
    }
    assert_eq!(changes(&sim), acted);
    let acts = [
        "UpdateItem",
        "TransactWriteItems",
        "CreateTags",
        "Publish",
        "DeregisterImage",
    ];
    let order: Vec<&str> = acts[1..].to_vec();
    let first = |action: &str| acted.iter().position(|act| act == action).unwrap();
    assert!(
        order.windows(2).all(|pair| first(pair[0]) < first(pair[1])),
        "{acted:?}"
    );
    assert!(
        acted.iter().all(|action| acts.contains(&action.as_str())),
        "{acted:?}"
    );
}

#[tokio::test]
async fn what_was_stopped_goes_on_only_as_what_it_was() {
    let sim = simulated().await;
    let state = state("other");
    let arguments = ["audit", "--resume", "--state", &state];
    let output = before(&sim, &arguments).await;
    pinned("audit-nothing-to-resume", &arguments, &output);
    assert_eq!(code(&output), 2);
    before(&sim, &["audit", "--state", &state]).await;
    // All is known already.
    sim.forget_calls();
    let output = before(&sim, &arguments).await;
    assert_eq!(code(&output), 1);
    says(&out(&output), "4 AMIs");
    assert!(!counted(&sim).contains_key("DescribeImages"));
    for (other, what) in [
        ("--disk", "--disk"),
        ("--since=1d", "--since"),
        ("--all-regions", "Region"),
    ] {
        let output = before(&sim, &["audit", "--resume", "--state", &state, other]).await;
        assert_eq!(code(&output), 2);
        says(&err(&output), &format!("has another {what}"));
    }
}

#[tokio::test]
async fn a_place_in_the_list_that_ec2_has_forgotten_is_found_again() {
    let sim = Sim::start(large(2500)).await.unwrap();
    let state = state("forgotten");
    // Stopped after the first page.
    sim.inject(Fault::nth("DescribeImages", 3, FaultKind::AccessDenied));
    let policy = when_needed();
    let audit = ["audit", "--json", "--policy", &policy, "--state", &state];
    let output = before(&sim, &audit).await;
    assert_eq!(code(&output), 3);
    says(&err(&output), "To continue, add --resume");
    sim.heal();
    let kept = std::fs::read_to_string(&state).unwrap();
    let forgotten = with_another_token(&kept);
    std::fs::write(&state, forgotten).unwrap();
    // Begun again from the first page, and stopped once more: the place is a new one now.
    let resume = [&audit[..], &["--resume"]].concat();
    sim.forget_calls();
    sim.inject(Fault::nth("DescribeImages", 4, FaultKind::AccessDenied));
    let output = before(&sim, &resume).await;
    assert_eq!(code(&output), 3, "{}", err(&output));
    sim.heal();
    let output = before(&sim, &resume).await;
    assert_eq!(code(&output), 1, "{}", err(&output));
    assert_eq!(found(&lines(&output)).len(), 2500);
    // Complete: what is shown again is said to be of then.
    let output = before(&sim, &resume).await;
    says(&err(&output), "no AMI is examined again");
}

#[tokio::test]
async fn regression_the_report_is_written_whoever_reads_the_table_to_its_end() {
    let sim = Sim::start(large(2000)).await.unwrap();
    let page = temporary("cut.html");
    let _ = std::fs::remove_file(&page);
    let mut audit = program(&[
        "audit",
        "--all",
        "--html",
        page.to_str().unwrap(),
        "--state",
        &state("cut"),
    ]);
    audit
        .env("AWS_ENDPOINT_URL", sim.endpoint())
        .env("AWS_REGION", "eu-west-1");
    audit.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = audit.spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().await.unwrap().code(), Some(1));
    assert!(
        std::fs::read_to_string(page)
            .unwrap()
            .trim_end()
            .ends_with("</html>")
    );
}

#[tokio::test]
async fn regression_a_discard_that_did_not_come_about_is_told() {
    let sim = simulated().await;
    sim.inject(Fault::always("DeregisterImage", FaultKind::AccessDenied));
    let policy = temporary("stuck.toml");
    std::fs::write(
        &policy,
        "version = 1\n[discard]\nservice_registered = 'discard'",
    )
    .unwrap();
    let state = state("stuck");
    let arguments = [
        "audit",
        "--enforce",
        "--yes",
        "--topic",
        TOPIC,
        "--ledger",
        TABLE,
        "--state",
        &state,
        "--policy",
    ];
    let output = before(
        &sim,
        &[&arguments[..], &[policy.to_str().unwrap()]].concat(),
    )
    .await;
    says(&out(&output), "1 AMI not discarded, although due");
}

/// The journal with another token than EC2 gave.
fn with_another_token(journal: &str) -> String {
    let lines = journal.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        if let Some(next) = line.pointer_mut("/page/next") {
            *next = json!("forgotten");
        }
        line.to_string() + "\n"
    });
    lines.collect()
}

/// Killed forty times, wherever it was, and begun again each time.
#[tokio::test]
async fn an_audit_that_is_killed_anywhere_and_resumed_finds_what_one_that_is_not_finds() {
    let sim = Sim::start(large(1100)).await.unwrap();
    let policy = when_needed();
    let begun = Instant::now();
    let whole = state("whole");
    let whole = before(
        &sim,
        &["audit", "--json", "--policy", &policy, "--state", &whole],
    )
    .await;
    let mut takes = begun.elapsed();
    let whole = found(&lines(&whole));
    assert_eq!(whole.len(), 1100);
    let state = state("killed");
    let audit = ["audit", "--json", "--policy", &policy, "--state", &state];
    let (mut killed, mut complete, mut random) = (0, 0, 12345_u64);
    let mut resume = false;
    while killed < 40 || complete == 0 {
        let mut audit = program(&audit);
        if resume {
            audit.arg("--resume");
        }
        audit
            .env("AWS_ENDPOINT_URL", sim.endpoint())
            .env("AWS_REGION", "eu-west-1");
        audit
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let begun = Instant::now();
        let mut child = audit.spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let (mut written, mut said) = (Vec::new(), Vec::new());
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let moment = takes.mul_f64((random >> 33) as f64 / f64::from(1_u32 << 31));
        let ends = async {
            let (status, out, err) = tokio::join!(
                child.wait(),
                stdout.read_to_end(&mut written),
                stderr.read_to_end(&mut said)
            );
            out.and(err).unwrap();
            Output {
                status: status.unwrap(),
                stdout: written,
                stderr: said,
            }
        };
        match tokio::time::timeout(moment, ends).await {
            Err(_) => {
                // It is gone before the next one begins, as the state file is one process's.
                child.kill().await.unwrap();
                killed += 1;
                // Without a whole header there is nothing to go on with.
                let kept = std::fs::read_to_string(&state).unwrap_or_default();
                resume = kept.contains('\n');
            }
            Ok(output) => {
                // The first one may have shared the machine with other tests.
                if !resume {
                    takes = takes.min(begun.elapsed());
                }
                assert_eq!(found(&lines(&output)), whole, "{}", err(&output));
                complete += 1;
                resume = false;
            }
        }
    }
    println!("killed {killed} times, complete {complete} times");
}

#[tokio::test]
async fn an_audit_that_is_throttled_waits_and_finds_the_same() {
    let sim = Sim::start(large(3000)).await.unwrap();
    let policy = when_needed();
    let audit = async |name: &str| {
        let state = state(name);
        before(
            &sim,
            &["audit", "--json", "--policy", &policy, "--state", &state],
        )
        .await
    };
    let unthrottled = audit("unthrottled").await;
    let mut throttling = Throttling::of_ec2();
    throttling.non_mutating = Some(Limit {
        burst: 2,
        per_second: 2,
    });
    sim.world().throttling = throttling;
    // However slow this machine is, one request is too many.
    sim.inject(sim::Fault::nth(
        "DescribeImages",
        2,
        sim::FaultKind::Throttle,
    ));
    let throttled = audit("throttled").await;
    assert!(
        !err(&throttled).contains("throttled: 0"),
        "{}",
        err(&throttled)
    );
    assert_eq!(code(&throttled), 1, "{}", err(&throttled));
    assert_eq!(found(&lines(&throttled)), found(&lines(&unthrottled)));
}
