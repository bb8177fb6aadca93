//! The function's self-test, which checks what only the function can: its settings, its policy, its permissions.

use std::time::Duration;

use ami_billing_guard::{Aws, Error};
use serde_json::{Value, json};

use super::finding::{Finding, Subject, does_not_exist};
use super::look::Stack;
use super::signed::{self, Answer, LAMBDA, Request};

/// How long the self-test may take. The function's own limit is at most a minute, and it may have to start first.
const LIMIT: Duration = Duration::from_secs(90);

/// Invoke: asks the function for its self-test, which changes nothing.
pub(super) async fn test(aws: &Aws, function: &str) -> Result<Answer, Error> {
    let request = Request {
        path: format!("/2015-03-31/functions/{function}/invocations"),
        headers: vec![("content-type", "application/json".into())],
        body: json!({ "self-test": true }),
    };
    let call = "lambda:InvokeFunction";
    signed::send(aws.sdk_config(), &LAMBDA, call, function, request, LIMIT).await
}

/// Judges the answer to a self-test.
pub(super) fn judge(function: &str, stack: &Stack, answer: &Result<Answer, Error>) -> Finding {
    let subject = Subject::new("self-test", function);
    let log = stack
        .output("GuardLogGroupName")
        .unwrap_or("the function's log group");
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) if does_not_exist(error) => {
            return subject.failed(
                "the function does not exist, although it belongs to the stack",
                "Find out who deleted it. Then delete the stack, and deploy it again. The log and the ledger remain.",
            );
        }
        Err(error) => return subject.not_known(error),
    };
    let text = |name: &str| answer.body.get(name).and_then(Value::as_str);
    if answer.function_failed {
        return subject.failed(
            format!(
                "the function failed with {}: {}",
                text("errorType").unwrap_or("an unknown error"),
                text("errorMessage").unwrap_or("no message")
            ),
            format!("The log says why, with every fault of the settings and of the policy: {log}."),
        );
    }
    let (Some(ok), Some(checks)) = (
        answer.body.get("ok").and_then(Value::as_bool),
        answer.body.get("checks").and_then(Value::as_array),
    ) else {
        return subject.unknown(
            "the answer is not the report of a self-test",
            "Is this the guard's function? Deploy the stack again, and run doctor again.",
        );
    };
    let of = |check: &Value, name: &str| {
        let value = check.get(name).and_then(Value::as_str);
        value.unwrap_or("unknown").to_owned()
    };
    let in_state = |state: &'static str| checks.iter().filter(move |check| check["state"] == state);
    let reason = |check: &Value| format!("{}: {}", of(check, "check"), of(check, "found"));
    let with_reasons = |state: &'static str| {
        let found = in_state(state).map(reason);
        found.collect::<Vec<String>>().join("; ")
    };
    let failed = with_reasons("failed");
    if !failed.is_empty() {
        return subject.failed(
            failed,
            "Fix each of these. docs/reference/permissions.md says what a missing permission prevents.",
        );
    }
    if !ok {
        return subject.failed(
            "the function reports that it does not work, and names no check",
            format!("Look into its log: {log}."),
        );
    }
    let policy = answer
        .body
        .pointer("/policy/sha256")
        .and_then(Value::as_str);
    let mut found = format!(
        "version {}, mode {}, policy sha256 {}",
        text("version").unwrap_or("unknown"),
        text("mode").unwrap_or("unknown"),
        policy.unwrap_or("unknown")
    );
    // Whether an AMI may be discarded shows only on one that the guard has marked.
    let (untried, unknown): (Vec<&Value>, Vec<&Value>) = in_state("unknown").partition(|check| {
        matches!(
            of(check, "check").as_str(),
            "ec2:DeregisterImage" | "ec2:DisableImage"
        )
    });
    if !untried.is_empty() {
        let names: Vec<String> = untried.iter().map(|it| of(it, "check")).collect();
        found.push_str(&format!(". Not tried: {}", names.join(", ")));
    }
    if !unknown.is_empty() {
        let why: Vec<String> = unknown.into_iter().map(reason).collect();
        return subject.warning(
            format!("{found}. Not known: {}", why.join("; ")),
            "Run doctor again. If this stays, docs/reference/permissions.md says what each check needs.",
        );
    }
    match with_reasons("slow") {
        slow if slow.is_empty() => subject.ok(found),
        slow => subject.warning(
            format!("{found}. Slow: {slow}"),
            "Run doctor again. If it stays slow, see docs/runbook.md.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    fn judged(answer: Result<Answer, Error>) -> Finding {
        judge("guard", &Stack::default(), &answer)
    }

    fn report(ok: bool, checks: &[(&str, &str, &str)]) -> Result<Answer, Error> {
        let checks: Vec<Value> = checks
            .iter()
            .map(|(check, state, found)| json!({ "check": check, "state": state, "found": found }))
            .collect();
        let policy = json!({ "sha256": "abc" });
        Ok(Answer {
            function_failed: false,
            body: json!({ "self-test": true, "ok": ok, "version": "0.1.0", "mode": "observe", "policy": policy, "checks": checks }),
        })
    }

    #[test]
    fn a_self_test_that_succeeds_names_version_mode_policy_and_what_was_not_tried() {
        let finding = judged(report(
            true,
            &[
                ("ledger", "ok", "f"),
                ("ec2:DeregisterImage", "unknown", "g"),
            ],
        ));
        assert_eq!(finding.state, State::Ok);
        assert_eq!(
            finding.found,
            "version 0.1.0, mode observe, policy sha256 abc. Not tried: ec2:DeregisterImage"
        );
        let slow = judged(report(
            true,
            &[("look-up:image", "slow", "it took 3 seconds")],
        ));
        assert_eq!(slow.state, State::Warning);
        assert!(
            slow.found
                .ends_with("Slow: look-up:image: it took 3 seconds")
        );
    }

    #[test]
    fn a_self_test_that_fails_names_each_check_that_failed() {
        let checks = [
            ("ledger", "failed", "no table"),
            ("disk", "ok", "f"),
            ("alert-topic", "failed", "no subscription"),
        ];
        let finding = judged(report(false, &checks));
        assert_eq!(finding.state, State::Failed);
        assert_eq!(
            finding.found,
            "ledger: no table; alert-topic: no subscription"
        );
        assert_eq!(judged(report(false, &[])).state, State::Failed);
    }

    #[test]
    fn a_function_that_fails_is_a_failure_and_one_that_gives_no_report_is_not_known() {
        let crashed = judged(Ok(Answer {
            function_failed: true,
            body: json!({ "errorType": "Runtime.ExitError", "errorMessage": "exit status 1" }),
        }));
        assert_eq!(crashed.state, State::Failed);
        assert_eq!(
            crashed.found,
            "the function failed with Runtime.ExitError: exit status 1"
        );
        let other = judged(Ok(Answer {
            function_failed: false,
            body: json!({ "hello": "world" }),
        }));
        assert_eq!(other.state, State::Unknown);
        let gone = judged(Err(Error::Refused {
            call: "lambda:InvokeFunction",
            resource: "guard".into(),
            code: "ResourceNotFoundException".into(),
            message: "m".into(),
        }));
        assert_eq!(gone.state, State::Failed);
        let denied = judged(Err(Error::AccessDenied {
            permission: "lambda:InvokeFunction",
            resource: "guard".into(),
            message: "m".into(),
        }));
        assert_eq!(denied.state, State::Unknown);
        assert!(
            denied
                .to_do
                .unwrap()
                .contains("Allow lambda:InvokeFunction")
        );
    }
}
