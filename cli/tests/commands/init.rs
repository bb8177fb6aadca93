//! `ami-guard init`: the first policy of an operator, with its cases. Also the schema that comes with it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::{code, err, out, pinned, run, says, temporary};

const FILES: [&str; 4] = [
    "ami-guard.yml",
    "cases.toml",
    "policy.schema.json",
    "policy.toml",
];

/// The place of a folder that does not exist.
fn nowhere(name: &str) -> PathBuf {
    let folder = temporary(name);
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn init_writes_a_policy_that_passes_the_cases_that_come_with_it() {
    let folder = nowhere("init").join("policy");
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let arguments = ["init", folder.to_str().unwrap()];
    let output = run(&arguments).await;
    pinned("init", &arguments, &output);
    assert_eq!(code(&output), 0);
    assert_eq!(names(&folder), FILES);
    let (policy, cases) = (path("policy.toml"), path("cases.toml"));
    let checked = run(&["policy", "check", &policy]).await;
    assert_eq!(code(&checked), 0, "{}", out(&checked));
    let tested = run(&["policy", "test", &policy, "--cases", &cases]).await;
    assert_eq!(code(&tested), 0, "{}", out(&tested));
    says(&out(&tested), "5 of 5 cases as expected");
    let schema = std::fs::read_to_string(path("policy.schema.json")).unwrap();
    assert_eq!(schema, out(&run(&["policy", "schema"]).await));
}

#[tokio::test]
async fn the_case_that_init_leaves_to_its_reader_passes_with_the_rule_that_it_is_for() {
    let folder = nowhere("init-own");
    assert_eq!(code(&run(&["init", folder.to_str().unwrap()]).await), 0);
    let uncommented = |name: &str, from: &str| {
        let path = folder.join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        let (kept, rest) = text.split_at(text.find(from).unwrap());
        let lines = rest
            .lines()
            .map(|line| line.trim_start_matches('#').trim_start());
        let rest: Vec<&str> = lines.collect();
        std::fs::write(&path, format!("{kept}{}\n", rest.join("\n"))).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let cases = uncommented("cases.toml", "# [[case]]");
    let policy = uncommented("policy.toml", "# [[expect]]");
    let tested = run(&["policy", "test", &policy, "--cases", &cases]).await;
    says(
        &out(&tested),
        "ok      AMIs of the RHEL pipeline are Red Hat, whatever they are billed as\n",
    );
}

#[tokio::test]
async fn init_writes_nothing_if_a_file_exists_already() {
    for name in FILES {
        let folder = nowhere(&format!("init-{name}"));
        std::fs::create_dir(&folder).unwrap();
        // A link is not followed, wherever it leads.
        let elsewhere = folder.join("elsewhere");
        symlink(&elsewhere, folder.join(name)).unwrap();
        let output = run(&["init", folder.to_str().unwrap()]).await;
        assert_eq!((code(&output), out(&output).as_str()), (2, ""));
        let path = folder.join(name).display().to_string();
        says(
            &err(&output),
            &format!("{path:?} exists already. Nothing was written"),
        );
        assert_eq!(names(&folder), [name]);
        assert!(!elsewhere.exists());
    }
    let folder = nowhere("init-twice");
    let arguments = ["init", folder.to_str().unwrap()];
    assert_eq!(code(&run(&arguments).await), 0);
    std::fs::write(folder.join("policy.toml"), "version = 1\n").unwrap();
    let output = run(&arguments).await;
    pinned("init-again", &arguments, &output);
    assert_eq!(code(&output), 2);
    let kept = std::fs::read_to_string(folder.join("policy.toml")).unwrap();
    assert_eq!(kept, "version = 1\n");
}

#[tokio::test]
async fn init_says_why_a_folder_cannot_be_written() {
    let file = temporary("init-file");
    std::fs::write(&file, "").unwrap();
    for folder in [file.clone(), file.join("below"), "/proc/init".into()] {
        let output = run(&["init", folder.to_str().unwrap()]).await;
        assert_eq!((code(&output), out(&output).as_str()), (2, ""));
        says(&err(&output), "cannot be written: ");
        says(&err(&output), "Nothing was written");
    }
}
