//! A terminal, and a person who types on it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Output, Stdio};

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use sim::Sim;

use super::program;

/// What a person types to end the input.
pub(super) const END: &str = "\u{4}";

/// Runs a command at a terminal. The person has typed this already when the command asks. What the terminal shows,
/// which is also what was typed, is in the output's standard error.
pub(super) async fn at_terminal(sim: &Sim, arguments: &[&str], typed: &str) -> Output {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.custom_flags(OFlags::NOCTTY.bits().cast_signed());
    let device = options.open(name.to_str().unwrap()).unwrap();
    let mut person = File::from(terminal);
    person.write_all(typed.as_bytes()).unwrap();
    let mut program = program(arguments);
    program.env("AWS_ENDPOINT_URL", sim.endpoint());
    program.env("AWS_REGION", "eu-west-1");
    program
        .stdin(device.try_clone().unwrap())
        .stderr(device)
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let child = program.spawn().unwrap();
    // It has the terminal open, whose end would else not come.
    drop(program);
    let shown = tokio::task::spawn_blocking(move || {
        let (mut shown, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(length @ 1..) = person.read(&mut buffer) {
            shown.extend_from_slice(&buffer[..length]);
        }
        shown
    });
    let mut output = child.wait_with_output().await.unwrap();
    output.stderr = shown.await.unwrap();
    output.stderr.retain(|byte| *byte != b'\r');
    output
}
