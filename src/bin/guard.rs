//! The Lambda function. Reads the settings, connects the clients, and runs the runtime's loop.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ami_billing_guard::config::{self, Config, ConfigError, Mode};
use ami_billing_guard::policy::Policy;
use ami_billing_guard::telemetry::Telemetry;
use ami_billing_guard::{Aws, Clock, Deadline, Delivery, Guard};
use disk::contained::{self, Reader};
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::Value;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(contained::ARGUMENT) {
        return contained::run_child(arguments);
    }
    serve()
}

// Lambda sends one event at a time. Below 1,769 MB, a function does not have even one processor. Worker threads would
// only add overhead.
#[tokio::main(flavor = "current_thread")]
async fn serve() -> ExitCode {
    let started = Telemetry::init();
    let (telemetry, (config, policy)) = match started.and_then(|it| Ok((it, settings()?))) {
        Ok(settings) => settings,
        Err(error) => {
            tracing::error!(error_type = "Settings", "the guard does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    if config.mode == Mode::Enforce && config.ledger_table.is_none() {
        tracing::warn!(
            "GUARD_LEDGER_TABLE is not set. The guard remembers its discards, and their number in this hour, only \
             until this process ends"
        );
    }
    let reader = match std::env::current_exe() {
        Ok(program) => Reader::Child(program),
        Err(error) => {
            tracing::error!(
                error_type = "Settings",
                "the guard does not start, because it cannot find its own program, which reads disks: {error}"
            );
            return ExitCode::FAILURE;
        }
    };
    let aws = match Aws::connect().await {
        Ok(aws) => aws,
        Err(error) => {
            tracing::error!(error_type = "Settings", "the guard does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let guard = Arc::new(Guard::new(
        config,
        policy,
        aws,
        reader,
        move |delivery, line| {
            telemetry.write(delivery, line);
        },
    ));
    let handler = service_fn(|event: LambdaEvent<Value>| {
        let guard = Arc::clone(&guard);
        async move {
            let delivery = Delivery {
                deadline: deadline(event.context.deadline),
                request_id: Some(event.context.request_id),
                message_id: None,
                receipt_handle: None,
            };
            let answer = guard.handle(event.payload, delivery).await;
            answer.map_err(|error| Diagnostic {
                error_type: error.error_type().to_owned(),
                error_message: error.with_retry(),
            })
        }
    });
    match lambda_runtime::run(handler).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error_type = "Runtime", "the runtime ended: {error}");
            ExitCode::FAILURE
        }
    }
}

fn settings() -> Result<(Config, Policy), ConfigError> {
    let config = Config::read(|name| std::env::var_os(name))?;
    let policy = config::read_policy(&config)?;
    config::check(&config, &policy)?;
    Ok((config, policy))
}

/// Lambda's deadline on the clock that timers use. `epoch_ms` is in milliseconds since the epoch.
fn deadline(epoch_ms: u64) -> Deadline {
    let now_ms = u64::try_from(Clock::SYSTEM.now().timestamp_millis()).unwrap_or(u64::MAX);
    Deadline::now() + Duration::from_millis(epoch_ms.saturating_sub(now_ms))
}
