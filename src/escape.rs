//! Escaping of text from outside, so that it does no harm where it is shown.

use std::io::{self, Write};

/// Longest piece of outside text on a line, in bytes. The record has the whole text.
pub(crate) const SHOWN: usize = 300;

/// Text from outside for an error message. It is quoted, its control characters are escaped, and it is cut after 80
/// characters.
pub(crate) fn quoted(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut shown: String = text.chars().take(LONGEST).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

/// Escapes all characters of a JSON document that are not printable.
pub(crate) fn escaped_json(json: &str) -> String {
    json_without(json, is_treacherous)
}

/// Escapes these characters of a JSON document by their numbers (`\u00e9`).
pub fn json_without(json: &str, unwanted: impl Fn(char) -> bool) -> String {
    let mut escaped = String::new();
    for character in json.chars() {
        if unwanted(character) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// A text as one word of a POSIX shell.
pub fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Whether a character does not show as itself. Such characters are control characters, line and paragraph separators,
/// zero-width characters, and those that change the direction of writing.
fn is_treacherous(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Text from outside on one line. Control characters, line and paragraph separators, and characters that change the
/// direction of writing are escaped. A long text is cut.
pub(crate) fn plain(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars() {
        if shown.len() >= SHOWN {
            shown.push('…');
            break;
        }
        match character {
            character if character.is_control() => shown.extend(character.escape_default()),
            character if is_treacherous(character) => shown.extend(character.escape_unicode()),
            character => shown.push(character),
        }
    }
    shown
}

/// Escapes and truncates untrusted text to one line. Keeps the first 100 characters.
pub(crate) fn one_line(text: &str) -> String {
    let short: String = text.chars().take(100).collect();
    short.escape_debug().to_string()
}

/// A key of the file, escaped to one line and cut after 60 characters.
pub(crate) fn escaped_key(key: &str) -> String {
    let mut shown = String::new();
    for character in key.chars().take(60) {
        match character.is_control() || ('\u{2028}'..='\u{202e}').contains(&character) {
            true => shown.extend(character.escape_debug()),
            false => shown.push(character),
        }
    }
    if key.chars().nth(60).is_some() {
        shown.push('…');
    }
    shown
}

/// The first line of a text in the file, without control characters and cut after 60 characters.
pub(crate) fn shortened_line(text: &str) -> String {
    let shown = text.lines().next().unwrap_or_default();
    let mut shown: String = shown
        .chars()
        .take(60)
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// Text in which no application's Markdown begins or ends code, mentions a person or makes a link.
pub(crate) fn inert_markdown(text: &str) -> String {
    let mut inert = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '`' => inert.push('\''),
            '<' => inert.push('‹'),
            '>' => inert.push('›'),
            '&' => inert.push('＆'),
            other => inert.push(other),
        }
    }
    inert
}

/// Writes lines of JSON. Escapes everything that breaks a line or moves a terminal's cursor. Names, tags and AWS's
/// messages come from outside, and JSON itself escapes only the first 32 characters.
pub(crate) struct InertJson<W>(pub(crate) W);

impl<W: Write> Write for InertJson<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for line in String::from_utf8_lossy(bytes).split_inclusive('\n') {
            let (line, end) = match line.strip_suffix('\n') {
                Some(line) => (line, "\n"),
                None => (line, ""),
            };
            write!(self.0, "{}{end}", escaped_json(line))?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_quotes_is_one_short_line() {
        let quoted = quoted(&"evil\r\n\u{1b}[2J".repeat(1000));
        assert!(quoted.len() < 400 && !quoted.contains(['\n', '\r', '\u{1b}']));
    }
}
