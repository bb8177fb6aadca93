//! `ami-guard expect`: the tag that declares what an AMI is expected to be billed as.

use serde_json::json;
use sim::{Fault, FaultKind, Sim};

use super::terminal::{END, at_terminal};
use super::{
    DISABLED, EXPECT, GOOD, LOST, NONE, UPLOADED, before, changes, code, err, lines, out, pinned,
    says, simulated, temporary,
};

/// The value of the tag on an AMI.
fn tag(sim: &Sim, image: &str) -> Option<String> {
    sim.world().images[image].tags.get(EXPECT).cloned()
}

#[tokio::test]
async fn expect_sets_the_tag_and_prints_the_command_that_undoes_it() {
    let sim = simulated().await;
    let arguments = ["expect", UPLOADED, "linux"];
    let output = before(&sim, &arguments).await;
    pinned("expect", &arguments, &output);
    assert_eq!(code(&output), 0);
    assert_eq!(tag(&sim, UPLOADED).as_deref(), Some("linux"));
    let output = before(&sim, &arguments).await;
    pinned("expect-again", &arguments, &output);
    assert_eq!(code(&output), 0);
    // Of several values, any is right.
    let output = before(&sim, &["expect", GOOD, " RedHat", "RedHatHa,Windows "]).await;
    assert_eq!(code(&output), 2, "it replaces another declaration");
    assert!(err(&output).contains(" instead of "), "{}", err(&output));
    let output = before(
        &sim,
        &["expect", "--yes", GOOD, " RedHat", "RedHatHa,Windows "],
    )
    .await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(tag(&sim, GOOD).as_deref(), Some("RedHat,RedHatHa,Windows"));
    assert_eq!(changes(&sim), ["CreateTags", "CreateTags"]);
    let checked = before(&sim, &["check", UPLOADED, GOOD]).await;
    assert_eq!(code(&checked), 0, "{}", out(&checked));
}

#[tokio::test]
async fn expect_with_dry_run_says_what_would_be_done_and_changes_nothing() {
    let sim = simulated().await;
    let arguments = ["expect", "--dry-run", LOST, "RedHat"];
    let output = before(&sim, &arguments).await;
    pinned("expect-dry-run", &arguments, &output);
    assert_eq!(code(&output), 0);
    assert_eq!(changes(&sim), Vec::<String>::new());
}

#[tokio::test]
async fn a_tag_that_an_ami_is_not_billed_as_is_set_elsewhere_than_on_a_terminal_only_with_yes() {
    let sim = simulated().await;
    let arguments = ["expect", LOST, "RedHat"];
    let output = before(&sim, &arguments).await;
    pinned("expect-differs", &arguments, &output);
    assert_eq!(code(&output), 2);
    assert_eq!(changes(&sim), Vec::<String>::new());
    let arguments = ["expect", "--yes", LOST, "RedHat"];
    let output = before(&sim, &arguments).await;
    pinned("expect-differs-yes", &arguments, &output);
    assert_eq!(code(&output), 0);
    assert_eq!(tag(&sim, LOST).as_deref(), Some("RedHat"));
    // An AMI without platform details is billed as nothing that can be declared.
    sim.world()
        .images
        .get_mut(UPLOADED)
        .unwrap()
        .platform_details = None;
    assert_eq!(code(&before(&sim, &["expect", UPLOADED, "Linux"]).await), 2);
    assert_eq!(tag(&sim, UPLOADED), None);
}

#[tokio::test]
async fn on_a_terminal_a_person_confirms_a_tag_that_an_ami_is_not_billed_as() {
    let sim = simulated().await;
    let arguments = ["expect", LOST, "RedHat"];
    for typed in ["\n", "no\n", "yes please\n", END] {
        let output = at_terminal(&sim, &arguments, typed).await;
        let shown = err(&output);
        assert_eq!((code(&output), out(&output).as_str()), (2, ""), "{shown}");
        says(
            &shown,
            "is billed as Linux/UNIX (RunInstances), and the tag would declare RedHat instead of Windows.",
        );
        says(
            &shown,
            "A guard in enforce mode would send an alert and discard it",
        );
        says(&shown, "Set the tag? Type yes: ");
        says(&shown, "not confirmed. Nothing was changed");
    }
    assert_eq!(changes(&sim), Vec::<String>::new());
    let output = at_terminal(&sim, &arguments, "yes\n").await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(tag(&sim, LOST).as_deref(), Some("RedHat"));
    // A tag that agrees needs no answer.
    let output = at_terminal(&sim, &["expect", UPLOADED, "Linux"], "").await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(!err(&output).contains("Type yes"), "{}", err(&output));
}

#[tokio::test]
async fn what_expect_announces_is_what_check_then_says() {
    let sim = simulated().await;
    for (image, value) in [
        (LOST, "RedHat"),
        (LOST, "Linux"),
        (GOOD, "RedHatByol"),
        (GOOD, "Windows"),
        (UPLOADED, "SQL"),
    ] {
        let announced = before(&sim, &["expect", "--yes", "--json", image, value]).await;
        assert_eq!(code(&announced), 0, "{}", err(&announced));
        let announced = lines(&announced).remove(0);
        let checked = lines(&before(&sim, &["check", "--json", image]).await).remove(0);
        for key in [
            "verdict", "kind", "reason", "expected", "evidence", "action", "held_by",
        ] {
            assert_eq!(
                announced["record"][key], checked[key],
                "{image} {value} {key}"
            );
        }
    }
}

#[tokio::test]
async fn expect_as_json_has_the_tag_before_and_the_undo_whatever_the_tag_was() {
    let sim = simulated().await;
    let strange = "it's, \"odd\"\u{202e}";
    sim.world().images.get_mut(UPLOADED).unwrap().tags = [(EXPECT.into(), strange.into())].into();
    let output = before(&sim, &["expect", "--yes", "--json", UPLOADED, "Linux"]).await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    let mut row = lines(&output).remove(0);
    assert_eq!(row["record"]["verdict"], "verified");
    row.as_object_mut().unwrap().remove("record");
    let undo = format!(
        "aws ec2 create-tags --region eu-west-1 --resources {UPLOADED} --tags \
         '[{{\"Key\":\"{EXPECT}\",\"Value\":\"it'\\''s, \\\"odd\\\"\\u202e\"}}]'"
    );
    let expected = json!({
        "image_id": UPLOADED, "region": "eu-west-1", "tag": EXPECT, "value": "Linux", "before": strange,
        "changed": true, "dry_run": false, "undo": undo,
    });
    assert_eq!(row, expected);
}

#[tokio::test]
async fn expect_tags_only_an_ami_that_is_available_and_the_account_s_own() {
    let sim = simulated().await;
    {
        let mut world = sim.world();
        let image = world.images.get_mut(GOOD).unwrap();
        image.owner = "210987654321".into();
        image.public = true;
    }
    for (image, why) in [
        (NONE, "is not visible in eu-west-1"),
        (DISABLED, "Nothing was changed"),
        (
            GOOD,
            "it belongs to account 210987654321, not to 123456789012",
        ),
    ] {
        let output = before(&sim, &["expect", "--yes", image, "Windows"]).await;
        assert_eq!((code(&output), out(&output).as_str()), (3, ""));
        says(&err(&output), why);
    }
    assert_eq!(changes(&sim), Vec::<String>::new());
    sim.inject(Fault::always("CreateTags", FaultKind::AccessDenied));
    let output = before(&sim, &["expect", UPLOADED, "Linux"]).await;
    assert_eq!((code(&output), out(&output).as_str()), (3, ""));
    says(
        &err(&output),
        "access denied: ec2:CreateTags on arn:*:ec2:eu-west-1::image/ami-",
    );
    assert_eq!(tag(&sim, UPLOADED), None);
}

#[tokio::test]
async fn a_value_that_is_not_accepted_is_refused_before_aws_is_called() {
    let sim = simulated().await;
    let long = ["RedHat"; 40].join(",");
    for (values, why) in [
        (
            &["RHEL"][..],
            "\"RHEL\" is not accepted (did you mean \"RedHat\"?). Accepted: Linux, ",
        ),
        (
            &["Windows", "Solaris"],
            "\"Solaris\" is not accepted. Accepted: Linux, ",
        ),
        (&[""], "\"\" is not accepted. Accepted: Linux, "),
        (
            &[&long],
            "the values have 279 characters together. Accepted: at most 256",
        ),
    ] {
        let output = before(&sim, &[&["expect", LOST], values].concat()).await;
        assert_eq!((code(&output), out(&output).as_str()), (2, ""));
        says(&err(&output), why);
    }
    assert!(sim.calls().is_empty());
}

#[tokio::test]
async fn expect_says_if_the_policy_does_not_read_the_tag() {
    let sim = simulated().await;
    let policy = temporary("expect-no-tags.toml");
    std::fs::write(&policy, "version = 1\n[evidence]\ntags = false").unwrap();
    let policy = ["--policy", policy.to_str().unwrap()];
    let output = before(
        &sim,
        &[&["expect", UPLOADED, "Linux"], &policy[..]].concat(),
    )
    .await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    says(
        &err(&output),
        "evidence.tags = false, so the guard does not read the tag",
    );
    says(&out(&output), "verdict      unverifiable");
}
