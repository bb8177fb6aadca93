//! What an AMI is billed as: the meaning of EC2's two billing fields, platform details and usage operation.
//!
//! The canonical strings are those of the EC2 User Guide, "AMI billing information fields". The guide calls its list
//! "some of" the values. EC2's own answers and its other interfaces spell some of them differently, see
//! `OTHER_SPELLINGS`. Parsing never guesses. An unknown value is [`Parsed::Unrecognised`], and never a mismatch.

use std::fmt;

/// The operating system whose code is billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Os {
    /// Linux that AWS does not license separately. Ubuntu Pro is also Linux, with a licence.
    Linux,
    /// Red Hat Enterprise Linux.
    RedHat,
    /// SUSE Linux Enterprise Server.
    Suse,
    /// Windows Server.
    Windows,
}

/// Who supplies the licence of the operating system, ordered by what is paid to AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Licence {
    /// No licence is needed (plain Linux).
    None,
    /// The customer brings the licence.
    Byol,
    /// AWS includes the licence in the hourly price.
    Included,
}

/// A SQL Server edition that AWS bills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SqlEdition {
    /// SQL Server Web.
    Web,
    /// SQL Server Standard.
    Standard,
    /// SQL Server Enterprise.
    Enterprise,
}

/// Parsed meaning of platform details or of a usage operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Billing {
    /// The operating system.
    pub os: Os,
    /// Who supplies its licence.
    pub licence: Licence,
    /// The SQL Server edition whose licence is included, if any.
    pub sql: Option<SqlEdition>,
    /// Whether Red Hat's high availability add-on is billed.
    pub ha: bool,
}

/// Result of parsing one of EC2's billing fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The field is absent or empty.
    Absent,
    /// The meaning is known.
    Known(Billing),
    /// The field has a value that this version does not know.
    Unrecognised,
}

/// Every documented pair of platform details and usage operation.
const TABLE: [(&str, &str, Billing); 19] = {
    use Licence::{Byol, Included};
    use Os::{Linux, RedHat, Suse, Windows};
    use SqlEdition::{Enterprise, Standard, Web};
    const fn of(os: Os, licence: Licence, sql: Option<SqlEdition>, ha: bool) -> Billing {
        Billing {
            os,
            licence,
            sql,
            ha,
        }
    }
    [
        (
            "Linux/UNIX",
            "RunInstances",
            of(Linux, Licence::None, None, false),
        ),
        (
            "Red Hat BYOL Linux",
            "RunInstances:00g0",
            of(RedHat, Byol, None, false),
        ),
        (
            "Red Hat Enterprise Linux",
            "RunInstances:0010",
            of(RedHat, Included, None, false),
        ),
        (
            "Red Hat Enterprise Linux with HA",
            "RunInstances:1010",
            of(RedHat, Included, None, true),
        ),
        (
            "Red Hat Enterprise Linux with SQL Server Standard and HA",
            "RunInstances:1014",
            of(RedHat, Included, Some(Standard), true),
        ),
        (
            "Red Hat Enterprise Linux with SQL Server Enterprise and HA",
            "RunInstances:1110",
            of(RedHat, Included, Some(Enterprise), true),
        ),
        (
            "Red Hat Enterprise Linux with SQL Server Standard",
            "RunInstances:0014",
            of(RedHat, Included, Some(Standard), false),
        ),
        (
            "Red Hat Enterprise Linux with SQL Server Web",
            "RunInstances:0210",
            of(RedHat, Included, Some(Web), false),
        ),
        (
            "Red Hat Enterprise Linux with SQL Server Enterprise",
            "RunInstances:0110",
            of(RedHat, Included, Some(Enterprise), false),
        ),
        (
            "SQL Server Enterprise",
            "RunInstances:0100",
            of(Linux, Licence::None, Some(Enterprise), false),
        ),
        (
            "SQL Server Standard",
            "RunInstances:0004",
            of(Linux, Licence::None, Some(Standard), false),
        ),
        (
            "SQL Server Web",
            "RunInstances:0200",
            of(Linux, Licence::None, Some(Web), false),
        ),
        (
            "SUSE Linux",
            "RunInstances:000g",
            of(Suse, Included, None, false),
        ),
        (
            "Ubuntu Pro",
            "RunInstances:0g00",
            of(Linux, Included, None, false),
        ),
        (
            "Windows",
            "RunInstances:0002",
            of(Windows, Included, None, false),
        ),
        (
            "Windows BYOL",
            "RunInstances:0800",
            of(Windows, Byol, None, false),
        ),
        (
            "Windows with SQL Server Enterprise",
            "RunInstances:0102",
            of(Windows, Included, Some(Enterprise), false),
        ),
        (
            "Windows with SQL Server Standard",
            "RunInstances:0006",
            of(Windows, Included, Some(Standard), false),
        ),
        (
            "Windows with SQL Server Web",
            "RunInstances:0202",
            of(Windows, Included, Some(Web), false),
        ),
    ]
};

/// Other spellings of platform details, each with the canonical one. `tests/corpus/billing.toml` has recorded answers.
const OTHER_SPELLINGS: [(&str, &str); 13] = [
    // DescribeImages uses this for AWS's own images. EC2's API model lists both spellings (filter `platform-details`).
    (
        "Red Hat Enterprise Linux with High Availability",
        "Red Hat Enterprise Linux with HA",
    ),
    // By analogy with it. No recorded answer is known.
    (
        "Red Hat Enterprise Linux with SQL Server Standard and High Availability",
        "Red Hat Enterprise Linux with SQL Server Standard and HA",
    ),
    (
        "Red Hat Enterprise Linux with SQL Server Enterprise and High Availability",
        "Red Hat Enterprise Linux with SQL Server Enterprise and HA",
    ),
    // DescribeImages and DescribeInstances use this.
    ("Ubuntu Pro Linux", "Ubuntu Pro"),
    // Reserved Instances, Spot prices and Capacity Reservations use these.
    ("Linux with SQL Server Enterprise", "SQL Server Enterprise"),
    ("Linux with SQL Server Standard", "SQL Server Standard"),
    ("Linux with SQL Server Web", "SQL Server Web"),
    // Capacity Reservations use these (EC2's API model, CapacityReservationInstancePlatform).
    ("RHEL with HA", "Red Hat Enterprise Linux with HA"),
    (
        "RHEL with HA and SQL Server Standard",
        "Red Hat Enterprise Linux with SQL Server Standard and HA",
    ),
    (
        "RHEL with HA and SQL Server Enterprise",
        "Red Hat Enterprise Linux with SQL Server Enterprise and HA",
    ),
    (
        "RHEL with SQL Server Enterprise",
        "Red Hat Enterprise Linux with SQL Server Enterprise",
    ),
    (
        "RHEL with SQL Server Standard",
        "Red Hat Enterprise Linux with SQL Server Standard",
    ),
    (
        "RHEL with SQL Server Web",
        "Red Hat Enterprise Linux with SQL Server Web",
    ),
];

/// Suffix that Reserved Instances and Spot prices add to a platform in accounts that once had EC2-Classic.
const OF_A_VPC: &str = " (Amazon VPC)";

/// The known bits of each of the four characters of a usage operation, which are digits in base 32.
const OPERATION_BITS: [u32; 4] = [1, 1 | 2 | 8 | 16, 1 | 16, 2 | 4 | 16];

impl Billing {
    /// Plain Linux, for which nothing is paid beyond the instance. An image that lost its billing code is billed as
    /// this.
    pub const PLAIN_LINUX: Billing = Billing {
        os: Os::Linux,
        licence: Licence::None,
        sql: None,
        ha: false,
    };

    /// The documented platform details with this meaning, if there are any.
    pub fn platform_details(&self) -> Option<&'static str> {
        TABLE
            .iter()
            .find(|(_, _, billing)| billing == self)
            .map(|(details, _, _)| *details)
    }

    /// The usage operation with this meaning, as EC2 writes it (`RunInstances:0010`).
    pub fn usage_operation(&self) -> String {
        let mut bits = [0u8; 4];
        let [ha, add_on, red_hat, base] = &mut bits;
        *ha |= u8::from(self.ha);
        match self.sql {
            Some(SqlEdition::Enterprise) => *add_on |= 1,
            Some(SqlEdition::Web) => *add_on |= 2,
            Some(SqlEdition::Standard) => *base |= 4,
            None => {}
        }
        match (self.os, self.licence) {
            (Os::Linux, Licence::Included) => *add_on |= 16,
            (Os::Linux, _) => {}
            (Os::RedHat, Licence::Included) => *red_hat |= 1,
            (Os::RedHat, _) => *red_hat |= 16,
            (Os::Suse, _) => *base |= 16,
            (Os::Windows, Licence::Included) => *base |= 2,
            (Os::Windows, _) => *add_on |= 8,
        }
        if bits == [0; 4] {
            return "RunInstances".into();
        }
        let digits = bits
            .iter()
            .filter_map(|&bits| char::from_digit(bits.into(), 32));
        format!("RunInstances:{}", digits.collect::<String>())
    }

    /// Parses the four characters of a usage operation. Each is a set of bits in base 32.
    fn from_operation_code(code: &str) -> Option<Billing> {
        let mut digits = code.chars().map(|digit| {
            // EC2 writes lower case. `to_digit` would also accept upper case, which EC2 never writes.
            (!digit.is_ascii_uppercase())
                .then(|| digit.to_digit(32))
                .flatten()
        });
        let (ha, add_on, red_hat, base) = (
            digits.next()??,
            digits.next()??,
            digits.next()??,
            digits.next()??,
        );
        let known = OPERATION_BITS.iter().zip([ha, add_on, red_hat, base]);
        if digits.next().is_some() || known.into_iter().any(|(bits, digit)| digit & !bits != 0) {
            return None;
        }
        let systems = [
            (add_on & 8 != 0, Os::Windows, Licence::Byol),
            (add_on & 16 != 0, Os::Linux, Licence::Included),
            (red_hat & 1 != 0, Os::RedHat, Licence::Included),
            (red_hat & 16 != 0, Os::RedHat, Licence::Byol),
            (base & 2 != 0, Os::Windows, Licence::Included),
            (base & 16 != 0, Os::Suse, Licence::Included),
        ];
        let editions = [
            (add_on & 1 != 0, SqlEdition::Enterprise),
            (add_on & 2 != 0, SqlEdition::Web),
            (base & 4 != 0, SqlEdition::Standard),
        ];
        // Two operating systems or two editions at once have no known meaning.
        let mut systems = systems.iter().filter(|system| system.0);
        let (os, licence) = match (systems.next(), systems.next()) {
            (None, _) => (Os::Linux, Licence::None),
            (Some((_, os, licence)), None) => (*os, *licence),
            _ => return None,
        };
        let mut editions = editions.iter().filter(|edition| edition.0);
        let sql = match (editions.next(), editions.next()) {
            (edition, None) => edition.map(|(_, edition)| *edition),
            _ => return None,
        };
        let ha = ha == 1;
        // Only Red Hat has this add-on.
        if ha && os != Os::RedHat {
            return None;
        }
        Some(Billing {
            os,
            licence,
            sql,
            ha,
        })
    }

    /// The billing that a registration requests with these billing product codes (`bp-…`), and the codes that are
    /// unknown. The known codes count together. There is no billing if no code is known, or if the known ones have no
    /// known meaning together.
    pub fn of_products<'a>(
        codes: impl IntoIterator<Item = &'a str>,
    ) -> (Option<Billing>, Vec<&'a str>) {
        let mut bits = [0u32; 4];
        let mut unknown = Vec::new();
        for code in codes {
            match BILLING_PRODUCTS.iter().find(|(known, _)| *known == code) {
                Some((_, operation)) => {
                    for (bits, digit) in bits.iter_mut().zip(operation.chars()) {
                        *bits |= digit.to_digit(32).unwrap_or_default();
                    }
                }
                None => unknown.push(code),
            }
        }
        if bits == [0; 4] {
            return (None, unknown);
        }
        let operation: Option<String> = bits
            .iter()
            .map(|bits| char::from_digit(*bits, 32))
            .collect();
        let billing = operation.and_then(|operation| Billing::from_operation_code(&operation));
        (billing, unknown)
    }

    /// How this billing differs from `expected`. See [`Difference`].
    pub fn compared_with(&self, expected: &Billing) -> Difference {
        if self.os != expected.os {
            Difference::Wrong
        } else if self.licence < expected.licence
            || (expected.sql.is_some() && self.sql != expected.sql)
            || (expected.ha && !self.ha)
        {
            Difference::Missing
        } else if self == expected {
            Difference::None
        } else {
            Difference::Extra
        }
    }
}

/// Shown as the platform details, otherwise as the usage operation.
impl fmt::Display for Billing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.platform_details() {
            Some(details) => f.write_str(details),
            None => f.write_str(&self.usage_operation()),
        }
    }
}

/// How an actual billing differs from an expected one, the mildest difference first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// The billing is the expected one.
    None,
    /// The expected operating system, with something in addition that is paid for.
    Extra,
    /// The expected operating system, but something expected that is paid for is not billed.
    Missing,
    /// Another operating system.
    Wrong,
}

/// Meaning of platform details in any known spelling and any case. Surrounding spaces do not matter.
fn known_details(details: &str) -> Option<Billing> {
    let details = details.trim();
    let details = details
        .len()
        .checked_sub(OF_A_VPC.len())
        .and_then(|at| details.split_at_checked(at))
        .filter(|(_, end)| end.eq_ignore_ascii_case(OF_A_VPC))
        .map_or(details, |(platform, _)| platform);
    let canonical = OTHER_SPELLINGS
        .iter()
        .find(|(other, _)| other.eq_ignore_ascii_case(details))
        .map_or(details, |(_, canonical)| canonical);
    TABLE
        .iter()
        .find(|row| row.0.eq_ignore_ascii_case(canonical))
        .map(|row| row.2)
}

/// Parses `PlatformDetails` as DescribeImages gives it, or the platform of Reserved Instances, Spot prices and Capacity
/// Reservations.
pub fn parse_platform_details(details: Option<&str>) -> Parsed {
    match details {
        None | Some("") => Parsed::Absent,
        Some(details) => known_details(details).map_or(Parsed::Unrecognised, Parsed::Known),
    }
}

/// Parses `UsageOperation` as DescribeImages gives it.
pub fn parse_usage_operation(operation: Option<&str>) -> Parsed {
    match operation {
        None | Some("") => Parsed::Absent,
        Some(operation) => match operation.trim() {
            "RunInstances" => Parsed::Known(Billing::PLAIN_LINUX),
            operation => operation
                .strip_prefix("RunInstances:")
                .and_then(Billing::from_operation_code)
                .map_or(Parsed::Unrecognised, Parsed::Known),
        },
    }
}

/// The meaning of EC2's two billing fields together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BilledAs {
    /// There are no platform details, and no usage operation that says more than plain Linux.
    Empty,
    /// The two fields contradict each other. Or there are no platform details, and the usage operation is unknown or
    /// says more than plain Linux.
    Contradiction,
    /// The platform details are unknown, and the usage operation does not help.
    Unrecognised,
    /// The meaning is known.
    Known {
        /// The meaning.
        billing: Billing,
        /// Which of the two fields it comes from.
        by: By,
    },
}

/// Which of EC2's two billing fields determines what an image is billed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Both, and they agree.
    Both,
    /// The platform details. The usage operation is absent or unknown.
    Details,
    /// The usage operation. The platform details are unknown. EC2 has spelled details differently before, and the
    /// operation is the more stable of the two.
    Operation,
}

impl BilledAs {
    /// Reads both fields as DescribeImages and DescribeInstances give them.
    pub fn read(details: Option<&str>, operation: Option<&str>) -> BilledAs {
        use Parsed::{Absent, Known, Unrecognised};
        let known = |billing, by| BilledAs::Known { billing, by };
        match (
            parse_platform_details(details),
            parse_usage_operation(operation),
        ) {
            (Known(details), Known(operation)) if details == operation => known(details, By::Both),
            (Known(_), Known(_)) => BilledAs::Contradiction,
            (Known(details), Absent | Unrecognised) => known(details, By::Details),
            (Unrecognised, Known(operation)) => known(operation, By::Operation),
            (Unrecognised, Absent | Unrecognised) => BilledAs::Unrecognised,
            (Absent, Absent | Known(Billing::PLAIN_LINUX)) => BilledAs::Empty,
            (Absent, Known(_) | Unrecognised) => BilledAs::Contradiction,
        }
    }

    /// The billing, if it is known.
    pub fn billing(&self) -> Option<Billing> {
        match self {
            BilledAs::Known { billing, .. } => Some(*billing),
            _ => None,
        }
    }
}

/// Values of EC2's billing fields that this version does not know: first the platform details, then the usage
/// operation.
pub fn unrecognised<'a>(details: Option<&'a str>, operation: Option<&'a str>) -> Vec<&'a str> {
    let is_unknown = |parsed| parsed == Parsed::Unrecognised;
    let details = details.filter(|_| is_unknown(parse_platform_details(details)));
    let operation = operation.filter(|_| is_unknown(parse_usage_operation(operation)));
    details.into_iter().chain(operation).collect()
}

/// A platform that an image may rightly be billed as. People write it as an operating system code, platform details or
/// a usage operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Platform {
    /// Exactly this billing.
    Exactly(Billing),
    /// Exactly this billing, and an AWS Marketplace product code for the rest. SUSE Linux Enterprise Server for
    /// SAP is billed as plain Linux and by its product code.
    WithProductCode(Billing),
    /// Any billing with a SQL Server edition, on any operating system (the code `SQL`).
    AnySqlServer,
}

/// The operating system codes that name one billing, each with the platform details that it stands for.
const CODES: [(&str, &str); 8] = [
    ("Linux", "Linux/UNIX"),
    ("Windows", "Windows"),
    ("WindowsByol", "Windows BYOL"),
    ("RedHat", "Red Hat Enterprise Linux"),
    ("RedHatHa", "Red Hat Enterprise Linux with HA"),
    ("RedHatByol", "Red Hat BYOL Linux"),
    ("SUSE", "SUSE Linux"),
    ("UbuntuPro", "Ubuntu Pro"),
];
const SQL: &str = "SQL";
const LINUX_WITH_PRODUCT_CODE: &str = "Linux with a product code";
/// Suffix of a platform that has a product code as well.
const WITH_PRODUCT_CODE: &str = " with a product code";

/// What is accepted as a platform, for error messages.
pub const ACCEPTED_PLATFORMS: &str = "Linux, Windows, WindowsByol, RedHat, RedHatHa, RedHatByol, SUSE, UbuntuPro, SQL, \
     platform details (Windows with SQL Server Standard), a usage operation (RunInstances:0010), \
     Linux with a product code";

/// Regular expression (ECMA 262, without flags) that matches every text which [`Platform::parse`] accepts. It also
/// matches some that are not platforms, such as a combination of bits that no usage operation has.
pub(crate) fn platform_pattern() -> String {
    let any_case = |text: &str| -> String {
        let letters = text
            .chars()
            .map(|letter| match letter.is_ascii_alphabetic() {
                true => format!(
                    "[{}{}]",
                    letter.to_ascii_uppercase(),
                    letter.to_ascii_lowercase()
                ),
                false => regex_escaped(&letter.to_string()),
            });
        letters.collect()
    };
    let spellings = OTHER_SPELLINGS.iter().map(|row| row.0);
    let names = Platform::codes()
        .chain(Platform::details())
        .chain(spellings);
    let names: Vec<String> = names.map(any_case).collect();
    let digits = OPERATION_BITS.map(|bits| {
        let digits = (0..32).filter(|digit| digit & !bits == 0);
        let digits: String = digits
            .filter_map(|digit| char::from_digit(digit, 32))
            .collect();
        format!(
            "[{digits}{}]",
            digits
                .replace(|digit: char| digit.is_ascii_digit(), "")
                .to_ascii_uppercase()
        )
    });
    let operation = any_case("RunInstances");
    let (names, digits) = (names.join("|"), digits.concat());
    let (vpc, code) = (any_case(OF_A_VPC), any_case(WITH_PRODUCT_CODE));
    format!(r"^\s*(?:(?:{names})(?:{vpc})?|{operation}(?::{digits})?|{digits})(?:\s*{code})?\s*$")
}

/// A text as a regular expression (ECMA 262) that matches it alone.
pub(crate) fn regex_escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        if r"^$\.*+?()[]{}|".contains(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// Suggestion for a text that is not a platform: a code, or canonical platform details.
pub fn platform_meant_by(text: &str) -> Option<&'static str> {
    let text = text.trim().to_ascii_lowercase();
    let slip_of = nearest_platform(&text);
    match slip_of {
        Some((distance, name)) if distance <= 2 => Some(name),
        _ => platform_by_words(&text).or(slip_of.map(|(_, name)| name)),
    }
}

/// The code or platform details of which a text in lower case is probably a misspelling, and how many letters differ.
fn nearest_platform(text: &str) -> Option<(usize, &'static str)> {
    // Longer than anything of which it could be a misspelling, so not worth a comparison.
    if text.len() > 80 {
        return None;
    }
    Platform::codes()
        .chain(TABLE.iter().map(|row| row.0))
        .map(|name| {
            (
                strsim::damerau_levenshtein(text, &name.to_ascii_lowercase()),
                name,
            )
        })
        .filter(|(distance, name)| *distance <= 1.max(name.len() / 4).min(3))
        .min_by_key(|(distance, _)| *distance)
}

/// The platform that a text in lower case mentions. It may be the name of a product or an image, as in the console
/// (`Windows_Server-2022-English-Full-SQL_2022_Standard-…`, `RHEL-9.4_HVM`). It may also be a usage operation from a
/// bill (`RunInstances:0010:SV006`).
fn platform_by_words(text: &str) -> Option<&'static str> {
    if let Some((_, rest)) = text.split_once("runinstances:") {
        let billing = Billing::from_operation_code(rest.get(..4)?)?;
        return Platform::Exactly(billing).written();
    }
    let words: Vec<&str> = text
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .collect();
    let has = |names: &[&str]| {
        names.iter().any(|name| match name.split_once(' ') {
            Some((first, second)) => words.windows(2).any(|pair| pair == [first, second]),
            None => words.contains(name),
        })
    };
    let byol = has(&["byol", "byos", "cloud access", "access2"]);
    // It has no billing code, see `Platform::WithProductCode`.
    let by_product_code = has(&["product code"]) || (has(&["suse", "sles"]) && has(&["sap"]));
    if by_product_code && !byol {
        return Some(LINUX_WITH_PRODUCT_CODE);
    }
    let (os, licence) = if has(&["windows", "win"]) {
        (Os::Windows, Licence::Included)
    } else if has(&["coreos", "rhcos"]) {
        (Os::Linux, Licence::None)
    } else if has(&[
        "red hat", "redhat", "rhel", "rhel7", "rhel8", "rhel9", "rhel10",
    ]) {
        (Os::RedHat, Licence::Included)
    } else if has(&["suse", "sles", "sle"]) && !byol {
        (Os::Suse, Licence::Included)
    } else if has(&["ubuntu"]) && has(&["pro"]) {
        (Os::Linux, Licence::Included)
    } else if has(&["sql", "mssql"]) || has(LINUX_NAMES) {
        (Os::Linux, Licence::None)
    } else {
        return None;
    };
    let licence = match (os, byol) {
        (Os::Windows | Os::RedHat, true) => Licence::Byol,
        _ => licence,
    };
    let editions = [
        ("enterprise", SqlEdition::Enterprise),
        ("standard", SqlEdition::Standard),
        ("web", SqlEdition::Web),
    ];
    // Express and Developer are not billed.
    let sql = match has(&["sql", "mssql"]) && !has(&["express", "developer"]) {
        true => {
            // The edition comes after the product. `Red Hat Enterprise Linux with SQL Server Standard` is not of the
            // Enterprise edition.
            let behind = words
                .iter()
                .skip_while(|word| !["sql", "mssql"].contains(word));
            let edition = behind
                .filter_map(|word| editions.iter().find(|(name, _)| name == word))
                .next();
            match edition {
                Some((_, edition)) => Some(*edition),
                None => return Some(SQL),
            }
        }
        false => None,
    };
    let ha = os == Os::RedHat && has(&["ha", "high availability"]);
    Platform::Exactly(Billing {
        os,
        licence,
        sql,
        ha,
    })
    .written()
}

/// Names of distributions that are billed as plain Linux.
const LINUX_NAMES: &[&str] = &[
    "linux",
    "amazon linux",
    "amazonlinux",
    "al2023",
    "al2",
    "almalinux",
    "alma",
    "bottlerocket",
    "byos",
    "centos",
    "debian",
    "fedora",
    "flatcar",
    "rocky",
    "ubuntu",
];

/// Billing product codes, each with the usage operation that it stands for. The last byte of a code is the number of
/// the bit in the operation. No AWS document lists the codes. Unless noted, two independent public sources agree on
/// each code, and the bits agree with the documented operations.
const BILLING_PRODUCTS: [(&str, &str); 11] = [
    ("bp-6ba54002", "0002"),
    // An older code for Windows, from a single public list.
    ("bp-68a54001", "0002"),
    ("bp-6aa54003", "0004"),
    ("bp-6ca54005", "000g"),
    ("bp-6fa54006", "0010"),
    ("bp-63a5400a", "00g0"),
    ("bp-62a5400b", "0100"),
    ("bp-65a5400c", "0200"),
    ("bp-67a5400e", "0800"),
    // From a single public list.
    ("bp-66a5400f", "0g00"),
    // Red Hat's high availability add-on. Its images have this code and Red Hat's own code.
    ("bp-79a54010", "1000"),
];

impl Platform {
    /// Every operating system code.
    pub fn codes() -> impl Iterator<Item = &'static str> {
        CODES.iter().map(|row| row.0).chain([SQL])
    }

    /// Every documented text of platform details.
    pub(crate) fn details() -> impl Iterator<Item = &'static str> {
        TABLE.iter().map(|row| row.0)
    }

    /// Parses a code, platform details or a usage operation, in any case, with or without ` with a product code` behind
    /// it. `None` if the text is none of these.
    pub fn parse(text: &str) -> Option<Platform> {
        let text = text.trim().to_ascii_lowercase();
        if let Some(billed) = text.strip_suffix(WITH_PRODUCT_CODE) {
            return match Platform::parse(billed)? {
                Platform::Exactly(billing) => Some(Platform::WithProductCode(billing)),
                Platform::WithProductCode(_) | Platform::AnySqlServer => None,
            };
        }
        if text.eq_ignore_ascii_case(SQL) {
            return Some(Platform::AnySqlServer);
        }
        let details = CODES
            .iter()
            .find(|(code, _)| code.eq_ignore_ascii_case(&text))
            .map_or(text.as_str(), |(_, details)| details);
        if let Some(billing) = known_details(details) {
            return Some(Platform::Exactly(billing));
        }
        let code = match text.strip_prefix("runinstances") {
            Some("") => "0000",
            Some(rest) => rest.strip_prefix(':')?,
            None => text.as_str(),
        };
        Billing::from_operation_code(code).map(Platform::Exactly)
    }

    /// The code, otherwise the platform details, if this is exactly one billing that has them.
    fn written(&self) -> Option<&'static str> {
        let Platform::Exactly(billing) = self else {
            return None;
        };
        let details = billing.platform_details()?;
        let code = CODES.iter().find(|row| row.1 == details);
        Some(code.map_or(details, |(code, _)| code))
    }

    /// How an actual billing differs from this platform. `product_code` says whether the image has a product code.
    pub fn difference(&self, actual: &Billing, product_code: bool) -> Difference {
        match self {
            Platform::Exactly(expected) => actual.compared_with(expected),
            Platform::WithProductCode(expected) => {
                let difference = actual.compared_with(expected);
                match product_code {
                    true => difference,
                    false => difference.max(Difference::Missing),
                }
            }
            Platform::AnySqlServer if actual.sql.is_some() => Difference::None,
            Platform::AnySqlServer => Difference::Missing,
        }
    }

    /// Whether both may be the same operating system.
    pub fn shares_os(&self, other: &Platform) -> bool {
        match (self.billing(), other.billing()) {
            (Some(one), Some(other)) => one.os == other.os,
            _ => true,
        }
    }

    fn billing(&self) -> Option<&Billing> {
        match self {
            Platform::Exactly(billing) | Platform::WithProductCode(billing) => Some(billing),
            Platform::AnySqlServer => None,
        }
    }
}

/// Shown as the code if there is one, otherwise as platform details or usage operation.
impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.written()) {
            (_, Some(written)) => f.write_str(written),
            (Platform::Exactly(billing), None) => billing.fmt(f),
            (Platform::WithProductCode(billing), _) => {
                write!(f, "{}{WITH_PRODUCT_CODE}", Platform::Exactly(*billing))
            }
            (Platform::AnySqlServer, _) => f.write_str(SQL),
        }
    }
}

/// The platforms that an image may rightly be billed as. There is at least one, and any of them is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platforms(Vec<Platform>);

impl From<Billing> for Platforms {
    fn from(billing: Billing) -> Platforms {
        Platforms(vec![Platform::Exactly(billing)])
    }
}

impl Platforms {
    /// Parses texts, each of which is one platform.
    ///
    /// # Errors
    /// The first text that is not a platform. An empty text if there are no texts.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Platforms, &'a str> {
        let platforms = texts
            .into_iter()
            .map(|text| Platform::parse(text).ok_or(text))
            .collect::<Result<Vec<_>, _>>()?;
        if platforms.is_empty() {
            return Err("");
        }
        Ok(Platforms(platforms))
    }

    /// These platforms. `None` if there are none.
    pub(crate) fn any_of(platforms: impl IntoIterator<Item = Platform>) -> Option<Platforms> {
        let platforms: Vec<Platform> = platforms.into_iter().collect();
        (!platforms.is_empty()).then_some(Platforms(platforms))
    }

    /// This billing with either licence, included or the customer's own, as far as EC2 has platform details for it.
    /// License Manager converts one into the other, so neither a disk nor another image shows which is right. (License
    /// Manager User Guide, "Eligible license types".)
    pub(crate) fn with_either_licence(billing: Billing) -> Platforms {
        Platforms::from(billing).or_with_either_licence()
    }

    /// These platforms, each with either licence. See [`Platforms::with_either_licence`].
    pub(crate) fn or_with_either_licence(self) -> Platforms {
        let mut both = self.clone();
        for platform in self.0 {
            let Platform::Exactly(billing) = platform else {
                continue;
            };
            let licence = match billing.licence {
                Licence::None => continue,
                Licence::Included => Licence::Byol,
                Licence::Byol => Licence::Included,
            };
            let converted = Billing { licence, ..billing };
            if converted.platform_details().is_some() && converted.os != Os::Linux {
                both = both.or(Platform::Exactly(converted));
            }
        }
        both
    }

    /// This billing, or one that has all that it has, and more. The operating system is the same. It may be any if the
    /// billing names none, such as that of a SQL Server edition alone.
    pub(crate) fn at_least(billing: Billing) -> Platforms {
        let any_system = (billing.os, billing.licence) == (Os::Linux, Licence::None);
        let more = TABLE.iter().map(|row| row.2);
        let more = more.filter(|more| match any_system {
            true => more.sql == billing.sql,
            false => more.compared_with(&billing) == Difference::Extra,
        });
        more.fold(Platforms::from(billing), |platforms, more| {
            platforms.or(Platform::Exactly(more))
        })
    }

    /// These platforms, and another one that is right as well.
    pub(crate) fn or(mut self, platform: Platform) -> Platforms {
        if !self.0.contains(&platform) {
            self.0.push(platform);
        }
        self
    }

    /// Whether plain Linux is the only right platform.
    pub(crate) fn is_plain_linux(&self) -> bool {
        let plain = Platform::Exactly(Billing::PLAIN_LINUX);
        self.0.iter().all(|platform| *platform == plain)
    }

    /// How an actual billing differs from the nearest of these platforms. `product_code` says whether the image has a
    /// product code.
    pub fn difference(&self, actual: &Billing, product_code: bool) -> Difference {
        self.0
            .iter()
            .map(|platform| platform.difference(actual, product_code))
            .min()
            // The list is never empty. If it were, no difference could be determined.
            .unwrap_or(Difference::None)
    }

    /// Whether this billing may lack nothing but its licence or a product code. One of the platforms then has the same
    /// operating system, SQL Server edition and add-on.
    pub(crate) fn lack_only_a_licence(&self, actual: &Billing) -> bool {
        self.0.iter().any(|platform| match platform {
            Platform::WithProductCode(billing) => billing == actual,
            Platform::Exactly(billing) if actual.licence == Licence::Byol => {
                // For a customer's own licence, AWS distinguishes neither SQL Server nor add-ons. License Manager
                // converts Windows with SQL Server into Windows BYOL.
                billing.os == actual.os
            }
            Platform::Exactly(billing) => {
                let converted = Billing {
                    licence: actual.licence,
                    ..*billing
                };
                converted == *actual && billing.licence != Licence::None
            }
            Platform::AnySqlServer => false,
        })
    }

    /// Whether each of these platforms is Windows.
    pub(crate) fn are_windows(&self) -> bool {
        let mut platforms = self.0.iter();
        platforms.all(|platform| platform.billing().is_some_and(|it| it.os == Os::Windows))
    }

    /// Whether the first of these platforms is exactly this billing.
    pub(crate) fn names_first(&self, billing: &Billing) -> bool {
        self.0.first() == Some(&Platform::Exactly(*billing))
    }

    /// Whether each of these platforms needs a product code.
    pub(crate) fn need_product_code(&self) -> bool {
        let mut platforms = self.0.iter();
        platforms.all(|platform| matches!(platform, Platform::WithProductCode(_)))
    }

    /// Whether this billing lacks nothing but a product code.
    pub(crate) fn lack_only_a_product_code(&self, actual: &Billing) -> bool {
        self.0.contains(&Platform::WithProductCode(*actual))
    }

    /// Whether a platform of each list may be the same operating system.
    pub fn share_os(&self, others: &Platforms) -> bool {
        self.0
            .iter()
            .any(|one| others.0.iter().any(|other| one.shares_os(other)))
    }

    /// Whether an image may be billed as a platform of both lists. `product_code` says whether it has a product code.
    pub(crate) fn share_a_platform(&self, others: &Platforms, product_code: bool) -> bool {
        let shared = |one: &Platform, other: &Platform| match (one.billing(), other.billing()) {
            (Some(billing), Some(same)) => billing == same && (one == other || product_code),
            (Some(billing), None) | (None, Some(billing)) => billing.sql.is_some(),
            (None, None) => true,
        };
        let mut all = self.0.iter();
        all.any(|one| others.0.iter().any(|other| shared(one, other)))
    }

    /// The platforms' names.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(Platform::to_string).collect()
    }
}

/// Shown as `Windows or RedHat`.
impl fmt::Display for Platforms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(" or "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn billing_products_mean_an_operation_together_and_unknown_ones_are_named() {
        for (codes, operation, unknown) in [
            (&["bp-6ba54002"][..], Some("RunInstances:0002"), &[][..]),
            (&["bp-6fa54006"], Some("RunInstances:0010"), &[]),
            (&["bp-63a5400a"], Some("RunInstances:00g0"), &[]),
            (
                &["bp-6ba54002", "bp-62a5400b"],
                Some("RunInstances:0102"),
                &[],
            ),
            (
                &["bp-6ba54002", "bp-6ba54002"],
                Some("RunInstances:0002"),
                &[],
            ),
            // Red Hat's add-on with Red Hat's code, and alone
            (
                &["bp-79a54010", "bp-6fa54006"],
                Some("RunInstances:1010"),
                &[],
            ),
            (&["bp-79a54010"], None, &[]),
            (&["bp-66a5400f"], Some("RunInstances:0g00"), &[]),
            (&["bp-68a54001"], Some("RunInstances:0002"), &[]),
            // two operating systems at once
            (&["bp-6ba54002", "bp-6fa54006"], None, &[]),
            // an unknown code has no meaning, and does not invalidate the other codes
            (
                &["bp-6ba54002", "bp-12345678"],
                Some("RunInstances:0002"),
                &["bp-12345678"],
            ),
            (&["BP-6BA54002"], None, &["BP-6BA54002"]),
            (&[], None, &[]),
        ] {
            let (billing, not_known) = Billing::of_products(codes.iter().copied());
            let billing = billing.map(|billing| billing.usage_operation());
            assert_eq!(billing.as_deref(), operation, "{codes:?}");
            assert_eq!(not_known, unknown, "{codes:?}");
        }
    }

    #[test]
    fn a_suggestion_for_whatever_a_person_could_copy() {
        for (text, meant) in [
            ("RHEL", Some("RedHat")),
            ("rhel", Some("RedHat")),
            ("Redhat Ha", Some("RedHatHa")),
            ("RHEL HA", Some("RedHatHa")),
            ("Red Hat", Some("RedHat")),
            ("Widnows", Some("Windows")),
            ("SLES", Some("SUSE")),
            ("Ubuntu", Some("Linux")),
            ("MSSQL", Some("SQL")),
            ("SQL Server", Some("SQL")),
            ("Win", Some("Windows")),
            ("Windows Server", Some("Windows")),
            (
                "Windows with SQL Server Standart",
                Some("Windows with SQL Server Standard"),
            ),
            // names of images and products in the console
            ("Microsoft Windows Server 2022 Base", Some("Windows")),
            (
                "Windows_Server-2016-English-Full-SQL_2014_SP3_Standard-2023.06.14",
                Some("Windows with SQL Server Standard"),
            ),
            ("Windows with SQL Server", Some("SQL")),
            (
                "Red Hat Enterprise Linux 9 (HVM), SSD Volume Type",
                Some("RedHat"),
            ),
            (
                "RHEL_HA-9.2.0_HVM-20230615-x86_64-3-Hourly2-GP2",
                Some("RedHatHa"),
            ),
            ("RHEL-9.4.0_HVM_BYOS", Some("RedHatByol")),
            (
                "SUSE Linux Enterprise Server 15 SP6 (HVM), SSD Volume Type",
                Some("SUSE"),
            ),
            ("Amazon Linux 2023 AMI", Some("Linux")),
            (
                "ubuntu-pro-server/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-pro-server",
                Some("UbuntuPro"),
            ),
            ("debian-12-amd64", Some("Linux")),
            ("Windows 10 BYOL", Some("WindowsByol")),
            (
                "Red Hat Enterprise Linux with HA and SQL Server Standard",
                Some("Red Hat Enterprise Linux with SQL Server Standard and HA"),
            ),
            (
                "Windows_Server-2022-English-Full-SQL_2022_Express-2024.05.15",
                Some("Windows"),
            ),
            (
                "RHEL-8.1.0_HVM-20191029-x86_64-0-Access2-GP2",
                Some("RedHatByol"),
            ),
            ("RHEL CoreOS 9.4", Some("Linux")),
            ("SLES for SAP", Some("Linux with a product code")),
            (
                "SUSE Linux Enterprise Server for SAP Applications 15 SP6",
                Some("Linux with a product code"),
            ),
            ("Linux with product code", Some("Linux with a product code")),
            // a line of a bill
            ("RunInstances:0010:SV006", Some("RedHat")),
            ("EUW1-BoxUsage RunInstances:0800", Some("WindowsByol")),
            ("RunInstances:zzzz", None),
            ("RunInstances:0ä00", None),
            ("Solaris", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(platform_meant_by(text), meant, "{text}");
        }
    }

    /// The right values are from EC2's documents and from recorded answers, see `OTHER_SPELLINGS`.
    #[test]
    fn every_known_spelling_of_platform_details_parses_and_prints_as_the_canonical_one() {
        for (spelled, canonical) in [
            ("Ubuntu Pro Linux", "Ubuntu Pro"),
            (
                "Red Hat Enterprise Linux with High Availability",
                "Red Hat Enterprise Linux with HA",
            ),
            (
                "Red Hat Enterprise Linux with SQL Server Standard and High Availability",
                "Red Hat Enterprise Linux with SQL Server Standard and HA",
            ),
            ("RHEL with HA", "Red Hat Enterprise Linux with HA"),
            (
                "RHEL with HA and SQL Server Enterprise",
                "Red Hat Enterprise Linux with SQL Server Enterprise and HA",
            ),
            (
                "RHEL with SQL Server Web",
                "Red Hat Enterprise Linux with SQL Server Web",
            ),
            ("Linux with SQL Server Standard", "SQL Server Standard"),
            ("Linux with SQL Server Web (Amazon VPC)", "SQL Server Web"),
            ("Linux/UNIX (Amazon VPC)", "Linux/UNIX"),
            ("linux/unix", "Linux/UNIX"),
            (" Red Hat Enterprise Linux ", "Red Hat Enterprise Linux"),
            ("SUSE LINUX", "SUSE Linux"),
            ("ubuntu pro linux\n", "Ubuntu Pro"),
        ] {
            let parsed = parse_platform_details(Some(spelled));
            let Parsed::Known(billing) = parsed else {
                panic!("{spelled}: {parsed:?}")
            };
            assert_eq!(billing.to_string(), canonical, "{spelled}");
            assert_eq!(
                Platform::parse(spelled),
                Some(Platform::Exactly(billing)),
                "{spelled}"
            );
        }
        for (other, canonical) in OTHER_SPELLINGS {
            let billing = known_details(other).unwrap();
            assert_eq!(billing.platform_details(), Some(canonical), "{other}");
        }
    }

    #[test]
    fn a_product_code_beside_plain_linux_is_a_platform_of_its_own() {
        let sold = Platform::parse("Linux with a product code").unwrap();
        assert_eq!(sold, Platform::WithProductCode(Billing::PLAIN_LINUX));
        assert_eq!(sold.to_string(), "Linux with a product code");
        assert_eq!(
            Platform::parse("linux/unix WITH a product code"),
            Some(sold)
        );
        let byol = Platform::parse("RunInstances:00g0 with a product code").unwrap();
        assert_eq!(byol.to_string(), "RedHatByol with a product code");
        for text in [
            "SQL with a product code",
            "with a product code",
            "Linux with a product code with a product code",
        ] {
            assert_eq!(Platform::parse(text), None, "{text}");
        }
        let suse = known_details("SUSE Linux").unwrap();
        for (actual, product_code, difference) in [
            (Billing::PLAIN_LINUX, true, Difference::None),
            (Billing::PLAIN_LINUX, false, Difference::Missing),
            (suse, true, Difference::Wrong),
            (suse, false, Difference::Wrong),
        ] {
            assert_eq!(sold.difference(&actual, product_code), difference);
        }
    }

    #[test]
    fn either_licence_is_that_of_the_same_system_and_the_same_sql_server() {
        let names = |details: &str| {
            Platforms::with_either_licence(known_details(details).unwrap()).to_string()
        };
        for (details, platforms) in [
            ("Windows", "Windows or WindowsByol"),
            ("Windows BYOL", "WindowsByol or Windows"),
            ("Red Hat Enterprise Linux", "RedHat or RedHatByol"),
            ("Red Hat BYOL Linux", "RedHatByol or RedHat"),
            ("RHEL with HA", "RedHatHa"),
            // a billing for which EC2 has no platform details is left out
            ("Windows with SQL Server Web", "Windows with SQL Server Web"),
            ("SUSE Linux", "SUSE"),
            ("Ubuntu Pro", "UbuntuPro"),
            ("Linux/UNIX", "Linux"),
        ] {
            assert_eq!(names(details), platforms);
        }
    }

    #[test]
    fn every_documented_row_means_the_same_as_details_and_as_operation_and_prints_back() {
        for (details, operation, billing) in TABLE {
            assert_eq!(
                parse_platform_details(Some(details)),
                Parsed::Known(billing)
            );
            assert_eq!(
                parse_usage_operation(Some(operation)),
                Parsed::Known(billing),
                "{operation}"
            );
            assert_eq!(billing.to_string(), details);
            assert_eq!(billing.platform_details(), Some(details));
            assert_eq!(billing.usage_operation(), operation);
        }
    }

    #[test]
    fn absent_and_empty_fields_are_absent_not_unrecognised() {
        for field in [None, Some("")] {
            assert_eq!(parse_platform_details(field), Parsed::Absent);
            assert_eq!(parse_usage_operation(field), Parsed::Absent);
        }
    }

    #[test]
    fn unknown_strings_and_unknown_bits_are_unrecognised() {
        for details in [
            " ",
            "Linux / UNIX",
            "(Amazon VPC)",
            " (Amazon VPC)",
            "Windows with SQL Server",
            "Windows with SQL Server Express",
            "macOS",
        ] {
            assert_eq!(
                parse_platform_details(Some(details)),
                Parsed::Unrecognised,
                "{details}"
            );
        }
        for operation in [
            "RunInstances:",
            "RunInstances:10",
            "RunInstances:00100",
            "RunInstances:2010", // unknown first bit
            "RunInstances:0400",
            "RunInstances:0040",
            "RunInstances:0008",
            "RunInstances:0012", // Red Hat and Windows at once
            "RunInstances:0104", // two SQL Server editions at once
            "RunInstances:1002", // Red Hat's add-on on Windows
            "RunInstances:000G",
            // from bills and price lists
            "RunInstances:0010:SV006",
            "RunInstances:0002:box",
            "RunInstances:CB",
            "RunInstances:FFP-0002",
            "CreateVolume",
            "runinstances",
        ] {
            assert_eq!(
                parse_usage_operation(Some(operation)),
                Parsed::Unrecognised,
                "{operation}"
            );
        }
    }

    #[test]
    fn known_bits_combine_beyond_the_documented_rows() {
        let pro_with_sql = Billing {
            licence: Licence::Included,
            sql: Some(SqlEdition::Standard),
            ..Billing::PLAIN_LINUX
        };
        assert_eq!(
            parse_usage_operation(Some("RunInstances:0g04")),
            Parsed::Known(pro_with_sql)
        );
        assert_eq!(pro_with_sql.platform_details(), None);
        assert_eq!(pro_with_sql.to_string(), "RunInstances:0g04");
    }

    #[test]
    fn every_operation_that_parses_prints_back() {
        let digits = "0123456789abcdefghijklmnopqrstuv";
        let mut known = 0;
        for a in digits.chars() {
            for b in digits.chars() {
                for c in digits.chars() {
                    for d in digits.chars() {
                        let operation = format!("RunInstances:{a}{b}{c}{d}");
                        if let Parsed::Known(billing) = parse_usage_operation(Some(&operation)) {
                            known += 1;
                            // `0000` is accepted for plain Linux. EC2 leaves it out.
                            let printed = if operation.ends_with("0000") {
                                "RunInstances"
                            } else {
                                &operation
                            };
                            assert_eq!(billing.usage_operation(), printed);
                        }
                    }
                }
            }
        }
        assert_eq!(
            known, 36,
            "7 systems × 4 editions, and with HA the two of Red Hat again"
        );
    }

    #[test]
    fn expectations_are_codes_details_or_operations_in_any_case() {
        let windows = parse_platform_details(Some("Windows"));
        for text in [
            "Windows",
            "windows",
            " WINDOWS ",
            "RunInstances:0002",
            "runinstances:0002",
            "0002",
        ] {
            match Platform::parse(text) {
                Some(Platform::Exactly(billing)) => {
                    assert_eq!(Parsed::Known(billing), windows, "{text}")
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        assert_eq!(Platform::parse("sql"), Some(Platform::AnySqlServer));
        for (code, details) in CODES {
            assert_eq!(
                Platform::parse(code),
                Platform::parse(details),
                "{code} accepts {details}"
            );
            assert_eq!(Platform::parse(code).unwrap().to_string(), code);
        }
        for (details, operation, billing) in TABLE {
            assert_eq!(Platform::parse(details), Some(Platform::Exactly(billing)));
            assert_eq!(Platform::parse(operation), Some(Platform::Exactly(billing)));
        }
        for text in ["", "Ubuntu", "RHEL", "RunInstancesX", "0012", "true", "*"] {
            assert_eq!(Platform::parse(text), None, "{text:?} is no platform");
        }
    }

    #[test]
    fn every_accepted_platform_is_named_in_the_error_text() {
        for code in Platform::codes() {
            assert!(ACCEPTED_PLATFORMS.contains(code));
        }
    }

    #[test]
    fn differences_as_the_design_names_them() {
        use Difference::*;
        let cases = [
            ("Windows", "Windows", None),
            ("Windows", "Linux/UNIX", Wrong),
            ("Windows", "Windows BYOL", Missing),
            ("WindowsByol", "Windows", Extra),
            ("Windows", "Windows with SQL Server Web", Extra),
            ("Windows with SQL Server Web", "Windows", Missing),
            (
                "Windows with SQL Server Web",
                "Windows with SQL Server Standard",
                Missing,
            ),
            ("RedHat", "Red Hat Enterprise Linux", None),
            ("RedHat", "Red Hat Enterprise Linux with HA", Extra),
            ("RedHatHa", "Red Hat Enterprise Linux", Missing),
            ("RedHat", "Red Hat BYOL Linux", Missing),
            ("RedHatByol", "Red Hat Enterprise Linux", Extra),
            ("RedHatByol", "Linux/UNIX", Wrong),
            ("RedHat", "Linux/UNIX", Wrong),
            ("SUSE", "Linux/UNIX", Wrong),
            ("Linux", "Ubuntu Pro", Extra),
            ("UbuntuPro", "Linux/UNIX", Missing),
            ("Linux", "SQL Server Web", Extra),
            ("SQL", "SQL Server Web", None),
            ("SQL", "Windows with SQL Server Enterprise", None),
            ("SQL", "Windows", Missing),
            ("Linux", "Windows", Wrong),
        ];
        for (expected, actual, difference) in cases {
            let Parsed::Known(actual_billing) = parse_platform_details(Some(actual)) else {
                panic!("{actual}")
            };
            let expected_platform = Platform::parse(expected).unwrap();
            assert_eq!(
                expected_platform.difference(&actual_billing, false),
                difference,
                "{expected} expected, {actual} billed"
            );
        }
    }

    #[test]
    fn the_mildest_difference_of_a_list_counts() {
        let either = Platforms::parse(["RedHat", "RedHatHa"]).unwrap();
        assert_eq!(either.to_string(), "RedHat or RedHatHa");
        for (actual, difference) in [
            ("Red Hat Enterprise Linux", Difference::None),
            ("Red Hat Enterprise Linux with HA", Difference::None),
            ("Red Hat BYOL Linux", Difference::Missing),
            ("Linux/UNIX", Difference::Wrong),
        ] {
            let Parsed::Known(actual) = parse_platform_details(Some(actual)) else {
                panic!("{actual}")
            };
            assert_eq!(either.difference(&actual, false), difference);
        }
    }

    #[test]
    fn a_list_with_one_text_that_is_no_platform_is_no_list() {
        assert_eq!(Platforms::parse(["RedHat", "RHEL"]), Err("RHEL"));
        assert_eq!(Platforms::parse([]), Err(""));
    }

    proptest! {
        #[test]
        fn parsing_anything_never_panics(text in "\\PC*") {
            let _ = parse_platform_details(Some(&text));
            let _ = parse_usage_operation(Some(&text));
            let _ = parse_usage_operation(Some(&format!("RunInstances:{text}")));
            let _ = Platform::parse(&text);
        }

        #[test]
        fn there_is_no_difference_exactly_when_both_are_the_same(one in 0..TABLE.len(), other in 0..TABLE.len()) {
            let (one, other) = (TABLE[one].2, TABLE[other].2);
            prop_assert_eq!(one.compared_with(&other) == Difference::None, one == other);
        }
    }
}
