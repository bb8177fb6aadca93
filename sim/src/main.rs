//! Serves the example world, or an account with many images, until it is killed. Prints the endpoint to standard
//! output.

use std::process::ExitCode;

use sim::{Sim, Snapshot, Throttling, World};

const USAGE: &str =
    "usage: sim [--port N] [--disk RAW-IMAGE-FILE] [--images N [--seed N]] [--throttled]";

/// The snapshot of the disk given with `--disk`.
const SNAPSHOT: &str = "snap-0000000000000a005";

/// The command line's options.
#[derive(Debug, Default)]
struct Options {
    /// The port; 0 for any free one.
    port: u16,
    disk: Option<String>,
    images: Option<usize>,
    seed: Option<u64>,
    throttled: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(options) = Options::of(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut world = match options.images {
        Some(images) => World::populated(images, options.seed.unwrap_or_default()),
        None => World::example(),
    };
    if options.throttled {
        world.throttling = Throttling::of_ec2();
    }
    if let Some(path) = options.disk {
        match Snapshot::of_disk(SNAPSHOT, &path) {
            Ok(snapshot) => world.add_snapshot(snapshot),
            Err(error) => {
                eprintln!("sim: {path:?} can not be read: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    match Sim::start_on(options.port, world).await {
        Ok(sim) => {
            println!("{}", sim.endpoint());
            std::future::pending().await
        }
        Err(error) => {
            eprintln!("sim: can not listen on port {}: {error}", options.port);
            ExitCode::FAILURE
        }
    }
}

impl Options {
    fn of(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
        let mut options = Options::default();
        while let Some(option) = arguments.next() {
            let mut value = || arguments.next();
            match option.as_str() {
                "--port" => options.port = value()?.parse().ok()?,
                "--disk" => options.disk = Some(value()?),
                "--images" => options.images = Some(value()?.parse().ok()?),
                "--seed" => options.seed = Some(value()?.parse().ok()?),
                "--throttled" => options.throttled = true,
                _ => return None,
            }
        }
        // Only an account with many images has a seed.
        let seeded = options.seed.is_none() || options.images.is_some();
        seeded.then_some(options)
    }
}
