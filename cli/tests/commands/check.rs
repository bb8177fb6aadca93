//! `ami-guard check` as a gate: several Regions, Packer's manifests, and the formats that CI systems read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Output;

use chrono::TimeDelta;
use serde_json::{Value, json};
use sim::{Image, Sim, Snapshot};
use tokio::process::Command;

use super::{
    EXPECT, GOOD, LOST, NONE, UPLOADED, before, changes, code, err, lines, out, pinned, program,
    run, says, simulated, temporary,
};

/// Billed as Windows, in us-east-1.
const EAST: &str = "ami-0a1b2c3d4e5f60011";
/// Billed as Linux and expected as SUSE, in eu-south-1.
const SOUTH: &str = "ami-0a1b2c3d4e5f60012";

/// An account with AMIs in three Regions.
async fn in_three_regions() -> Sim {
    let sim = simulated().await;
    let tagged = |id: &str, name: &str, expect: &str| Image {
        name: name.into(),
        tags: [(EXPECT.to_owned(), expect.to_owned())].into(),
        creation_date: sim::clock::now() - TimeDelta::hours(1),
        ..Image::new(id)
    };
    for (region, image) in [
        (
            "us-east-1",
            Image {
                platform_details: Some("Windows".into()),
                usage_operation: Some("RunInstances:0002".into()),
                ..tagged(EAST, "win2022-east", "Windows")
            },
        ),
        ("eu-south-1", tagged(SOUTH, "sles-south", "SUSE")),
    ] {
        let snapshot = Snapshot::new(image.id.replace("ami-", "snap-"));
        let mut world = sim.world();
        let world = world.in_region(region);
        world.add_image(image);
        world.add_snapshot(snapshot);
    }
    sim
}

fn in_region(region: &str, image: &str) -> String {
    format!("{region}:{image}")
}

/// The AMIs that DescribeImages was asked about by their ids, with the Region of the call.
fn asked(sim: &Sim) -> BTreeSet<String> {
    let calls = sim.calls().into_iter();
    calls
        .filter(|call| call.action == "DescribeImages")
        .filter_map(|call| {
            let image = call.params.get("ImageId.1")?;
            Some(in_region(&call.region, image))
        })
        .collect()
}

fn build(run: &str, builder: &str, artifact: &str) -> Value {
    json!({
        "name": format!("golden-{builder}"), "builder_type": builder, "build_time": 1764380000, "files": null,
        "artifact_id": artifact, "packer_run_uuid": run, "custom_data": null,
    })
}

/// A folder with a manifest of these builds, of which `run-2` is the last one's run.
fn manifest(name: &str, builds: &[Value]) -> PathBuf {
    let folder = temporary(name);
    std::fs::create_dir_all(&folder).unwrap();
    let manifest = json!({ "builds": builds, "last_run_uuid": "run-2" });
    std::fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
    folder
}

fn path(folder: &Path) -> String {
    folder.join("manifest.json").to_str().unwrap().to_owned()
}

#[tokio::test]
async fn amis_of_several_regions_are_checked_in_one_call_each_in_its_own_region() {
    let sim = in_three_regions().await;
    let (east, south) = (in_region("us-east-1", EAST), in_region("eu-south-1", SOUTH));
    // The default Region is AWS_REGION's, eu-west-1.
    let arguments = ["check", "--wait", "0", &east, GOOD, &south];
    let output = before(&sim, &arguments).await;
    pinned("check-regions", &arguments, &output);
    assert_eq!(code(&output), 1);
    let own: BTreeSet<String> = [east.clone(), in_region("eu-west-1", GOOD), south].into();
    assert_eq!(asked(&sim), own);
    let reserved: BTreeSet<String> = sim
        .calls()
        .into_iter()
        .filter(|call| call.action == "DescribeReservedInstances")
        .map(|call| call.region)
        .collect();
    assert_eq!(reserved.len(), 3, "{reserved:?}");
    assert_eq!(changes(&sim), Vec::<String>::new());

    // --region is the default of those that name none.
    let output = before(&sim, &["check", "--json", "--region", "us-east-1", EAST]).await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(lines(&output)[0]["region"], "us-east-1");
}

#[tokio::test]
async fn text_names_the_region_only_if_there_are_several() {
    let sim = in_three_regions().await;
    let output = before(&sim, &["check", &in_region("us-east-1", EAST)]).await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(!out(&output).contains("  Region "), "{}", out(&output));
}

#[tokio::test]
async fn no_region_has_to_be_set_if_each_ami_names_its_own() {
    let sim = in_three_regions().await;
    let check = async |images: &[&str]| {
        let mut program = program(&[&["check"], images].concat());
        program.env("AWS_ENDPOINT_URL", sim.endpoint());
        program.output().await.unwrap()
    };
    let output = check(&[&in_region("us-east-1", EAST)]).await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    let output = check(&[&in_region("us-east-1", EAST), GOOD]).await;
    assert_eq!(code(&output), 3);
    says(&err(&output), "no Region is set");
}

#[tokio::test]
async fn an_ami_that_is_named_twice_is_checked_once() {
    let sim = in_three_regions().await;
    let folder = manifest(
        "twice",
        &[build("run-2", "amazon-ebs", &in_region("eu-west-1", GOOD))],
    );
    let output = before(
        &sim,
        &[
            "check",
            "--json",
            "--packer-manifest",
            &path(&folder),
            GOOD,
            GOOD,
        ],
    )
    .await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(lines(&output).len(), 1);
}

#[tokio::test]
async fn what_to_check_is_a_usage_error_if_it_is_missing_or_malformed() {
    for (name, arguments) in [
        ("check-nothing", vec!["check"]),
        (
            "check-region",
            vec!["check", "eu-west:ami-0a1b2c3d4e5f60001"],
        ),
        (
            "check-format",
            vec!["check", "--json", "--format", "junit", GOOD],
        ),
        (
            "check-manifest",
            vec!["check", "--packer-manifest", "nowhere.json"],
        ),
    ] {
        let output = run(&arguments).await;
        pinned(&format!("usage-{name}"), &arguments, &output);
        assert_eq!((code(&output), out(&output).as_str()), (2, ""));
    }
}

#[tokio::test]
async fn a_manifest_stands_for_every_ami_in_every_region_of_every_build_of_the_last_run() {
    let sim = in_three_regions().await;
    let three = format!("eu-south-1:{SOUTH},eu-west-1:{GOOD},us-east-1:{EAST}");
    for (builds, judged, ends_with) in [
        (
            vec![build("run-2", "amazon-ebs", &in_region("eu-west-1", GOOD))],
            vec![GOOD],
            0,
        ),
        (
            vec![build("run-2", "amazon-ebssurrogate", &three)],
            vec![SOUTH, GOOD, EAST],
            1,
        ),
        (
            vec![
                build("run-1", "amazon-ebs", &in_region("eu-west-1", LOST)),
                build("run-2", "amazon-ebs", &in_region("us-east-1", EAST)),
                build("run-2", "docker", "sha256:0a1b2c"),
                build("run-2", "amazon-chroot", &in_region("eu-west-1", GOOD)),
            ],
            vec![EAST, GOOD],
            0,
        ),
    ] {
        let folder = manifest("stands-for", &builds);
        let output = before(
            &sim,
            &["check", "--json", "--packer-manifest", &path(&folder)],
        )
        .await;
        assert_eq!(code(&output), ends_with, "{}", err(&output));
        let rows = lines(&output);
        let images: Vec<&str> = rows
            .iter()
            .map(|row| row["image_id"].as_str().unwrap())
            .collect();
        assert_eq!(images, judged);
        let skipped = err(&output).contains("build \"golden-docker\" is skipped");
        assert_eq!(skipped, builds.len() == 4, "{}", err(&output));
    }

    let folder = manifest(
        "and-arguments",
        &[build("run-2", "amazon-ebs", &in_region("us-east-1", EAST))],
    );
    let output = before(&sim, &["check", "--packer-manifest", &path(&folder), LOST]).await;
    assert_eq!(code(&output), 1);
    says(&out(&output), EAST);
    says(&out(&output), LOST);
}

#[tokio::test]
async fn with_a_manifest_that_does_not_say_what_was_built_nothing_is_judged() {
    let sim = in_three_regions().await;
    for (number, builds) in [
        vec![],
        vec![build("run-1", "amazon-ebs", &in_region("eu-west-1", GOOD))],
        vec![build("run-2", "docker", "sha256:0a1b2c")],
        vec![
            build("run-2", "amazon-ebs", &in_region("eu-west-1", GOOD)),
            build("run-2", "amazon-ebs", "eu-west-1:"),
        ],
    ]
    .iter()
    .enumerate()
    {
        let folder = manifest(&format!("unclear-{number}"), builds);
        let output = before(&sim, &["check", "--packer-manifest", &path(&folder), GOOD]).await;
        assert_eq!((code(&output), out(&output).as_str()), (2, ""));
        says(&err(&output), &format!("{:?} has ", path(&folder)));
    }
    let broken = manifest("broken", &[]);
    for (text, why) in [
        ("", "is empty"),
        ("{\"builds\": [", "is not a manifest of Packer"),
    ] {
        std::fs::write(broken.join("manifest.json"), text).unwrap();
        let output = before(&sim, &["check", "--packer-manifest", &path(&broken), GOOD]).await;
        assert_eq!((code(&output), out(&output).as_str()), (2, ""));
        says(&err(&output), why);
    }
    assert!(sim.calls().is_empty());
}

/// What the program says while it waits is what a person reads in a CI system's log.
#[tokio::test]
async fn check_says_what_it_waits_for_once_and_for_how_long_at_most() {
    let sim = simulated().await;
    sim.world().images.get_mut(GOOD).unwrap().invisible_for = 3;
    let output = before(&sim, &["check", "--wait", "60", GOOD]).await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(
        err(&output),
        format!(
            "ami-guard: waiting for {GOOD} in eu-west-1, for at most 60 s: EC2 says InvalidAMIID.NotFound\n"
        )
    );
    // What is there, is not waited for.
    let output = before(&sim, &["check", "--wait", "60", GOOD]).await;
    assert_eq!((code(&output), err(&output).as_str()), (0, ""));
    // Nor what may not be waited for.
    let output = before(&sim, &["check", "--wait", "0", NONE]).await;
    assert_eq!(
        err(&output),
        format!("ami-guard: {NONE} is not visible in eu-west-1: EC2 says InvalidAMIID.NotFound\n")
    );
}

/// An XML element as Jenkins's schema sees it: name, attributes, children, text.
#[derive(Debug, Default)]
struct Element {
    name: String,
    attributes: Vec<(String, String)>,
    children: Vec<Element>,
    text: String,
}

impl Element {
    fn attribute(&self, name: &str) -> &str {
        let mut attributes = self.attributes.iter();
        let found = attributes.find(|(own, _)| own == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    fn all(&self, name: &str) -> Vec<&Element> {
        self.children.iter().filter(|it| it.name == name).collect()
    }

    /// The attributes by name, in order.
    fn names(&self) -> Vec<&str> {
        self.attributes
            .iter()
            .map(|(name, _)| name.as_str())
            .collect()
    }
}

fn parsed(xml: &str) -> Element {
    use quick_xml::events::Event;
    let mut reader = quick_xml::Reader::from_str(xml);
    let mut open = vec![Element::default()];
    let begin = |start: &quick_xml::events::BytesStart<'_>| Element {
        name: start.name().as_ref().to_owned(),
        attributes: start
            .attributes()
            .map(|attribute| {
                let attribute = attribute.unwrap();
                let value = quick_xml::escape::unescape(&attribute.value).unwrap();
                (attribute.key.as_ref().to_owned(), value.into_owned())
            })
            .collect(),
        ..Element::default()
    };
    loop {
        match reader.read_event().unwrap() {
            Event::Start(start) => open.push(begin(&start)),
            Event::Empty(start) => open.last_mut().unwrap().children.push(begin(&start)),
            Event::End(_) => {
                let done = open.pop().unwrap();
                open.last_mut().unwrap().children.push(done);
            }
            Event::Text(text) => open.last_mut().unwrap().text.push_str(&text),
            Event::GeneralRef(name) => {
                let letter = quick_xml::escape::unescape(&format!("&{};", &*name))
                    .unwrap()
                    .into_owned();
                open.last_mut().unwrap().text.push_str(&letter);
            }
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(open.len(), 1, "an element is not closed");
    open.remove(0).children.remove(0)
}

/// Holds that a document has only the elements and attributes, in the places, that Jenkins's xUnit schema (junit-10)
/// has. GitLab and CodeBuild read a part of them.
fn is_junit(suites: &Element) {
    assert_eq!(suites.name, "testsuites");
    assert_eq!(suites.names(), ["name", "tests", "failures", "errors"]);
    let suite = match suites.children.as_slice() {
        [suite] => suite,
        several => panic!("{several:?}"),
    };
    assert_eq!(suite.name, "testsuite");
    assert_eq!(
        suite.names(),
        ["name", "tests", "failures", "errors", "skipped"]
    );
    for child in &suite.children {
        match child.name.as_str() {
            "properties" => {
                for property in &child.children {
                    assert_eq!(property.name, "property");
                    assert_eq!(property.names(), ["name", "value"]);
                    assert!(property.children.is_empty());
                }
            }
            "testcase" => {
                assert_eq!(child.names(), ["classname", "name"]);
                for inside in &child.children {
                    let names: &[&str] = match inside.name.as_str() {
                        "failure" | "error" | "skipped" => &["type", "message"],
                        "system-out" => &[],
                        other => panic!("{other}"),
                    };
                    assert_eq!(inside.names(), names);
                    assert!(inside.children.is_empty());
                }
            }
            other => panic!("{other}"),
        }
    }
    let number = |name: &str| {
        let tests = suite.all("testcase").into_iter();
        tests
            .filter(|test| !test.all(name).is_empty())
            .count()
            .to_string()
    };
    assert_eq!(
        suite.attribute("tests"),
        suite.all("testcase").len().to_string()
    );
    assert_eq!(suite.attribute("failures"), number("failure"));
    assert_eq!(suite.attribute("errors"), number("error"));
    assert_eq!(suite.attribute("skipped"), number("skipped"));
    assert_eq!(suites.attribute("tests"), suite.attribute("tests"));
}

/// Holds a document against what is pinned. GUARD_GOLDEN=write writes it anew, as for other output.
fn pinned_document(name: &str, document: &str) {
    let document = document.replace(env!("CARGO_TARGET_TMPDIR"), "(folder)");
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var("GUARD_GOLDEN").as_deref() == Ok("write") {
        std::fs::write(&path, &document).unwrap();
    }
    let pinned = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        document, pinned,
        "{name}: see GUARD_GOLDEN in cli/tests/commands/main.rs"
    );
}

#[tokio::test]
async fn junit_shows_each_ami_as_a_test_and_the_exit_code_stays_the_same() {
    let sim = in_three_regions().await;
    let policy = temporary("junit.toml");
    std::fs::write(
        &policy,
        "version = 1\n[[exempt]]\nname = 'win2022-east'\nreason = 'BYOL images <drop> their \"code\" & more'\n",
    )
    .unwrap();
    let east = in_region("us-east-1", EAST);
    let arguments = [
        "check",
        "--format",
        "junit",
        "--wait",
        "0",
        "--policy",
        policy.to_str().unwrap(),
        GOOD,
        LOST,
        UPLOADED,
        &east,
        NONE,
    ];
    let output = before(&sim, &arguments).await;
    assert_eq!(code(&output), 1, "{}", err(&output));
    says(
        &err(&output),
        &format!("{NONE} is not visible in eu-west-1"),
    );
    let document = out(&output);
    pinned_document("check-junit.xml", &document);
    let suites = parsed(&document);
    is_junit(&suites);

    let suite = &suites.children[0];
    let results: Vec<[String; 4]> = suite
        .all("testcase")
        .into_iter()
        .map(|test| {
            let result = &test.children[0];
            let words = [
                test.attribute("classname"),
                test.attribute("name"),
                &result.name,
                result.attribute("type"),
            ];
            words.map(str::to_owned)
        })
        .collect();
    let expected = [
        [
            "eu-west-1",
            &format!("{GOOD} rhel9-golden"),
            "system-out",
            "",
        ],
        [
            "eu-west-1",
            &format!("{LOST} win2022-golden"),
            "failure",
            "mismatch/wrong",
        ],
        [
            "eu-west-1",
            &format!("{UPLOADED} uploaded\u{fffd}[2J"),
            "error",
            "unverifiable",
        ],
        [
            "us-east-1",
            &format!("{EAST} win2022-east"),
            "skipped",
            "exempt",
        ],
        ["eu-west-1", NONE, "error", "NotVisibleYet"],
    ];
    assert_eq!(results, expected.map(|words| words.map(str::to_owned)));
    let failure = suite.all("testcase")[1].all("failure")[0];
    says(failure.attribute("message"), "Linux/UNIX");
    // The body is what a person reads without --format, the fix with it.
    says(
        &failure.text,
        &format!("{LOST}  mismatch/wrong  win2022-golden\n"),
    );
    says(
        &failure.text,
        "aws ec2 create-image --no-reboot --region eu-west-1",
    );
    let skipped = suite.all("testcase")[3].all("skipped")[0];
    says(
        skipped.attribute("message"),
        "BYOL images <drop> their \"code\" & more",
    );

    let properties: Vec<(&str, &str)> = suite.all("properties")[0]
        .children
        .iter()
        .map(|property| (property.attribute("name"), property.attribute("value")))
        .collect();
    let of_lost = format!("eu-west-1:{LOST}");
    assert!(properties.contains(&(&format!("{of_lost}/billed-as"), "Linux/UNIX (RunInstances)")));
    assert!(properties.contains(&(&format!("{of_lost}/expected"), "Windows")));

    // A command line that is not understood has no document, and a good one passes.
    let output = before(
        &sim,
        &[
            "check",
            "--format",
            "junit",
            "--policy",
            "nowhere.toml",
            GOOD,
        ],
    )
    .await;
    assert_eq!((code(&output), out(&output).as_str()), (2, ""));
    let output = before(&sim, &["check", "--format", "junit", GOOD]).await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    is_junit(&parsed(&out(&output)));
    let json = before(&sim, &["check", "--format", "json", GOOD]).await;
    assert_eq!(
        out(&json),
        out(&before(&sim, &["check", "--json", GOOD]).await)
    );
}

#[tokio::test]
async fn an_ami_whose_region_does_not_answer_is_an_error_and_the_others_are_judged() {
    let sim = in_three_regions().await;
    // The account has not opted in to this Region.
    let closed = in_region("ap-east-1", GOOD);
    let output = before(
        &sim,
        &["check", GOOD, &closed, &in_region("us-east-1", EAST)],
    )
    .await;
    assert_eq!(code(&output), 3, "{}", err(&output));
    says(
        &err(&output),
        &format!("{GOOD} in ap-east-1 could not be judged: "),
    );
    says(&out(&output), EAST);
}

/// The shell lines of examples/ci/packer.pkr.hcl, as its shell-local post-processor runs them.
fn packer_example() -> String {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/ci/packer.pkr.hcl");
    let text = std::fs::read_to_string(example).unwrap();
    let (_, inline) = text.split_once("inline = [").unwrap();
    let (inline, _) = inline.split_once(']').unwrap();
    let script: Vec<String> =
        serde_json::Deserializer::from_str(&format!("[{}]", inline.trim().trim_end_matches(',')))
            .into_iter::<Vec<String>>()
            .next()
            .unwrap()
            .unwrap();
    assert!(text.contains("use_create_image = true"));
    // The manifest is the first of the chain: it makes Packer keep the AMIs of a build that fails.
    let manifest = text.find("post-processor \"manifest\"").unwrap();
    assert!(manifest < text.find("post-processor \"shell-local\"").unwrap());
    script.join("\n")
}

#[tokio::test]
async fn the_packer_example_stops_a_build_only_if_one_of_its_amis_is_not_as_expected() {
    let sim = in_three_regions().await;
    let script = packer_example();
    let stops = async |name: &str, builds: &[Value]| -> Output {
        let folder = manifest(name, builds);
        std::fs::write(folder.join("policy.toml"), "version = 1\n").unwrap();
        let mut shell = Command::new("bash");
        let program = program(&[]);
        let program = program.as_std();
        shell
            .args(["-e", "-c", &script])
            .current_dir(&folder)
            .env_clear();
        for (name, value) in program.get_envs() {
            shell.env(name, value.unwrap());
        }
        let folder = Path::new(program.get_program()).parent().unwrap();
        let mut paths = std::ffi::OsString::from(folder);
        paths.push(":");
        paths.push(std::env::var_os("PATH").unwrap());
        shell.env("PATH", paths);
        // Packer's Region is in the manifest.
        shell.env("AWS_ENDPOINT_URL", sim.endpoint());
        shell.output().await.unwrap()
    };
    let good = in_region("eu-west-1", GOOD);
    let one = stops(
        "packer-one",
        &[build("run-2", "amazon-ebssurrogate", &good)],
    )
    .await;
    assert_eq!(code(&one), 0, "{}", err(&one));
    let three = format!("eu-south-1:{SOUTH},{good},us-east-1:{EAST}");
    let three = stops(
        "packer-three",
        &[build("run-2", "amazon-ebssurrogate", &three)],
    )
    .await;
    assert_eq!(code(&three), 1, "{}", err(&three));
    says(&out(&three), &format!("{SOUTH}  mismatch/"));
    // The second build is good, and the first is not.
    let two = [
        build(
            "run-2",
            "amazon-ebssurrogate",
            &in_region("eu-west-1", LOST),
        ),
        build("run-2", "amazon-ebs", &in_region("us-east-1", EAST)),
    ];
    let two = stops("packer-two", &two).await;
    assert_eq!(code(&two), 1, "{}", err(&two));
    says(&out(&two), &format!("{LOST}  mismatch/wrong"));
    says(&out(&two), EAST);
    // An earlier run's AMIs are no longer a reason.
    let later = [
        build(
            "run-1",
            "amazon-ebssurrogate",
            &in_region("eu-west-1", LOST),
        ),
        build("run-2", "amazon-ebssurrogate", &good),
    ];
    let later = stops("packer-later", &later).await;
    assert_eq!(code(&later), 0, "{}", err(&later));
}
