//! What a message says, in the order in which a reader needs it. Every channel renders the same letter in its own form.

use crate::config::is_url;
use crate::escape::plain;

/// Largest length of a subject, which must be below 100 characters (SNS API reference, "Publish").
const SUBJECT: usize = 99;

/// What the first word of a subject tells the reader to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Nothing.
    Info,
    /// Act at once.
    ActNow,
    /// Wait for half an hour.
    Wait,
    /// Look.
    Check,
    /// Decide.
    Decide,
    /// Nothing, because it is a test.
    Test,
}

impl Urgency {
    fn word(self) -> &'static str {
        match self {
            Urgency::Info => "[info]",
            Urgency::ActNow => "[act now]",
            Urgency::Wait => "[wait 30 min]",
            Urgency::Check => "[check]",
            Urgency::Decide => "[decide]",
            Urgency::Test => "[test]",
        }
    }
}

/// A message before it has the form of a channel. Text from outside in it is escaped, and on one line.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    /// Subject of a mail. It is ASCII, on one line, and below 100 characters.
    pub(super) subject: String,
    /// What happened, in one sentence.
    pub(super) happened: String,
    /// What was done.
    pub(super) done: String,
    /// Whether production is affected.
    pub(super) production: String,
    /// Whether the reader must act, and by when.
    pub(super) act: String,
    /// The first command, if there is one.
    pub(super) first: Option<String>,
    /// Section of the runbook.
    pub(super) runbook: &'static str,
    /// The rest, in the order in which it is needed: what to do, why, and details.
    pub(super) sections: Vec<Section>,
}

impl Letter {
    /// Where to read more. `runbook` is the URL or the file name of the runbook.
    pub(super) fn read_more(&self, runbook: Option<&str>) -> String {
        match runbook {
            Some(url) if is_url(url) => format!("{url}#{}", self.runbook),
            Some(file) => format!("section \"{}\" of {file}", self.runbook),
            None => format!("section \"{}\" of the runbook", self.runbook),
        }
    }
}

/// What a section is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// What to do. Has no text from outside except in commands.
    Steps,
    /// Why it happened.
    Why,
    /// What is needed only later.
    Details,
}

/// A section of a letter.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) part: Part,
    /// Heading, which is ASCII and comes from the guard alone.
    pub(super) title: String,
    /// Sentences and commands. A command is a line of its own.
    pub(super) lines: Vec<String>,
}

impl Section {
    /// A section without lines yet.
    pub(super) fn new(part: Part, title: impl Into<String>) -> Section {
        Section {
            part,
            title: title.into(),
            lines: Vec::new(),
        }
    }

    /// Adds a sentence or a command.
    pub(super) fn line(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// Whether a text in it was cut. Such a text ends in this character.
    pub(super) fn is_cut(&self) -> bool {
        self.lines.iter().any(|line| line.contains('…'))
    }

    /// Adds a named value from outside, escaped. Without a value, adds nothing.
    pub(super) fn field(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.line(format!("{name:<13}{}", plain(value)));
        }
    }
}

/// The subject of a mail. `what` is ASCII, and `account` and `region` are left out if they are not plain words.
pub(super) fn subject(
    urgency: Urgency,
    what: &str,
    account: Option<&str>,
    region: Option<&str>,
) -> String {
    let is_word = |text: &&str| {
        text.bytes()
            .all(|it| it.is_ascii_alphanumeric() || it == b'-')
    };
    let place = [account, region].into_iter().flatten().filter(is_word);
    let place = place.collect::<Vec<_>>().join(" ");
    let mut subject = format!("{} {what} ({place})", urgency.word());
    subject.truncate(SUBJECT);
    subject
}

/// A number with its noun, for example `2 AMIs`.
pub(super) fn number(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}
