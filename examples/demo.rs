//! What the guard does, without an AWS account: plays the events of `events/` through the real
//! handler, against a simulated EC2 and SNS on loopback.
//!
//! `cargo run --example demo`

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ami_billing_guard::config::{Config, Mode};
use ami_billing_guard::event::Scope;
use ami_billing_guard::policy::Policy;
use ami_billing_guard::{Answer, Aws, Deadline, Guard};
use serde_json::{Value, json};
use sim::{Image, Sim, Snapshot, World};

const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:ami-billing-guard";

/// The images of the events: the last digit of the id, what their tag says they should bill, and
/// what EC2 made of them.
const IMAGES: [(u8, &str, &str, &str); 8] = [
    (1, "Windows", "Linux/UNIX", "RunInstances"),
    (
        2,
        "RedHat,RedHatHa",
        "Red Hat Enterprise Linux",
        "RunInstances:0010",
    ),
    (3, "Windows", "Linux/UNIX", "RunInstances"),
    (4, "SUSE", "SUSE Linux", "RunInstances:000g"),
    (5, "", "", ""),
    (6, "", "Linux/UNIX", "RunInstances"),
    (7, "SQL", "Windows", "RunInstances:0002"),
    (
        8,
        "RedHat",
        "Red Hat Enterprise Linux with HA",
        "RunInstances:1010",
    ),
];

fn world() -> World {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut world = World::default();
    for (digit, expected, details, operation) in IMAGES {
        let mut image = Image::new(format!("ami-0a1b2c3d4e5f6000{digit}"));
        image.platform_details = some(details);
        image.usage_operation = some(operation);
        if let Some(expected) = some(expected) {
            image
                .tags
                .insert("ami-billing-guard:expect".into(), expected);
        }
        for snapshot in image.snapshot_ids() {
            world.add_snapshot(Snapshot::new(snapshot));
        }
        world.add_image(image);
    }
    world
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    println!(
        "A simulated EC2 with {} new images; each event goes through the guard's real handler.\n",
        IMAGES.len()
    );
    let sim = Sim::start(world()).await?;
    let config = Config {
        mode: Mode::Enforce,
        alert_topic: TOPIC.into(),
        scope: Scope {
            account: Some("123456789012".parse()?),
            region: Some("eu-west-1".into()),
        },
        wait: Duration::from_millis(500),
        settle: Duration::from_secs(300),
    };
    let aws = Aws::connect_to_simulator(&sim.endpoint(), "eu-west-1").await;
    let guard = Arc::new(Guard::new(config, Policy::default(), aws, |_| {}));

    let mut files: Vec<_> =
        std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("events"))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "json")
            })
            .collect();
    files.sort();
    let mut rows =
        vec![["event", "image", "expected", "billed", "verdict", "action"].map(str::to_owned)];
    for (done, file) in files.iter().enumerate() {
        progress(&format!("event {} of {} …", done + 1, files.len()));
        let name = file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let event: Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
        let deadline = Deadline::now() + Duration::from_secs(60);
        let blank = String::new;
        rows.push(match guard.handle(event, deadline).await {
            Ok(Answer::Record(record)) => row(name, &json!(record)),
            Ok(Answer::Batch(answer)) => {
                let back = answer.batch_item_failures.len();
                let action = format!("{back} of its messages comes back");
                [name, blank(), blank(), blank(), "(a batch)".into(), action]
            }
            Err(error) => {
                let verdict = format!("error {}", error.error_type());
                [
                    name,
                    blank(),
                    blank(),
                    blank(),
                    verdict,
                    "comes back".into(),
                ]
            }
        });
    }
    progress("");
    print_table(&rows);

    let world = sim.world();
    println!(
        "\n{} alerts were published. The first of them, as a mail:\n",
        world.messages.len()
    );
    if let Some(message) = world.messages.first() {
        println!(
            "Subject: {}\n",
            message.subject.as_deref().unwrap_or_default()
        );
        println!("{}", message.body("email"));
    }
    println!(
        "Deregistered: {}, of which in the Recycle Bin: {}. Snapshots deleted: {}.",
        world.deregistered.len(),
        world.recycle_bin.len(),
        IMAGES.len() - world.snapshots.len()
    );
    Ok(())
}

fn row(name: String, record: &Value) -> [String; 6] {
    let text = |pointer: &str| {
        let value = record.pointer(pointer);
        value.and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let list = |pointer: &str, separator: &str| {
        let items = record.pointer(pointer).and_then(Value::as_array);
        let words: Vec<_> = items
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        words.join(separator)
    };
    let join = |one: String, separator: &str, other: String| match other.is_empty() {
        true => one,
        false => format!("{one}{separator}{other}"),
    };
    [
        name,
        text("/image_id"),
        list("/expected/platform", " or "),
        text("/actual/platform_details"),
        join(text("/verdict"), "/", text("/kind")),
        join(
            join(text("/action"), ": ", list("/held_by", ", ")),
            ", ",
            text("/outcome"),
        ),
    ]
}

fn print_table(rows: &[[String; 6]]) {
    let widths: [usize; 6] = std::array::from_fn(|column| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    });
    for row in rows {
        let cells: Vec<_> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        println!("{}", cells.join("  ").trim_end());
    }
}

/// One line on a terminal that is written over; nothing elsewhere.
fn progress(text: &str) {
    let mut out = std::io::stdout();
    if out.is_terminal() {
        print!("\r\u{1b}[K{text}");
        // A progress line that can not be shown is no loss.
        let _ = out.flush();
    }
}
