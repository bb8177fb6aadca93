//! Groups of AMIs whose names have the same pattern, and what an audit shows about each.
//!
//! An unverifiable AMI has no evidence of its own. The evidence for a rule is other AMIs whose name has the same pattern,
//! and which the audit verified with a tag, a rule, the lineage or the disk.

use std::collections::{BTreeMap, BTreeSet};

use ami_billing_guard::billing::{Billing, Difference, Platforms};
use ami_billing_guard::expectation::Source;
use ami_billing_guard::policy::{Condition, Policy};
use ami_billing_guard::record::{Actual, Expected};
use serde::Deserialize;

use super::pattern::patterns;

/// Fewest verified AMIs on which a rule rests. One alone may be an exception.
pub(super) const WITNESSES: usize = 2;

/// Most AMIs that a rule may make a mismatch: one for this many verified AMIs.
const LOST_ONE_OF: usize = 4;

/// The part of a record that matters here.
#[derive(Debug, Deserialize)]
pub(super) struct Judged {
    image_id: Option<String>,
    name: Option<String>,
    pub(super) verdict: String,
    actual: Option<Actual>,
    expected: Option<Expected>,
    #[serde(default)]
    evidence: Vec<Statement>,
}

#[derive(Debug, Deserialize)]
struct Statement {
    source: String,
    state: String,
}

impl Judged {
    fn is(&self, verdict: &str) -> bool {
        self.verdict == verdict
    }

    fn billing(&self) -> Option<Billing> {
        self.actual.as_ref()?.billed_as().billing()
    }

    fn has_product_code(&self) -> bool {
        let actual = self.actual.as_ref();
        actual.is_some_and(|actual| !actual.product_codes.is_empty())
    }

    /// The platforms that are expected of the AMI, if a source names any.
    fn expects(&self) -> Option<Platforms> {
        let names = self.expected.as_ref()?.platform.iter();
        Platforms::parse(names.map(String::as_str)).ok()
    }

    /// Whether another rule could make the AMI verifiable. No source names a platform, EC2's billing fields are known, and
    /// no rule of the policy is in doubt. Such a rule comes first, and an audit does not know who registered the AMI.
    fn is_open(&self) -> bool {
        self.is("unverifiable")
            && self.expects().is_none()
            && self.billing().is_some()
            && !self.has_failed(Source::Policy)
    }

    /// Whether the AMI is evidence for what others with such a name are. A default is about all AMIs, so it is not.
    fn is_witness(&self) -> bool {
        let source = self.expected.as_ref().map(|expected| expected.source);
        self.is("verified") && source != Some(Source::Default) && self.expects().is_some()
    }

    /// Whether a source other than the disk could not be queried. A disk often cannot be read, and the audit then has no
    /// better answer.
    pub(super) fn has_failed_source(&self) -> bool {
        let others = [Source::ImageTag, Source::SnapshotTag, Source::Lineage];
        others.into_iter().any(|source| self.has_failed(source))
    }

    fn has_failed(&self, source: Source) -> bool {
        let mut evidence = self.evidence.iter();
        evidence.any(|it| it.state == "failed" && it.source == source.name())
    }

    /// Whether a tag names something that is not a platform. It is then unknown what its author meant.
    fn has_mistyped_tag(&self) -> bool {
        self.evidence.iter().any(|it| it.state == "invalid")
    }

    /// How what the AMI is billed as differs from these platforms.
    fn difference(&self, platforms: &Platforms) -> Option<Difference> {
        Some(platforms.difference(&self.billing()?, self.has_product_code()))
    }

    fn billed_as(&self) -> String {
        self.actual.as_ref().map(Actual::text).unwrap_or_default()
    }
}

/// A rule that the audit supports.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) pattern: String,
    pub(super) platforms: Vec<String>,
    /// Number of unverifiable AMIs that it covers.
    pub(super) covers: usize,
    /// Those of them that it makes a mismatch. They are billed as plain Linux.
    pub(super) lost: Vec<String>,
    /// Number of verified AMIs that it rests on.
    pub(super) witnesses: usize,
    /// Number of these about which each source says something.
    pub(super) sources: Vec<(&'static str, usize)>,
    /// Number of AMIs that are a mismatch already, and have the same expectation.
    pub(super) mismatches: usize,
}

/// Why there is no rule for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// Not enough verified AMIs have such a name.
    NoEvidence,
    /// The AMIs with such a name are not all expected or billed alike.
    Disagreement,
    /// A tag of one of the AMIs names something that is not a platform.
    MistypedTag,
    /// The pattern matches an AMI that the rule would contradict.
    Contradiction,
    /// The pattern also matches unverifiable AMIs with other names.
    OtherNames,
    /// There are fewer AMIs than a rule has to cover.
    Few,
    /// The policy has no glob for such a name, or there is no name.
    NoPattern,
    /// EC2 returns a billing value that this version does not know, or a rule of the policy is in doubt.
    NotByRule,
    /// The policy would be larger than a policy may be.
    NoRoom,
}

/// A group without a rule.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Uncovered {
    pub(super) why: Why,
    pub(super) pattern: String,
    pub(super) number: usize,
    /// What the AMIs are billed as, with their numbers.
    pub(super) billed_as: BTreeMap<String, usize>,
}

/// The rules, and the groups without one. Both are sorted by their number of AMIs, the largest first.
#[derive(Debug, Default)]
pub(super) struct Suggestions {
    pub(super) rules: Vec<Rule>,
    pub(super) uncovered: Vec<Uncovered>,
}

/// Groups the unverifiable AMIs, and finds a rule for each group that has at least `min` of them.
pub(super) fn suggest(all: &[Judged], min: usize) -> Suggestions {
    let judged = |row: &&Judged| {
        ["verified", "mismatch", "conflict", "unverifiable"].contains(&row.verdict.as_str())
    };
    let named: Vec<(&str, &Judged)> = all
        .iter()
        .filter(judged)
        .filter_map(|row| Some((row.name.as_deref()?, row)))
        .collect();
    let patterns = patterns(named.iter().map(|(name, _)| *name));
    let pattern = |row: &Judged| {
        let name = row.name.as_deref()?;
        patterns.get(name).map(String::as_str)
    };
    let mut groups: BTreeMap<&str, Vec<&Judged>> = BTreeMap::new();
    let mut without: BTreeMap<(Why, &str), Vec<&Judged>> = BTreeMap::new();
    for row in all.iter().filter(|row| row.is("unverifiable")) {
        match pattern(row) {
            _ if !row.is_open() => without
                .entry((Why::NotByRule, pattern(row).unwrap_or_default()))
                .or_default()
                .push(row),
            Some(pattern) => groups.entry(pattern).or_default().push(row),
            None => without.entry((Why::NoPattern, "")).or_default().push(row),
        }
    }
    let mut suggestions = Suggestions::default();
    for (pattern, open) in groups {
        match rule(pattern, &open, &named, min) {
            Ok(rule) => suggestions.rules.push(rule),
            Err(why) => suggestions
                .uncovered
                .push(Uncovered::of(why, pattern, &open)),
        }
    }
    let without = without.into_iter();
    let without = without.map(|((why, pattern), rows)| Uncovered::of(why, pattern, &rows));
    suggestions.uncovered.extend(without);
    // Stable, so groups of the same size stay in the order of their patterns.
    suggestions
        .rules
        .sort_by_key(|rule| std::cmp::Reverse(rule.covers));
    let order = |group: &Uncovered| (group.why, std::cmp::Reverse(group.number));
    suggestions.uncovered.sort_by_key(order);
    suggestions
}

impl Uncovered {
    fn of(why: Why, pattern: &str, rows: &[&Judged]) -> Uncovered {
        let mut billed_as = BTreeMap::new();
        for row in rows {
            *billed_as.entry(row.billed_as()).or_default() += 1;
        }
        Uncovered {
            why,
            pattern: pattern.to_owned(),
            number: rows.len(),
            billed_as,
        }
    }

    /// The group of a rule for which there is no room.
    pub(super) fn without_room(rule: Rule) -> Uncovered {
        Uncovered {
            why: Why::NoRoom,
            pattern: rule.pattern,
            number: rule.covers,
            billed_as: BTreeMap::new(),
        }
    }
}

/// The rule for a group of unverifiable AMIs. `named` are all judged AMIs of the audit, with their names.
fn rule(
    pattern: &str,
    open: &[&Judged],
    named: &[(&str, &Judged)],
    min: usize,
) -> Result<Rule, Why> {
    if open.len() < min {
        return Err(Why::Few);
    }
    let condition = condition(pattern).ok_or(Why::NoPattern)?;
    let matched: Vec<&Judged> = named
        .iter()
        .filter(|(name, _)| condition.globs.iter().any(|glob| glob.matches(name)))
        .map(|(_, row)| *row)
        .collect();
    let witnesses: Vec<&&Judged> = matched.iter().filter(|row| row.is_witness()).collect();
    if witnesses.len() < WITNESSES {
        return Err(Why::NoEvidence);
    }
    if matched.iter().any(|row| row.is("conflict")) {
        return Err(Why::Contradiction);
    }
    match matched.iter().filter(|row| row.is_open()).count() {
        same if same == open.len() => {}
        more if more > open.len() => return Err(Why::OtherNames),
        _ => return Err(Why::NoPattern),
    }
    if open.iter().any(|row| row.has_mistyped_tag()) {
        return Err(Why::MistypedTag);
    }
    let mismatches: Vec<&&Judged> = matched
        .iter()
        .filter(|row| row.is("mismatch") && row.expects().is_some())
        .collect();
    let platforms = agreed(&witnesses, &mismatches).ok_or(Why::Disagreement)?;
    let accepted = |row: &Judged| row.difference(&platforms) == Some(Difference::None);
    if matched
        .iter()
        .any(|row| row.is("verified") && !accepted(row))
    {
        return Err(Why::Contradiction);
    }
    let otherwise: Vec<&&Judged> = open.iter().filter(|row| !accepted(row)).collect();
    // An AMI never gets a paid billing code by accident. So one that has another code than expected is something else.
    let is_plain =
        |row: &&&Judged| row.billing() == Some(Billing::PLAIN_LINUX) && !row.has_product_code();
    // Lost codes are rare. Many AMIs without a code are probably something else, too.
    if !otherwise.iter().all(is_plain) || otherwise.len() * LOST_ONE_OF > witnesses.len() {
        return Err(Why::Disagreement);
    }
    let mut sources = Vec::new();
    for source in Source::ALL {
        let says = |row: &&&&Judged| {
            let mut evidence = row.evidence.iter();
            evidence.any(|it| it.source == source.name() && it.state == "found")
        };
        let number = witnesses.iter().filter(says).count();
        if number > 0 && source != Source::Default {
            sources.push((source.name(), number));
        }
    }
    let mut lost: Vec<String> = otherwise
        .iter()
        .filter_map(|row| row.image_id.clone())
        .collect();
    lost.sort();
    Ok(Rule {
        pattern: pattern.to_owned(),
        platforms: platforms.names(),
        covers: open.len(),
        lost,
        witnesses: witnesses.len(),
        sources,
        mismatches: mismatches.len(),
    })
}

/// The platforms that all evidence agrees on. `None` if it does not agree.
fn agreed(witnesses: &[&&Judged], mismatches: &[&&Judged]) -> Option<Platforms> {
    let rows = || witnesses.iter().chain(mismatches);
    let expected: BTreeSet<Vec<String>> = rows()
        .filter_map(|row| Some(row.expects()?.names()))
        .collect();
    if let (1, Some(names)) = (expected.len(), expected.first()) {
        return Platforms::parse(names.iter().map(String::as_str)).ok();
    }
    // The sources say it in different words, for example `SQL` and `Windows with SQL Server Standard`. They agree if all
    // verified AMIs are billed alike, and each source accepts that.
    let mut billings: Vec<Billing> = witnesses.iter().filter_map(|row| row.billing()).collect();
    billings.dedup();
    let [billing] = billings.as_slice() else {
        return None;
    };
    let accepts = |row: &&&Judged| {
        row.expects()
            .is_some_and(|it| it.difference(billing, row.has_product_code()) == Difference::None)
    };
    rows().all(accepts).then(|| Platforms::from(*billing))
}

/// The pattern as a condition of a policy, read by the policy's own parser. `None` if the parser refuses it.
fn condition(pattern: &str) -> Option<Condition> {
    let text = format!("version = 1\n{}", expect(pattern, &["Linux".to_owned()]));
    let policy = Policy::parse("", &text).ok()?;
    let rule = policy.expect.into_iter().next()?;
    rule.conditions.into_iter().next()
}

/// An `[[expect]]` rule, as a policy has it.
pub(super) fn expect(pattern: &str, platforms: &[String]) -> String {
    // A string of JSON is one of TOML, or the policy's parser refuses it.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let platform = match platforms {
        [one] => quoted(one),
        several => {
            let several: Vec<String> = several.iter().map(|it| quoted(it)).collect();
            format!("[{}]", several.join(", "))
        }
    };
    format!(
        "[[expect]]\nname = {}\nplatform = {platform}\n",
        quoted(pattern)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINUX: &str = "Linux/UNIX";

    /// An AMI of an audit: its name, its verdict, what it is billed as, what is expected, and the source.
    fn ami(name: &str, verdict: &str, billed: &str, expected: &[&str], source: &str) -> Judged {
        let expected = (!expected.is_empty())
            .then(|| serde_json::json!({ "platform": expected, "source": source }));
        let evidence = match &expected {
            Some(_) => vec![serde_json::json!({ "source": source, "state": "found" })],
            None => Vec::new(),
        };
        let row = serde_json::json!({
            "image_id": "ami-0", "name": name, "verdict": verdict,
            "actual": { "platform_details": billed }, "expected": expected, "evidence": evidence,
        });
        serde_json::from_value(row).unwrap()
    }

    fn open(name: &str, billed: &str) -> Judged {
        ami(name, "unverifiable", billed, &[], "")
    }

    fn verified(name: &str, billed: &str, source: &str) -> Judged {
        ami(name, "verified", billed, &[billed], source)
    }

    /// Two unverifiable AMIs called `app-…`, two verified ones, and others.
    fn with(more: Vec<Judged>) -> Suggestions {
        let mut all = vec![
            open("app-1", "Windows"),
            open("app-2", "Windows"),
            verified("app-3", "Windows", "image-tag"),
            verified("app-4", "Windows", "lineage"),
        ];
        all.extend(more);
        suggest(&all, 2)
    }

    #[test]
    fn a_rule_rests_on_verified_amis_with_such_a_name() {
        let Suggestions { rules, uncovered } = with(Vec::new());
        let [rule] = rules.try_into().unwrap();
        assert_eq!(uncovered, []);
        assert_eq!(
            (rule.pattern.as_str(), rule.platforms.as_slice()),
            ("app-[0-9]*", &["Windows".to_owned()][..])
        );
        assert_eq!((rule.covers, rule.witnesses), (2, 2));
        assert_eq!(rule.sources, [("image-tag", 1), ("lineage", 1)]);
    }

    #[test]
    fn nothing_is_guessed_where_the_amis_with_such_a_name_do_not_agree() {
        let mistyped = |name: &str| Judged {
            evidence: vec![Statement {
                source: "image-tag".into(),
                state: "invalid".into(),
            }],
            ..open(name, "Windows")
        };
        for (what, more, why) in [
            (
                "another disk",
                vec![verified("app-5", LINUX, "disk")],
                Why::Disagreement,
            ),
            (
                "a mismatch with another expectation",
                vec![ami("app-5", "mismatch", LINUX, &["RedHat"], "image-tag")],
                Why::Disagreement,
            ),
            (
                "another paid code",
                vec![open("app-5", "Red Hat Enterprise Linux")],
                Why::Disagreement,
            ),
            (
                "a product code",
                vec![Judged {
                    actual: Some(Actual {
                        platform_details: Some(LINUX.into()),
                        usage_operation: None,
                        product_codes: ["774F4FF8".to_owned()].into(),
                    }),
                    ..open("app-5", LINUX)
                }],
                Why::Disagreement,
            ),
            (
                "too many without a code",
                vec![open("app-5", LINUX)],
                Why::Disagreement,
            ),
            (
                "a conflict",
                vec![ami(
                    "app-5",
                    "conflict",
                    "Windows",
                    &["Windows"],
                    "image-tag",
                )],
                Why::Contradiction,
            ),
            (
                "a default that accepts another platform",
                vec![verified("app-5", LINUX, "default")],
                Why::Contradiction,
            ),
            ("a typing error", vec![mistyped("app-5")], Why::MistypedTag),
            (
                "another name that the pattern matches",
                vec![open("app-7 for tests", LINUX)],
                Why::OtherNames,
            ),
        ] {
            let Suggestions { rules, uncovered } = with(more);
            assert_eq!(rules, [], "{what}");
            assert_eq!(uncovered[0].why, why, "{what}");
        }
    }

    #[test]
    fn an_ami_that_lost_its_code_is_named() {
        let lost = Judged {
            image_id: Some("ami-9".into()),
            ..open("app-9", LINUX)
        };
        let mut all = vec![lost];
        all.extend((20..22).map(|number| verified(&format!("app-{number}"), "Windows", "disk")));
        let rules = with(all).rules;
        assert_eq!(
            (rules[0].covers, rules[0].lost.as_slice()),
            (3, &["ami-9".to_owned()][..])
        );
    }

    #[test]
    fn an_ami_in_which_nothing_contradicts_the_rule_does_not_prevent_it() {
        let rules = with(vec![
            ami("app-5", "mismatch", LINUX, &["Windows"], "image-tag"),
            ami("app-6", "mismatch", "", &[], ""),
            ami("app-7", "exempt", LINUX, &[], ""),
            ami("other-5", "conflict", LINUX, &["RedHat"], "image-tag"),
        ])
        .rules;
        assert_eq!((rules[0].covers, rules[0].mismatches), (2, 1));
    }

    #[test]
    fn sources_that_say_the_same_in_other_words_agree() {
        let sql = "Windows with SQL Server Standard";
        let all = |third: &str| {
            vec![
                open("db-1", sql),
                open("db-2", sql),
                ami("db-3", "verified", sql, &["SQL"], "image-tag"),
                ami("db-4", "verified", third, &[third], "lineage"),
            ]
        };
        assert_eq!(suggest(&all(sql), 2).rules[0].platforms, [sql]);
        let other = suggest(&all("Windows with SQL Server Web"), 2);
        assert_eq!(other.uncovered[0].why, Why::Disagreement);
        // A disk and an instance do not show who supplies the licence, so both are right for the rule too.
        let either = ["RedHat", "RedHatByol"];
        let details = "Red Hat Enterprise Linux";
        let all = [
            open("os-1", details),
            open("os-2", "Red Hat BYOL Linux"),
            ami("os-3", "verified", details, &either, "disk"),
            ami("os-4", "verified", "Red Hat BYOL Linux", &either, "disk"),
        ];
        assert_eq!(suggest(&all, 2).rules[0].platforms, either);
    }

    #[test]
    fn without_two_verified_amis_or_enough_to_cover_there_is_no_rule() {
        let reasons = |all: &[Judged], min| -> Vec<Why> {
            let uncovered = suggest(all, min).uncovered;
            uncovered.iter().map(|group| group.why).collect()
        };
        let one = [
            open("a-1", "Windows"),
            open("a-2", "Windows"),
            verified("a-3", "Windows", "image-tag"),
        ];
        assert_eq!(reasons(&one, 2), [Why::NoEvidence]);
        assert_eq!(reasons(&one, 3), [Why::Few]);
        // Two verified by the default are no evidence.
        let default = [
            open("a-1", LINUX),
            open("a-2", LINUX),
            verified("a-3", LINUX, "default"),
            verified("a-4", LINUX, "default"),
        ];
        assert_eq!(reasons(&default, 2), [Why::NoEvidence]);
        let unknown = [open("a-1", "Solaris"), open("a-2", "Solaris")];
        assert_eq!(reasons(&unknown, 2), [Why::NotByRule]);
        let in_doubt = |name: &str| Judged {
            evidence: vec![Statement {
                source: "policy".into(),
                state: "failed".into(),
            }],
            ..open(name, LINUX)
        };
        assert_eq!(
            reasons(&[in_doubt("a-1"), in_doubt("a-2")], 2),
            [Why::NotByRule]
        );
        let nameless = Judged {
            name: None,
            ..open("", LINUX)
        };
        assert_eq!(reasons(&[nameless], 1), [Why::NoPattern]);
    }

    #[test]
    fn a_name_that_a_policy_cannot_match_is_not_covered() {
        for name in ["x {1}", "x\\1", "x\n[[exempt]]", "x\u{7f}1", "é1"] {
            let all = [
                open(&format!("{name}-1"), LINUX),
                open(&format!("{name}-2"), LINUX),
                verified(&format!("{name}-3"), LINUX, "image-tag"),
                verified(&format!("{name}-4"), LINUX, "image-tag"),
            ];
            let suggestions = suggest(&all, 2);
            assert_eq!(suggestions.rules, [], "{name:?}");
            assert_eq!(suggestions.uncovered[0].why, Why::NoPattern, "{name:?}");
        }
    }

    #[test]
    fn the_largest_group_comes_first_and_groups_of_one_size_are_in_the_order_of_their_names() {
        let mut all = Vec::new();
        for (name, number) in [("c", 2), ("b", 2), ("a", 2), ("z", 3)] {
            for at in 0..number {
                all.push(open(&format!("{name}x-{at}"), LINUX));
                all.push(verified(&format!("{name}x-{at}0"), LINUX, "image-tag"));
            }
        }
        let order = |suggestions: Suggestions| -> Vec<String> {
            let rules = suggestions.rules.into_iter();
            rules.map(|rule| rule.pattern).collect()
        };
        let expected = ["zx-[0-9]*", "ax-[0-9]*", "bx-[0-9]*", "cx-[0-9]*"];
        assert_eq!(order(suggest(&all, 2)), expected);
        all.reverse();
        assert_eq!(order(suggest(&all, 2)), expected);
    }
}
