//! TOML → [`Policy`]. Walks over the file's values and collects every fault, each with its place.

use std::collections::BTreeSet;
use std::ops::Range;

use glob::Pattern;
use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::values::{Attribute, Condition, Matched, Policy, Requirement, Rule, Word};
use crate::billing::{ACCEPTED_PLATFORMS, Billing, Platforms, platform_meant_by};
use crate::escape::{escaped_key, shortened_line};

type Value<'a> = Spanned<DeValue<'a>>;

/// Reads a policy.
///
/// # Errors
/// Its faults in the order of the file. Of more than 200 faults, the last line gives the number of the others.
pub(super) fn policy(file: &str, text: &str) -> Result<Policy, Vec<String>> {
    let (root, syntax_errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader {
        file,
        line_starts: line_starts(text),
        text,
        faults: Vec::new(),
    };
    for error in &syntax_errors {
        let place = error.span().unwrap_or_default();
        let stands = shortened_line(reader.line(reader.position(place.start).0).trim());
        let message = error.message().lines().next().unwrap_or("a syntax error");
        reader.fault(place, &format!("`{stands}` is not valid TOML: {message}"));
    }
    let broken = std::mem::take(&mut reader.faults);
    let broken_lines: BTreeSet<usize> = broken
        .iter()
        .map(|fault| reader.position(fault.start).0)
        .collect();
    let policy = reader.policy(&root);
    // A fault in a value that the parser made up for a broken one does not count. After a broken table header, it is
    // unknown which table the keys belong to. No other faults are then reported.
    let of_header = |fault: &Fault| {
        let line = reader.line(reader.position(fault.start).0).trim_start();
        line.starts_with('[')
            && ["table", "key"]
                .iter()
                .any(|word| fault.what.contains(word))
    };
    if broken.iter().any(of_header) {
        reader.faults.clear();
    }
    let positions = std::mem::take(&mut reader.faults).into_iter();
    let mut faults: Vec<Fault> = positions
        .filter(|fault| !broken_lines.contains(&reader.position(fault.start).0))
        .chain(broken)
        .collect();
    if faults.is_empty() {
        return Ok(policy);
    }
    faults.sort();
    let shown = faults.iter().take(SHOWN);
    let mut told: Vec<String> = shown
        .map(|fault| format!("{}: {}", reader.place(fault.start), fault.what))
        .collect();
    if let Some(more) = faults.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        told.push(format!("{file}: and {more} more faults"));
    }
    Err(told)
}

/// Largest number of faults to report. A file with more of them is not a policy at all.
const SHOWN: usize = 200;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fault {
    /// Byte offset in the file.
    start: usize,
    what: String,
}

/// The key of the format's version, which is 1.
pub(super) const VERSION: &str = "version";

/// A table of the file, besides the rules.
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) keys: &'static [Key],
}

/// A key of a section.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// Sets the policy's value.
    read: fn(&mut Reader<'_>, &Value<'_>, &mut Policy),
    /// JSON Schema of the accepted values. The policy is the default one.
    pub(super) schema: fn(&Policy) -> Json,
}

/// A key that sets this field of the policy. The field's type decides what is accepted.
macro_rules! key {
    ($name:literal, $field:ident, $about:literal) => {
        Key {
            name: $name,
            about: $about,
            read: |reader, value, policy| policy.$field.read(reader, value),
            schema: |default| default.$field.schema(),
        }
    };
}

/// All keys of the file but those of rules.
pub(super) const SECTIONS: [Section; 4] = [
    Section {
        name: "defaults",
        about: "What counts if nothing else says it.",
        keys: &[key!(
            "expect",
            default_expect,
            "What an AMI is expected to be billed as if no other source says so. A default alone never discards an AMI."
        )],
    },
    Section {
        name: "evidence",
        about: "Which sources say what an AMI is expected to be billed as.",
        keys: &[
            key!(
                "tags",
                ask_tags,
                "Whether the tag ami-billing-guard:expect counts, on an AMI and on its root snapshot."
            ),
            key!(
                "lineage",
                lineage,
                "When the guard looks where the root snapshot came from."
            ),
            key!("disk", disk, "When the guard reads the root snapshot."),
            key!(
                "disk_max_blocks",
                disk_max_blocks,
                "The largest number of blocks of 512 KiB to read of one disk."
            ),
        ],
    },
    Section {
        name: "discard",
        about: "Which AMIs may be discarded, and how.",
        keys: &[
            key!("action", action, "What a discard does."),
            key!(
                "from",
                discard_from,
                "The kinds of source of which one suffices for a discard."
            ),
            key!(
                "confirm",
                confirm,
                "What a declared discard needs besides the declaration."
            ),
            key!(
                "max_per_hour",
                max_per_hour,
                "The largest number of discards in one hour (UTC). 0 stops all discards."
            ),
            key!(
                "max_age_hours",
                max_age_hours,
                "The age at which an AMI is too old to be discarded."
            ),
            key!(
                "in_use",
                in_use,
                "What to do if an instance, a launch template or something else refers to the AMI."
            ),
            key!(
                "shared",
                shared,
                "What to do if the AMI is shared with another account, an organisation or everyone."
            ),
            key!(
                "service_registered",
                service_registered,
                "What to do if an AWS service registered the AMI."
            ),
        ],
    },
    Section {
        name: "alert",
        about: "Which alerts are sent.",
        keys: &[
            key!("on", alert_on, "The verdicts that cause an alert."),
            key!(
                "max_per_hour",
                alerts_per_hour,
                "The largest number of alerts in one hour (UTC), apart from those about a discard."
            ),
        ],
    },
];

/// A field of the policy that a key sets. It reads itself, and describes what it accepts.
trait Setting {
    fn read(&mut self, reader: &mut Reader<'_>, value: &Value<'_>);
    /// JSON Schema of the accepted values. This value is the default.
    fn schema(&self) -> Json;
}

impl Setting for bool {
    fn read(&mut self, reader: &mut Reader<'_>, value: &Value<'_>) {
        reader.boolean(value, self);
    }

    fn schema(&self) -> Json {
        json!({ "type": "boolean", "default": self })
    }
}

impl Setting for u32 {
    fn read(&mut self, reader: &mut Reader<'_>, value: &Value<'_>) {
        reader.count(value, self);
    }

    fn schema(&self) -> Json {
        json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX, "default": self })
    }
}

impl Setting for Option<Platforms> {
    fn read(&mut self, reader: &mut Reader<'_>, value: &Value<'_>) {
        if let Some(platforms) = reader.platforms(value) {
            *self = Some(platforms);
        }
    }

    fn schema(&self) -> Json {
        Accepts::Platforms.schema()
    }
}

impl<W: Word> Setting for W {
    fn read(&mut self, reader: &mut Reader<'_>, value: &Value<'_>) {
        reader.word(value, self);
    }

    fn schema(&self) -> Json {
        json!({ "enum": words_of::<W>(), "default": self.word(), "description": meanings::<W>() })
    }
}

impl<W: Word + Ord> Setting for BTreeSet<W> {
    fn read(&mut self, reader: &mut Reader<'_>, value: &Value<'_>) {
        reader.words(value, self);
    }

    fn schema(&self) -> Json {
        let default: Vec<&str> = self.iter().map(Word::word).collect();
        json!({
            "type": "array",
            "items": { "enum": words_of::<W>() },
            "default": default,
            "description": meanings::<W>(),
        })
    }
}

fn words_of<W: Word>() -> Vec<&'static str> {
    W::WORDS.iter().map(|(word, _)| *word).collect()
}

/// The meaning of each word, on a line of its own.
fn meanings<W: Word>() -> String {
    let meanings = W::WORDS.iter().zip(W::MEANINGS);
    let meanings = meanings.map(|((word, _), meaning)| format!("\n{word}: {}", meaning.trim()));
    meanings.collect()
}

impl Accepts {
    /// JSON Schema of the accepted values. The definitions are in the schema of the policy.
    pub(super) fn schema(self) -> Json {
        match self {
            Accepts::Platforms => json!({ "$ref": "#/$defs/platforms" }),
            Accepts::ProductCodes => json!({ "$ref": "#/$defs/product_codes" }),
            Accepts::Text => json!({ "type": "string", "pattern": "\\S" }),
        }
    }
}

/// Walks over the file's values and collects faults.
struct Reader<'t> {
    file: &'t str,
    text: &'t str,
    line_starts: Vec<usize>,
    faults: Vec<Fault>,
}

fn line_starts(text: &str) -> Vec<usize> {
    let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
    std::iter::once(0)
        .chain(breaks.map(|(at, _)| at + 1))
        .collect()
}

impl Reader<'_> {
    fn policy(&mut self, root: &Spanned<DeTable<'_>>) -> Policy {
        let mut policy = Policy::default();
        let mut versioned = false;
        for (key, value) in root.get_ref() {
            let name = key.get_ref().as_ref();
            if name == VERSION {
                versioned = true;
                self.version(value);
            } else if name == EXPECT.name {
                policy.expect = self.rules(key, value, &EXPECT, Self::expected, contradiction);
            } else if name == EXEMPT.name {
                policy.exempt = self.rules(key, value, &EXEMPT, Self::reason, |_, _| None);
            } else if let Some(section) = SECTIONS.iter().find(|section| section.name == name) {
                self.section(value, section, &mut policy);
            } else {
                let sections = SECTIONS.iter().map(|section| section.name);
                let accepted = [VERSION].into_iter().chain(sections);
                let accepted: Vec<&str> = accepted.chain([EXPECT.name, EXEMPT.name]).collect();
                self.unknown_key(key.span(), name, &accepted);
            }
        }
        if !versioned {
            self.fault(0..0, "`version` is missing. Accepted: version = 1");
        }
        policy
    }

    fn fault(&mut self, place: Range<usize>, what: &str) {
        self.faults.push(Fault {
            start: place.start,
            what: what.to_owned(),
        });
    }

    /// Line and column of a byte, both counted from 1. Columns are counted in characters.
    fn position(&self, byte: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|start| *start <= byte);
        let start = line
            .checked_sub(1)
            .and_then(|index| self.line_starts.get(index));
        let before = self.text.get(start.copied().unwrap_or(0)..byte);
        (line, before.unwrap_or_default().chars().count() + 1)
    }

    fn place(&self, byte: usize) -> String {
        let (line, column) = self.position(byte);
        format!("{}:{line}:{column}", self.file)
    }

    /// Text of a line, counted from 1.
    fn line(&self, number: usize) -> &str {
        let start = self.line_starts.get(number.saturating_sub(1)).copied();
        let rest = start.and_then(|start| self.text.get(start..));
        rest.and_then(|rest| rest.lines().next())
            .unwrap_or_default()
    }

    fn unknown_key(&mut self, place: Range<usize>, key: &str, accepted: &[&str]) {
        let meant = did_you_mean(nearest(key, accepted.iter().copied()), "`");
        let accepted = accepted.join(", ");
        let key = escaped_key(key);
        self.fault(
            place,
            &format!("unknown key `{key}`{meant}. Accepted: {accepted}"),
        );
    }

    fn unaccepted(&mut self, value: &Value<'_>, meant: Option<&str>, accepted: &str) {
        self.refused(value, meant, "", accepted);
    }

    /// Reports a value that is not accepted. `why` may be empty.
    fn refused(&mut self, value: &Value<'_>, meant: Option<&str>, why: &str, accepted: &str) {
        let stands = shortened_line(self.text.get(value.span()).unwrap_or_default());
        let meant = did_you_mean(meant, "\"");
        let colon = if why.is_empty() { "" } else { ": " };
        self.fault(
            value.span(),
            &format!("`{stands}` is not accepted{meant}{colon}{why}. Accepted: {accepted}"),
        );
    }

    fn version(&mut self, value: &Value<'_>) {
        let number = value.get_ref().as_integer();
        if number.map(|number| (number.as_str(), number.radix())) != Some(("1", 10)) {
            self.unaccepted(value, None, "version = 1");
        }
    }

    /// Reads the keys of a section.
    fn section(&mut self, value: &Value<'_>, section: &Section, policy: &mut Policy) {
        let accepted: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
        let Some(table) = value.get_ref().as_table() else {
            let keys = accepted.join(", ");
            return self.unaccepted(value, None, &format!("a table with the keys {keys}"));
        };
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            match section.keys.iter().find(|known| known.name == name) {
                Some(known) => (known.read)(self, value, policy),
                None => self.unknown_key(key.span(), name, &accepted),
            }
        }
    }

    fn boolean(&mut self, value: &Value<'_>, target: &mut bool) {
        match value.get_ref().as_bool() {
            Some(given) => *target = given,
            None => self.unaccepted(value, None, "true, false"),
        }
    }

    fn count(&mut self, value: &Value<'_>, target: &mut u32) {
        let number = value.get_ref().as_integer();
        match number.and_then(|number| u32::from_str_radix(number.as_str(), number.radix()).ok()) {
            Some(given) => *target = given,
            None => {
                let accepted = format!("whole numbers from 0 to {}", u32::MAX);
                self.unaccepted(value, None, &accepted);
            }
        }
    }

    fn word<W: Word>(&mut self, value: &Value<'_>, target: &mut W) {
        match self.one_word(value) {
            Some(given) => *target = given,
            None => self.unaccepted_word::<W>(value),
        }
    }

    fn words<W: Word + Ord>(&mut self, value: &Value<'_>, target: &mut BTreeSet<W>) {
        let Some(list) = value.get_ref().as_array() else {
            return self.unaccepted(value, None, &format!("lists of {}", accepted_words::<W>()));
        };
        target.clear();
        for value in list.iter() {
            match self.one_word(value) {
                Some(given) => {
                    target.insert(given);
                }
                None => self.unaccepted_word::<W>(value),
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

    fn unaccepted_word<W: Word>(&mut self, value: &Value<'_>) {
        let words = W::WORDS.iter().map(|(word, _)| *word);
        let meant = value
            .get_ref()
            .as_str()
            .and_then(|given| nearest(given, words));
        self.unaccepted(value, meant, &accepted_words::<W>());
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
                None => {
                    self.unaccepted(value, text.and_then(platform_meant_by), ACCEPTED_PLATFORMS)
                }
            }
        }
        Platforms::parse(texts).ok()
    }

    /// Reads one of the keys that say what an `[[expect]]` rule expects.
    fn expected(&mut self, key: &str, value: &Value<'_>, says: &mut Requirement) {
        match key {
            "platform" => says.platforms = self.platforms(value),
            "disk" => says.disk = self.platforms(value),
            _ => says.product_codes = self.product_codes(value).map(BTreeSet::from_iter),
        }
    }

    /// Reads the reason of an `[[exempt]]` rule.
    fn reason(&mut self, _: &str, value: &Value<'_>, says: &mut String) {
        match value.get_ref().as_str() {
            Some(text) if !text.trim().is_empty() => text.clone_into(says),
            _ => self.unaccepted(value, None, REASONS),
        }
    }

    /// Reads a list of product codes, or a single one.
    fn product_codes(&mut self, value: &Value<'_>) -> Option<Vec<String>> {
        let one = std::slice::from_ref(value);
        let list = value.get_ref().as_array();
        let mut codes = Some(Vec::new());
        for value in list.map_or(one, |list| list) {
            match value.get_ref().as_str() {
                Some(code) if is_product_code(code) => {
                    codes
                        .iter_mut()
                        .for_each(|codes| codes.push(code.to_owned()));
                }
                Some(code) if code.starts_with("bp-") => {
                    let stands_for = Billing::of_products([code])
                        .0
                        .map(|billing| format!(" (platform = \"{}\")", Platforms::from(billing)));
                    let stands_for = stands_for.unwrap_or_default();
                    let why = format!("{BILLING_PRODUCT}{stands_for}");
                    self.refused(value, None, &why, MARKETPLACE_CODES);
                    codes = None;
                }
                _ => {
                    self.unaccepted(value, None, PRODUCT_CODES);
                    codes = None;
                }
            }
        }
        codes
    }

    /// Reads `[[expect]]` or `[[exempt]]` rules. They have match keys, and keys that say what follows from a match.
    fn rules<T: Default>(
        &mut self,
        key: &Spanned<impl AsRef<str>>,
        value: &Value<'_>,
        kind: &RuleKind,
        mut read: impl FnMut(&mut Self, &str, &Value<'_>, &mut T),
        contradiction: impl Fn(&[Condition], &T) -> Option<&'static str>,
    ) -> Vec<Rule<T>> {
        let name = key.get_ref().as_ref();
        let list = value.get_ref().as_array();
        let tables = list.filter(|list| list.iter().all(|rule| rule.get_ref().is_table()));
        let Some(tables) = tables else {
            let what = format!("`{name}` is not a list of rules. Write each rule under [[{name}]]");
            self.fault(key.span(), &what);
            return Vec::new();
        };
        let rules = tables.iter().filter_map(|rule| {
            let table = rule.get_ref().as_table()?;
            let before = self.faults.len();
            let mut conditions = Vec::new();
            let mut says = T::default();
            for (key, value) in table {
                match key.get_ref().as_ref() {
                    word if kind.says(word) => read(self, word, value, &mut says),
                    "tag" => self.tags(value, Matched::Tag, &mut conditions),
                    "snapshot_tag" => self.tags(value, Matched::SnapshotTag, &mut conditions),
                    "product_code" | "product_codes" => {
                        conditions.extend(self.has_product_code(value));
                    }
                    word => self.attribute(key.span(), word, value, kind, &mut conditions),
                }
            }
            let has = |keys: &[&str]| table.keys().any(|key| keys.contains(&key.get_ref().as_ref()));
            // A misspelt key has been reported already. A match key such as `region` is not a misspelt `reason`.
            let slipped = |key: &str| {
                match_keys().all(|other| other != key)
                    && nearest(key, kind.needs.iter().copied()).is_some()
            };
            if !has(kind.needs) && !table.keys().any(|key| slipped(key.get_ref())) {
                let needs = kind.needs.join("` or `");
                let what = format!("[[{name}]] without `{needs}`. Accepted: {}", kind.accepts);
                self.fault(rule.span(), &what);
            } else if has(&["product_code"]) && has(&["product_codes"]) && name == EXEMPT.name {
                let what = "[[exempt]] with `product_code` and `product_codes`, which mean the same here. Write one \
                            list";
                self.fault(rule.span(), what);
            } else if has(&["disk"]) && !has(&["platform"]) && kind.says("disk") {
                let what = format!(
                    "[[{name}]] with `disk`, but without the `platform` that the image is rightly billed as"
                );
                self.fault(rule.span(), &what);
            }
            if conditions.is_empty() && self.faults.len() == before {
                let keys = match_keys().collect::<Vec<_>>().join(", ");
                let what = format!(
                    "[[{name}]] without a match key would match every image. Accepted: {keys}"
                );
                self.fault(rule.span(), &what);
            }
            if let Some(why) = contradiction(&conditions, &says) {
                self.fault(rule.span(), &format!("no image can satisfy this [[{name}]]: {why}"));
            }
            let (line, _) = self.position(rule.span().start);
            Some(Rule {
                conditions,
                says,
                place: format!("{}:{line}", self.file),
            })
        });
        rules.collect()
    }

    fn attribute(
        &mut self,
        place: Range<usize>,
        word: &str,
        value: &Value<'_>,
        kind: &RuleKind,
        conditions: &mut Vec<Condition>,
    ) {
        match Attribute::WORDS.iter().find(|(known, _)| *known == word) {
            Some((_, attribute)) => {
                conditions.extend(self.condition(Matched::Attribute(*attribute), value));
            }
            None => {
                let says = kind.says.iter().map(|key| key.name);
                let accepted: Vec<&str> = match_keys().chain(says).collect();
                self.unknown_key(place, word, &accepted);
            }
        }
    }

    fn tags(
        &mut self,
        value: &Value<'_>,
        matched: impl Fn(String) -> Matched,
        conditions: &mut Vec<Condition>,
    ) {
        match value.get_ref().as_table() {
            Some(tags) if !tags.is_empty() => {
                for (key, value) in tags {
                    if key.get_ref().is_empty() {
                        self.fault(key.span(), "a tag's key cannot be empty");
                    }
                    let key = matched(key.get_ref().as_ref().to_owned());
                    conditions.extend(self.condition(key, value));
                }
            }
            _ => self.unaccepted(
                value,
                None,
                "tables of tag keys and globs: { Team = \"data-*\" }",
            ),
        }
    }

    /// Reads the product codes of which an image must have one.
    fn has_product_code(&mut self, value: &Value<'_>) -> Option<Condition> {
        let codes = self.product_codes(value)?;
        if codes.is_empty() {
            let why = "an empty list matches no image";
            self.refused(value, None, why, PRODUCT_CODES);
            return None;
        }
        // Letter case does not matter.
        let globs = codes
            .iter()
            .filter_map(|code| Pattern::new(&code.to_ascii_lowercase()).ok());
        Some(Condition {
            on: Matched::ProductCode,
            globs: globs.collect(),
        })
    }

    fn no_glob(&mut self, value: &Value<'_>, meant: Option<&str>, why: &str) -> Option<Condition> {
        self.refused(value, meant, why, GLOBS);
        None
    }

    fn condition(&mut self, on: Matched, value: &Value<'_>) -> Option<Condition> {
        let Some(text) = value.get_ref().as_str().filter(|text| !text.is_empty()) else {
            self.unaccepted(value, None, GLOBS);
            return None;
        };
        match Pattern::new(text) {
            Ok(glob) => match never_matches(&on, text, &glob) {
                None => Some(Condition {
                    on,
                    globs: vec![glob],
                }),
                Some(why) => self.no_glob(value, None, &why),
            },
            Err(error) => {
                // Suggestions for people who know other globs, or who mean the bracket itself.
                let meant = [text.replace("**", "*"), text.replace('[', "[[]")];
                let meant = meant.iter().find(|meant| Pattern::new(meant).is_ok());
                let why = format!("{} at character {}", error.msg, error.pos + 1);
                self.no_glob(value, meant.map(String::as_str), &why)
            }
        }
    }
}

/// Signs that a glob takes literally or refuses, and what to write instead.
pub(super) const STRANGE: [(&str, &str); 4] = [
    ("**", "a single * already stands for any text"),
    ("[^", "to exclude characters, write [!ab]"),
    (
        "\\",
        "a backslash stands for itself. To match a *, write [*]",
    ),
    (
        "{",
        "alternatives in braces are not supported. Write a rule for each",
    ),
];

/// Why a glob does not mean what its writer meant. An exemption that never matches would exempt nothing.
fn never_matches(on: &Matched, text: &str, glob: &Pattern) -> Option<String> {
    if let Some((_, why)) = STRANGE.iter().find(|(sign, _)| text.contains(sign)) {
        return Some((*why).to_owned());
    }
    if text.trim() != text {
        return Some("it begins or ends with a space".to_owned());
    }
    let reversed = glob_ranges(text).find(|(from, to)| from > to);
    if let Some((from, to)) = reversed {
        return Some(format!("no character is from {from} to {to}"));
    }
    let possible = |values: &[&str]| values.iter().any(|value| glob.matches(value));
    let of =
        |characters: fn(char) -> bool| text.chars().all(|c| characters(c) || "*?[]!-".contains(c));
    let parts = parts(text);
    match on {
        Matched::Attribute(Attribute::Architecture) if !possible(&ARCHITECTURES) => {
            Some(format!("architectures are {}", ARCHITECTURES.join(", ")))
        }
        Matched::Attribute(Attribute::Account)
            if !of(|c| c.is_ascii_digit())
                || !fits(&parts, 12..=12, |c| c.is_ascii_digit()) =>
        {
            Some("an account has twelve digits".to_owned())
        }
        Matched::Attribute(Attribute::Name) if !fits(&parts, 3..=128, is_of_name) => Some(
            "an AMI's name has 3 to 128 letters, digits, spaces and ( ) [ ] . / - ' @ _".to_owned(),
        ),
        Matched::Attribute(Attribute::RegisteredBy) if !may_be_caller(&parts, text) => Some(
            "the caller is named by an ARN (arn:aws:sts::*:assumed-role/ROLE/*), as CloudTrail's userIdentity has it"
                .to_owned(),
        ),
        Matched::Attribute(Attribute::InvokedBy) if !may_be_service(&parts, glob) => Some(
            "a service is named by its host name, such as drs.amazonaws.com".to_owned(),
        ),
        Matched::Attribute(Attribute::Region)
            if !of(|c| c.is_ascii_lowercase() || c.is_ascii_digit()) =>
        {
            Some("a Region has lower-case letters, digits and hyphens".to_owned())
        }
        _ => None,
    }
}

/// A part of a glob.
enum Part {
    /// `*`: any text.
    Any,
    /// One character: the ASCII characters that it may be, or a single literal character.
    One(Vec<char>),
}

/// The parts of a valid glob.
fn parts(text: &str) -> Vec<Part> {
    let ascii = || (' '..='~').collect::<Vec<char>>();
    let mut parts = Vec::new();
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        let part = match character {
            '*' => Part::Any,
            '?' => Part::One(ascii()),
            '[' => {
                let left = rest.as_str();
                // A closing bracket in the first place is one of the characters.
                let negated = left.starts_with('!');
                let from = usize::from(negated);
                let first = left.chars().nth(from).map_or(0, char::len_utf8);
                let end = left.get(from + first..).and_then(|left| left.find(']'));
                let inside = end.and_then(|end| left.get(..from + first + end));
                rest = left
                    .get(inside.map_or(0, str::len) + 1..)
                    .unwrap_or_default()
                    .chars();
                // The glob itself decides what it matches.
                let set = Pattern::new(&format!("[{}]", inside.unwrap_or_default()));
                let matches = |c: &char| set.as_ref().is_ok_and(|set| set.matches(&c.to_string()));
                Part::One(ascii().into_iter().filter(matches).collect())
            }
            other => Part::One(vec![other]),
        };
        parts.push(part);
    }
    parts
}

/// Whether a glob can match a text of such characters, with a length in this range.
fn fits(parts: &[Part], length: std::ops::RangeInclusive<usize>, is: fn(char) -> bool) -> bool {
    let mut least = 0;
    let mut any = false;
    for part in parts {
        match part {
            Part::Any => any = true,
            Part::One(characters) => {
                least += 1;
                if !characters.iter().any(|c| is(*c)) {
                    return false;
                }
            }
        }
    }
    least <= *length.end() && (any || least >= *length.start())
}

/// Whether a glob can match a text whose first `length` characters fit. `is` says which character may be at a place.
fn begins(parts: &[Part], length: usize, is: impl Fn(usize, char) -> bool) -> bool {
    for at in 0..length {
        match parts.get(at) {
            Some(Part::Any) => return true,
            Some(Part::One(characters)) if characters.iter().any(|c| is(at, *c)) => {}
            Some(Part::One(_)) | None => return false,
        }
    }
    true
}

fn begins_with(parts: &[Part], text: &str) -> bool {
    begins(parts, text.len(), |at, c| text.chars().nth(at) == Some(c))
}

/// Whether a character may be in the `Name` of an image (EC2 API reference, "RegisterImage").
fn is_of_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || " ()[]./-'@_".contains(character)
}

/// Whether a glob can match the name of a caller. That is an ARN, or else a principal's id or a service.
fn may_be_caller(parts: &[Part], text: &str) -> bool {
    let id = |_, c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
    begins_with(parts, "arn:") || begins(parts, 4, id) || text.contains(".amazonaws.")
}

/// Whether a glob can match the name of a service: a host name, `AWS Internal`, `AWSService`, or the ARN of its role.
/// The console is a person's tool, and never a service.
fn may_be_service(parts: &[Part], glob: &Pattern) -> bool {
    glob.as_str() != crate::event::CONSOLE
        && (begins_with(parts, "AWS") || begins_with(parts, "arn:") || may_be_host(parts))
}

/// Whether a glob can match the host name of a service, which has a dot.
fn may_be_host(parts: &[Part]) -> bool {
    let is = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '-';
    let dot = |part: &Part| match part {
        Part::Any => true,
        Part::One(characters) => characters.contains(&'.'),
    };
    fits(parts, 3..=253, is) && parts.iter().any(dot)
}

/// Values of an image's `Architecture` (EC2 API reference, "Image").
const ARCHITECTURES: [&str; 5] = ["i386", "x86_64", "arm64", "x86_64_mac", "arm64_mac"];

/// The ranges within the brackets of a glob, each with its first and last character.
fn glob_ranges(text: &str) -> impl Iterator<Item = (char, char)> {
    let brackets = text
        .split('[')
        .skip(1)
        .filter_map(|rest| rest.split(']').next());
    brackets.flat_map(|inside| {
        let characters: Vec<char> = inside.chars().collect();
        let ranges = characters.windows(3).filter_map(|three| match three {
            [from, '-', to] => Some((*from, *to)),
            _ => None,
        });
        ranges.collect::<Vec<_>>()
    })
}

/// A kind of rule, and what it says about the images that it matches.
pub(super) struct RuleKind {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// The keys that say it.
    pub(super) says: &'static [SaysKey],
    /// The keys of which at least one is required.
    pub(super) needs: &'static [&'static str],
    /// What the required keys accept.
    accepts: &'static str,
}

impl RuleKind {
    /// Whether a key says something about the images. Other keys say which images the rule matches.
    pub(super) fn says(&self, key: &str) -> bool {
        self.says.iter().any(|says| says.name == key)
    }
}

/// A key that says something about the images that a rule matches.
pub(super) struct SaysKey {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) accepts: Accepts,
}

/// What a key of a rule accepts.
#[derive(Clone, Copy)]
pub(super) enum Accepts {
    /// A platform, or a list of at least one.
    Platforms,
    /// A product code, or a list, which may be empty.
    ProductCodes,
    /// A text with more than spaces.
    Text,
}

pub(super) const EXPECT: RuleKind = RuleKind {
    name: "expect",
    about: "What the AMIs that a rule matches are expected to be billed as. The first rule that matches counts.",
    says: &[
        SaysKey {
            name: "platform",
            about: "What the AMIs are expected to be billed as. Of a list, any is right.",
            accepts: Accepts::Platforms,
        },
        SaysKey {
            name: "product_codes",
            about: "The product codes that the AMIs are expected to have: exactly these. [] means none at all.",
            accepts: Accepts::ProductCodes,
        },
        SaysKey {
            name: "disk",
            about: "What the disk may hold although the platform is another one.",
            accepts: Accepts::Platforms,
        },
    ],
    needs: &["platform", "product_codes"],
    accepts: ACCEPTED_PLATFORMS,
};

pub(super) const EXEMPT: RuleKind = RuleKind {
    name: "exempt",
    about: "The AMIs to leave alone.",
    says: &[SaysKey {
        name: "reason",
        about: "Why the AMIs are exempt.",
        accepts: Accepts::Text,
    }],
    needs: &["reason"],
    accepts: REASONS,
};

/// Why no image that an `[[expect]]` rule matches can satisfy the rule. `None` if one can.
fn contradiction(conditions: &[Condition], says: &Requirement) -> Option<&'static str> {
    let codes = says.product_codes.as_ref()?;
    let by_code = |condition: &&Condition| condition.on == Matched::ProductCode;
    let matched = conditions.iter().find(by_code);
    let has_one = |condition: &Condition| {
        let mut codes = codes.iter();
        codes.any(|code| condition.matches(&code.to_ascii_lowercase()))
    };
    if matched.is_some_and(|condition| !has_one(condition)) {
        return Some("it matches AMIs by a product code that `product_codes` does not have");
    }
    let platforms = says.platforms.as_ref();
    if codes.is_empty() && platforms.is_some_and(Platforms::need_product_code) {
        return Some("its `platform` needs a product code, and `product_codes` is empty");
    }
    None
}

/// Whether a text can be a product code of the AWS Marketplace. Recorded codes have 8 to 25 letters and digits.
pub(crate) fn is_product_code(text: &str) -> bool {
    (4..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

pub(crate) const PRODUCT_CODES: &str = "lists of product codes, each of 4 to 64 letters and digits, as DescribeImages shows them \
     in ProductCodes: [\"aw0evgkw8e5c1q413zgy5pjce\"]";

const MARKETPLACE_CODES: &str = "product codes as DescribeImages shows them in ProductCodes";

const BILLING_PRODUCT: &str =
    "it is a billing product, which no image shows. Name its platform instead";

const REASONS: &str = "sentences that say why the images are exempt";

pub(super) const GLOBS: &str = "globs: * for any text (also slashes), ? for one character, [ab] or [a-z] for one of \
                                these, [!ab] for any other than these, [[] for a bracket";

/// Every key by which a rule can match.
pub(super) fn match_keys() -> impl Iterator<Item = &'static str> + Clone {
    Attribute::WORDS
        .iter()
        .map(|(word, _)| *word)
        .chain(["tag", "snapshot_tag", "product_code"])
}

fn accepted_words<W: Word>() -> String {
    let words: Vec<String> = W::WORDS
        .iter()
        .map(|(word, _)| format!("\"{word}\""))
        .collect();
    words.join(", ")
}

/// The candidate of which `given` is probably a misspelling.
fn nearest<'a>(given: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // No misspelt word is this long, and a comparison takes time in proportion to the length.
    if given.len() > 100 {
        return None;
    }
    let given = given.to_ascii_lowercase();
    candidates
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&given, &candidate.to_ascii_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, candidate)| *distance <= 1.max(candidate.len() / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn did_you_mean(meant: Option<&str>, quote: &str) -> String {
    meant.map_or_else(String::new, |meant| {
        format!(" (did you mean {quote}{}{quote}?)", shortened_line(meant))
    })
}
