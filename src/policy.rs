//! The policy file: which sources are queried, what may be discarded, and which verdicts are reported.
//!
//! A policy is accepted or refused as a whole, with all of its faults. Nothing in it is guessed.

mod read;
mod values;

pub(crate) use read::{PRODUCT_CODES, is_product_code};

use std::fmt;

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
        let policy = Policy::parse(
            "p",
            r#"
            version = 1
            [defaults]
            expect = ["Linux", "RunInstances:0010"]
            [evidence]
            tags = false
            lineage = "never"
            disk = "always"
            disk_max_blocks = 64
            [discard]
            action = "disable"
            from = ["lineage", "disk"]
            max_per_hour = 3
            max_age_hours = 48
            in_use = "discard"
            shared = "discard"
            confirm = "observed"
            service_registered = "discard"
            [alert]
            on = ["unverifiable"]
            max_per_hour = 5
            [[expect]]
            name = "win*"
            tag = { Team = "data-*" }
            snapshot_tag = { Image = "win-*" }
            product_code = ["aw0evgkw8e5c1q413zgy5pjce", "774F4FF8"]
            platform = ["Windows", "SQL"]
            product_codes = ["774F4FF8"]
            disk = "Linux"
            [[exempt]]
            invoked_by = "drs.*"
            reason = "recovery"
            "#,
        );
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
        let cases = [
            (
                "a value without quotes, and a slip elsewhere",
                "version = 1\n[[expect]]\nname = win2022-*\nplatform = \"Windows\"\n[alert]\non = [\"missmatch\"]\n",
                &[
                    "policy.toml:3:8: `name = win2022-*` is not valid TOML: string values must be quoted, expected literal string",
                    "policy.toml:6:7: `\"missmatch\"` is not accepted (did you mean \"mismatch\"?). Accepted: \"mismatch\", \"conflict\", \"unverifiable\"",
                ][..],
            ),
            (
                "a code that is another word for one",
                "version = 1\n[[expect]]\nname = \"rhel*\"\nplatform = [\"RHEL\", \"RedHatHA\", \"Solaris\"]\n",
                &[
                    "policy.toml:4:13: `\"RHEL\"` is not accepted (did you mean \"RedHat\"?). Accepted: (platforms)",
                    "policy.toml:4:33: `\"Solaris\"` is not accepted. Accepted: (platforms)",
                ][..],
            ),
            (
                "misspelt keys at every level",
                "version = 1\n[evidnce]\ntags = true\n[discard]\nmax_per_hours = 3\n[[expect]]\nnmae = \"x\"\nplattform = \"Windows\"\n",
                &[
                    "policy.toml:2:2: unknown key `evidnce` (did you mean `evidence`?). Accepted: version, defaults, evidence, discard, alert, expect, exempt",
                    "policy.toml:5:1: unknown key `max_per_hours` (did you mean `max_per_hour`?). Accepted: action, from, confirm, max_per_hour, max_age_hours, in_use, shared, service_registered",
                    "policy.toml:7:1: unknown key `nmae` (did you mean `name`?). Accepted: (match keys), platform, product_codes, disk",
                    "policy.toml:8:1: unknown key `plattform` (did you mean `platform`?). Accepted: (match keys), platform, product_codes, disk",
                ][..],
            ),
            (
                "a rule that would mean every image",
                "version = 1\n[[expect]]\nplatform = \"Linux\"\n[[exempt]]\nreason = \"why not\"\n",
                &[
                    "policy.toml:2:1: [[expect]] without a match key would match every image. Accepted: (match keys)",
                    "policy.toml:4:1: [[exempt]] without a match key would match every image. Accepted: (match keys)",
                ][..],
            ),
            (
                "a rule without what it is for",
                "version = 1\n[[expect]]\nname = \"win*\"\n[[exempt]]\nname = \"*-byol-*\"\n[[exempt]]\nname = \"xyz\"\nreason = \" \"\n",
                &[
                    "policy.toml:2:1: [[expect]] without `platform` or `product_codes`. Accepted: (platforms)",
                    "policy.toml:4:1: [[exempt]] without `reason`. Accepted: sentences that say why the images are exempt",
                    "policy.toml:8:10: `\" \"` is not accepted. Accepted: sentences that say why the images are exempt",
                ][..],
            ),
            (
                "globs that are none",
                "version = 1\n[[expect]]\nname = \"win[\"\ndescription = 7\nregistered_by = \"arn:**role\"\ntag = { Team = \"\" }\nplatform = \"Windows\"\n",
                &[
                    "policy.toml:3:8: `\"win[\"` is not accepted (did you mean \"win[[]\"?): invalid range pattern at character 4. Accepted: (globs)",
                    "policy.toml:4:15: `7` is not accepted. Accepted: (globs)",
                    "policy.toml:5:17: `\"arn:**role\"` is not accepted (did you mean \"arn:*role\"?): recursive wildcards must form a single path component at character 4. Accepted: (globs)",
                    "policy.toml:6:16: `\"\"` is not accepted. Accepted: (globs)",
                ][..],
            ),
            (
                "a table where a list of rules belongs, and tags that are no table",
                "version = 1\n[expect]\nname = \"win*\"\nplatform = \"Windows\"\n[[exempt]]\ntag = \"Team\"\nreason = \"r\"\n",
                &[
                    "policy.toml:2:2: `expect` is not a list of rules. Write each rule under [[expect]]",
                    "policy.toml:6:7: `\"Team\"` is not accepted. Accepted: tables of tag keys and globs: { Team = \"data-*\" }",
                ][..],
            ),
            (
                "globs that never match what they mean",
                "version = 1\n[[exempt]]\nname = \"rhel-{8,9}-byol\"\ndescription = \"[z-a]*\"\narchitecture = \"amd64\"\naccount = \"prod\"\nregion = \"EU-WEST-1\"\nsnapshot_description = \"[^x]\"\nregistered_by = \" a\\\\*b\"\ninvoked_by = \"/**/\"\ntag = { '' = \"x \" }\nreason = \"r\"\n",
                &[
                    "policy.toml:3:8: `\"rhel-{8,9}-byol\"` is not accepted: alternatives in braces are not supported. Write a rule for each. Accepted: (globs)",
                    "policy.toml:4:15: `\"[z-a]*\"` is not accepted: no character is from z to a. Accepted: (globs)",
                    "policy.toml:5:16: `\"amd64\"` is not accepted: architectures are i386, x86_64, arm64, x86_64_mac, arm64_mac. Accepted: (globs)",
                    "policy.toml:6:11: `\"prod\"` is not accepted: an account has twelve digits. Accepted: (globs)",
                    "policy.toml:7:10: `\"EU-WEST-1\"` is not accepted: a Region has lower-case letters, digits and hyphens. Accepted: (globs)",
                    "policy.toml:8:24: `\"[^x]\"` is not accepted: to exclude characters, write [!ab]. Accepted: (globs)",
                    "policy.toml:9:17: `\" a\\\\*b\"` is not accepted: a backslash stands for itself. To match a *, write [*]. Accepted: (globs)",
                    "policy.toml:10:14: `\"/**/\"` is not accepted: a single * already stands for any text. Accepted: (globs)",
                    "policy.toml:11:9: a tag's key cannot be empty",
                    "policy.toml:11:14: `\"x \"` is not accepted: it begins or ends with a space. Accepted: (globs)",
                ][..],
            ),
            (
                "a value over several lines, and a fault in a list",
                "version = 1\n[[exempt]]\nname = \"\"\"a[\nb\"\"\"\nreason = \"r\"\n[discard]\nfrom = [\n[\"declared\"],\n]\naction = \"none!\"\n",
                &[
                    "policy.toml:3:8: `\"\"\"a[…` is not accepted (did you mean \"a[[]…\"?): invalid range pattern at character 2. Accepted: (globs)",
                    "policy.toml:8:1: `[\"declared\"]` is not accepted. Accepted: \"declared\", \"lineage\", \"disk\"",
                    "policy.toml:10:10: `\"none!\"` is not accepted (did you mean \"none\"?). Accepted: \"deregister\", \"disable\", \"none\"",
                ][..],
            ),
            (
                "product codes that cannot be any, and where a list of none means nothing",
                "version = 1\n[[expect]]\nname = \"a*\"\nproduct_codes = [\"bp-6fa54006\", \"a b\", 7]\n[[expect]]\nproduct_code = []\nplatform = []\n[[exempt]]\nproduct_codes = []\nreason = \"r\"\n",
                &[
                    "policy.toml:4:18: `\"bp-6fa54006\"` is not accepted: it is a billing product, which no image shows. Name its platform instead (platform = \"RedHat\"). Accepted: product codes as DescribeImages shows them in ProductCodes",
                    "policy.toml:4:33: `\"a b\"` is not accepted. Accepted: (product codes)",
                    "policy.toml:4:40: `7` is not accepted. Accepted: (product codes)",
                    "policy.toml:6:16: `[]` is not accepted: an empty list matches no image. Accepted: (product codes)",
                    "policy.toml:7:12: `[]` is not accepted. Accepted: (platforms)",
                    "policy.toml:9:17: `[]` is not accepted: an empty list matches no image. Accepted: (product codes)",
                ][..],
            ),
            (
                "rules that no image can satisfy",
                "version = 1\n[[expect]]\nproduct_code = \"aaaa\"\nproduct_codes = [\"bbbb\"]\n[[expect]]\nname = \"xyz\"\nplatform = \"Linux with a product code\"\nproduct_codes = []\n[[exempt]]\nproduct_code = \"aaaa\"\nproduct_codes = [\"bbbb\"]\nreason = \"r\"\n",
                &[
                    "policy.toml:2:1: no image can satisfy this [[expect]]: it matches AMIs by a product code that `product_codes` does not have",
                    "policy.toml:5:1: no image can satisfy this [[expect]]: its `platform` needs a product code, and `product_codes` is empty",
                    "policy.toml:9:1: [[exempt]] with `product_code` and `product_codes`, which mean the same here. Write one list",
                ][..],
            ),
            (
                "tags of a snapshot that are no table, and a disk without what the image is billed as",
                "version = 1\n[[exempt]]\nsnapshot_tag = \"Team\"\nreason = \"r\"\n[[expect]]\nsnapshot_tag = {}\nplatform = \"SUSE\"\n[[expect]]\nname = \"xyz\"\ndisk = \"Linux\"\nproduct_codes = []\n",
                &[
                    "policy.toml:3:16: `\"Team\"` is not accepted. Accepted: tables of tag keys and globs: { Team = \"data-*\" }",
                    "policy.toml:6:16: `{}` is not accepted. Accepted: tables of tag keys and globs: { Team = \"data-*\" }",
                    "policy.toml:8:1: [[expect]] with `disk`, but without the `platform` that the image is rightly billed as",
                ][..],
            ),
            (
                "an exemption with a Region and without a reason",
                "version = 1\n[[exempt]]\nregion = \"eu-*\"\n",
                &[
                    "policy.toml:2:1: [[exempt]] without `reason`. Accepted: sentences that say why the images are exempt",
                ][..],
            ),
            (
                "words and numbers that are not accepted",
                "version = 1\n[evidence]\nlineage = \"allways\"\ndisk = true\n[discard]\naction = \"deregister-image\"\nfrom = [\"declared\", \"tags\"]\nmax_per_hour = \"10\"\nmax_age_hours = 1.5\n",
                &[
                    "policy.toml:3:11: `\"allways\"` is not accepted (did you mean \"always\"?). Accepted: \"never\", \"when-needed\", \"always\"",
                    "policy.toml:4:8: `true` is not accepted. Accepted: \"never\", \"when-needed\", \"always\"",
                    "policy.toml:6:10: `\"deregister-image\"` is not accepted. Accepted: \"deregister\", \"disable\", \"none\"",
                    "policy.toml:7:21: `\"tags\"` is not accepted. Accepted: \"declared\", \"lineage\", \"disk\"",
                    "policy.toml:8:16: `\"10\"` is not accepted. Accepted: whole numbers from 0 to 4294967295",
                    "policy.toml:9:17: `1.5` is not accepted. Accepted: whole numbers from 0 to 4294967295",
                ][..],
            ),
            (
                "a newer version, and the same key twice",
                "version = 2\n[discard]\naction = \"none\"\naction = \"disable\"\n",
                &[
                    "policy.toml:1:11: `2` is not accepted. Accepted: version = 1",
                    "policy.toml:4:1: `action = \"disable\"` is not valid TOML: duplicate key",
                ][..],
            ),
            (
                "a header that is not closed",
                "version = 1\n[[expect]\nname = \"win*\"\nplatform = \"Windows\"\n",
                &[
                    "policy.toml:2:10: `[[expect]` is not valid TOML: unclosed array table, expected `]`",
                ][..],
            ),
        ];
        for (what, text, expected) in cases {
            assert_eq!(brief(&faults(text)), expected.join("\n"), "{what}");
        }
    }
}
