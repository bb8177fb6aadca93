//! The story of one AMI: it is billed wrongly, the guard discards it, and a person restores it.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ami_billing_guard::config::Config;
use ami_billing_guard::policy::Policy;
use ami_billing_guard::{Answer, Aws, Deadline, Guard};
use chrono::TimeDelta;
use disk::contained::Reader;
use serde_json::{Value, json};
use sim::{AttachedVolume, Image, Instance, Sim, Snapshot, World};

use crate::packed::Packed;

const AMI: &str = "ami-0a1b2c3d4e5f60001";

/// The Windows instance that the AMI was built on.
const INSTANCE: &str = "i-0a1b2c3d4e5f60001";

const EXPECT: &str = "ami-billing-guard:expect";

/// Number of lines of the mail that are shown. It says first what matters most.
const MAIL_LINES: usize = 20;

/// Plays the story, and writes it to `out` as it happens. Unpacks the AMI's disk into `folder`.
pub(crate) async fn play(
    folder: &Path,
    reader: Reader,
    out: &mut impl Write,
) -> Result<(), Box<dyn Error>> {
    writeln!(
        out,
        "The guard on a simulated EC2. No AWS account is used, and nothing leaves this machine."
    )?;

    let mut event = super::event("register-image-assumed-role")?;
    super::let_happen_now(&mut event);
    let name = text(&event, "/detail/requestParameters/name");
    writeln!(
        out,
        "\n1. A pipeline builds a Windows server, and registers an AMI from its snapshot."
    )?;
    field(out, "AMI", &format!("{AMI}, {name}"))?;
    let pipeline = text(&event, "/detail/userIdentity/arn");
    field(out, "registered by", &pipeline)?;
    field(out, "tag", &format!("{EXPECT} = Windows"))?;

    let image = registered_image(&name);
    show_image(out, Some(&image))?;
    writeln!(
        out,
        "   The AMI has lost its billing code. Its instances would be billed as Linux."
    )?;

    let sim = Sim::start(world(image, folder)?).await?;
    let aws = Aws::connect_to_simulator(&sim.endpoint(), "eu-west-1").await;
    let config = Config {
        chat_topic: None,
        // EC2 may still list an AMI for a while after its removal, so the guard waits before it believes in an undo.
        // The simulated EC2 does not, so the story goes on at once.
        settle: Duration::ZERO,
        ..super::config()?
    };
    let guard = Guard::new(config, Policy::default(), aws.clone(), reader, |_, _| {});
    let guard = Arc::new(guard);

    writeln!(
        out,
        "\n2. CloudTrail reports the registration. The guard checks the AMI, and removes it."
    )?;
    let record = judge(&guard, &event).await?;
    show_evidence(out, &record)?;
    show_decision(out, &record)?;
    let mail = sim.world().messages.first().cloned();
    let mail = mail.ok_or("the guard sent no mail")?;
    let lines = mail.body("email");
    let mut lines = lines.trim_end().lines();
    writeln!(out, "\n   Before it removed the AMI, it sent this mail:")?;
    writeln!(
        out,
        "   | Subject: {}\n   |",
        mail.subject.unwrap_or_default()
    )?;
    for line in lines.by_ref().take(MAIL_LINES) {
        writeln!(out, "{}", format!("   | {line}").trim_end())?;
    }
    match lines.count() {
        0 => {}
        more => writeln!(out, "   | ({more} more lines)")?,
    }

    writeln!(out, "\n3. The AMI is gone, and can be restored.")?;
    show_what_is_left(out, &sim)?;

    writeln!(
        out,
        "\n4. Undo it: ami-guard restore {AMI} --region eu-west-1"
    )?;
    aws.bring_back(&AMI.parse()?, false).await?;
    show_what_is_left(out, &sim)?;

    writeln!(
        out,
        "\n5. EventBridge delivers the same event again, which it may do at any time."
    )?;
    let record = judge(&guard, &event).await?;
    show_decision(out, &record)?;
    show_image(out, sim.world().images.get(AMI))?;
    for mail in sim.world().messages.iter().skip(1) {
        field(out, "mail", mail.subject.as_deref().unwrap_or_default())?;
    }
    writeln!(
        out,
        "   The guard never removes an AMI again that you restored. It only alerts."
    )?;

    writeln!(
        out,
        "\nMore: `cargo run --example demo -- --all` shows every kind of event, and each form of an alert."
    )?;
    Ok(())
}

/// The AMI as EC2 registered it.
fn registered_image(name: &str) -> Image {
    let mut image = Image::new(AMI);
    image.name = name.into();
    image.tags.insert(EXPECT.into(), "Windows".into());
    image
}

/// The AMI, its snapshot with a disk of Windows Server 2022, and the instance that the snapshot is from.
fn world(image: Image, folder: &Path) -> Result<World, Box<dyn Error>> {
    let disk = folder.join("windows2022.img");
    Packed::read("windows2022").unpack(&disk);
    let mut world = World::default();
    for id in image.snapshot_ids() {
        let mut snapshot = Snapshot::of_disk(id, &disk)?;
        snapshot.volume_id = super::VOLUME.into();
        snapshot.start_time = sim::clock::now() - TimeDelta::minutes(20);
        world.add_snapshot(snapshot);
    }
    world.add_image(image);
    world.add_instance(Instance {
        platform_details: Some("Windows".into()),
        usage_operation: Some("RunInstances:0002".into()),
        volumes: vec![AttachedVolume::new("/dev/xvda", super::VOLUME)],
        ..Instance::new(INSTANCE, "ami-0a1b2c3d4e5f60099")
    });
    Ok(world)
}

/// Has the guard handle an event that is about one image, and returns the record.
async fn judge(guard: &Arc<Guard>, event: &Value) -> Result<Value, Box<dyn Error>> {
    let deadline = Deadline::now() + Duration::from_secs(60);
    match guard.handle(event.clone(), deadline).await? {
        Answer::Record(record) => Ok(json!(record)),
        other => Err(format!("the guard's answer is not a record: {other:?}").into()),
    }
}

/// What each source expects the AMI to be billed as.
fn show_evidence(out: &mut impl Write, record: &Value) -> Result<(), Box<dyn Error>> {
    field(out, "billed as", &text(record, "/actual/platform_details"))?;
    let expected = list(record, "/expected/platform", " or ");
    field(out, "expected", &expected)?;
    let evidence = record.get("evidence").and_then(Value::as_array);
    for source in evidence.into_iter().flatten() {
        let says = list(source, "/says", " or ");
        if !says.is_empty() {
            let detail = text(source, "/detail");
            let source = format!("  {}", text(source, "/source"));
            field(out, &source, &format!("{says} ({detail})"))?;
        }
    }
    Ok(())
}

/// The verdict, and what the guard did.
fn show_decision(out: &mut impl Write, record: &Value) -> Result<(), Box<dyn Error>> {
    let verdict = text(record, "/verdict");
    let kind = text(record, "/kind");
    field(out, "verdict", &format!("{verdict}, {kind}"))?;
    let held_by = list(record, "/held_by", ", ");
    let more = match held_by.is_empty() {
        true => text(record, "/outcome"),
        false => held_by,
    };
    let action = text(record, "/action");
    field(out, "action", &format!("{action}: {more}"))
}

/// What EC2 has of the AMI now.
fn show_what_is_left(out: &mut impl Write, sim: &Sim) -> Result<(), Box<dyn Error>> {
    let world = sim.world();
    show_image(out, world.images.get(AMI))?;
    let binned = match world.recycle_bin.get(AMI) {
        Some(binned) => format!(
            "keeps the AMI until {}",
            binned.exits.format("%Y-%m-%d %H:%M UTC")
        ),
        None => "does not have it".into(),
    };
    field(out, "Recycle Bin", &binned)?;
    let snapshots = world.snapshots.len();
    field(out, "snapshots", &format!("{snapshots} of 1 still exist"))
}

/// The AMI in the list of EC2, if it is there.
fn show_image(out: &mut impl Write, image: Option<&Image>) -> Result<(), Box<dyn Error>> {
    let state = match image {
        Some(image) => format!(
            "{}, billed as {} ({})",
            image.state,
            image.platform_details.as_deref().unwrap_or("nothing"),
            image.usage_operation.as_deref().unwrap_or("nothing")
        ),
        None => "does not list the AMI".into(),
    };
    field(out, "EC2", &state)
}

fn field(out: &mut impl Write, name: &str, value: &str) -> Result<(), Box<dyn Error>> {
    Ok(writeln!(out, "   {name:15} {value}")?)
}

fn text(value: &Value, pointer: &str) -> String {
    let value = value.pointer(pointer).and_then(Value::as_str);
    value.unwrap_or_default().to_owned()
}

fn list(value: &Value, pointer: &str, separator: &str) -> String {
    let items = value.pointer(pointer).and_then(Value::as_array);
    let words = items.into_iter().flatten().filter_map(Value::as_str);
    words.collect::<Vec<_>>().join(separator)
}
