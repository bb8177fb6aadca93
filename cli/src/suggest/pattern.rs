//! Patterns of AMI names: a name in which dates, ids and counters are left open. A pattern is a glob of the policy.

use std::collections::{BTreeMap, BTreeSet};

/// A part of a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// Text that is the same in all names of a pattern.
    Text(String),
    /// A short number. Other names show whether it is a version or a counter.
    Number(String),
    /// A date, a time, or a long number.
    Moment,
    /// A hexadecimal id.
    Id,
}

/// A version occurs this many times on average. A number with more different values is a counter.
const TIMES: usize = 4;

/// Fewest digits of a number that is always left open: a date without separators, or a time in seconds.
const LONG: usize = 6;

/// Fewest characters of a hexadecimal id.
const ID: usize = 8;

/// The pattern of each name.
pub(super) fn patterns<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, String> {
    // Names that differ only in their short numbers have the same template.
    let mut templates: BTreeMap<Vec<Part>, Vec<(&str, Vec<Part>)>> = BTreeMap::new();
    for name in names {
        let parts = parts(name);
        let template = parts.iter().map(|part| match part {
            Part::Number(_) => Part::Number(String::new()),
            part => part.clone(),
        });
        let alike = templates.entry(template.collect()).or_default();
        alike.push((name, parts));
    }
    let mut patterns = BTreeMap::new();
    for (template, alike) in templates {
        let is_counter: Vec<bool> = (0..template.len())
            .map(|at| {
                let values: BTreeSet<_> = alike.iter().map(|(_, parts)| parts.get(at)).collect();
                values.len() > 1 && values.len() * TIMES > alike.len()
            })
            .collect();
        for (name, parts) in alike {
            let parts = parts.iter().zip(&is_counter);
            let globs = parts.map(|(part, is_counter)| match part {
                Part::Text(text) => literal(text),
                Part::Number(number) if !is_counter => number.clone(),
                // Not any text, because the pattern must not match names with another word in this place.
                Part::Number(_) | Part::Moment => "[0-9]*".to_owned(),
                Part::Id => "[0-9a-fA-F]*".to_owned(),
            });
            patterns.insert(name, globs.collect());
        }
    }
    patterns
}

/// A text as a glob that matches only this text.
fn literal(text: &str) -> String {
    let mut glob = String::new();
    for letter in text.chars() {
        match letter {
            '*' | '?' | '[' => glob.extend(['[', letter, ']']),
            letter => glob.push(letter),
        }
    }
    glob
}

fn parts(name: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let begins_word = !text.ends_with(|last: char| last.is_ascii_alphanumeric());
        let (part, length) = if begins_word && let Some(length) = id(rest) {
            (Part::Id, length)
        } else if let Some(length) = moment(rest) {
            (Part::Moment, length)
        } else if first.is_ascii_digit() {
            let length = digits(rest);
            let number = rest.get(..length).unwrap_or_default();
            (Part::Number(number.to_owned()), length)
        } else {
            text.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
            continue;
        };
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut text)));
        }
        parts.push(part);
        rest = rest.get(length..).unwrap_or_default();
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    parts
}

/// Number of digits at the beginning of a text.
fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// Length of a hexadecimal id or a UUID at the beginning of a text. A number alone is not an id.
fn id(text: &str) -> Option<usize> {
    let is_hex = |word: &str| word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let uuid = text.get(..36).filter(|uuid| {
        let words: Vec<&str> = uuid.split('-').collect();
        let lengths: Vec<usize> = words.iter().map(|word| word.len()).collect();
        lengths == [8, 4, 4, 4, 12] && words.iter().all(|word| is_hex(word))
    });
    if let Some(uuid) = uuid {
        return Some(uuid.len());
    }
    let mut words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
    let word = words.next().unwrap_or_default();
    let has = |is: fn(&u8) -> bool| word.as_bytes().iter().any(is);
    let is_id =
        word.len() >= ID && is_hex(word) && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic);
    is_id.then_some(word.len())
}

/// Length of a date or a long number at the beginning of a text, with the time that follows.
fn moment(text: &str) -> Option<usize> {
    let mut end = match digits(text) {
        long if long >= LONG => long,
        4 => date(text)?,
        _ => return None,
    };
    // The hours, minutes, seconds and fractions.
    while let Some(length) = text.get(end..).and_then(of_time) {
        end += length;
    }
    let is_utc = text.get(end..).is_some_and(|rest| rest.starts_with('Z'));
    Some(end + usize::from(is_utc))
}

/// Length of a separator and a number of a time at the beginning of a text.
fn of_time(text: &str) -> Option<usize> {
    let number = digits(text.strip_prefix(['T', '-', '_', '.', ':', ' '])?);
    (matches!(number, 2 | 3) || number >= LONG).then_some(1 + number)
}

/// Length of a date with separators (`2026-11-29`) at the beginning of a text.
fn date(text: &str) -> Option<usize> {
    let date = text.get(..10)?;
    let words: Vec<&str> = date.split(['-', '_', '.', '/']).collect();
    let [year, month, day] = words.as_slice() else {
        return None;
    };
    let between = |word: &str, least: u32, most: u32| {
        word.bytes().all(|byte| byte.is_ascii_digit())
            && word
                .parse::<u32>()
                .is_ok_and(|number| (least..=most).contains(&number))
    };
    let is_date = between(year, 1990, 2199)
        && (month.len(), day.len()) == (2, 2)
        && between(month, 1, 12)
        && between(day, 1, 31)
        && text.get(10..).is_none_or(|rest| digits(rest) == 0);
    is_date.then_some(date.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Vec<String> {
        let patterns = patterns(names.iter().copied());
        names.iter().map(|name| patterns[name].clone()).collect()
    }

    #[test]
    fn dates_times_ids_and_long_numbers_are_left_open() {
        for (name, pattern) in [
            ("web-20261129-base", "web-[0-9]*-base"),
            ("web 2026-11-29T03-19-49Z", "web [0-9]*"),
            ("web-2026.11.29_031949.123-x", "web-[0-9]*-x"),
            ("packer 1732850389", "packer [0-9]*"),
            ("app-3f2a91bc-arm", "app-[0-9a-fA-F]*-arm"),
            (
                "AwsBackup_i-0123456789abcdef0_01234567-89ab-cdef-0123-456789abcdef",
                "AwsBackup_i-[0-9a-fA-F]*_[0-9a-fA-F]*",
            ),
            // These are not dates, and a word of hexadecimal digits is not an id.
            ("app-2026-13-01", "app-2026-13-01"),
            ("app-0000-10-10", "app-0000-10-10"),
            ("facade-deadbeef", "facade-deadbeef"),
        ] {
            assert_eq!(of(&[name]), [pattern], "{name}");
        }
    }

    #[test]
    fn a_short_number_is_a_version_where_many_names_share_it_and_else_a_counter() {
        let mut names = Vec::new();
        for number in 0..8 {
            for version in [2019, 2022] {
                names.push(format!("win{version}-22.04-v{number}"));
            }
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let patterns: BTreeSet<String> = of(&names).into_iter().collect();
        let versions = ["win2019-22.04-v[0-9]*", "win2022-22.04-v[0-9]*"];
        assert_eq!(patterns, versions.map(str::to_owned).into());
        // Too few names to see a version.
        let few = of(&["db-1", "db-2"]);
        assert_eq!(few, ["db-[0-9]*", "db-[0-9]*"]);
    }

    #[test]
    fn what_a_glob_would_take_for_a_sign_is_matched_as_it_is() {
        assert_eq!(
            of(&["erp-db [standard] ?*"]),
            ["erp-db [[]standard] [?][*]"]
        );
    }
}
