//! `ami-guard doctor`: checks whether a deployed stack works. Changes nothing.

mod finding;
mod function;
mod judge;
mod look;
mod metrics;
mod signed;
mod trails;

use std::io::Write;

use ami_billing_guard::{Aws, Clock};
use anstyle::{AnsiColor, Style};
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde::Serialize;

use crate::account::Credentials;
use crate::outcome::{CliError, Outcome};
use crate::show::{json, shown};
use finding::{Finding, State};

const AFTER: &str = "\
Exit codes:
  0  nothing is wrong. There may be warnings
  1  something is wrong
  2  the command line is not valid
  3  something could not be determined

doctor invokes the function for its self-test. Nothing is changed. docs/reference/permissions.md lists the permissions that doctor needs.";

/// What to check.
#[derive(Args)]
#[command(after_help = AFTER)]
pub(crate) struct Arguments {
    /// The name that the stack was deployed with
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    stack_name: String,
    #[command(flatten)]
    credentials: Credentials,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The result, for programs.
#[derive(Serialize)]
struct Report<'a> {
    stack: &'a str,
    region: &'a str,
    /// Whether every check is `ok` or a `warning`.
    ok: bool,
    checks: &'a [Finding],
}

/// Checks a stack.
pub(crate) async fn run(arguments: Arguments, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let aws = arguments.credentials.connect().await?;
    let region = aws.region().unwrap_or_default();
    let stack = &arguments.stack_name;
    // Boxed because the SDK's futures are large.
    let checks = Box::pin(examine(&aws, region, stack)).await;
    let outcome = outcome(&checks);
    let text = match arguments.json {
        true => json(&Report {
            stack,
            region,
            ok: outcome == Outcome::Good,
            checks: &checks,
        })?,
        false => text(&checks),
    };
    out.write_all(text.as_bytes())?;
    Ok(outcome)
}

/// All checks, in the order in which they are printed.
async fn examine(aws: &Aws, region: &str, name: &str) -> Vec<Finding> {
    let stack = look::stack(aws, name).await;
    let mut checks = vec![judge::stack(name, region, &stack)];
    // The other checks need the stack's outputs.
    let Ok(Some(stack)) = stack else {
        return checks;
    };
    if !stack.is_of_the_guard() {
        return checks;
    }
    let topic = |name: &str| look::topic(aws, stack.output(name).map(str::to_owned));
    let queue = |name: &str| look::queue(aws, stack.output(name).map(str::to_owned));
    let now = Clock::SYSTEM.now();
    let function = stack.output("GuardFunctionName").unwrap_or_default();
    let event_queue = stack.output("EventQueueArn");
    let (trails, alerts, chat, rule, self_test, events, dead_letters, undelivered, numbers) = tokio::join!(
        look::trails(aws, region, stack.needs_a_trail()),
        topic("AlertTopicArn"),
        topic("ChatTopicArn"),
        look::rule(aws, stack.output("RecycleBinRuleId")),
        function::test(aws, function),
        queue("EventQueueArn"),
        queue("DeadLetterQueueArn"),
        queue("UndeliveredEventQueueArn"),
        metrics::numbers(aws, function, event_queue, now),
    );
    checks.push(trails::judge(region, trails.as_ref()));
    checks.push(judge::alert_topic(&stack, region, alerts.as_ref()));
    if stack.has_chat_topic() {
        checks.push(judge::chat_topic(&stack, chat.as_ref()));
    }
    checks.push(judge::recycle_bin_rule(&stack, region, rule.as_ref()));
    checks.push(function::judge(function, &stack, &self_test));
    let known = numbers.as_ref().ok();
    let late = known.and_then(|numbers| metrics::overdue(&stack, now, numbers));
    checks.push(judge::event_queue(&stack, events.as_ref(), late));
    checks.push(judge::dead_letters(&stack, region, dead_letters.as_ref()));
    checks.push(judge::undelivered(&stack, undelivered.as_ref()));
    checks.push(metrics::events(function, &numbers));
    checks.push(metrics::audit(&stack, now, &numbers));
    checks
}

fn outcome(checks: &[Finding]) -> Outcome {
    let of = |state: State| match state {
        State::Ok | State::Warning => Outcome::Good,
        State::Failed => Outcome::Mismatch,
        State::Unknown => Outcome::Unknown,
    };
    checks
        .iter()
        .fold(Outcome::Good, |all, check| all.and(of(check.state)))
}

/// A line for each check, and below it what to do.
fn text(checks: &[Finding]) -> String {
    let widest = checks.iter().map(|check| check.check.len()).max();
    let widest = widest.unwrap_or_default();
    let mut text = String::new();
    for check in checks {
        let colour = match check.state {
            State::Ok => AnsiColor::Green,
            State::Warning | State::Unknown => AnsiColor::Yellow,
            State::Failed => AnsiColor::Red,
        };
        let style = Style::new().bold().fg_color(Some(colour.into()));
        let state = check.state.word();
        text.push_str(&format!(
            "{style}{state:<7}{style:#}  {:<widest$}  {}: {}\n",
            check.check,
            shown(&check.looked_at),
            shown(&check.found)
        ));
        if let Some(to_do) = &check.to_do {
            text.push_str(&format!("{:9}{:widest$}  → {}\n", "", "", shown(to_do)));
        }
    }
    let counts = [State::Ok, State::Warning, State::Failed, State::Unknown].map(|state| {
        let number = checks.iter().filter(|check| check.state == state).count();
        (number > 0).then(|| format!("{number} {}", state.word()))
    });
    let counts: Vec<String> = counts.into_iter().flatten().collect();
    text.push_str(&format!("\n{}\n", counts.join(", ")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(state: State) -> Finding {
        Finding {
            check: "stack",
            looked_at: "a".into(),
            state,
            found: "b".into(),
            to_do: None,
        }
    }

    #[test]
    fn a_failure_outweighs_an_unknown_and_a_warning_is_no_failure() {
        use State::{Failed, Ok, Unknown, Warning};
        for (states, ends_with) in [
            (vec![Ok, Ok], Outcome::Good),
            (vec![Ok, Warning], Outcome::Good),
            (vec![Ok, Unknown, Warning], Outcome::Unknown),
            (vec![Unknown, Failed, Ok], Outcome::Mismatch),
        ] {
            let checks: Vec<Finding> = states.iter().map(|state| found(*state)).collect();
            assert_eq!(outcome(&checks), ends_with, "{states:?}");
        }
    }

    #[test]
    fn text_of_others_cannot_control_the_terminal() {
        let mut check = found(State::Failed);
        check.found = "a trail named \u{1b}[2J".into();
        check.to_do = Some("aws cloudtrail start-logging --name '\u{1b}'\n".into());
        let text = text(&[check]);
        assert!(text.contains(r"a trail named \u{1b}[2J"), "{text}");
        assert!(text.contains(r"--name '\u{1b}'\n"), "{text}");
    }
}
