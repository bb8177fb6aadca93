//! The policy file: which sources are queried, what may be discarded, and which verdicts are reported.
//!
//! A policy is accepted or refused as a whole, with all of its faults. Nothing in it is guessed.

mod read;
mod schema;
mod values;

pub(crate) use read::{PRODUCT_CODES, is_product_code};

use std::fmt;

pub use schema::schema;
pub use values::{
    AlertOn, Asked, Attribute, Condition, Confirm, DiscardAction, DiscardFrom, HoldOrDiscard,
    Matched, Policy, Requirement, Rule,
};

/// Largest size of a policy file, in bytes: 256 KiB, which is more than a thousand rules.
pub const LARGEST_POLICY: usize = 256 * 1024;

/// All faults of a policy file, one per line. Each has file, line, column, the text found there, and what is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    faults: Vec<String>,
}

impl PolicyError {
    /// The faults, at least one.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.faults.join("\n"))
    }
}

impl std::error::Error for PolicyError {}

impl Policy {
    /// Parses a policy. `file` is its name in error messages.
    ///
    /// # Errors
    /// All faults of the file. If it is larger than [`LARGEST_POLICY`], only that fault.
    pub fn parse(file: &str, text: &str) -> Result<Policy, PolicyError> {
        if text.len() > LARGEST_POLICY {
            let fault = format!(
                "{file}: the policy has {} bytes. Accepted: at most {LARGEST_POLICY}",
                text.len()
            );
            return Err(PolicyError {
                faults: vec![fault],
            });
        }
        read::policy(file, text).map_err(|faults| PolicyError { faults })
    }
}

#[cfg(test)]
mod tests {
    use crate::billing::Platforms;
    use glob::Pattern;
    use std::collections::BTreeSet;

    use super::*;
    use crate::billing::ACCEPTED_PLATFORMS;

    /// Abbreviates the long lists of what is accepted.
    fn brief(faults: &str) -> String {
        let keys = "name, description, registered_by, invoked_by, account, region, architecture, snapshot_description, tag, snapshot_tag, product_code";
        faults
            .replace(ACCEPTED_PLATFORMS, "(platforms)")
            .replace(read::GLOBS, "(globs)")
            .replace(read::PRODUCT_CODES, "(product codes)")
            .replace(keys, "(match keys)")
    }

    fn faults(text: &str) -> String {
        Policy::parse("policy.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn a_policy_that_says_nothing_is_the_built_in_one() {
        assert_eq!(Policy::parse("p", "version = 1"), Ok(Policy::default()));
    }

    #[test]
    fn the_policy_that_is_shipped_is_the_built_in_one_written_out() {
        let shipped = include_str!("../policy/policy.toml");
        assert_eq!(
            Policy::parse("policy/policy.toml", shipped),
            Ok(Policy::default())
        );
    }

    #[test]
    fn every_key_is_read() {
        let policy = Policy::parse("p", include_str!("../tests/corpus/policy-every-key.toml"));
        let read = Policy {
            default_expect: Some(Platforms::parse(["Linux", "RedHat"]).unwrap()),
            ask_tags: false,
            lineage: Asked::Never,
            disk: Asked::Always,
            disk_max_blocks: 64,
            action: DiscardAction::Disable,
            discard_from: BTreeSet::from([DiscardFrom::Lineage, DiscardFrom::Disk]),
            max_per_hour: 3,
            max_age_hours: 48,
            in_use: HoldOrDiscard::Discard,
            shared: HoldOrDiscard::Discard,
            confirm: Confirm::Observed,
            service_registered: HoldOrDiscard::Discard,
            alert_on: BTreeSet::from([AlertOn::Unverifiable]),
            alerts_per_hour: 5,
            expect: vec![Rule {
                conditions: vec![
                    Condition {
                        on: Matched::Attribute(Attribute::Name),
                        globs: vec![Pattern::new("win*").unwrap()],
                    },
                    Condition {
                        on: Matched::ProductCode,
                        globs: vec![
                            Pattern::new("aw0evgkw8e5c1q413zgy5pjce").unwrap(),
                            Pattern::new("774f4ff8").unwrap(),
                        ],
                    },
                    Condition {
                        on: Matched::SnapshotTag("Image".into()),
                        globs: vec![Pattern::new("win-*").unwrap()],
                    },
                    Condition {
                        on: Matched::Tag("Team".into()),
                        globs: vec![Pattern::new("data-*").unwrap()],
                    },
                ],
                says: Requirement {
                    platforms: Some(Platforms::parse(["Windows", "SQL"]).unwrap()),
                    product_codes: Some(BTreeSet::from(["774F4FF8".to_owned()])),
                    disk: Some(Platforms::parse(["Linux"]).unwrap()),
                },
                place: "p:22".into(),
            }],
            exempt: vec![Rule {
                conditions: vec![Condition {
                    on: Matched::Attribute(Attribute::InvokedBy),
                    globs: vec![Pattern::new("drs.*").unwrap()],
                }],
                says: "recovery".into(),
                place: "p:30".into(),
            }],
        };
        assert_eq!(policy, Ok(read));
    }

    #[test]
    fn every_fault_is_told_at_once_with_its_place_and_what_is_accepted() {
        let faults = faults(
            "version = 2\n\
             [defaults]\n\
             expect = [\"Linux\", \"RHEL\"]\n\
             [discard]\n\
             action = \"delete\"\n\
             max_per_hour = -1\n\
             max_per_day = 3\n\
             from = [\"declared\", 7]\n\
             [evidence]\n\
             tags = \"yes\"\n\
             [alerts]\n\
             on = []\n",
        );
        let expected = [
            "policy.toml:1:11: `2` is not accepted. Accepted: version = 1",
            &format!(
                "policy.toml:3:20: `\"RHEL\"` is not accepted (did you mean \"RedHat\"?). Accepted: {ACCEPTED_PLATFORMS}"
            ),
            "policy.toml:5:10: `\"delete\"` is not accepted. Accepted: \"deregister\", \"disable\", \"none\"",
            "policy.toml:6:16: `-1` is not accepted. Accepted: whole numbers from 0 to 4294967295",
            "policy.toml:7:1: unknown key `max_per_day` (did you mean `max_per_hour`?). Accepted: action, from, confirm, max_per_hour, max_age_hours, in_use, shared, service_registered",
            "policy.toml:8:21: `7` is not accepted. Accepted: \"declared\", \"lineage\", \"disk\"",
            "policy.toml:10:8: `\"yes\"` is not accepted. Accepted: true, false",
            "policy.toml:11:2: unknown key `alerts` (did you mean `alert`?). Accepted: version, defaults, evidence, discard, alert, expect, exempt",
        ];
        assert_eq!(faults, expected.join("\n"));
    }

    #[test]
    fn a_file_that_is_no_toml_is_refused_with_the_place() {
        assert!(faults("version = 1\naction = \n").starts_with("policy.toml:2:"));
    }

    #[test]
    fn regression_a_key_of_a_megabyte_is_refused_by_the_size_of_the_file() {
        let key = "k".repeat(1 << 20);
        let text = format!("version = 1\n{key} = 1\n");
        assert_eq!(
            faults(&text),
            "policy.toml: the policy has 1048593 bytes. Accepted: at most 262144"
        );
        // The longest key that is read is refused, and is cut in the error.
        let key = "k".repeat(LARGEST_POLICY - 20);
        let faults = faults(&format!("version = 1\n{key} = 1\n"));
        assert!(
            faults.starts_with("policy.toml:2:1: unknown key `kkkk"),
            "{faults}"
        );
        assert!(faults.len() < 300, "{faults}");
    }

    #[test]
    fn regression_a_key_with_line_breaks_stays_on_one_line_of_an_error() {
        let text = "version = 1\n\"a\\nerror: b\" = 1\n[discard]\n\"c\\r\\n\\u001b[2Jd\" = 1\n";
        let faults = faults(text);
        assert_eq!(faults.lines().count(), 2, "{faults}");
        assert!(faults.contains("unknown key `a\\nerror: b`"), "{faults}");
        assert!(
            faults.contains("unknown key `c\\r\\n\\u{1b}[2Jd`"),
            "{faults}"
        );
    }

    #[test]
    fn regression_a_rule_that_can_not_match_is_refused() {
        let refused = |key: &str, glob: &str| {
            let text = format!("version = 1\n[[exempt]]\n{key} = {glob:?}\nreason = \"r\"\n");
            match Policy::parse("p", &text) {
                Ok(_) => String::new(),
                Err(error) => brief(&error.to_string())
                    .split("is not accepted: ")
                    .nth(1)
                    .and_then(|rest| rest.strip_suffix(". Accepted: (globs)"))
                    .unwrap()
                    .to_owned(),
            }
        };
        let long = "a".repeat(129);
        let cases: [(&str, &str, &[&str], &[&str]); 4] = [
            (
                "registered_by",
                "the caller is named by an ARN (arn:aws:sts::*:assumed-role/ROLE/*), as CloudTrail's userIdentity has it",
                &[
                    "packer-*",
                    "role/packer",
                    "user/builder",
                    "rn:*",
                    "[b-z]rn:*",
                    "builder",
                ],
                &[
                    "*",
                    "*:user/x",
                    "arn:*",
                    "?rn:aws:*",
                    "[a-c]rn:*",
                    "arn:aws-cn:iam::*:root",
                    "AROAEXAMPLE*",
                    "123456789012",
                    "AWSService",
                    "drs.amazonaws.com",
                    "*.amazonaws.com",
                ],
            ),
            (
                "invoked_by",
                "a service is named by its host name, such as drs.amazonaws.com",
                &[
                    "EC2 Image Builder",
                    "drs",
                    "drs_amazonaws.com",
                    "DRS.amazonaws.com",
                    "signin.amazonaws.com",
                ],
                &[
                    "*",
                    "drs.*",
                    "*.amazonaws.com",
                    "AWS Internal*",
                    "arn:aws:sts::*",
                    "AWSService",
                    "backup*",
                    "d?s.*",
                    "[a-d]*",
                ],
            ),
            (
                "account",
                "an account has twelve digits",
                &[
                    "12345678901",
                    "1234567890123",
                    "?????????????",
                    "123456*7890123",
                    "1234*56789012345",
                ],
                &[
                    "123456789012",
                    "????????????",
                    "123*",
                    "*",
                    "12345678901[0-9]",
                    "123456789012*",
                ],
            ),
            (
                "name",
                "an AMI's name has 3 to 128 letters, digits, spaces and ( ) [ ] . / - ' @ _",
                &[
                    "win:*", "a+b", "größe*", "a,b", "ab", &long, "[:;]*", "?", "100%*",
                ],
                &[
                    "win2022-*",
                    "*",
                    "a b(c)[[]d]./-'@_*",
                    "ab*",
                    "???",
                    "[!a]*",
                    "[a:]*",
                ],
            ),
        ];
        for (key, why, wrong, right) in cases {
            for glob in wrong {
                assert_eq!(refused(key, glob), why, "{key} = {glob}");
            }
            for glob in right {
                assert_eq!(refused(key, glob), "", "{key} = {glob}");
            }
        }
    }

    #[test]
    fn a_policy_without_a_version_is_refused() {
        assert_eq!(
            faults("[alert]\non = [\"mismatch\"]\n"),
            "policy.toml:1:1: `version` is missing. Accepted: version = 1"
        );
    }

    #[test]
    fn values_of_the_wrong_type_are_refused() {
        assert!(faults("version = 1\ndiscard = 3\n").contains("a table with the keys action"));
        assert!(faults("version = 1\n[alert]\non = \"mismatch\"\n").contains("lists of"));
        assert!(faults("version = 1\n[defaults]\nexpect = []\n").contains("`[]` is not accepted"));
        assert!(faults("version = \"1\"").contains("version = 1"));
    }

    /// Policies with mistakes that people make, and what is reported for each.
    #[test]
    fn broken_policies_and_what_is_said_of_each() {
        #[derive(serde::Deserialize)]
        struct Corpus {
            policy: Vec<Broken>,
        }
        #[derive(serde::Deserialize)]
        struct Broken {
            name: String,
            text: String,
            faults: Vec<String>,
        }
        let corpus: Corpus = toml::from_str(include_str!("../tests/corpus/policies.toml")).unwrap();
        for broken in corpus.policy {
            let expected = broken.faults.join("\n");
            assert_eq!(brief(&faults(&broken.text)), expected, "{}", broken.name);
        }
    }

    /// It is made again with GUARD_GOLDEN=write.
    #[test]
    fn the_schema_that_is_shipped_is_the_one_that_the_code_has() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = path.join("policy/policy.schema.json");
        let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
        if std::env::var("GUARD_GOLDEN").as_deref() == Ok("write") {
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), text);
    }
}
