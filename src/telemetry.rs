//! Logs: one line of JSON a registration is its record, whatever the log level; the other lines are
//! tracing's.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::record::Record;

/// Sets up tracing: JSON on standard output, which Lambda takes to CloudWatch Logs.
/// The level is that of `AWS_LAMBDA_LOG_LEVEL`, else of `RUST_LOG`, else info.
pub fn init() {
    let level = std::env::var("AWS_LAMBDA_LOG_LEVEL")
        .or_else(|_| std::env::var("RUST_LOG"))
        .unwrap_or_default();
    let mut filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse_lossy(level.to_ascii_lowercase());
    // At trace level the runtime prints payloads, and ends on one that is not UTF-8.
    if filter.max_level_hint() == Some(LevelFilter::TRACE)
        && let Ok(directive) = "lambda_runtime=debug".parse()
    {
        filter = filter.add_directive(directive);
    }
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter)
        .with_current_span(true)
        .with_span_list(false)
        .init();
}

/// Writes a record's line to standard output. JSON escapes whatever could break a line or a terminal.
pub fn write_record(record: &Record) {
    match serde_json::to_string(record) {
        Ok(line) => println!("{line}"),
        Err(error) => tracing::error!(%error, "the record could not be written"),
    }
}
