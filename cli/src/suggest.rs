//! `ami-guard policy suggest`: rules for the AMIs of an audit that no source says anything about.

mod groups;
mod pattern;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use ami_billing_guard::policy::LARGEST_POLICY;
use clap::{Args, value_parser};

use crate::account::GuardArgs;
use crate::audit::journal::Journal;
use crate::audit::{self, Extent};
use crate::outcome::{CliError, Outcome};
use crate::show::{shown, tell};
use groups::{Judged, Rule, Suggestions, Uncovered, WITNESSES, Why, expect, suggest};

const AFTER: &str = "\
Prints a policy with [[expect]] rules. Review each rule before you append it to your policy.

A rule covers unverifiable AMIs whose names have the same pattern. It rests on at least two AMIs with such a name that \
the audit verified. A rule is not suggested if it contradicts an AMI that the audit judged, or if the AMIs with such a \
name do not agree. Comments list the AMIs that no rule covers, and why.

Without --state, the command audits the account, and does not save the results. With --state, it uses the policy of \
that audit. Nothing is changed.

Exit codes:
  0  the policy was printed
  2  the command line, the policy or the state file is not valid
  3  the audit is incomplete, or for an AMI something could not be determined. The policy was printed nevertheless";

/// What to suggest rules from.
#[derive(Args)]
#[command(after_help = AFTER)]
pub(crate) struct Arguments {
    #[command(flatten)]
    guarding: GuardArgs,
    #[command(flatten)]
    extent: Extent,
    /// The state file of an audit that was run before. AWS is then not called
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["region", "profile", "all_regions", "since", "disk"]
    )]
    state: Option<PathBuf>,
    /// Suggest only rules that cover at least this many AMIs
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = value_parser!(u32).range(1..))]
    min: u32,
}

/// Number of groups to list for each reason.
const LISTED: usize = 20;

/// Number of AMIs to name in the comment of a rule.
const NAMED: usize = 10;

/// Bytes of the policy that are kept for the comments after the rules.
const ROOM: usize = 64 * 1024;

/// Suggests rules.
pub(crate) async fn run(arguments: Arguments, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let journal = match &arguments.state {
        Some(path) => Journal::view(path)?,
        None => audit::unsaved(arguments.guarding, arguments.extent).await?,
    };
    let all: Vec<Judged> = journal.rows::<Judged>()?.collect::<Result<_, _>>()?;
    let min = usize::try_from(arguments.min).unwrap_or(usize::MAX);
    let suggestions = suggest(&all, min);
    out.write_all(policy(&journal, &all, suggestions).as_bytes())?;
    let gaps = gaps(&journal, &all).into_iter();
    Ok(gaps.fold(Outcome::Good, |outcome, why| {
        outcome.and(tell(&why, Outcome::Unknown))
    }))
}

/// What the audit could not determine, as sentences.
fn gaps(journal: &Journal, all: &[Judged]) -> Vec<String> {
    let mut gaps = Vec::new();
    if !journal.is_complete() {
        gaps.push("the audit is not complete. To continue it, run ami-guard audit --resume".into());
    }
    let underway: usize = journal.pages().map(|page| page.underway).sum();
    if underway > 0 {
        gaps.push(format!("{} pending and not judged", are(underway)));
    }
    for page in journal.pages() {
        if let Some(why) = &page.failed {
            gaps.push(format!("{} was not audited: {why}", page.region));
        }
    }
    let failed = all
        .iter()
        .filter(|row| row.verdict == "unverifiable" && row.has_failed_source());
    match failed.count() {
        0 => {}
        failed => gaps.push(format!(
            "{} unverifiable because a source could not be queried. The records say why (ami-guard audit --json)",
            are(failed)
        )),
    }
    gaps
}

/// The suggested rules as a policy, with comments.
fn policy(journal: &Journal, all: &[Judged], suggestions: Suggestions) -> String {
    let Suggestions {
        rules,
        mut uncovered,
    } = suggestions;
    let (mut texts, mut covered) = (String::new(), 0);
    let mut printed = 0;
    for rule in rules {
        let text = of_rule(&rule);
        if texts.len() + text.len() > LARGEST_POLICY - ROOM {
            uncovered.push(Uncovered::without_room(rule));
            continue;
        }
        texts.push_str(&text);
        covered += rule.covers;
        printed += 1;
    }
    let open = all.iter().filter(|row| row.verdict == "unverifiable");
    let open = open.count();
    let header = &journal.header;
    let (account, regions) = (shown(&header.account), shown(&header.regions.join(", ")));
    let mut text =
        format!("# Suggested by ami-guard from an audit of account {account} ({regions}).\n");
    let rules = counted(printed, "rule");
    text.push_str(&format!(
        "# {open} of {} are unverifiable. {rules} below cover{} {covered} of them, and {} remain{}.\n",
        counted(all.len(), "AMI"),
        if printed == 1 { "s" } else { "" },
        open - covered,
        if open - covered == 1 { "s" } else { "" },
    ));
    text.push_str(
        "#\n\
         # Review each rule before you append it to your policy. With a rule, the guard may discard new AMIs that are\n\
         # billed otherwise. The rules match names only. An audit does not know who registered an AMI, and its records\n\
         # do not have the AMIs' tags.\n\
         \n\
         version = 1\n",
    );
    text.push_str(&texts);
    text.push_str(&of_uncovered(&uncovered));
    text
}

/// A rule, with the comment that says what it covers and what it rests on.
fn of_rule(rule: &Rule) -> String {
    let says: Vec<String> = rule
        .sources
        .iter()
        .map(|(source, number)| format!("{source} {number}"))
        .collect();
    let mut text = format!(
        "\n# Covers {}. Evidence: {} with such a name ({}).\n",
        counted(rule.covers, "unverifiable AMI"),
        counted(rule.witnesses, "verified AMI"),
        says.join(", ")
    );
    if rule.pattern.contains("]*") {
        text.push_str(
            "# The pattern also matches any other text after a digit or id that it leaves open.\n",
        );
    }
    if rule.platforms.iter().any(|it| it == "Linux") {
        text.push_str(
            "# An AMI that lost its billing code is billed as Linux/UNIX, too. Read the disks of some of these first:\n\
             # ami-guard inspect '<AMI>'\n",
        );
    }
    if !rule.lost.is_empty() {
        let mut named: Vec<String> = rule.lost.iter().take(NAMED).map(|id| shown(id)).collect();
        let more = rule.lost.len() - named.len();
        if more > 0 {
            named.push(format!("and {more} more"));
        }
        let lost = rule.lost.len();
        let (verb, them) = if lost == 1 {
            ("is", "it")
        } else {
            ("are", "them")
        };
        text.push_str(&format!(
            "# Of these, {lost} {verb} billed as Linux/UNIX, so the rule makes {them} a mismatch:\n# {}\n",
            named.join(", ")
        ));
    }
    if rule.mismatches > 0 {
        text.push_str(&format!(
            "# Besides, {} a mismatch already, with the same expectation.\n",
            are(rule.mismatches)
        ));
    }
    text.push_str(&expect(&rule.pattern, &rule.platforms));
    text
}

/// The comments about the AMIs that no rule covers.
fn of_uncovered(uncovered: &[Uncovered]) -> String {
    if uncovered.is_empty() {
        return String::new();
    }
    let mut reasons: BTreeMap<Why, Vec<&Uncovered>> = BTreeMap::new();
    for group in uncovered {
        reasons.entry(group.why).or_default().push(group);
    }
    let number = |groups: &[&Uncovered]| groups.iter().map(|group| group.number).sum::<usize>();
    let mut text = String::from("\n# Not covered\n");
    for (why, groups) in &reasons {
        let amis = counted(number(groups), "AMI");
        text.push_str(&format!("#\n# {amis}: {}\n", reason(*why)));
        for group in groups.iter().take(LISTED) {
            let billed_as: Vec<String> = group
                .billed_as
                .iter()
                .map(|(what, number)| format!("{number} billed as {}", shown(what)))
                .collect();
            let pattern = match group.pattern.as_str() {
                "" => "(no name)".to_owned(),
                pattern => shown(pattern),
            };
            let billed_as = match billed_as.is_empty() {
                true => counted(group.number, "AMI"),
                false => billed_as.join(", "),
            };
            text.push_str(&format!("#   {pattern}: {billed_as}\n"));
        }
        if let Some(rest) = groups.get(LISTED..).filter(|rest| !rest.is_empty()) {
            let (patterns, amis) = (
                counted(rest.len(), "more pattern"),
                counted(number(rest), "AMI"),
            );
            text.push_str(&format!("#   and {patterns}, {amis}\n"));
        }
    }
    text.push_str(
        "#\n\
         # No [[exempt]] rule is suggested. An audit does not show that AMIs are billed otherwise on purpose, for example\n\
         # because you bring the licence. If you know such AMIs, add a rule for them, with its reason.\n",
    );
    text
}

/// Why there is no rule, and what to do.
fn reason(why: Why) -> String {
    match why {
        Why::NoEvidence => format!(
            "fewer than {WITNESSES} verified AMIs have such a name. To get evidence, tag {WITNESSES} of them, or run \
             the audit with --disk."
        ),
        Why::Disagreement => {
            "the AMIs with such a name are not all expected or billed alike. Tag them, or change their names.".into()
        }
        Why::MistypedTag => {
            "a tag ami-billing-guard:expect names something that is not a platform. Correct the tag.".into()
        }
        Why::Contradiction => {
            "the pattern also matches an AMI with another billing, or with evidence that contradicts itself.".into()
        }
        Why::OtherNames => "the pattern also matches unverifiable AMIs with other names.".into(),
        Why::Few => "there are fewer of them than --min.".into(),
        Why::NoPattern => "a policy cannot match their names.".into(),
        Why::NotByRule => {
            "no further rule can help. This version does not know what they are billed as, or a rule of the policy \
             depends on what an audit does not know, such as who registered them."
                .into()
        }
        Why::NoRoom => format!("the policy would have more than {LARGEST_POLICY} bytes."),
    }
}

fn counted(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}

fn are(amis: usize) -> String {
    let verb = if amis == 1 { "is" } else { "are" };
    format!("{} {verb}", counted(amis, "AMI"))
}
