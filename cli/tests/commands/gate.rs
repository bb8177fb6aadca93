//! Exit codes say the verdict, whoever reads the result, and whether anybody does.

use std::fs::File;
use std::process::{Output, Stdio};

use sim::Sim;
use tokio::process::Command;

use super::{GOOD, LOST, UPLOADED, code, err, event, out, program, says, simulated, temporary};

/// What becomes of standard output.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reader {
    /// It went away before anything was written.
    Gone,
    /// It goes away after the first line: `| head -n 1`, with pipefail.
    Head,
    /// Standard output is closed.
    Closed,
    /// The disk is full.
    FullDisk,
}

fn through_a_shell(script: &str, command: &Command) -> Command {
    let command = command.as_std();
    let mut shell = Command::new("bash");
    shell
        .args(["-c", script, "bash"])
        .arg(command.get_program());
    shell.args(command.get_args());
    shell.current_dir(command.get_current_dir().unwrap());
    shell
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap());
    for (name, value) in command.get_envs() {
        shell.env(name, value.unwrap());
    }
    // What is left of it, for the test and not for who reads that.
    shell.stdout(Stdio::piped());
    shell
}

async fn read_by(reader: Reader, sim: &Sim, arguments: &[&str]) -> Output {
    let mut command = program(arguments);
    command
        .env("AWS_ENDPOINT_URL", sim.endpoint())
        .env("AWS_REGION", "eu-west-1");
    let mut command = match reader {
        Reader::Gone => {
            let (ours, theirs) = std::io::pipe().unwrap();
            drop(ours);
            command.stdout(theirs);
            command
        }
        Reader::Head => through_a_shell("set -o pipefail; \"$@\" | head -n 1", &command),
        Reader::Closed => through_a_shell("exec \"$@\" >&-", &command),
        Reader::FullDisk => {
            command.stdout(File::options().write(true).open("/dev/full").unwrap());
            command
        }
    };
    command.stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    // The parent's ends of pipes are closed with the command.
    drop(command);
    child.wait_with_output().await.unwrap()
}

#[tokio::test]
async fn regression_a_mismatch_is_told_by_the_exit_code_whoever_reads() {
    let sim = simulated().await;
    let faulty = temporary("gate-faulty.toml");
    std::fs::write(&faulty, "version = 1\nmode = 'enforce'").unwrap();
    let cases = temporary("gate-cases.toml");
    let case = "[[case]]\nname = 'x'\nimage = { platform_details = 'Windows' }\nexpect = { verdict = 'exempt' }\n";
    std::fs::write(&cases, case.repeat(2)).unwrap();
    let events = temporary("gate-events.json");
    let all = format!("{}{}", event(GOOD, "a"), event(LOST, "b"));
    std::fs::write(&events, all).unwrap();
    let state = temporary("gate.jsonl");
    let _ = std::fs::remove_file(&state);
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (faulty, cases, events, state) = (path(&faulty), path(&cases), path(&events), path(&state));
    for arguments in [
        &["check", LOST][..],
        // The reader is gone before the mismatch is found.
        &["check", GOOD, LOST],
        &["check", "--json", GOOD, UPLOADED, LOST],
        &["check", "--format", "junit", GOOD, UPLOADED, LOST],
        &["explain", LOST],
        &["explain", "--json", LOST],
        &["replay", &events],
        &["replay", "--json", &events],
        &["audit", "--state", &state],
        &["audit", "--json", "--state", &state],
        &["audit", "--json", "--resume", "--state", &state],
        &["policy", "check", &faulty],
        &["policy", "test", "policy/policy.toml", "--cases", &cases],
    ] {
        for reader in [Reader::Gone, Reader::Head, Reader::Closed, Reader::FullDisk] {
            let output = read_by(reader, &sim, arguments).await;
            let errors = err(&output);
            assert_eq!(code(&output), 1, "{reader:?} {arguments:?}: {errors}");
            let is_lost = errors.contains("the result cannot be written");
            assert_eq!(
                is_lost,
                reader == Reader::FullDisk,
                "{arguments:?}: {errors}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_not_known_stays_so_whoever_reads() {
    let sim = simulated().await;
    let disk = temporary("gate-empty.img");
    std::fs::write(&disk, b"").unwrap();
    for arguments in [
        &["check", GOOD, UPLOADED][..],
        &["check", "--format", "junit", GOOD, UPLOADED],
        &["explain", UPLOADED],
        &["inspect", disk.to_str().unwrap()],
    ] {
        for reader in [Reader::Gone, Reader::Head, Reader::Closed, Reader::FullDisk] {
            let output = read_by(reader, &sim, arguments).await;
            assert_eq!(
                code(&output),
                3,
                "{reader:?} {arguments:?}: {}",
                err(&output)
            );
        }
    }
}

#[tokio::test]
async fn what_is_good_is_good_for_a_reader_that_stops_and_not_on_a_full_disk() {
    let sim = simulated().await;
    for arguments in [
        &["check", GOOD][..],
        &["check", "--format", "junit", GOOD],
        &["explain", GOOD],
        &["policy", "check", "policy/policy.toml"],
        &["restore", GOOD],
        &["completions", "bash"],
    ] {
        for (reader, ends_with) in [
            (Reader::Gone, 0),
            (Reader::Head, 0),
            (Reader::Closed, 0),
            (Reader::FullDisk, 3),
        ] {
            let output = read_by(reader, &sim, arguments).await;
            let errors = err(&output);
            assert_eq!(
                code(&output),
                ends_with,
                "{reader:?} {arguments:?}: {errors}"
            );
            if reader == Reader::FullDisk {
                says(
                    &errors,
                    "the result cannot be written: No space left on device",
                );
            }
            if reader == Reader::Head {
                assert!(out(&output).lines().count() <= 1);
            }
        }
    }
}
