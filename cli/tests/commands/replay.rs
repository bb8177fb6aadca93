//! `ami-guard replay`: files with faults in them, and files that do not end.

use std::io::Write;
use std::process::{Output, Stdio};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use sim::Sim;
use tokio::process::Command;

use super::{
    GOOD, LOST, UPLOADED, before, code, err, event, lines, out, program, says, simulated, temporary,
};

fn write(name: &str, content: impl AsRef<[u8]>) -> String {
    let path = temporary(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The images that were judged.
fn judged(output: &Output) -> Vec<String> {
    let images = lines(output).into_iter();
    images
        .map(|row| row["image_id"].as_str().unwrap().to_owned())
        .collect()
}

async fn replay(sim: &Sim, more: &[&str], file: &str) -> Output {
    before(sim, &[&["replay", "--json", file], more].concat()).await
}

#[tokio::test]
async fn regression_replay_goes_on_past_a_broken_event_and_says_which() {
    let sim = simulated().await;
    let (first, last) = (event(GOOD, "a").to_string(), event(LOST, "b"));
    let cut = &first[..first.len() / 2];
    let pretty = serde_json::to_string_pretty(&last).unwrap();
    let unclosed = "{\"detail-type\": [";
    for (broken, place) in [
        (cut, " at the end of line 2"),
        (unclosed, "EOF while parsing a list"),
        (unclosed, ", in the document that begins at line 2\n"),
        ("not JSON at all", "expected ident at line 2 column 2"),
        ("{\"a\": 1,}", "trailing comma at line 2 column 9"),
    ] {
        let file = write("broken.json", format!("{first}\n{broken}\n{pretty}\n"));
        let output = replay(&sim, &[], &file).await;
        let errors = err(&output);
        assert_eq!(judged(&output), [GOOD, LOST], "{broken}: {errors}");
        assert_eq!(code(&output), 1);
        says(
            &errors,
            &format!("{file:?}, event 2: malformed event: is not JSON: "),
        );
        says(&errors, place);
        says(
            &errors,
            "2 of 3 events are registrations in this account and Region\n",
        );
    }
    // A broken event is no success, whatever the others are.
    let file = write("broken.json", format!("{first}\n{cut}"));
    let output = replay(&sim, &[], &file).await;
    assert_eq!((code(&output), judged(&output)), (3, vec![GOOD.to_owned()]));
}

#[tokio::test]
async fn regression_with_strict_nothing_is_judged_if_an_event_is_not_understood() {
    let sim = simulated().await;
    let first = event(GOOD, "a").to_string();
    let mut unanswered = event(LOST, "c1ea0000-0000-4000-8000-000000000001");
    unanswered["detail"]["responseElements"] = json!(null);
    let mut elsewhere = unanswered.clone();
    elsewhere["region"] = json!("us-east-1");
    let enforce = [
        "--strict",
        "--enforce",
        "--yes",
        "--topic",
        super::TOPIC,
        "--ledger",
        super::TABLE,
    ];
    for (bad, which) in [
        (
            "{\"cut\": ".to_owned(),
            "event 2: malformed event: is not JSON",
        ),
        (
            "{}".to_owned(),
            "event 2: malformed event: is not an event of EventBridge",
        ),
        (
            unanswered.to_string(),
            "event 2 (c1ea0000-0000-4000-8000-000000000001): malformed event: the CloudTrail record has neither",
        ),
    ] {
        let lost = event(LOST, "d");
        let file = write("strict.json", format!("{first}\n{bad}\n{bad}\n{lost}\n"));
        for more in [&["--strict"][..], &enforce] {
            let output = replay(&sim, more, &file).await;
            let errors = err(&output);
            assert_eq!((code(&output), out(&output).as_str()), (2, ""), "{errors}");
            says(&errors, &format!("{file:?}, {which}"));
            says(&errors, "1 more events are not valid");
            says(&errors, "--strict: nothing was judged");
        }
        assert_eq!(super::changes(&sim), Vec::<String>::new());
        assert_eq!(judged(&replay(&sim, &[], &file).await), [GOOD, LOST]);
    }
    // An event of another Region means nothing here, whatever it lacks.
    let file = write("strict.json", format!("{first}\n{elsewhere}"));
    let output = replay(&sim, &["--strict"], &file).await;
    assert_eq!((code(&output), judged(&output)), (0, vec![GOOD.to_owned()]));
    // An AMI that nobody knows of is an answer, and no fault of its event.
    let file = write("strict.json", event(UPLOADED, "e").to_string());
    assert_eq!(code(&replay(&sim, &["--strict"], &file).await), 3);
}

#[tokio::test]
async fn regression_what_unpacks_to_too_much_is_refused_with_the_limit() {
    let sim = simulated().await;
    // One MiB of blanks, as often as it takes: gzip may have many members.
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&vec![b' '; 1024 * 1024]).unwrap();
    let member = gzip.finish().unwrap();
    let mut bomb = member.repeat(256);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(event(GOOD, "a").to_string().as_bytes())
        .unwrap();
    bomb.extend(gzip.finish().unwrap());
    let file = write("bomb.json.gz", &bomb);
    let output = replay(&sim, &[], &file).await;
    assert_eq!((code(&output), out(&output).as_str()), (2, ""));
    says(
        &err(&output),
        &format!("{file:?}: is gzip that unpacks to more than 256 MiB. Unpack and split it"),
    );
    assert!(sim.calls().is_empty());
    // A little less is read.
    let file = write("large.json.gz", &bomb[member.len()..]);
    assert_eq!(judged(&replay(&sim, &[], &file).await), [GOOD]);
    // What has no end at all.
    let output = replay(&sim, &[], "/dev/zero").await;
    assert_eq!(code(&output), 2);
    says(
        &err(&output),
        "\"/dev/zero\": has more than 256 MiB. Split it",
    );
}

/// Opening a FIFO waits for somebody who writes to it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_fifo_that_nobody_writes_to_can_be_interrupted() {
    use rustix::process::{Pid, Signal, kill_process};
    use std::os::unix::process::ExitStatusExt;

    let fifo = temporary("replay-fifo");
    let _ = std::fs::remove_file(&fifo);
    let made = Command::new("mkfifo").arg(&fifo).status().await.unwrap();
    assert!(made.success());
    let fifo = fifo.to_str().unwrap();
    for arguments in [&["replay", fifo][..], &["replay", "--strict", fifo]] {
        // Whoever runs the tests may ignore the signal, and processes inherit that.
        let mut command = Command::new("env");
        command.args(["--default-signal=INT", env!("CARGO_BIN_EXE_ami-guard")]);
        command.args(program(arguments).as_std().get_args());
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let id = child.id().unwrap().cast_signed();
        // Where the kernel does not say what a process waits for, it is interrupted after a while.
        for _ in 0..300 {
            let waits_for = std::fs::read_to_string(format!("/proc/{id}/wchan"));
            if waits_for.is_ok_and(|it| it.contains("partner")) {
                break;
            }
            assert_eq!(child.try_wait().unwrap(), None);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        kill_process(Pid::from_raw(id).unwrap(), Signal::INT).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(60), child.wait()).await;
        assert_eq!(ended.unwrap().unwrap().signal(), Some(2), "{arguments:?}");
    }
}

/// The kernel does not end the first process of a container for a signal, unless the process asked for it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn regression_a_fifo_can_be_interrupted_in_a_container_too() {
    use rustix::process::{Pid, Signal, kill_process};

    let first = ["--map-root-user", "--pid", "--fork", "--kill-child"];
    let may = Command::new("unshare")
        .args(first)
        .arg("true")
        .output()
        .await;
    if !may.is_ok_and(|it| it.status.success()) {
        println!("this machine lets nobody begin a namespace of processes");
        return;
    }
    for (signal, ends_with) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let fifo = temporary("replay-fifo-of-container");
        let _ = std::fs::remove_file(&fifo);
        let made = Command::new("mkfifo").arg(&fifo).status().await.unwrap();
        assert!(made.success());
        let mut command = Command::new("unshare");
        command.args(first).arg(env!("CARGO_BIN_EXE_ami-guard"));
        command.args(["replay", fifo.to_str().unwrap()]);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let id = child.id().unwrap();
        // It waits for a writer once a thread of it is in open(2).
        let waits = || {
            let children = format!("/proc/{id}/task/{id}/children");
            let first = std::fs::read_to_string(children).ok()?;
            let first: i32 = first.trim().parse().ok()?;
            let at = std::fs::read_to_string(format!("/proc/{first}/wchan")).ok()?;
            at.contains("partner").then_some(first)
        };
        let mut waiting = None;
        for _ in 0..300 {
            waiting = waits();
            if waiting.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let Some(waiting) = waiting else {
            println!("this kernel does not say what a process waits for");
            return;
        };
        kill_process(Pid::from_raw(waiting).unwrap(), signal).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(60), child.wait()).await;
        assert_eq!(ended.expect("it goes on").unwrap().code(), Some(ends_with));
    }
}
