//! The policy file: what is asked, what may be discarded, what is told.
//!
//! A policy is read whole or refused whole, with every fault that it has: nothing of it is guessed.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::billing::{ACCEPTED_PLATFORMS, Platforms};

/// The policy, parsed. Its default is the built-in policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `defaults.expect`: what an image should bill of which nobody says anything.
    pub default_expect: Option<Platforms>,
    /// `evidence.tags`.
    pub ask_tags: bool,
    /// `evidence.lineage`.
    pub lineage: Asked,
    /// `evidence.disk`.
    pub disk: Asked,
    /// `discard.action`.
    pub action: DiscardAction,
    /// `discard.from`: whose word suffices for a discard.
    pub discard_from: BTreeSet<DiscardFrom>,
    /// `discard.max_per_hour`.
    pub max_per_hour: u32,
    /// `discard.max_age_hours`: the age at which an image is too old to be discarded.
    pub max_age_hours: u32,
    /// `discard.in_use`.
    pub in_use: HoldOrDiscard,
    /// `discard.service_registered`.
    pub service_registered: HoldOrDiscard,
    /// `alert.on`: the verdicts that are told.
    pub alert_on: BTreeSet<AlertOn>,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            default_expect: None,
            ask_tags: true,
            lineage: Asked::Always,
            disk: Asked::WhenNeeded,
            action: DiscardAction::Deregister,
            discard_from: BTreeSet::from([DiscardFrom::Declared]),
            max_per_hour: 10,
            max_age_hours: 24,
            in_use: HoldOrDiscard::Hold,
            service_registered: HoldOrDiscard::Hold,
            alert_on: BTreeSet::from([AlertOn::Mismatch, AlertOn::Conflict]),
        }
    }
}

/// An enum whose variants are written as words in a policy file.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl Word for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, $name::$variant),)*];
        }
    };
}

trait Word: Copy + 'static {
    const WORDS: &'static [(&'static str, Self)];
}

words! {
    /// When a source of evidence is asked.
    Asked {
        /// Not at all.
        Never = "never",
        /// When nothing stronger spoke, or a discard would follow.
        WhenNeeded = "when-needed",
        /// Each time.
        Always = "always",
    }
}
words! {
    /// What a discard does.
    DiscardAction {
        /// `DeregisterImage`.
        Deregister = "deregister",
        /// `DisableImage`.
        Disable = "disable",
        /// Nothing: the alert alone.
        None = "none",
    }
}
words! {
    /// Whose word suffices for a discard.
    DiscardFrom {
        /// A tag or a rule.
        Declared = "declared",
        /// The lineage.
        Lineage = "lineage",
        /// The disk.
        Disk = "disk",
    }
}
words! {
    /// Whether something holds a discard.
    HoldOrDiscard {
        /// It does.
        Hold = "hold",
        /// It does not.
        Discard = "discard",
    }
}
words! {
    /// A verdict that people are told of.
    AlertOn {
        /// `mismatch`.
        Mismatch = "mismatch",
        /// `conflict`.
        Conflict = "conflict",
        /// `unverifiable`.
        Unverifiable = "unverifiable",
    }
}

/// Everything that is wrong with a policy file, one fault a line: file, line, column, what stands
/// there and what is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    faults: Vec<String>,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.faults.join("\n"))
    }
}

impl std::error::Error for PolicyError {}

impl Policy {
    /// Reads a policy. `file` is its name for error messages.
    ///
    /// # Errors
    /// Every fault of the file.
    pub fn parse(file: &str, text: &str) -> Result<Policy, PolicyError> {
        let mut reader = Reader {
            file,
            text,
            faults: Vec::new(),
        };
        let (root, syntax_errors) = DeTable::parse_recoverable(text);
        if !syntax_errors.is_empty() {
            for error in syntax_errors {
                let message = error.message().lines().next().unwrap_or("not TOML");
                reader.fault(error.span().unwrap_or_default(), message);
            }
            return Err(reader.into());
        }
        let policy = reader.policy(&root);
        if reader.faults.is_empty() {
            Ok(policy)
        } else {
            Err(reader.into())
        }
    }
}

impl From<Reader<'_>> for PolicyError {
    fn from(mut reader: Reader<'_>) -> Self {
        reader.faults.sort();
        let shown = reader.faults.into_iter().map(|(_, fault)| fault);
        PolicyError {
            faults: shown.collect(),
        }
    }
}

type Value<'a> = Spanned<DeValue<'a>>;

/// Walks over the file's values and gathers faults.
struct Reader<'t> {
    file: &'t str,
    text: &'t str,
    /// With the place in the file, to sort by.
    faults: Vec<(usize, String)>,
}

impl Reader<'_> {
    fn policy(&mut self, root: &Spanned<DeTable<'_>>) -> Policy {
        let mut policy = Policy::default();
        let mut versioned = false;
        let sections = ["version", "defaults", "evidence", "discard", "alert"];
        for (key, value) in root.get_ref() {
            match key.get_ref().as_ref() {
                "version" => {
                    versioned = true;
                    self.version(value);
                }
                "defaults" => self.keys(value, &["expect"], |reader, _, value| {
                    if let Some(platforms) = reader.platforms(value) {
                        policy.default_expect = Some(platforms);
                    }
                }),
                "evidence" => {
                    self.keys(
                        value,
                        &["tags", "lineage", "disk"],
                        |reader, key, value| match key {
                            "tags" => reader.boolean(value, &mut policy.ask_tags),
                            "lineage" => reader.word(value, &mut policy.lineage),
                            _ => reader.word(value, &mut policy.disk),
                        },
                    );
                }
                "discard" => {
                    let keys = [
                        "action",
                        "from",
                        "max_per_hour",
                        "max_age_hours",
                        "in_use",
                        "service_registered",
                    ];
                    self.keys(value, &keys, |reader, key, value| match key {
                        "action" => reader.word(value, &mut policy.action),
                        "from" => reader.words(value, &mut policy.discard_from),
                        "max_per_hour" => reader.count(value, &mut policy.max_per_hour),
                        "max_age_hours" => reader.count(value, &mut policy.max_age_hours),
                        "in_use" => reader.word(value, &mut policy.in_use),
                        _ => reader.word(value, &mut policy.service_registered),
                    });
                }
                "alert" => self.keys(value, &["on"], |reader, _, value| {
                    reader.words(value, &mut policy.alert_on);
                }),
                unknown => self.unknown_key(key.span(), unknown, &sections),
            }
        }
        if !versioned {
            self.fault(0..0, "`version` is missing; accepted is version = 1");
        }
        policy
    }

    fn fault(&mut self, place: Range<usize>, what: &str) {
        let before = self.text.get(..place.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        let fault = format!("{}:{line}:{column}: {what}", self.file);
        self.faults.push((place.start, fault));
    }

    fn unknown_key(&mut self, place: Range<usize>, key: &str, accepted: &[&str]) {
        let accepted = accepted.join(", ");
        self.fault(
            place,
            &format!("unknown key `{key}`; accepted are {accepted}"),
        );
    }

    fn unaccepted(&mut self, value: &Value<'_>, accepted: &str) {
        let stands = self
            .text
            .get(value.span())
            .map_or_else(String::new, |text| text.chars().take(60).collect());
        self.fault(
            value.span(),
            &format!("`{stands}` is not accepted; accepted are {accepted}"),
        );
    }

    fn version(&mut self, value: &Value<'_>) {
        if value.get_ref().as_integer().map(|number| number.as_str()) != Some("1") {
            self.unaccepted(value, "version = 1");
        }
    }

    /// Hands each known key of a table to `read`.
    fn keys(
        &mut self,
        value: &Value<'_>,
        accepted: &[&str],
        mut read: impl FnMut(&mut Self, &str, &Value<'_>),
    ) {
        let Some(table) = value.get_ref().as_table() else {
            let keys = accepted.join(", ");
            return self.unaccepted(value, &format!("a table with the keys {keys}"));
        };
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if accepted.contains(&name) {
                read(self, name, value);
            } else {
                self.unknown_key(key.span(), name, accepted);
            }
        }
    }

    fn boolean(&mut self, value: &Value<'_>, target: &mut bool) {
        match value.get_ref().as_bool() {
            Some(given) => *target = given,
            None => self.unaccepted(value, "true, false"),
        }
    }

    fn count(&mut self, value: &Value<'_>, target: &mut u32) {
        let number = value.get_ref().as_integer();
        match number.and_then(|number| u32::from_str_radix(number.as_str(), number.radix()).ok()) {
            Some(given) => *target = given,
            None => self.unaccepted(value, "whole numbers from 0 to 4294967295"),
        }
    }

    fn word<W: Word>(&mut self, value: &Value<'_>, target: &mut W) {
        match self.one_word(value) {
            Some(given) => *target = given,
            None => self.unaccepted(value, &accepted_words::<W>()),
        }
    }

    fn words<W: Word + Ord>(&mut self, value: &Value<'_>, target: &mut BTreeSet<W>) {
        let Some(list) = value.get_ref().as_array() else {
            return self.unaccepted(value, &format!("lists of {}", accepted_words::<W>()));
        };
        target.clear();
        for value in list.iter() {
            match self.one_word(value) {
                Some(given) => {
                    target.insert(given);
                }
                None => self.unaccepted(value, &accepted_words::<W>()),
            }
        }
    }

    fn one_word<W: Word>(&self, value: &Value<'_>) -> Option<W> {
        let given = value.get_ref().as_str()?;
        W::WORDS
            .iter()
            .find(|(word, _)| *word == given)
            .map(|(_, meaning)| *meaning)
    }

    fn platforms(&mut self, value: &Value<'_>) -> Option<Platforms> {
        let one = std::slice::from_ref(value);
        let values: Vec<&Value<'_>> = match value.get_ref().as_array() {
            Some(list) if !list.is_empty() => list.iter().collect(),
            _ => one.iter().collect(),
        };
        let mut texts = Vec::new();
        for value in values {
            let text = value.get_ref().as_str();
            match text.filter(|text| Platforms::parse([*text]).is_ok()) {
                Some(text) => texts.push(text),
                None => self.unaccepted(value, ACCEPTED_PLATFORMS),
            }
        }
        Platforms::parse(texts).ok()
    }
}

fn accepted_words<W: Word>() -> String {
    let words: Vec<String> = W::WORDS
        .iter()
        .map(|(word, _)| format!("\"{word}\""))
        .collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

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
            [discard]
            action = "disable"
            from = ["lineage", "disk"]
            max_per_hour = 3
            max_age_hours = 48
            in_use = "discard"
            service_registered = "discard"
            [alert]
            on = ["unverifiable"]
            "#,
        );
        let read = Policy {
            default_expect: Some(Platforms::parse(["Linux", "RedHat"]).unwrap()),
            ask_tags: false,
            lineage: Asked::Never,
            disk: Asked::Always,
            action: DiscardAction::Disable,
            discard_from: BTreeSet::from([DiscardFrom::Lineage, DiscardFrom::Disk]),
            max_per_hour: 3,
            max_age_hours: 48,
            in_use: HoldOrDiscard::Discard,
            service_registered: HoldOrDiscard::Discard,
            alert_on: BTreeSet::from([AlertOn::Unverifiable]),
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
            "policy.toml:1:11: `2` is not accepted; accepted are version = 1",
            &format!(
                "policy.toml:3:20: `\"RHEL\"` is not accepted; accepted are {ACCEPTED_PLATFORMS}"
            ),
            "policy.toml:5:10: `\"delete\"` is not accepted; accepted are \"deregister\", \"disable\", \"none\"",
            "policy.toml:6:16: `-1` is not accepted; accepted are whole numbers from 0 to 4294967295",
            "policy.toml:7:1: unknown key `max_per_day`; accepted are action, from, max_per_hour, max_age_hours, in_use, service_registered",
            "policy.toml:8:21: `7` is not accepted; accepted are \"declared\", \"lineage\", \"disk\"",
            "policy.toml:10:8: `\"yes\"` is not accepted; accepted are true, false",
            "policy.toml:11:2: unknown key `alerts`; accepted are version, defaults, evidence, discard, alert",
        ];
        assert_eq!(faults, expected.join("\n"));
    }

    #[test]
    fn a_file_that_is_no_toml_is_refused_with_the_place() {
        assert!(faults("version = 1\naction = \n").starts_with("policy.toml:2:"));
    }

    #[test]
    fn a_policy_without_a_version_is_refused() {
        assert_eq!(
            faults("[alert]\non = [\"mismatch\"]\n"),
            "policy.toml:1:1: `version` is missing; accepted is version = 1"
        );
    }

    #[test]
    fn values_of_the_wrong_type_are_refused() {
        assert!(faults("version = 1\ndiscard = 3\n").contains("a table with the keys action"));
        assert!(faults("version = 1\n[alert]\non = \"mismatch\"\n").contains("lists of"));
        assert!(faults("version = 1\n[defaults]\nexpect = []\n").contains("`[]` is not accepted"));
        assert!(faults("version = \"1\"").contains("version = 1"));
    }

    #[test]
    fn rules_are_refused_rather_than_left_unread() {
        assert!(faults("version = 1\n[[exempt]]\nname = \"*\"\n").contains("unknown key `exempt`"));
    }
}
