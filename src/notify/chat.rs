//! The alert as chat applications show it. It is a custom notification of Amazon Q Developer in chat applications (its
//! Administrator Guide, "Custom notifications"). From there it goes to Slack, Microsoft Teams or Chime.
//!
//! Each chat application renders it as a Markdown dialect of its own. All text from outside is therefore in code.
//! Characters that could end the code, mention a person or make a link are replaced. AWS does not document how long a
//! notification may be. It is kept well below the length of a Slack message.

use serde_json::{Value, json};

use super::letter::{Letter, Part};
use crate::escape::{escaped_json, inert_markdown};
use crate::record::remediation::is_command;

/// Largest length of a block of text, in bytes. Slack accepts 3,000 characters.
const LONGEST_TEXT: usize = 2_500;

/// Largest length of a command in a step, in bytes.
const LONGEST_STEP: usize = 600;

/// Largest number of steps, and of lines of a section.
const MOST_STEPS: usize = 6;
const MOST_LINES: usize = 10;

/// What a chat application needs besides the letter.
pub(super) struct Thread {
    /// Id of the thread. Each AMI has a thread of its own, as have the digests and audits of an account and Region.
    pub(super) id: String,
    /// Words by which people search.
    pub(super) keywords: Vec<String>,
    /// Values for programs that act on the notification.
    pub(super) context: Value,
}

/// A letter as a notification.
/// `runbook` is the URL or the file name of the runbook.
pub(super) fn notification(letter: &Letter, thread: Thread, runbook: Option<&str>) -> String {
    let mut facts = Facts::default();
    facts.line(&letter.happened);
    facts.line(&format!("Done: {}", letter.done));
    facts.line(&format!("Production: {}", letter.production));
    facts.line(&format!("Act: {}", letter.act));
    facts.line(&format!("Read more: {}", letter.read_more(runbook)));
    for section in letter.sections.iter().filter(|it| it.part == Part::Why) {
        facts.line(&format!("{}:", section.title));
        let lines = section.lines.iter().take(MOST_LINES);
        lines.for_each(|line| facts.line(line));
        if section.lines.len() > MOST_LINES {
            facts.line("and more, which the mail has");
        }
    }
    let sections = letter.sections.iter().filter(|it| it.part == Part::Steps);
    let lines: Vec<&String> = sections.flat_map(|section| &section.lines).collect();
    let mut steps = grouped(letter.first.iter().chain(lines));
    if steps.len() > MOST_STEPS {
        steps.truncate(MOST_STEPS - 1);
        steps.push("All steps are in the mail, and in the record (`fix`).".to_owned());
    }
    let mut content = json!({
        "textType": "client-markdown",
        "title": letter.subject,
        "description": format!("```\n{}```", facts.0),
        "keywords": thread.keywords,
    });
    if let (Some(content), false) = (content.as_object_mut(), steps.is_empty()) {
        content.insert("nextSteps".into(), steps.into());
    }
    let notification = json!({
        "version": "1.0",
        "source": "custom",
        "content": content,
        "metadata": {
            "threadId": thread.id,
            "summary": letter.subject,
            "eventType": "ami-billing-guard",
            "additionalContext": thread.context,
        },
    });
    escaped_json(&notification.to_string())
}

/// Lines of a block of code.
#[derive(Default)]
struct Facts(String);

impl Facts {
    /// Adds a line, if there is room for it.
    fn line(&mut self, line: &str) {
        const CUT: &str = "… (the mail has all)\n";
        if self.0.ends_with(CUT) {
            return;
        }
        let line = inert_markdown(line);
        if self.0.len() + line.len() + 1 + CUT.len() > LONGEST_TEXT {
            self.0.push_str(CUT);
            return;
        }
        self.0.push_str(&line);
        self.0.push('\n');
    }
}

/// Converts lines to steps. A sentence that ends in a colon and the command after it make one step.
fn grouped<'a>(lines: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut steps: Vec<String> = Vec::new();
    for line in lines {
        match steps.last_mut() {
            Some(last) if is_command(line) && last.ends_with(':') => {
                last.push(' ');
                last.push_str(&step(line));
            }
            _ => steps.push(step(line)),
        }
    }
    steps
}

/// A step as Markdown. A command is in code, because no application may change a character of it. A command is not
/// shown if it is too long, or if the replacement of characters would alter what it does.
fn step(text: &str) -> String {
    if !is_command(text) {
        return inert_markdown(text);
    }
    // A command with tags has them exactly as people wrote them, so no character may be replaced. In other commands,
    // `<…>` is for people to fill in.
    let has_text = ["--tag-specifications", "--cli-input-json"];
    let has_text = has_text.iter().any(|option| text.contains(option));
    let as_it_is = has_text && inert_markdown(text) != text;
    match as_it_is || text.len() > LONGEST_STEP {
        true => "The exact command is in the mail, and in the record (`fix`).".to_owned(),
        false => format!("`{}`", inert_markdown(text)),
    }
}
