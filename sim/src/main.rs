//! Serves the example world until it is killed, and prints the endpoint on standard output.

use std::process::ExitCode;

use sim::{Sim, World};

const USAGE: &str = "usage: sim [--port N]";

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let port = match (
        arguments.next().as_deref(),
        arguments.next(),
        arguments.next(),
    ) {
        (None, _, _) => Some(0),
        (Some("--port"), Some(port), None) => port.parse().ok(),
        _ => None,
    };
    let Some(port) = port else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match Sim::start_on(port, World::example()).await {
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
