//! Settings, and files that the command line names, which are not what they should be: the exit code is 2, at once.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use tokio::process::Command;

use super::{GOOD, code, err, program, says, temporary};

/// An endpoint that is empty made the SDK panic, also one that the file says to ignore. One that is not a URL was passed
/// over or failed at the first call.
#[tokio::test]
async fn regression_an_endpoint_of_the_configuration_file_that_is_no_url_is_an_error_that_names_it()
{
    let of_services = "[default]\nservices = own\n[services own]\n";
    let cases = [
        ("[default]\nendpoint_url =\n".to_owned(), "\"\" for EC2"),
        (
            "[default]\nendpoint_url = foo\n".to_owned(),
            "\"foo\" for EC2",
        ),
        (
            "[default]\nendpoint_url = localhost:4566\n".to_owned(),
            "\"localhost:4566\" for EC2",
        ),
        (
            format!("{of_services}sts =\n  endpoint_url =\n"),
            "\"\" for STS",
        ),
        (
            format!("{of_services}sso-oidc =\n  endpoint_url = foo\n"),
            "\"foo\" for SSO OIDC",
        ),
        (
            "[default]\nignore_configured_endpoint_urls = true\nendpoint_url =\n\
             role_arn = arn:aws:iam::123456789012:role/builder\nsource_profile = base\n\
             [profile base]\naws_access_key_id = testing\naws_secret_access_key = testing\n"
                .to_owned(),
            "\"\" for EC2",
        ),
    ];
    let file = temporary("settings-config");
    for (text, words) in cases {
        std::fs::write(
            &file,
            format!("{text}[profile other]\nregion = eu-west-1\n"),
        )
        .unwrap();
        let ends = async |arguments: &[&str]| {
            let mut program = program(arguments);
            program.env("AWS_CONFIG_FILE", &file);
            program.env("AWS_REGION", "eu-west-1");
            program.output().await.unwrap()
        };
        for arguments in [
            &["check", GOOD][..],
            &["check", "--profile", "default", GOOD],
        ] {
            let output = ends(arguments).await;
            assert_eq!(code(&output), 2, "{text}\n{}", err(&output));
            let said = format!(
                "ami-guard: endpoint_url in the AWS configuration file is {words}. Accepted: "
            );
            says(&err(&output), &said);
        }
    }
}

/// With another profile than the one that was meant, another account would be looked at.
#[tokio::test]
async fn regression_a_variable_that_is_not_utf_8_is_not_one_that_is_not_set() {
    for name in [
        "AWS_PROFILE",
        "AWS_DEFAULT_REGION",
        "AMI_GUARD_UNLIMITED_READER",
    ] {
        let broken = OsString::from_vec(b"a\xFFb".to_vec());
        let mut program = program(&["check", GOOD]);
        program.env(name, broken).env("AWS_REGION", "eu-west-1");
        let output = program.output().await.unwrap();
        assert_eq!(code(&output), 2, "{}", err(&output));
        says(&err(&output), &format!("ami-guard: {name}"));
        says(&err(&output), "xFFb\"");
    }
}

/// A FIFO that nobody writes to was waited for without end, and a device was read without end.
#[tokio::test]
async fn regression_a_policy_that_is_no_regular_file_is_refused_at_once() {
    let fifo = temporary("settings-fifo");
    let _ = std::fs::remove_file(&fifo);
    let made = Command::new("mkfifo").arg(&fifo).status().await.unwrap();
    assert!(made.success());
    let fifo = fifo.to_str().unwrap();
    let folder = env!("CARGO_TARGET_TMPDIR");
    for file in [fifo, "/dev/zero", folder] {
        for arguments in [
            &["policy", "check", file][..],
            &[
                "policy",
                "test",
                file,
                "--cases",
                "examples/policy-cases.toml",
            ],
            &["policy", "test", "policy/policy.toml", "--cases", file],
            &["check", "--policy", file, GOOD],
            &["explain", "--policy", file, GOOD],
            &["audit", "--policy", file],
        ] {
            let mut program = program(arguments);
            program.kill_on_drop(true);
            let ended = tokio::time::timeout(Duration::from_secs(60), program.output()).await;
            let output = ended.expect("it waits for the file").unwrap();
            assert_eq!(code(&output), 2, "{arguments:?} {}", err(&output));
            let words = format!(
                "ami-guard: {file:?} cannot be read: it is a folder, a FIFO or a device, not a regular file. Save the \
                 output of a command in a file first, and name that file\n"
            );
            says(&err(&output), &words);
        }
    }
}
