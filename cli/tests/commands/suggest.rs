//! `ami-guard policy suggest`: rules that are right, and nothing where it is not known.

use std::collections::BTreeMap;

use ami_billing_guard::billing::{Difference, Parsed, Platforms, parse_platform_details};
use ami_billing_guard::policy::Policy;
use serde_json::{Value, json};
use sim::{Fault, FaultKind, Image, Sim, Snapshot, World};

use super::{
    EXPECT, before, changes, code, err, lines, out, pinned, program, run, says, temporary,
};

fn fresh(name: &str) -> String {
    let path = temporary(name);
    let _ = std::fs::remove_file(&path);
    path.to_str().unwrap().to_owned()
}

/// The records of an audit, by image.
fn by_image(records: Vec<Value>) -> BTreeMap<String, Value> {
    let id = |record: &Value| record["image_id"].as_str().unwrap().to_owned();
    records.into_iter().map(|it| (id(&it), it)).collect()
}

/// Whether a record expects what the image really is.
fn expects(record: &Value, details: &str) -> bool {
    let names = record["expected"]["platform"].as_array().unwrap();
    let platforms = Platforms::parse(names.iter().map(|name| name.as_str().unwrap())).unwrap();
    let Parsed::Known(billing) = parse_platform_details(Some(details)) else {
        panic!("{details}")
    };
    platforms.difference(&billing, false) == Difference::None
}

/// Half of these images are unverifiable. The simulator knows what each one is expected to be billed as.
#[tokio::test]
async fn every_suggested_rule_is_right_for_each_of_5000_labelled_images() {
    let sim = Sim::start(World::populated(5000, 0)).await.unwrap();
    let audit = async |state: &str, more: &[&str]| {
        let options = ["audit", "--json", "--state", state];
        by_image(lines(&before(&sim, &[&options[..], more].concat()).await))
    };
    let state = fresh("suggest-before.jsonl");
    let first = audit(&state, &[]).await;
    sim.forget_calls();
    let output = before(&sim, &["policy", "suggest", "--state", &state]).await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(sim.calls().is_empty(), "the state file has everything");
    let again = before(&sim, &["policy", "suggest", "--state", &state]).await;
    assert_eq!(out(&output), out(&again));

    let policy = fresh("suggested.toml");
    std::fs::write(&policy, out(&output)).unwrap();
    let checked = run(&["policy", "check", &policy]).await;
    assert_eq!(code(&checked), 0, "{}", out(&checked));
    let rules = Policy::parse("suggested.toml", &out(&output))
        .unwrap()
        .expect;

    let second = audit(&fresh("suggest-after.jsonl"), &["--policy", &policy]).await;
    let (mut covered, mut lost, mut remain) = (0, 0, 0);
    for (id, after) in &second {
        let earlier = &first[id];
        let details = World::expected_details(after["name"].as_str().unwrap()).unwrap();
        if earlier["verdict"] != "unverifiable" {
            // The rule agrees with what was known before.
            assert_eq!(
                (&after["verdict"], &after["kind"]),
                (&earlier["verdict"], &earlier["kind"]),
                "{after}"
            );
            if !after["expected"].is_null() {
                assert!(expects(after, details), "{after}");
            }
            continue;
        }
        if after["verdict"] == "unverifiable" {
            remain += 1;
            continue;
        }
        covered += 1;
        assert_eq!(after["expected"]["source"], "policy");
        assert!(expects(after, details), "wrong: {details}, {after}");
        let is_right = after["actual"]["platform_details"] == details;
        lost += usize::from(!is_right);
        let verdict = if is_right { "verified" } else { "mismatch" };
        assert_eq!(after["verdict"], verdict, "{after}");
    }
    println!(
        "{} rules cover {covered} images, of which {lost} lost their code, and {remain} remain",
        rules.len()
    );
    let said = format!(
        "# {} of 5000 AMIs are unverifiable. {} rules below cover {covered} of them, and {remain} remain",
        covered + remain,
        rules.len()
    );
    says(&out(&output), &said);
    assert!(covered > 2000 && lost > 10, "{said}");
}

/// An account with each kind of group.
fn groups() -> World {
    let mut world = World::default();
    let mut add = |name: &str, details: &str, operation: &str, tag: Option<&str>| {
        let number = world.images.len() + 1;
        world.add_snapshot(Snapshot::new(format!("snap-{number:017x}")));
        world.add_image(Image {
            name: name.into(),
            platform_details: Some(details.into()),
            usage_operation: Some(operation.into()),
            tags: tag
                .map(|tag| (EXPECT.to_owned(), tag.to_owned()))
                .into_iter()
                .collect(),
            ..Image::new(format!("ami-{number:017x}"))
        });
    };
    let (windows, linux) = (
        ("Windows", "RunInstances:0002"),
        ("Linux/UNIX", "RunInstances"),
    );
    for day in 1..=9 {
        let name = format!("win2022 [iis]-2026110{day}-build.{day}");
        let tag = (day <= 4).then_some("Windows");
        let billed = if day == 9 { linux } else { windows };
        add(&name, billed.0, billed.1, tag);
    }
    for day in 1..=4 {
        let tag = (day <= 2).then_some("Linux");
        add(&format!("al2023-v{day}"), linux.0, linux.1, tag);
        // Nothing is known.
        add(&format!("legacy-{day}"), windows.0, windows.1, None);
        // One tag says Windows, another one Linux.
        let (billed, tag) = match day {
            1 => (windows, Some("Windows")),
            2 => (linux, Some("Linux")),
            _ => (windows, None),
        };
        add(&format!("mixed-{day}"), billed.0, billed.1, tag);
        // It would end a comment, and begin a rule.
        let hostile = format!("evil\n[[exempt]]\nname = '*'\nreason = 'x'\n\u{1b}[2J{day}");
        add(&hostile, linux.0, linux.1, (day <= 2).then_some("Linux"));
    }
    add("alone", linux.0, linux.1, None);
    world
}

#[tokio::test]
async fn a_new_audit_suggests_rules_with_their_evidence_and_lists_what_they_do_not_cover() {
    let sim = Sim::start(groups()).await.unwrap();
    let arguments = ["policy", "suggest"];
    let folder = temporary("suggest-state-home");
    let _ = std::fs::remove_dir_all(&folder);
    let mut suggest = program(&arguments);
    suggest
        .env("AWS_ENDPOINT_URL", sim.endpoint())
        .env("AWS_REGION", "eu-west-1")
        .env("XDG_STATE_HOME", &folder);
    let output = suggest.output().await.unwrap();
    pinned("policy-suggest", &arguments, &output);
    assert_eq!(code(&output), 0);
    assert!(!folder.exists(), "a state file was left");
    assert_eq!(changes(&sim), Vec::<String>::new());
    let policy = Policy::parse("suggested.toml", &out(&output)).unwrap();
    assert_eq!((policy.expect.len(), policy.exempt.len()), (2, 0));

    let more = before(&sim, &["policy", "suggest", "--min", "3"]).await;
    let policy = Policy::parse("suggested.toml", &out(&more)).unwrap();
    assert_eq!(policy.expect.len(), 1);
    says(&out(&more), "fewer of them than --min");
}

#[tokio::test]
async fn what_the_audit_could_not_determine_ends_with_3_and_the_rules_are_printed() {
    let sim = Sim::start(groups()).await.unwrap();
    let rules = |text: &str| Policy::parse("suggested.toml", text).unwrap().expect.len();

    let state = fresh("suggest-unfinished.jsonl");
    before(&sim, &["audit", "--state", &state]).await;
    let whole = std::fs::read_to_string(&state).unwrap();
    // Another page follows, of which one row is there, and half of another one.
    let unfinished = whole.replace("\"next\":null", "\"next\":\"token\"");
    let (_, row) = whole.split_once('\n').unwrap();
    std::fs::write(&state, format!("{unfinished}{}", &row[..row.len() / 2])).unwrap();
    let kept = std::fs::read_to_string(&state).unwrap();
    let output = before(&sim, &["policy", "suggest", "--state", &state]).await;
    assert_eq!((code(&output), rules(&out(&output))), (3, 2));
    says(&err(&output), "the audit is not complete");
    assert_eq!(std::fs::read_to_string(&state).unwrap(), kept);

    sim.world().images.values_mut().next_back().unwrap().state = "pending".into();
    let output = before(&sim, &["policy", "suggest"]).await;
    assert_eq!((code(&output), rules(&out(&output))), (3, 2));
    says(&err(&output), "1 AMI is pending and not judged");

    sim.inject(Fault::always("DescribeSnapshots", FaultKind::AccessDenied));
    let output = before(&sim, &["policy", "suggest"]).await;
    assert_eq!(code(&output), 3);
    says(&err(&output), "because a source could not be queried");

    sim.inject(Fault::always("DescribeImages", FaultKind::AccessDenied));
    let output = before(&sim, &["policy", "suggest"]).await;
    assert_eq!((code(&output), out(&output).as_str()), (3, ""));
}

#[tokio::test]
async fn an_account_without_unverifiable_images_gets_a_policy_without_rules() {
    let sim = Sim::start(World::default()).await.unwrap();
    let output = before(&sim, &["policy", "suggest"]).await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    let policy = Policy::parse("suggested.toml", &out(&output));
    assert_eq!(policy, Ok(Policy::default()));
}

#[tokio::test]
async fn the_options_and_the_state_file_are_checked() {
    let help = ["policy", "suggest", "--help"];
    let output = run(&help).await;
    assert_eq!(code(&output), 0);
    pinned("help-policy-suggest", &help, &output);
    for (name, more) in [
        ("state", vec!["--state", "README.md"]),
        ("nowhere", vec!["--state", "nowhere.jsonl"]),
        ("folder", vec!["--state", "src"]),
        ("both", vec!["--state", "a.jsonl", "--disk"]),
        ("min", vec!["--min", "0"]),
    ] {
        let arguments = [&["policy", "suggest"][..], &more].concat();
        let output = run(&arguments).await;
        pinned(&format!("usage-policy-suggest-{name}"), &arguments, &output);
        assert_eq!((code(&output), out(&output).as_str()), (2, ""));
    }
    // A row of a later version of the program.
    let state = saved("suggest-later.jsonl", &[json!({"schema": 2, "verdict": 7})]);
    let output = run(&["policy", "suggest", "--state", &state]).await;
    assert_eq!((code(&output), out(&output).as_str()), (3, ""));
    says(&err(&output), "the saved results cannot be read");
}

/// A state file with these rows.
fn saved(name: &str, rows: &[Value]) -> String {
    let path = fresh(name);
    let header = json!({"audit": {
        "account": "123456789012", "regions": ["eu-west-1"], "since": null, "since_said": null, "disk": false,
        "enforce": false, "policy": "", "policy_name": "built-in", "begun": "2026-11-29T00:00:00Z",
    }});
    let page = json!({"page": {
        "region": "eu-west-1", "at": "2026-11-29T00:00:00Z", "next": null, "underway": 0, "failed": null,
    }});
    let rows: Vec<String> = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(&path, format!("{header}\n{}{page}\n", rows.concat())).unwrap();
    path
}

#[tokio::test]
async fn rules_for_which_a_policy_has_no_room_are_counted() {
    let mut rows = Vec::new();
    for group in 0..1500_u16 {
        // Letters, because numbers are left open in a pattern.
        let letters: String = group
            .to_string()
            .bytes()
            .map(|digit| char::from(digit - b'0' + b'a'))
            .collect();
        for number in 0..4 {
            let is_open = number < 2;
            let expected = json!({"platform": ["Windows"], "source": "image-tag"});
            rows.push(json!({
                "schema": 1, "image_id": format!("ami-{group}{number}"),
                "name": format!("{letters}-the-long-name-of-an-image-pipeline-{number}"),
                "verdict": if is_open { "unverifiable" } else { "verified" },
                "actual": { "platform_details": "Windows", "usage_operation": "RunInstances:0002" },
                "expected": if is_open { Value::Null } else { expected },
            }));
        }
    }
    let state = saved("suggest-large.jsonl", &rows);
    let output = run(&["policy", "suggest", "--state", &state]).await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    let rules = Policy::parse("suggested.toml", &out(&output))
        .unwrap()
        .expect;
    assert!((500..1500).contains(&rules.len()), "{}", rules.len());
    let left = 3000 - 2 * rules.len();
    let said = format!("# {left} AMIs: the policy would have more than 262144 bytes.");
    says(&out(&output), &said);
}
