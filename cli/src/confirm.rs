//! Confirmation by a person at a terminal, or by `--yes` in a script.

use std::io::{self, IsTerminal, Write};

use crate::outcome::CliError;
use crate::show::lines;

/// Whether a person can be asked. The question goes to standard error, and the answer comes from standard input.
pub(crate) fn at_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a question, and returns the line that the person typed. At the end of the input, that is an empty one.
///
/// # Errors
/// [`CliError::Usage`], if the answer cannot be read.
pub(crate) fn ask(question: &str) -> Result<String, CliError> {
    let mut terminal = io::stderr();
    // An error of the terminal shows when the answer is read.
    let _ = write!(terminal, "ami-guard: {} ", lines(question));
    let _ = terminal.flush();
    let mut answer = String::new();
    match io::stdin().read_line(&mut answer) {
        Ok(_) => Ok(answer.trim().to_owned()),
        Err(error) => Err(CliError::Usage(format!(
            "the answer cannot be read: {error}. Nothing was changed"
        ))),
    }
}
