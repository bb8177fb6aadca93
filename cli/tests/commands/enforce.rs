//! `--enforce` of audit and replay: the account's id is typed, or a script says --yes.

use sim::Sim;

use super::terminal::{END, at_terminal};
use super::{
    LOST, TABLE, TOPIC, before, changes, code, err, event, out, pinned, says, simulated, temporary,
};

const ENFORCE: [&str; 5] = ["--enforce", "--topic", TOPIC, "--ledger", TABLE];

/// A command that discards [`LOST`], and what it judges. Its files are those of this test alone, because an audit locks its
/// state.
fn commands(test: &str) -> [(Vec<String>, &'static str); 2] {
    let policy = temporary(&format!("{test}-policy.toml"));
    let discards = "version = 1\n[discard]\nservice_registered = 'discard'";
    std::fs::write(&policy, discards).unwrap();
    let events = temporary(&format!("{test}-events.json"));
    std::fs::write(&events, event(LOST, "e").to_string()).unwrap();
    let state = temporary(&format!("{test}-state.jsonl"));
    let _ = std::fs::remove_file(&state);
    let path = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
    let command = |command: &str, more: Vec<String>| {
        let words = [command].into_iter().chain(ENFORCE).map(str::to_owned);
        words.chain(more).collect()
    };
    let of_audit = [
        "--policy".into(),
        path(policy),
        "--state".into(),
        path(state),
    ];
    [
        (command("audit", of_audit.into()), "every AMI in eu-west-1"),
        (
            command("replay", vec![path(events)]),
            "1 event of eu-west-1",
        ),
    ]
}

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

fn nothing_was_discarded(sim: &Sim) {
    assert_eq!(changes(sim), Vec::<String>::new());
    assert!(sim.world().images.contains_key(LOST));
    assert!(sim.world().messages.is_empty());
}

#[tokio::test]
async fn enforce_in_a_script_needs_yes_and_calls_nothing_without_it() {
    for (command, _) in commands("enforce") {
        let sim = simulated().await;
        let arguments = words(&command);
        let output = before(&sim, &arguments).await;
        pinned(
            &format!("{}-enforce-asks", arguments[0]),
            &arguments,
            &output,
        );
        assert_eq!((code(&output), out(&output).as_str()), (2, ""));
        assert!(sim.calls().is_empty());
        let output = before(&sim, &[&arguments[..], &["--yes"]].concat()).await;
        assert_eq!(code(&output), 1, "{}", err(&output));
        assert!(sim.world().recycle_bin.contains_key(LOST));
    }
}

#[tokio::test]
async fn on_a_terminal_nothing_is_judged_until_the_account_s_id_is_typed() {
    for (command, what) in commands("enforce-at-terminal") {
        let sim = simulated().await;
        let arguments = words(&command);
        for typed in ["\n", "yes\n", "210987654321\n", END] {
            let output = at_terminal(&sim, &arguments, typed).await;
            let shown = err(&output);
            assert_eq!((code(&output), out(&output).as_str()), (2, ""), "{shown}");
            says(
                &shown,
                &format!("--enforce judges {what} in account 123456789012.\n"),
            );
            says(
                &shown,
                "It will deregister the AMIs that the policy lets the guard discard: at most 10 in an hour, each after \
                 an alert.\n",
            );
            says(&shown, "that is not 123456789012. Nothing was judged");
        }
        let calls: Vec<String> = sim.calls().into_iter().map(|call| call.action).collect();
        assert_eq!(calls, ["GetCallerIdentity"; 4]);
        sim.forget_calls();
        let output = at_terminal(&sim, &arguments, "123456789012\n").await;
        assert_eq!(code(&output), 1, "{}", err(&output));
        assert!(sim.world().recycle_bin.contains_key(LOST));
        assert_eq!(sim.world().messages.len(), 1, "the alert");
    }
}

#[tokio::test]
async fn a_policy_that_discards_nothing_is_asked_about_as_such() {
    let sim = simulated().await;
    let policy = temporary("enforce-none.toml");
    std::fs::write(&policy, "version = 1\n[discard]\naction = 'none'").unwrap();
    let policy = ["--policy", policy.to_str().unwrap()];
    let arguments = [&["audit"], &ENFORCE[..], &policy].concat();
    let output = at_terminal(&sim, &arguments, "\n").await;
    assert_eq!(code(&output), 2);
    says(&err(&output), "so it sends alerts and discards nothing.\n");
    nothing_was_discarded(&sim);
}

#[tokio::test]
async fn yes_without_enforce_is_refused() {
    let sim = simulated().await;
    for arguments in [&["audit", "--yes"][..], &["replay", "--yes", "-"]] {
        let output = before(&sim, arguments).await;
        assert_eq!((code(&output), out(&output).as_str()), (2, ""));
        says(&err(&output), "--enforce");
    }
    nothing_was_discarded(&sim);
}
