//! The verdict: whether an image is billed as expected. [`judge`] is pure, and covers every case.

use serde::{Deserialize, Serialize};

use crate::billing::{
    ACCEPTED_PLATFORMS, BilledAs, Billing, By, Difference, Parsed, parse_platform_details,
    parse_usage_operation,
};
use crate::ec2::{Image, Observation};
use crate::escape::quoted;
use crate::expectation::{EXPECT_TAG, Evidence, Expectation, Says, product_codes};

/// Result of comparing an observation with an expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The image is billed as expected.
    Verified,
    /// The image is not billed as expected.
    Mismatch(Mismatch),
    /// The evidence contradicts itself, or EC2's two billing fields do.
    Conflict,
    /// No source says what to expect, or this version does not know EC2's value.
    Unverifiable,
    /// A policy rule exempts the image.
    Exempt,
    /// The image no longer exists.
    Gone,
    /// The registration itself failed.
    Failed,
    /// The event is not a successful registration in this account and Region.
    Ignored,
}

/// How a billing differs from the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mismatch {
    /// An available image without platform details.
    Empty,
    /// The expected operating system, but something expected that is paid for is not billed.
    Missing,
    /// Another operating system.
    Wrong,
    /// The expected operating system, with something in addition that is paid for.
    Extra,
}

impl Verdict {
    /// Name of the verdict in records, tags and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Verified => "verified",
            Verdict::Mismatch(_) => "mismatch",
            Verdict::Conflict => "conflict",
            Verdict::Unverifiable => "unverifiable",
            Verdict::Exempt => "exempt",
            Verdict::Gone => "gone",
            Verdict::Failed => "failed",
            Verdict::Ignored => "ignored",
        }
    }

    /// Whether the image lacks something that it is expected to be billed as. A discard is then due, unless an
    /// interlock holds it.
    pub fn calls_for_discard(&self) -> bool {
        use Mismatch::{Empty, Missing, Wrong};
        matches!(self, Verdict::Mismatch(Empty | Missing | Wrong))
    }

    /// Verdict and kind in one word: `mismatch/wrong`.
    pub fn label(&self) -> String {
        match self.kind() {
            Some(kind) => format!("{}/{}", self.name(), kind.name()),
            None => self.name().to_owned(),
        }
    }

    /// The kind of a mismatch.
    pub fn kind(&self) -> Option<Mismatch> {
        match self {
            Verdict::Mismatch(kind) => Some(*kind),
            _ => None,
        }
    }
}

impl Mismatch {
    /// Name of the kind in records, tags and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Mismatch::Empty => "empty",
            Mismatch::Missing => "missing",
            Mismatch::Wrong => "wrong",
            Mismatch::Extra => "extra",
        }
    }
}

/// A verdict, and the sentence that explains it to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// The reason, as a sentence.
    pub reason: String,
}

/// Compares what the image is billed as with what is expected. The first rule that applies decides, in this order:
///
/// - the registration failed
/// - the image is gone
/// - the image is exempt
/// - platform details and usage operation contradict each other, are empty, or are not recognised
/// - the evidence contradicts itself
/// - nothing is expected
/// - the comparison
///
/// An unknown value is never a mismatch.
pub fn judge(observation: &Observation, expectation: &Expectation) -> Judgement {
    let (verdict, reason) = match observation {
        Observation::Failed { why } => (Verdict::Failed, why.clone()),
        Observation::Gone { why, .. } => (Verdict::Gone, why.clone()),
        Observation::Available(image) => match &expectation.exemption {
            Some(reason) => (Verdict::Exempt, reason.clone()),
            None => {
                let (verdict, reason) = judge_billing(image, expectation);
                match expectation.mistyped() {
                    Some(tag) => (verdict, format!("{reason}; {}", mistyped(tag))),
                    None => (verdict, reason),
                }
            }
        },
    };
    Judgement { verdict, reason }
}

/// What is wrong with a tag that does not name a platform.
fn mistyped(tag: &Evidence) -> String {
    let (source, says) = (tag.source.name(), &tag.says);
    format!("{source} says {says}. Accepted: {ACCEPTED_PLATFORMS}")
}

fn judge_billing(image: &Image, expectation: &Expectation) -> (Verdict, String) {
    let details = image.platform_details.as_deref();
    let operation = image.usage_operation.as_deref();
    let (actual, by) = match image.billed_as() {
        BilledAs::Known { billing, by } => (billing, by),
        BilledAs::Empty => {
            return (
                Verdict::Mismatch(Mismatch::Empty),
                "the image has no platform details, because its registration was unsuccessful"
                    .into(),
            );
        }
        BilledAs::Contradiction => {
            let details = match parse_platform_details(details) {
                Parsed::Absent => "no platform details".to_owned(),
                _ => format!("platform details {}", quoted(details.unwrap_or_default())),
            };
            let means = match parse_usage_operation(operation) {
                Parsed::Known(billing) => format!(", which means `{billing}`"),
                Parsed::Absent | Parsed::Unrecognised => String::new(),
            };
            return (
                Verdict::Conflict,
                format!(
                    "EC2 contradicts itself: {details}, but usage operation {}{means}",
                    quoted(operation.unwrap_or_default())
                ),
            );
        }
        BilledAs::Unrecognised => {
            return (
                Verdict::Unverifiable,
                match (quoted(details.unwrap_or_default()), operation) {
                    (details, None | Some("")) => format!(
                        "this version does not know the platform details {details}, and there is no usage operation"
                    ),
                    (details, Some(operation)) => format!(
                        "this version knows neither the platform details {details} nor the usage operation {}",
                        quoted(operation)
                    ),
                },
            );
        }
    };

    if let Some((one, other)) = expectation.contradiction(&actual, &image.product_codes) {
        let named = |evidence: &Evidence| match one.source == other.source {
            true => format!("{} ({})", evidence.source.name(), evidence.detail),
            false => evidence.source.name().to_owned(),
        };
        return (
            Verdict::Conflict,
            format!(
                "the sources contradict each other: {} expects {}, but {} expects {}",
                named(one),
                one.says,
                named(other),
                other.says
            ),
        );
    }
    let (difference, decisive) = match expectation.difference(&actual, &image.product_codes) {
        Some(compared) => compared,
        None => {
            let nothing = match expectation.product_codes() {
                None => "no source says",
                Some(_) => "the policy names only product codes, and no source says",
            };
            let nothing = format!("{nothing} what the image should be billed as");
            let reason = match expectation.mistyped() {
                // The sentence about that tag lists what is accepted.
                Some(_) => nothing,
                None => format!(
                    "{nothing}; declare it with the tag {EXPECT_TAG}. Accepted: {ACCEPTED_PLATFORMS}"
                ),
            };
            return (Verdict::Unverifiable, reason);
        }
    };
    let (source, says) = (decisive.source.name(), &decisive.says);
    let bills = bills(image, &actual, says);
    let aside = match by {
        By::Both | By::Details => String::new(),
        By::Operation => format!(
            ". This follows from its usage operation {}, because this version does not know its platform details {}",
            quoted(operation.unwrap_or_default()),
            quoted(details.unwrap_or_default())
        ),
    };
    let verdict = match difference {
        Difference::None if let Some(why) = expectation.product_codes_in_doubt() => {
            return (
                Verdict::Unverifiable,
                format!(
                    "the image is billed as {bills}, as {source} expects{aside}; could not determine which product \
                     codes are expected: {why}"
                ),
            );
        }
        Difference::None => {
            return (
                Verdict::Verified,
                format!("the image is billed as {bills}, as {source} expects{aside}"),
            );
        }
        Difference::Extra => Mismatch::Extra,
        Difference::Missing => Mismatch::Missing,
        Difference::Wrong => Mismatch::Wrong,
    };
    let lacks = match says {
        Says::Platforms(platforms)
            if image.product_codes.is_empty() && platforms.lack_only_a_product_code(&actual) =>
        {
            match platforms.need_product_code() {
                true => Some("a product code"),
                false => Some("a billing code or a product code"),
            }
        }
        _ => None,
    };
    let reason = match lacks {
        Some(what) => {
            format!(
                "{source} expects {says}, and {what} is missing; the image is billed as {bills}{aside}"
            )
        }
        None => format!("{source} expects {says}, but the image is billed as {bills}{aside}"),
    };
    (Verdict::Mismatch(verdict), reason)
}

/// What an image is billed as, with its product codes if they matter to a statement.
fn bills(image: &Image, actual: &Billing, says: &Says) -> String {
    let codes = match image.product_codes.is_empty() && !matches!(says, Says::ProductCodes(_)) {
        true => String::new(),
        false => format!(" with {}", product_codes(&image.product_codes)),
    };
    format!("`{actual}`{codes}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::billing::Platforms;
    use crate::expectation::Source;
    use proptest::prelude::*;

    const NOTHING: &str = "";

    fn observed(details: &str, operation: &str) -> Observation {
        let field = |text: &str| (text != NOTHING).then(|| text.to_owned());
        Observation::Available(Box::new(Image {
            platform_details: field(details),
            usage_operation: field(operation),
            ..Image::default()
        }))
    }

    /// Parses evidence such as `image-tag: RedHat, RedHatHa; disk: Windows`.
    fn expecting(text: &str) -> Expectation {
        let statement = |text: &str| {
            let (source, says) = text.split_once(':').unwrap();
            let source = match source.trim() {
                "image-tag" => Source::ImageTag,
                "snapshot-tag" => Source::SnapshotTag,
                "policy" => Source::Policy,
                "lineage" => Source::Lineage,
                "disk" => Source::Disk,
                "default" => Source::Default,
                other => panic!("{other}"),
            };
            let says = match says.trim() {
                "silent" => Says::Silent,
                "not asked" => Says::NotAsked,
                "failed" => Says::Failed("throttled".into()),
                list => match Platforms::parse(list.split(',')) {
                    Ok(platforms) => Says::Platforms(platforms),
                    Err(text) => Says::NoPlatform(text.to_owned()),
                },
            };
            Evidence {
                source,
                says,
                detail: String::new(),
            }
        };
        Expectation {
            evidence: text
                .split(';')
                .filter(|text| !text.is_empty())
                .map(statement)
                .collect(),
            ..Expectation::default()
        }
    }

    /// The whole matrix: platform details, usage operation, evidence → verdict.
    #[test]
    fn the_matrix_of_verdicts() {
        use super::Mismatch as Kind;
        use Verdict::*;
        const LINUX: (&str, &str) = ("Linux/UNIX", "RunInstances");
        const WINDOWS: (&str, &str) = ("Windows", "RunInstances:0002");
        const RHEL: (&str, &str) = ("Red Hat Enterprise Linux", "RunInstances:0010");
        const RHEL_HA: (&str, &str) = (
            "Red Hat Enterprise Linux with High Availability",
            "RunInstances:1010",
        );
        const RHEL_BYOL: (&str, &str) = ("Red Hat BYOL Linux", "RunInstances:00g0");
        const WINDOWS_WEB: (&str, &str) = ("Windows with SQL Server Web", "RunInstances:0202");
        const PRO: (&str, &str) = ("Ubuntu Pro Linux", "RunInstances:0g00");
        const NEITHER: (&str, &str) = (NOTHING, NOTHING);
        let matrix = [
            // the image is billed as expected
            (WINDOWS, "image-tag: Windows", Verified),
            (LINUX, "image-tag: Linux", Verified),
            (RHEL_HA, "image-tag: RedHat, RedHatHa", Verified),
            (RHEL, "snapshot-tag: RedHat", Verified),
            (RHEL, "policy: RedHat", Verified),
            (RHEL, "lineage: RedHat", Verified),
            (RHEL, "disk: RedHat, RedHatByol, Linux", Verified),
            (RHEL, "default: RedHat", Verified),
            (WINDOWS_WEB, "image-tag: SQL", Verified),
            // empty needs no expectation, and outranks the evidence
            (NEITHER, "", Mismatch(Kind::Empty)),
            ((NOTHING, "RunInstances"), "", Mismatch(Kind::Empty)),
            (NEITHER, "image-tag: Linux", Mismatch(Kind::Empty)),
            (NEITHER, "image-tag: nonsense", Mismatch(Kind::Empty)),
            (
                NEITHER,
                "image-tag: Linux; disk: Windows",
                Mismatch(Kind::Empty),
            ),
            // something that is paid for is missing
            (RHEL, "image-tag: RedHatHa", Mismatch(Kind::Missing)),
            (RHEL_BYOL, "image-tag: RedHat", Mismatch(Kind::Missing)),
            (WINDOWS, "image-tag: SQL", Mismatch(Kind::Missing)),
            (
                WINDOWS_WEB,
                "image-tag: Windows with SQL Server Standard",
                Mismatch(Kind::Missing),
            ),
            (LINUX, "image-tag: UbuntuPro", Mismatch(Kind::Missing)),
            // another operating system
            (LINUX, "image-tag: Windows", Mismatch(Kind::Wrong)),
            (LINUX, "image-tag: RedHat", Mismatch(Kind::Wrong)),
            (LINUX, "image-tag: SUSE", Mismatch(Kind::Wrong)),
            (WINDOWS, "image-tag: Linux", Mismatch(Kind::Wrong)),
            (LINUX, "lineage: Windows", Mismatch(Kind::Wrong)),
            (LINUX, "default: Windows", Mismatch(Kind::Wrong)),
            // something in addition is paid for
            (RHEL_HA, "image-tag: RedHat", Mismatch(Kind::Extra)),
            (RHEL, "image-tag: RedHatByol", Mismatch(Kind::Extra)),
            (WINDOWS_WEB, "image-tag: Windows", Mismatch(Kind::Extra)),
            (PRO, "image-tag: Linux", Mismatch(Kind::Extra)),
            // the mildest difference of a list counts
            (RHEL_HA, "image-tag: Windows, RedHat", Mismatch(Kind::Extra)),
            (
                RHEL,
                "image-tag: Windows, RedHatHa",
                Mismatch(Kind::Missing),
            ),
            // the strongest source that names a platform decides
            (WINDOWS, "image-tag: Windows; default: Linux", Verified),
            (WINDOWS, "image-tag: silent; default: Windows", Verified),
            (WINDOWS, "image-tag: not asked; default: Windows", Verified),
            (WINDOWS, "image-tag: failed; policy: Windows", Verified),
            (
                LINUX,
                "image-tag: failed; policy: Windows",
                Mismatch(Kind::Wrong),
            ),
            (WINDOWS, "image-tag: Windows; policy: Linux", Verified),
            (WINDOWS, "policy: Windows; image-tag: silent", Verified),
            // EC2 contradicts itself
            (
                ("Windows", "RunInstances:0010"),
                "image-tag: Windows",
                Conflict,
            ),
            (("Linux/UNIX", "RunInstances:0002"), "", Conflict),
            ((NOTHING, "RunInstances:0002"), "", Conflict),
            ((NOTHING, "RunInstances:vvvv"), "", Conflict),
            // the evidence contradicts itself
            (LINUX, "image-tag: Linux; disk: Windows", Conflict),
            (WINDOWS, "image-tag: Windows; lineage: RedHat", Conflict),
            (RHEL, "policy: RedHat; disk: SUSE", Conflict),
            (RHEL, "lineage: RedHat; disk: Windows", Conflict),
            (
                LINUX,
                "image-tag: silent; policy: Linux; lineage: silent; disk: Windows",
                Conflict,
            ),
            // more or less detail, a platform in common, and a weak default are no contradiction
            (RHEL, "image-tag: RedHat; lineage: RedHatHa", Verified),
            (
                RHEL,
                "image-tag: RedHat; disk: RedHat, RedHatByol, Linux",
                Verified,
            ),
            (
                LINUX,
                "image-tag: Linux; disk: RedHat, RedHatByol, Linux",
                Verified,
            ),
            (
                WINDOWS_WEB,
                "image-tag: SQL; disk: Windows, WindowsByol",
                Verified,
            ),
            (LINUX, "image-tag: Linux; default: Windows", Verified),
            (WINDOWS, "disk: Windows; default: Linux", Verified),
            // not knowing is never a mismatch
            (LINUX, "", Unverifiable),
            (
                LINUX,
                "image-tag: silent; lineage: silent; disk: failed",
                Unverifiable,
            ),
            (LINUX, "image-tag: RHEL", Unverifiable),
            // a typing error counts as no tag
            (
                LINUX,
                "image-tag: RHEL; default: Windows",
                Mismatch(Kind::Wrong),
            ),
            (WINDOWS, "image-tag: RHEL; snapshot-tag: Windows", Verified),
            (
                LINUX,
                "image-tag: RHEL; disk: Windows",
                Mismatch(Kind::Wrong),
            ),
            (("Solaris", "RunInstances:vvvv"), "", Unverifiable),
            (
                ("Solaris", "RunInstances:vvvv"),
                "image-tag: Windows",
                Unverifiable,
            ),
            (("Solaris", NOTHING), "image-tag: Windows", Unverifiable),
            // unknown details with a known operation: the operation decides (and nothing is discarded)
            (("Solaris", "RunInstances"), "", Unverifiable),
            (
                ("Solaris", "RunInstances:0g00"),
                "image-tag: UbuntuPro",
                Verified,
            ),
            (
                ("Solaris", "RunInstances:0g00"),
                "image-tag: Linux",
                Mismatch(Kind::Extra),
            ),
            (
                ("Solaris", "RunInstances"),
                "image-tag: Windows",
                Mismatch(Kind::Wrong),
            ),
            (
                ("Solaris", "RunInstances:0010"),
                "image-tag: RedHatHa",
                Mismatch(Kind::Missing),
            ),
            (
                ("Solaris", "RunInstances"),
                "image-tag: Linux; disk: Windows",
                Conflict,
            ),
            // what is on the disk makes a product code expected
            (
                LINUX,
                "disk: Linux with a product code",
                Mismatch(Kind::Missing),
            ),
            (
                RHEL,
                "disk: Linux with a product code",
                Mismatch(Kind::Wrong),
            ),
            (RHEL, "disk: RedHat, Linux with a product code", Verified),
            // known details with an unknown operation: the details decide (and nothing is discarded)
            (
                ("Windows", "RunInstances:vvvv"),
                "image-tag: Windows",
                Verified,
            ),
            (
                ("Linux/UNIX", "RunInstances:vvvv"),
                "image-tag: Windows",
                Mismatch(Kind::Wrong),
            ),
            (
                ("Linux/UNIX", NOTHING),
                "image-tag: Windows",
                Mismatch(Kind::Wrong),
            ),
        ];
        for ((details, operation), evidence, verdict) in matrix {
            let judgement = judge(&observed(details, operation), &expecting(evidence));
            assert_eq!(
                judgement.verdict, verdict,
                "{details:?} {operation:?} with {evidence:?}: {}",
                judgement.reason
            );
            assert!(!judgement.reason.is_empty());
        }
    }

    /// Every code that can be declared, with everything that is billed and everything that a disk can hold. The disk
    /// and EC2 outvote a declaration. In all other cases, the operating systems alone decide.
    #[test]
    fn a_disk_that_accepts_what_is_billed_and_nothing_of_what_is_declared_makes_a_conflict() {
        use crate::billing::{Parsed, Platform};
        use crate::sources::disk::platforms;
        use disk::{Findings, LinuxSigns, SqlEdition, SqlServer, System, WindowsKind};
        let signs = [
            LinuxSigns::Included,
            LinuxSigns::IncludedWithHa,
            LinuxSigns::Bundle,
            LinuxSigns::Sold,
            LinuxSigns::Brought,
            LinuxSigns::Open,
        ];
        let linux = signs.into_iter().flat_map(|signs| {
            [
                System::RedHat(signs),
                System::Suse(signs),
                System::SuseForSap(signs),
                System::Ubuntu(signs),
            ]
        });
        let systems: Vec<System> = linux
            .chain([System::OtherLinux("debian".into())])
            .chain([WindowsKind::Server, WindowsKind::Client].map(System::Windows))
            .collect();
        let servers = [
            None,
            Some(SqlServer::Free),
            Some(SqlServer::Unknown),
            Some(SqlServer::Editions(vec![SqlEdition::Standard])),
        ];
        let codes: Vec<&str> = Platform::codes().collect();
        let (mut cells, mut changed) = (0, 0);
        for (declared, details) in codes
            .iter()
            .flat_map(|code| DETAILS.iter().map(move |details| (*code, *details)))
        {
            let Parsed::Known(billed) = parse_platform_details(Some(details)) else {
                continue;
            };
            for (system, sql_server) in systems
                .iter()
                .flat_map(|system| servers.iter().map(move |server| (system, server)))
            {
                let on_disk = platforms(&Findings {
                    system: system.clone(),
                    sql_server: sql_server.clone(),
                    name: String::new(),
                    place: String::new(),
                    evidence: Vec::new(),
                });
                let platforms = Platforms::parse([declared]).unwrap();
                let by_system = match platforms.share_os(&on_disk) {
                    false => Verdict::Conflict,
                    true => match platforms.difference(&billed, false) {
                        Difference::None => Verdict::Verified,
                        Difference::Extra => Verdict::Mismatch(Mismatch::Extra),
                        Difference::Missing => Verdict::Mismatch(Mismatch::Missing),
                        Difference::Wrong => Verdict::Mismatch(Mismatch::Wrong),
                    },
                };
                let accepts_billed = on_disk.difference(&billed, false) == Difference::None;
                let accepts_declared = on_disk.names().iter().any(|name| {
                    let sql = name.contains("SQL") && declared == "SQL";
                    sql || platforms.names().contains(name)
                });
                let statement = |source, says| Evidence {
                    source,
                    says: Says::Platforms(says),
                    detail: String::new(),
                };
                let expectation = Expectation {
                    evidence: vec![
                        statement(Source::ImageTag, platforms),
                        statement(Source::Disk, on_disk),
                    ],
                    ..Expectation::default()
                };
                let operation = billed.usage_operation();
                let verdict = judge(&observed(details, &operation), &expectation).verdict;
                cells += 1;
                let words =
                    format!("{declared} declared, {details} billed, {system:?} {sql_server:?}");
                if verdict != by_system {
                    changed += 1;
                    assert_eq!(verdict, Verdict::Conflict, "{words}");
                    assert!(accepts_billed && !accepts_declared, "{words}");
                    // Only a mismatch became a conflict, and no cell became a mismatch.
                    assert!(matches!(by_system, Verdict::Mismatch(_)), "{words}");
                } else if matches!(verdict, Verdict::Mismatch(_)) {
                    assert!(!accepts_billed || accepts_declared, "{words}");
                }
            }
        }
        println!("{cells} cells, {changed} of them a conflict instead of a mismatch");
        assert!(changed > 0);
    }

    /// Every spelling of details, with every operation and every declaration. If the details are unknown, the operation
    /// gives the verdict that known details would give.
    #[test]
    fn the_matrix_of_details_and_operations_by_what_is_declared() {
        use super::Mismatch::{Empty, Extra, Missing, Wrong};
        use Verdict::*;
        // Spellings of the same billing, its operation, and the verdicts of the declarations below.
        let declared = ["UbuntuPro", "RedHatHa", "RedHat", "Linux", "Windows", "SQL"];
        type Row<'a> = (&'a [&'a str], &'a str, [Verdict; 6]);
        let billings: [Row<'_>; 5] = [
            (
                &["Ubuntu Pro", "Ubuntu Pro Linux", "ubuntu pro linux "],
                "RunInstances:0g00",
                [
                    Verified,
                    Mismatch(Wrong),
                    Mismatch(Wrong),
                    Mismatch(Extra),
                    Mismatch(Wrong),
                    Mismatch(Missing),
                ],
            ),
            (
                &[
                    "Red Hat Enterprise Linux with HA",
                    "Red Hat Enterprise Linux with High Availability",
                    "RHEL with HA",
                ],
                "RunInstances:1010",
                [
                    Mismatch(Wrong),
                    Verified,
                    Mismatch(Extra),
                    Mismatch(Wrong),
                    Mismatch(Wrong),
                    Mismatch(Missing),
                ],
            ),
            (
                &["Linux/UNIX", "linux/unix", "Linux/UNIX (Amazon VPC)"],
                "RunInstances",
                [
                    Mismatch(Missing),
                    Mismatch(Wrong),
                    Mismatch(Wrong),
                    Verified,
                    Mismatch(Wrong),
                    Mismatch(Missing),
                ],
            ),
            (
                &["Windows"],
                "RunInstances:0002",
                [
                    Mismatch(Wrong),
                    Mismatch(Wrong),
                    Mismatch(Wrong),
                    Mismatch(Wrong),
                    Verified,
                    Mismatch(Missing),
                ],
            ),
            (
                &["SQL Server Web", "Linux with SQL Server Web"],
                "RunInstances:0200",
                [
                    Mismatch(Missing),
                    Mismatch(Wrong),
                    Mismatch(Wrong),
                    Mismatch(Extra),
                    Mismatch(Wrong),
                    Verified,
                ],
            ),
        ];
        let judged = |details: &str, operation: &str, declared: &str| {
            let expectation = expecting(&format!("image-tag: {declared}"));
            judge(&observed(details, operation), &expectation)
        };
        let mut cells = 0;
        for (spellings, operation, verdicts) in &billings {
            for (declared, verdict) in declared.iter().zip(verdicts) {
                let mut cell = |details: &str, operation: &str, expected: Verdict| {
                    let judgement = judged(details, operation, declared);
                    assert_eq!(
                        judgement.verdict, expected,
                        "{details:?} {operation:?} {declared}: {}",
                        judgement.reason
                    );
                    cells += 1;
                    judgement.reason
                };
                for details in *spellings {
                    for known_by_details in [operation, "RunInstances:vvvv", NOTHING] {
                        cell(details, known_by_details, *verdict);
                    }
                    for (_, other, _) in billings.iter().filter(|row| row.1 != *operation) {
                        cell(details, other, Conflict);
                    }
                }
                let reason = cell("Plan 9", operation, *verdict);
                let billing = parse_usage_operation(Some(operation));
                let Parsed::Known(billing) = billing else {
                    panic!("{operation}")
                };
                // The sentence names both.
                assert!(reason.contains(&format!("`{billing}`")), "{reason}");
                assert!(reason.contains("\"Plan 9\""), "{reason}");
                cell("Plan 9", "RunInstances:vvvv", Unverifiable);
                cell("Plan 9", NOTHING, Unverifiable);
                let empty = *operation == "RunInstances";
                cell(
                    NOTHING,
                    operation,
                    if empty { Mismatch(Empty) } else { Conflict },
                );
                cell(NOTHING, NOTHING, Mismatch(Empty));
            }
        }
        // For each of 6 declarations: 12 spellings with 3 + 4 operations, and 5 operations with 5 rows without known
        // details.
        assert_eq!(cells, 6 * (12 * 7 + 5 * 5));
    }

    #[test]
    fn product_codes_are_part_of_what_an_image_is_billed_as() {
        use Verdict::*;
        let codes = |codes: &str| -> std::collections::BTreeSet<String> {
            codes.split_whitespace().map(str::to_owned).collect()
        };
        let judged = |has: &str, evidence: &str, expected: &str| {
            let mut expectation = expecting(evidence);
            expectation.evidence.push(Evidence {
                source: Source::Policy,
                says: Says::ProductCodes(codes(expected)),
                detail: String::new(),
            });
            let image = Image {
                platform_details: Some("Linux/UNIX".into()),
                usage_operation: Some("RunInstances".into()),
                product_codes: codes(has),
                ..Image::default()
            };
            judge(&Observation::Available(Box::new(image)), &expectation)
        };
        for (has, evidence, expected, verdict) in [
            ("", "image-tag: Linux", "", Verified),
            ("code", "image-tag: Linux", "code", Verified),
            (
                "code",
                "image-tag: Linux",
                "",
                Mismatch(super::Mismatch::Extra),
            ),
            (
                "code other",
                "image-tag: Linux",
                "code",
                Mismatch(super::Mismatch::Extra),
            ),
            (
                "",
                "image-tag: Linux",
                "code",
                Mismatch(super::Mismatch::Missing),
            ),
            (
                "other",
                "image-tag: Linux",
                "code",
                Mismatch(super::Mismatch::Missing),
            ),
            // of platform and product codes, the greater difference counts
            (
                "code",
                "image-tag: Windows",
                "",
                Mismatch(super::Mismatch::Wrong),
            ),
            (
                "",
                "image-tag: UbuntuPro",
                "code",
                Mismatch(super::Mismatch::Missing),
            ),
            // a rule that names product codes only
            ("code", "", "code", Unverifiable),
            ("CODE", "image-tag: Linux", "code", Verified),
            (
                "code",
                "image-tag: silent; disk: failed",
                "code",
                Unverifiable,
            ),
            ("", "", "code", Mismatch(super::Mismatch::Missing)),
            ("code", "", "", Mismatch(super::Mismatch::Extra)),
            // having no product code says nothing about the platform
            ("", "", "", Unverifiable),
            ("code", "image-tag: nonsense", "code", Unverifiable),
            ("code", "image-tag: Linux; disk: Windows", "code", Conflict),
            // a product that is billed by a product code
            ("any", "disk: Linux with a product code", "any", Verified),
        ] {
            let judgement = judged(has, evidence, expected);
            assert_eq!(
                judgement.verdict, verdict,
                "{has:?} with {evidence:?}, {expected:?} expected: {}",
                judgement.reason
            );
        }
        let missing = judged("", "image-tag: Linux", "code").reason;
        assert_eq!(
            missing,
            "policy expects product code code, but the image is billed as `Linux/UNIX` with no product code"
        );
    }

    #[test]
    fn what_lacks_a_product_code_is_not_told_to_be_of_another_platform() {
        let observation = observed("Linux/UNIX", "RunInstances");
        let judgement = judge(&observation, &expecting("disk: Linux with a product code"));
        assert_eq!(
            judgement.verdict,
            Verdict::Mismatch(super::Mismatch::Missing)
        );
        assert_eq!(
            judgement.reason,
            "disk expects Linux with a product code, and a product code is missing; the image is billed as `Linux/UNIX`"
        );
    }

    #[test]
    fn what_precedes_any_billing() {
        let expectation = expecting("image-tag: Windows");
        let exempt = Expectation {
            exemption: Some("on purpose".into()),
            ..expectation.clone()
        };
        let gone = Observation::Gone {
            why: "deregistered".into(),
            disabled: false,
        };
        let failed = Observation::Failed {
            why: "invalid".into(),
        };
        for expectation in [&expectation, &exempt] {
            assert_eq!(judge(&gone, expectation).verdict, Verdict::Gone);
            assert_eq!(judge(&failed, expectation).verdict, Verdict::Failed);
        }
        for (details, operation) in [
            ("Linux/UNIX", "RunInstances"),
            ("Windows", "RunInstances:0002"),
            (NOTHING, NOTHING),
            ("Windows", "RunInstances:0010"),
            ("Solaris", "RunInstances:vvvv"),
        ] {
            let judgement = judge(&observed(details, operation), &exempt);
            assert_eq!(
                judgement,
                Judgement {
                    verdict: Verdict::Exempt,
                    reason: "on purpose".into()
                }
            );
        }
    }

    const DETAILS: [&str; 9] = [
        "Linux/UNIX",
        "Windows",
        "Windows BYOL",
        "Red Hat Enterprise Linux",
        "Red Hat Enterprise Linux with High Availability",
        "Windows with SQL Server Web",
        "SUSE Linux",
        "Ubuntu Pro Linux",
        NOTHING,
    ];
    const OPERATIONS: [&str; 9] = [
        "RunInstances",
        "RunInstances:0002",
        "RunInstances:0800",
        "RunInstances:0010",
        "RunInstances:1010",
        "RunInstances:0202",
        "RunInstances:000g",
        "RunInstances:0g00",
        NOTHING,
    ];

    fn any_says() -> impl Strategy<Value = Says> {
        let codes: Vec<&'static str> = crate::billing::Platform::codes().collect();
        prop_oneof![
            Just(Says::NotAsked),
            Just(Says::Silent),
            Just(Says::Failed("throttled".into())),
            Just(Says::NoPlatform("RHEL".into())),
            Just(Says::ProductCodes(["code".to_owned()].into())),
            Just(Says::Platforms(
                Platforms::parse(["Linux with a product code"]).unwrap()
            )),
            prop::collection::vec(prop::sample::select(codes), 1..4)
                .prop_map(|codes| Says::Platforms(Platforms::parse(codes).unwrap())),
        ]
    }

    fn any_expectation() -> impl Strategy<Value = Expectation> {
        let sources = Source::ALL;
        let evidence = sources.map(|source| {
            any_says().prop_map(move |says| Evidence {
                source,
                says,
                detail: String::new(),
            })
        });
        (
            evidence,
            prop::option::weighted(0.1, Just("on purpose".to_owned())),
        )
            .prop_map(|(evidence, exemption)| Expectation {
                exemption,
                evidence: evidence.into(),
                ..Expectation::default()
            })
    }

    fn any_observation() -> impl Strategy<Value = Observation> {
        prop_oneof![
            1 => "\\PC*".prop_map(|why| Observation::Gone { why, disabled: false }),
            1 => "\\PC*".prop_map(|why| Observation::Failed { why }),
            6 => (0..DETAILS.len(), 0..OPERATIONS.len())
                .prop_map(|(details, operation)| observed(DETAILS[details], OPERATIONS[operation])),
            6 => (0..DETAILS.len()).prop_map(|row| observed(DETAILS[row], OPERATIONS[row])),
            2 => "\\PC*".prop_map(|details| observed(&details, "RunInstances")),
        ]
    }

    proptest! {
        #[test]
        fn never_a_mismatch_without_an_available_image(
            observation in any_observation(), expectation in any_expectation()
        ) {
            let judgement = judge(&observation, &expectation);
            if matches!(judgement.verdict, Verdict::Mismatch(_)) {
                prop_assert!(matches!(observation, Observation::Available(_)));
                prop_assert!(expectation.exemption.is_none());
            }
            prop_assert!(judgement.verdict != Verdict::Ignored);
        }

        #[test]
        fn details_that_are_not_known_leave_the_judgement_to_the_operation(
            details in "[A-Za-z /]{1,30}", row in 0..OPERATIONS.len(), expectation in any_expectation()
        ) {
            prop_assume!(parse_platform_details(Some(&details)) == Parsed::Unrecognised);
            let judgement = judge(&observed(&details, OPERATIONS[row]), &expectation);
            if OPERATIONS[row] == NOTHING {
                prop_assert!(matches!(judgement.verdict, Verdict::Unverifiable | Verdict::Exempt));
            } else {
                let known = judge(&observed(DETAILS[row], OPERATIONS[row]), &expectation);
                prop_assert_eq!(judgement.verdict, known.verdict);
            }
        }

        #[test]
        fn verified_exactly_when_the_billing_satisfies_the_expectation(
            row in 0..DETAILS.len() - 1, expectation in any_expectation()
        ) {
            let judgement = judge(&observed(DETAILS[row], OPERATIONS[row]), &expectation);
            let Parsed::Known(actual) = parse_platform_details(Some(DETAILS[row])) else { panic!() };
            let compared = expectation.difference(&actual, &Default::default());
            let satisfied = matches!(compared, Some((Difference::None, _)));
            let contradiction = expectation.contradiction(&actual, &Default::default());
            let judged = expectation.exemption.is_none() && contradiction.is_none();
            prop_assert_eq!(judgement.verdict == Verdict::Verified, satisfied && judged);
        }

        #[test]
        fn a_mismatch_other_than_empty_has_a_source_that_says_otherwise(
            observation in any_observation(), expectation in any_expectation()
        ) {
            let judgement = judge(&observation, &expectation);
            if let Verdict::Mismatch(kind) = judgement.verdict
                && kind != Mismatch::Empty
            {
                prop_assert!(expectation.platforms().is_some() || expectation.product_codes().is_some());
            }
        }
    }
}
