//! What a policy says, as values.

use std::collections::BTreeSet;
use std::fmt;

use glob::Pattern;

use crate::billing::Platforms;

/// A parsed policy. Its default is the built-in policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `defaults.expect`: what an image is expected to be billed as if no other source names a platform.
    pub default_expect: Option<Platforms>,
    /// `evidence.tags`: whether to read tags.
    pub ask_tags: bool,
    /// `evidence.lineage`: when to follow the lineage.
    pub lineage: Asked,
    /// `evidence.disk`: when to read the disk.
    pub disk: Asked,
    /// `evidence.disk_max_blocks`: largest number of 512 KiB blocks to read of one disk.
    pub disk_max_blocks: u32,
    /// `discard.action`: what a discard does.
    pub action: DiscardAction,
    /// `discard.from`: which kinds of source suffice for a discard.
    pub discard_from: BTreeSet<DiscardFrom>,
    /// `discard.confirm`: whether an observed source must confirm what is declared.
    pub confirm: Confirm,
    /// `discard.max_per_hour`: largest number of discards in one hour (UTC).
    pub max_per_hour: u32,
    /// `discard.max_age_hours`: the age at which an image is too old to be discarded.
    pub max_age_hours: u32,
    /// `discard.in_use`: whether references to the image hold a discard.
    pub in_use: HoldOrDiscard,
    /// `discard.shared`: whether sharing the image with others holds a discard.
    pub shared: HoldOrDiscard,
    /// `discard.service_registered`: whether it holds a discard that an AWS service registered the image.
    pub service_registered: HoldOrDiscard,
    /// `alert.on`: the verdicts to report.
    pub alert_on: BTreeSet<AlertOn>,
    /// `alert.max_per_hour`: how many alerts that announce no discard are sent at once in one hour (UTC). The digest
    /// has the others.
    pub alerts_per_hour: u32,
    /// `[[expect]]`: what the images that a rule matches are expected to be billed as. The first rule that matches
    /// counts.
    pub expect: Vec<Rule<Requirement>>,
    /// `[[exempt]]`: the images to leave alone, each rule with the reason.
    pub exempt: Vec<Rule<String>>,
}

/// A rule: which images it matches, and what it says about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule<T> {
    /// All of these must hold. There is at least one.
    pub conditions: Vec<Condition>,
    /// What the rule says.
    pub says: T,
    /// Where the rule is, for people to find it: `policy.toml:12`.
    pub place: String,
}

/// What an `[[expect]]` rule says about the images that it matches: a platform, product codes, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirement {
    /// `platform`: any of these is right.
    pub platforms: Option<Platforms>,
    /// `product_codes`: exactly these. An empty set means none at all.
    pub product_codes: Option<BTreeSet<String>>,
    /// `disk`: what the disk may hold although the platform is another one.
    pub disk: Option<Platforms>,
}

/// Shown as `policy.toml:12 (name = "win-*")`.
impl<T> fmt::Display for Rule<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conditions: Vec<String> = self.conditions.iter().map(Condition::to_string).collect();
        write!(f, "{} ({})", self.place, conditions.join(", "))
    }
}

/// A match key of a rule, with its globs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What is matched.
    pub on: Matched,
    /// Globs, one of which must match. `*` stands for any text including slashes, `?` for one character, `[ab]` for one
    /// of these. Letter case matters, except for product codes.
    pub globs: Vec<Pattern>,
}

impl Condition {
    /// Whether one of the globs matches a text.
    pub(crate) fn matches(&self, text: &str) -> bool {
        self.globs.iter().any(|glob| glob.matches(text))
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.on {
            Matched::Attribute(attribute) => f.write_str(attribute.word())?,
            Matched::Tag(key) => write!(f, "tag {key:?}")?,
            Matched::SnapshotTag(key) => write!(f, "snapshot_tag {key:?}")?,
            Matched::ProductCode => f.write_str("product_code")?,
        }
        let globs = self.globs.iter().map(|glob| format!("{:?}", glob.as_str()));
        let globs: Vec<String> = globs.collect();
        write!(f, " = {}", globs.join(" or "))
    }
}

/// What a condition matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matched {
    /// An attribute of the image or of its registration.
    Attribute(Attribute),
    /// The value of the image's tag with this key.
    Tag(String),
    /// The value of the root snapshot's tag with this key.
    SnapshotTag(String),
    /// The image's product codes. One of them must match.
    ProductCode,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            default_expect: None,
            ask_tags: true,
            lineage: Asked::Always,
            disk: Asked::Always,
            disk_max_blocks: 256,
            action: DiscardAction::Deregister,
            discard_from: BTreeSet::from([DiscardFrom::Declared]),
            confirm: Confirm::None,
            max_per_hour: 10,
            max_age_hours: 24,
            in_use: HoldOrDiscard::Hold,
            shared: HoldOrDiscard::Hold,
            service_registered: HoldOrDiscard::Hold,
            alert_on: BTreeSet::from([AlertOn::Mismatch, AlertOn::Conflict]),
            alerts_per_hour: 20,
            expect: Vec::new(),
            exempt: Vec::new(),
        }
    }
}

/// Defines an enum whose variants are written as words in a policy file.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $(#[doc = $meaning:literal] $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $(#[doc = $meaning] $variant,)* }

        impl Word for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, $name::$variant),)*];
            const MEANINGS: &'static [&'static str] = &[$($meaning,)*];
        }
    };
}

pub(super) trait Word: Copy + PartialEq + 'static {
    const WORDS: &'static [(&'static str, Self)];
    /// The meaning of each word, as a sentence.
    const MEANINGS: &'static [&'static str];

    /// The word for this value in a policy file.
    fn word(&self) -> &'static str {
        Self::WORDS
            .iter()
            .find(|(_, value)| value == self)
            .map_or("", |(word, _)| word)
    }
}

words! {
    /// What a declared discard needs besides the declaration.
    Confirm {
        /// Nothing.
        None = "none",
        /// An observed source that accepts what is declared, and not what the image is billed as.
        Observed = "observed",
    }
}

words! {
    /// When a source of evidence is queried.
    Asked {
        /// Never.
        Never = "never",
        /// If no stronger source names a platform, or a discard would follow.
        WhenNeeded = "when-needed",
        /// Always.
        Always = "always",
    }
}
words! {
    /// What a discard does.
    DiscardAction {
        /// DeregisterImage. The snapshots stay, and the Recycle Bin can keep the image.
        Deregister = "deregister",
        /// DisableImage. The image stays, but its launch permissions are lost.
        Disable = "disable",
        /// Nothing. People are only alerted.
        None = "none",
    }
}
impl DiscardAction {
    /// The word for it in a policy file.
    pub fn name(&self) -> &'static str {
        self.word()
    }
}

words! {
    /// A kind of source that suffices for a discard.
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
        /// It holds the discard.
        Hold = "hold",
        /// It does not hold the discard.
        Discard = "discard",
    }
}
words! {
    /// A verdict that is reported to people.
    AlertOn {
        /// The image is not billed as expected.
        Mismatch = "mismatch",
        /// What is known about the image contradicts itself.
        Conflict = "conflict",
        /// No source says what to expect, or EC2's value is not recognised.
        Unverifiable = "unverifiable",
    }
}

words! {
    /// What a rule can match, besides tags and product codes.
    Attribute {
        /// The image's name.
        Name = "name",
        /// The image's description.
        Description = "description",
        /// Who registered it according to the event, usually an ARN.
        RegisteredBy = "registered_by",
        /// The AWS service that registered it on behalf of another caller (`drs.amazonaws.com`).
        InvokedBy = "invoked_by",
        /// The account in which it was registered.
        Account = "account",
        /// The Region in which it was registered.
        Region = "region",
        /// `x86_64`, `arm64`, …
        Architecture = "architecture",
        /// The description of the root device's snapshot.
        SnapshotDescription = "snapshot_description",
    }
}

impl Policy {
    /// Whether a rule that names product codes may come to match because of a tag that is set later.
    pub(crate) fn names_product_codes_by_tag(&self) -> bool {
        let by_tag = |condition: &Condition| {
            matches!(condition.on, Matched::Tag(_) | Matched::SnapshotTag(_))
        };
        self.expect
            .iter()
            .any(|rule| rule.says.product_codes.is_some() && rule.conditions.iter().any(by_tag))
    }
}
