//! What an AMI bills: the meaning of EC2's two billing fields, platform details and usage operation.
//!
//! The strings are those of the EC2 User Guide, "AMI billing information fields"; the guide calls
//! its list "some of" the values. Parsing never guesses: what is not known is [`Parsed::Unrecognised`],
//! and what is not known is never a mismatch.

use std::fmt;

/// The operating system whose code is billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Os {
    /// Linux that AWS does not license by itself; also Ubuntu Pro, which is Linux with a licence.
    Linux,
    /// Red Hat Enterprise Linux.
    RedHat,
    /// SUSE Linux Enterprise Server.
    Suse,
    /// Windows Server.
    Windows,
}

/// Who supplies the licence of the operating system. The order is that of what is paid to AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Licence {
    /// No licence is needed (plain Linux).
    None,
    /// The customer brings it.
    Byol,
    /// AWS includes it in the hourly price.
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

/// The parsed meaning of platform details or of a usage operation.
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

/// What became of a billing field of EC2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The field is not there, or is empty.
    Absent,
    /// Its meaning is known.
    Known(Billing),
    /// It says something that this version does not know.
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

impl Billing {
    /// Plain Linux: nothing of it is paid for beyond the instance, and so what an image bills that
    /// lost its code.
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

    /// Reads the four characters of a usage operation: each is a set of bits in base 32.
    fn from_operation_code(code: &str) -> Option<Billing> {
        let mut digits = code.chars().map(|digit| {
            // EC2 writes lower case; `to_digit` would also take what EC2 never writes.
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
        if digits.next().is_some()
            || ha & !1 != 0
            || add_on & !(1 | 2 | 8 | 16) != 0
            || red_hat & !(1 | 16) != 0
            || base & !(2 | 4 | 16) != 0
        {
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
        // Two operating systems or two editions at once mean nothing that we know of.
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
        // The add-on is Red Hat's.
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

    /// The billing that a registration asks for with these billing product codes (`bp-…`), all
    /// together. `None` if one of them is not known, or if together they mean nothing that is.
    pub fn of_products<'a>(codes: impl IntoIterator<Item = &'a str>) -> Option<Billing> {
        let mut bits = [0u32; 4];
        for code in codes {
            let (_, operation) = BILLING_PRODUCTS.iter().find(|(known, _)| *known == code)?;
            for (bits, digit) in bits.iter_mut().zip(operation.chars()) {
                *bits |= digit.to_digit(32)?;
            }
        }
        let operation: Option<String> = bits
            .iter()
            .map(|bits| char::from_digit(*bits, 32))
            .collect();
        Billing::from_operation_code(&operation?)
    }

    /// How much less or more than `expected` this billing is; see [`Difference`].
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

/// Shown as the platform details, else as the usage operation.
impl fmt::Display for Billing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.platform_details() {
            Some(details) => f.write_str(details),
            None => f.write_str(&self.usage_operation()),
        }
    }
}

/// How an actual billing differs from an expected one, the mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// It is what was expected.
    None,
    /// The expected operating system, and something paid more.
    Extra,
    /// The expected operating system, but something paid that is expected is not billed.
    Missing,
    /// Another operating system.
    Wrong,
}

/// Reads `PlatformDetails` as DescribeImages gives it.
pub fn parse_platform_details(details: Option<&str>) -> Parsed {
    match details {
        None | Some("") => Parsed::Absent,
        Some(details) => TABLE
            .iter()
            .find(|row| row.0 == details)
            .map_or(Parsed::Unrecognised, |row| Parsed::Known(row.2)),
    }
}

/// Reads `UsageOperation` as DescribeImages gives it.
pub fn parse_usage_operation(operation: Option<&str>) -> Parsed {
    match operation {
        None | Some("") => Parsed::Absent,
        Some("RunInstances") => Parsed::Known(Billing::PLAIN_LINUX),
        Some(operation) => operation
            .strip_prefix("RunInstances:")
            .and_then(Billing::from_operation_code)
            .map_or(Parsed::Unrecognised, Parsed::Known),
    }
}

/// One platform that an image may rightly bill, as people write it: an operating system code,
/// a full platform-details string or a usage operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Platform {
    /// Exactly this billing.
    Exactly(Billing),
    /// Any billing with a SQL Server edition, on any operating system (the code `SQL`).
    AnySqlServer,
}

/// The operating system codes that name one billing, with the platform details that they accept.
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

/// What can be written for a platform, for error messages.
pub const ACCEPTED_PLATFORMS: &str = "Linux, Windows, WindowsByol, RedHat, RedHatHa, RedHatByol, SUSE, UbuntuPro, SQL, \
     full platform details (Windows with SQL Server Standard) or a usage operation (RunInstances:0010)";

/// What people write who mean one of the codes: a product's name, an older word.
const OTHER_NAMES: [(&str, &str); 14] = [
    ("Amazon Linux", "Linux"),
    ("AmazonLinux", "Linux"),
    ("CentOS", "Linux"),
    ("Debian", "Linux"),
    ("Rocky", "Linux"),
    ("Ubuntu", "Linux"),
    ("MSSQL", "SQL"),
    ("SQL Server", "SQL"),
    ("Red Hat", "RedHat"),
    ("RHEL", "RedHat"),
    ("RHEL HA", "RedHatHa"),
    ("SLES", "SUSE"),
    ("Win", "Windows"),
    ("Windows Server", "Windows"),
];

/// What was probably meant by a text that is no platform: a code, or platform details.
pub fn platform_meant_by(text: &str) -> Option<&'static str> {
    let text = text.trim();
    let other_name = OTHER_NAMES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text));
    if let Some((_, code)) = other_name {
        return Some(code);
    }
    // Longer than anything that it could be a slip of: not worth a comparison.
    if text.len() > 80 {
        return None;
    }
    let text = text.to_ascii_lowercase();
    Platform::codes()
        .chain(TABLE.iter().map(|row| row.0))
        .map(|name| {
            (
                strsim::damerau_levenshtein(&text, &name.to_ascii_lowercase()),
                name,
            )
        })
        .filter(|(distance, name)| *distance <= 1.max(name.len() / 4).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Billing product codes with the usage operation that each stands for: the last two digits number
/// the bits of the operation. No AWS document lists them; each of these is found with the same
/// meaning in two public sources that do not depend on each other, and the bits agree with the
/// documented operations.
const BILLING_PRODUCTS: [(&str, &str); 8] = [
    ("bp-6ba54002", "0002"),
    ("bp-6aa54003", "0004"),
    ("bp-6ca54005", "000g"),
    ("bp-6fa54006", "0010"),
    ("bp-63a5400a", "00g0"),
    ("bp-62a5400b", "0100"),
    ("bp-65a5400c", "0200"),
    ("bp-67a5400e", "0800"),
];

impl Platform {
    /// Every operating system code.
    pub fn codes() -> impl Iterator<Item = &'static str> {
        CODES.iter().map(|row| row.0).chain([SQL])
    }

    /// Reads a code, platform details or a usage operation, whatever the case of its letters.
    /// `None` if it is none of these.
    pub fn parse(text: &str) -> Option<Platform> {
        let text = text.trim();
        if text.eq_ignore_ascii_case(SQL) {
            return Some(Platform::AnySqlServer);
        }
        let details = CODES
            .iter()
            .find(|(code, _)| code.eq_ignore_ascii_case(text))
            .map_or(text, |(_, details)| details);
        if let Some(row) = TABLE.iter().find(|row| row.0.eq_ignore_ascii_case(details)) {
            return Some(Platform::Exactly(row.2));
        }
        let operation = text.to_ascii_lowercase();
        let code = match operation.strip_prefix("runinstances") {
            Some("") => "0000",
            Some(rest) => rest.strip_prefix(':')?,
            None => operation.as_str(),
        };
        Billing::from_operation_code(code).map(Platform::Exactly)
    }

    /// How an actual billing differs from this platform.
    pub fn difference(&self, actual: &Billing) -> Difference {
        match self {
            Platform::Exactly(expected) => actual.compared_with(expected),
            Platform::AnySqlServer if actual.sql.is_some() => Difference::None,
            Platform::AnySqlServer => Difference::Missing,
        }
    }

    /// Whether both may be the same operating system.
    pub fn shares_os(&self, other: &Platform) -> bool {
        match (self, other) {
            (Platform::Exactly(one), Platform::Exactly(other)) => one.os == other.os,
            _ => true,
        }
    }
}

/// Shown as the code where there is one, else as platform details or usage operation.
impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Platform::AnySqlServer => f.write_str(SQL),
            Platform::Exactly(billing) => {
                let details = billing.platform_details();
                match CODES.iter().find(|row| Some(row.1) == details) {
                    Some((code, _)) => f.write_str(code),
                    None => billing.fmt(f),
                }
            }
        }
    }
}

/// The platforms that an image may rightly bill: at least one, any of them is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platforms(Vec<Platform>);

impl From<Billing> for Platforms {
    fn from(billing: Billing) -> Platforms {
        Platforms(vec![Platform::Exactly(billing)])
    }
}

impl Platforms {
    /// Reads texts each of which is one platform.
    ///
    /// # Errors
    /// The first text that is none; an empty text if there are no texts.
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

    /// Exactly these billings; `None` if there are none.
    pub(crate) fn any_of(billings: impl IntoIterator<Item = Billing>) -> Option<Platforms> {
        let platforms: Vec<Platform> = billings.into_iter().map(Platform::Exactly).collect();
        (!platforms.is_empty()).then_some(Platforms(platforms))
    }

    /// These, and another one that is right as well.
    pub(crate) fn or(mut self, billing: Billing) -> Platforms {
        let platform = Platform::Exactly(billing);
        if !self.0.contains(&platform) {
            self.0.push(platform);
        }
        self
    }

    /// Whether plain Linux, and nothing else, is right.
    pub(crate) fn is_plain_linux(&self) -> bool {
        let plain = Platform::Exactly(Billing::PLAIN_LINUX);
        self.0.iter().all(|platform| *platform == plain)
    }

    /// How an actual billing differs from the platform that it is nearest to.
    pub fn difference(&self, actual: &Billing) -> Difference {
        self.0
            .iter()
            .map(|platform| platform.difference(actual))
            .min()
            // There is no empty list; if there were, it would not know.
            .unwrap_or(Difference::None)
    }

    /// Whether some platform of both may be the same operating system.
    pub fn share_os(&self, others: &Platforms) -> bool {
        self.0
            .iter()
            .any(|one| others.0.iter().any(|other| one.shares_os(other)))
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
    fn billing_products_mean_an_operation_together_or_nothing() {
        let operation = |codes: &[&str]| {
            Billing::of_products(codes.iter().copied()).map(|billing| billing.usage_operation())
        };
        for (codes, expected) in [
            (&["bp-6ba54002"][..], Some("RunInstances:0002")),
            (&["bp-6fa54006"], Some("RunInstances:0010")),
            (&["bp-63a5400a"], Some("RunInstances:00g0")),
            (&["bp-6ba54002", "bp-62a5400b"], Some("RunInstances:0102")),
            (&["bp-6ba54002", "bp-6ba54002"], Some("RunInstances:0002")),
            // two operating systems at once, a code that is not known
            (&["bp-6ba54002", "bp-6fa54006"], None),
            (&["bp-6ba54002", "bp-12345678"], None),
            (&["BP-6BA54002"], None),
        ] {
            assert_eq!(operation(codes).as_deref(), expected, "{codes:?}");
        }
    }

    #[test]
    fn a_slip_is_told_what_it_was_meant_for() {
        for (slip, meant) in [
            ("RHEL", Some("RedHat")),
            ("rhel", Some("RedHat")),
            ("Redhat Ha", Some("RedHatHa")),
            ("Widnows", Some("Windows")),
            ("SLES", Some("SUSE")),
            ("Ubuntu", Some("Linux")),
            (
                "Windows with SQL Server Standart",
                Some("Windows with SQL Server Standard"),
            ),
            ("Solaris", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(platform_meant_by(slip), meant, "{slip}");
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
            "linux/unix",
            "Linux/UNIX ",
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
            "RunInstances:0010:SV006",
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
                            // `0000` is how one may write plain Linux; EC2 leaves it out.
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
                expected_platform.difference(&actual_billing),
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
            assert_eq!(either.difference(&actual), difference);
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
