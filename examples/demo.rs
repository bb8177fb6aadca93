//! Shows what the guard does, without an AWS account. Plays events of `events/` through the real handler, against a
//! simulated EC2 and SNS on loopback.
//!
//! - `cargo run --example demo`: the story of one AMI
//! - `cargo run --example demo -- --all`: every event of `events/`

#[path = "../disk/corpus/packed.rs"]
mod packed;
#[path = "demo/story.rs"]
mod story;

use std::error::Error;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ami_billing_guard::config::{Config, Mode};
use ami_billing_guard::event::Scope;
use ami_billing_guard::policy::Policy;
use ami_billing_guard::{Answer, Aws, Deadline, Guard};
use chrono::TimeDelta;
use disk::contained;
use disk::contained::Reader;
use packed::Packed;
use serde_json::{Value, json};
use sim::{AttachedVolume, Image, Instance, Sim, Snapshot, Topic, World};

/// Root volume of a Windows server. A person registers an image from its snapshot by hand.
const VOLUME: &str = "vol-0a1b2c3d4e5f60001";

const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:ami-billing-guard";

/// Topic to which a chat application would subscribe.
const CHAT_TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:ami-billing-guard-chat";

/// The images of the events. Each has the last digits of its id, its name, the value of its tag, and EC2's platform
/// details and usage operation.
const IMAGES: [(&str, &str, &str, &str, &str); 10] = [
    (
        "01",
        "win2022-golden",
        "Windows",
        "Linux/UNIX",
        "RunInstances",
    ),
    (
        "02",
        "rhel9-base",
        "RedHat,RedHatHa",
        "Red Hat Enterprise Linux",
        "RunInstances:0010",
    ),
    ("03", "drs-launch", "Windows", "Linux/UNIX", "RunInstances"),
    (
        "04",
        "sles15-base",
        "SUSE",
        "SUSE Linux",
        "RunInstances:000g",
    ),
    ("05", "from-a-bundle", "", "", ""),
    ("06", "restored-by-hand", "", "Linux/UNIX", "RunInstances"),
    ("07", "sql2022", "SQL", "Windows", "RunInstances:0002"),
    (
        "08",
        "rhel9-ha",
        "RedHat",
        "Red Hat Enterprise Linux with High Availability",
        "RunInstances:1010",
    ),
    (
        "21",
        "win2025-publisher",
        "",
        "Windows",
        "RunInstances:0002",
    ),
    ("22", UPLOADED, "", "Linux/UNIX", "RunInstances"),
];

/// Name of an image without lineage and tag. Only its disk says what it is.
const UPLOADED: &str = "rhel9-uploaded";

fn world(uploaded: &Path) -> Result<World, Box<dyn Error>> {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut world = World::default();
    for (digits, name, expected, details, operation) in IMAGES {
        let mut image = Image::new(format!("ami-0a1b2c3d4e5f600{digits}"));
        image.name = name.into();
        if name == "from-a-bundle" {
            image.root_device_type = "instance-store".into();
            image.block_devices.clear();
        }
        image.platform_details = some(details);
        image.usage_operation = some(operation);
        if let Some(expected) = some(expected) {
            image
                .tags
                .insert("ami-billing-guard:expect".into(), expected);
        }
        for id in image.snapshot_ids() {
            let mut snapshot = Snapshot::new(id);
            snapshot.start_time = sim::clock::now() - TimeDelta::minutes(20);
            if name == "restored-by-hand" {
                snapshot.volume_id = VOLUME.into();
            }
            if name == UPLOADED {
                snapshot = Snapshot::of_disk(snapshot.id, uploaded)?;
            }
            world.add_snapshot(snapshot);
        }
        world.add_image(image);
    }
    world.add_instance(Instance {
        platform_details: some("Windows"),
        usage_operation: some("RunInstances:0002"),
        volumes: vec![AttachedVolume::new("/dev/xvda", VOLUME)],
        ..Instance::new("i-0a1b2c3d4e5f60001", "ami-0a1b2c3d4e5f60099")
    });
    let listened_to = Topic {
        confirmed: 1,
        pending: 0,
    };
    world.topics.insert(CHAT_TOPIC.into(), listened_to);
    Ok(world)
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    let all = match first.as_deref() {
        Some(contained::ARGUMENT) => return Ok(contained::run_child(arguments)),
        None => false,
        Some("--all") => true,
        Some(other) => {
            eprintln!("demo: {other:?} is not accepted. Accepted: --all, or nothing.");
            return Ok(ExitCode::from(2));
        }
    };
    // For the disks of the simulated snapshots. It is deleted when the demo is over.
    let folder =
        std::env::temp_dir().join(format!("ami-billing-guard-demo-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let shown = show(all, &folder);
    std::fs::remove_dir_all(&folder)?;
    match shown {
        // The reader of the output stopped, such as `head`.
        Err(error) if is_broken_pipe(error.as_ref()) => Ok(ExitCode::SUCCESS),
        shown => shown.map(|()| ExitCode::SUCCESS),
    }
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

#[tokio::main(flavor = "current_thread")]
async fn show(all: bool, folder: &Path) -> Result<(), Box<dyn Error>> {
    let reader = Reader::Child(std::env::current_exe()?);
    match all {
        true => show_all(folder, reader).await,
        false => story::play(folder, reader, &mut std::io::stdout()).await,
    }
}

/// The settings of the guard: it enforces, and its ledger is in memory.
fn config() -> Result<Config, Box<dyn Error>> {
    Ok(Config {
        mode: Mode::Enforce,
        alert_topic: Some(TOPIC.into()),
        chat_topic: Some(CHAT_TOPIC.into()),
        policy_path: None,
        scope: Scope {
            account: Some("123456789012".parse()?),
            region: Some("eu-west-1".into()),
        },
        wait: Duration::from_millis(500),
        settle: Duration::from_secs(300),
        ledger_table: None,
        ledger_days: 365,
        recycle_bin_rule: None,
        queue_url: None,
        runbook_url: None,
    })
}

/// Reads an event of `events/`.
fn event(name: &str) -> Result<Value, Box<dyn Error>> {
    let file = format!("{}/events/{name}.json", env!("CARGO_MANIFEST_DIR"));
    Ok(serde_json::from_str(&std::fs::read_to_string(file)?)?)
}

/// Plays every event of `events/`, and shows the verdicts in a table, and the first alert in each of its forms.
async fn show_all(folder: &Path, reader: Reader) -> Result<(), Box<dyn Error>> {
    // One of the disks that the tests read, as a sparse raw image.
    let uploaded = folder.join("rhel9.img");
    Packed::read("rhel9-rhui").unpack(&uploaded);
    println!(
        "A simulated EC2 with {} new images; each event goes through the guard's real handler.\n",
        IMAGES.len()
    );
    let world = world(&uploaded)?;
    let snapshots = world.snapshots.len();
    let sim = Sim::start(world).await?;
    let aws = Aws::connect_to_simulator(&sim.endpoint(), "eu-west-1").await;
    let guard = Guard::new(config()?, Policy::default(), aws, reader, |_, _| {});
    let guard = Arc::new(guard);

    let mut files: Vec<_> =
        std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("events"))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "json")
            })
            .collect();
    files.sort();
    let mut rows = vec![Row {
        event: "event".into(),
        image: "image".into(),
        registered_as: "registered as".into(),
        expected: "expected".into(),
        billed: "billed".into(),
        verdict: "verdict".into(),
        action: "action".into(),
    }];
    for (done, file) in files.iter().enumerate() {
        progress(&format!("event {} of {} …", done + 1, files.len()));
        let mut event: Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
        let_happen_now(&mut event);
        let deadline = Deadline::now() + Duration::from_secs(60);
        let row = match guard.handle(event, deadline).await {
            Ok(Answer::Record(record)) => Row::of_record(&json!(record)),
            Ok(Answer::SelfTest(_)) => Row::default(),
            Ok(Answer::Batch(answer)) => Row {
                verdict: "(a batch)".into(),
                action: format!(
                    "messages that come back: {}",
                    answer.batch_item_failures.len()
                ),
                ..Row::default()
            },
            Err(error) => Row {
                verdict: format!("error {}", error.error_type()),
                action: "comes back".into(),
                ..Row::default()
            },
        };
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        rows.push(Row {
            event: name.into_owned(),
            ..row
        });
    }
    progress("");
    print_table(&rows);

    let world = sim.world();
    let of = |topic: &'static str| {
        let messages = world.messages.iter();
        messages.filter(move |message| message.topic_arn == topic)
    };
    println!(
        "\n{} alerts were published. The first of them, as a mail:\n",
        of(TOPIC).count()
    );
    if let Some(message) = of(TOPIC).next() {
        println!(
            "Subject: {}\n",
            message.subject.as_deref().unwrap_or_default()
        );
        println!("{}", message.body("email"));
        println!(
            "The same for programs (SQS, Lambda, HTTP), which can filter by its attributes:\n"
        );
        for (name, attribute) in &message.attributes {
            println!("{name} = {}", attribute.value);
        }
        println!("{}\n", pretty(&message.body("sqs"))?);
    }
    if let Some(message) = of(CHAT_TOPIC).next() {
        println!(
            "And for a chat (Amazon Q Developer in chat applications shows it in Slack or Teams):\n"
        );
        println!("{}\n", pretty(&message.message)?);
    }
    println!(
        "Deregistered: {}, of which in the Recycle Bin: {}. Snapshots deleted: {}.",
        world.deregistered.len(),
        world.recycle_bin.len(),
        snapshots - world.snapshots.len()
    );
    Ok(())
}

/// Moves the events, which are all of one day, to eleven minutes ago. The images are ten minutes old.
fn let_happen_now(event: &mut Value) {
    if let Some(time) = event.get_mut("time") {
        *time = json!(sim::clock::now() - TimeDelta::minutes(11));
    }
    let messages = event.get_mut("Records").and_then(Value::as_array_mut);
    for body in messages
        .into_iter()
        .flatten()
        .filter_map(|it| it.get_mut("body"))
    {
        if let Ok(mut event) = serde_json::from_str(body.as_str().unwrap_or_default()) {
            let_happen_now(&mut event);
            *body = event.to_string().into();
        }
    }
}

fn pretty(json: &str) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&serde_json::from_str::<Value>(json)?)
}

/// A row of the table.
#[derive(Default)]
struct Row {
    event: String,
    image: String,
    registered_as: String,
    expected: String,
    billed: String,
    verdict: String,
    action: String,
}

impl Row {
    fn of_record(record: &Value) -> Row {
        let text = |pointer: &str| {
            let value = record.pointer(pointer);
            value.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let list = |pointer: &str, separator: &str| {
            let items = record.pointer(pointer).and_then(Value::as_array);
            let words = items.into_iter().flatten().filter_map(Value::as_str);
            words.collect::<Vec<_>>().join(separator)
        };
        let join = |one: String, separator: &str, other: String| match other.is_empty() {
            true => one,
            false => format!("{one}{separator}{other}"),
        };
        let action = join(text("/action"), ": ", list("/held_by", ", "));
        Row {
            event: String::new(),
            image: text("/image_id"),
            registered_as: text("/name"),
            expected: list("/expected/platform", " or "),
            billed: text("/actual/platform_details"),
            verdict: join(text("/verdict"), "/", text("/kind")),
            action: join(action, ", ", text("/outcome")),
        }
    }

    fn cells(&self) -> [&str; 7] {
        [
            &self.event,
            &self.image,
            &self.registered_as,
            &self.expected,
            &self.billed,
            &self.verdict,
            &self.action,
        ]
    }
}

fn print_table(rows: &[Row]) {
    let mut widths = [0; 7];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row.cells()) {
            *width = cell.len().max(*width);
        }
    }
    for row in rows {
        let cells = row.cells().into_iter().zip(widths);
        let cells: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        println!("{}", cells.join("  ").trim_end());
    }
}

/// Overwrites one line on a terminal. Does nothing elsewhere.
fn progress(text: &str) {
    let mut out = std::io::stdout();
    if out.is_terminal() {
        print!("\r\u{1b}[K{text}");
        // A progress line that cannot be shown does not matter.
        let _ = out.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For older events, the guard would say that a clock is wrong, and hold every discard.
    #[test]
    fn regression_every_event_happens_when_its_image_is_made() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("events");
        let mut dated = 0;
        let mut is_recent = |event: &Value| {
            let Some(time) = event.get("time").and_then(Value::as_str) else {
                return;
            };
            let time: chrono::DateTime<chrono::Utc> = time.parse().unwrap();
            let age = sim::clock::now() - time;
            assert!((11..60).contains(&age.num_minutes()), "{event}");
            dated += 1;
        };
        for entry in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let Ok(mut event) = serde_json::from_str(&text) else {
                continue;
            };
            let_happen_now(&mut event);
            is_recent(&event);
            for message in event["Records"].as_array().into_iter().flatten() {
                let body = message["body"].as_str().unwrap();
                if let Ok(event) = serde_json::from_str(body) {
                    is_recent(&event);
                }
            }
        }
        assert!(dated > 20, "{dated}");
    }

    #[tokio::test]
    async fn the_story_shows_the_removal_the_undo_and_that_the_undo_lasts() {
        let folder = std::env::temp_dir().join(format!("demo-story-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut out = Vec::new();
        let told = story::play(&folder, Reader::Here, &mut out).await;
        std::fs::remove_dir_all(&folder).unwrap();
        told.unwrap();
        let story = String::from_utf8(out).unwrap();

        let chapter = |number: &str| {
            let mut chapters = story.split("\n\n").filter(|it| it.starts_with(number));
            chapters.next().unwrap_or_default()
        };
        let has = |number: &str, lines: &[&str]| {
            for line in lines {
                let is_there = chapter(number).lines().any(|it| it.starts_with(line));
                assert!(is_there, "{number} {line}\n{story}");
            }
        };
        let listed = "   EC2             available, billed as Linux/UNIX (RunInstances)";
        let kept = "   snapshots       1 of 1 still exist";
        let verdict = "   verdict         mismatch, wrong";
        let removed = "   action          deregister: done";
        let sources = [
            "     image-tag     Windows (",
            "     lineage       Windows (",
            "     disk          Windows or WindowsByol (",
        ];
        has("1.", &[listed]);
        has("2.", &sources);
        has("2.", &[verdict, removed]);
        let gone = "   EC2             does not list the AMI";
        let binned = "   Recycle Bin     keeps the AMI until 20";
        has("3.", &[gone, binned, kept]);
        has("4.", &[listed, "   Recycle Bin     does not have it", kept]);
        let held = "   action          hold: discarded-before";
        has("5.", &[verdict, held, listed, "   mail            "]);

        let mut mail = story.lines().filter(|it| it.starts_with("   |"));
        let subject = mail.next().unwrap_or_default();
        assert!(subject.contains("Subject: "), "{story}");
        assert!(subject.contains("ami-0a1b2c3d4e5f60001"), "{story}");
        assert!(mail.any(|it| it.contains("Linux/UNIX")), "{story}");
        assert!(story.lines().count() <= 64, "{story}");
    }
}
