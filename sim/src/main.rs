//! Serves the example world, with a disk if one is given, until it is killed, and prints the endpoint on standard output.

use std::process::ExitCode;

use sim::{Sim, Snapshot, World};

const USAGE: &str = "usage: sim [--port N] [--disk RAW-IMAGE-FILE]";

/// The snapshot that has the disk which was given.
const SNAPSHOT: &str = "snap-0000000000000a005";

#[tokio::main]
async fn main() -> ExitCode {
    let Some((port, disk)) = options(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut world = World::example();
    if let Some(path) = disk {
        match Snapshot::of_disk(SNAPSHOT, &path) {
            Ok(snapshot) => world.add_snapshot(snapshot),
            Err(error) => {
                eprintln!("sim: {path:?} can not be read: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    match Sim::start_on(port, world).await {
        Ok(sim) => {
            println!("{}", sim.endpoint());
            std::future::pending().await
        }
        Err(error) => {
            eprintln!("sim: can not listen on port {port}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The port (0: any that is free) and the disk.
fn options(mut arguments: impl Iterator<Item = String>) -> Option<(u16, Option<String>)> {
    let (mut port, mut disk) = (0, None);
    while let Some(option) = arguments.next() {
        let value = arguments.next()?;
        match option.as_str() {
            "--port" => port = value.parse().ok()?,
            "--disk" => disk = Some(value),
            _ => return None,
        }
    }
    Some((port, disk))
}
