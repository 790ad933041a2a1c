//! Whether people are there: terminals, their width, colours, what is said to them, and a question to be answered.

use crate::exit::{Exit, Failed};
use std::io::{IsTerminal, Write};

/// The width taken for that of a terminal that does not say.
const WIDTH_DEFAULT: u16 = 80;

/// Says a line on standard error, formatted as by `format!`. Where nobody reads that any more (`2>&1 | head -1`) it is said
/// to nobody: what was asked for is done all the same.
macro_rules! talk {
    ($($words:tt)*) => {
        $crate::terminal::say(format_args!($($words)*))
    };
}

/// What `talk!` stands on.
pub fn say(words: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "{words}");
}

/// Columns of the terminal that standard output is; `None` where it is none.
pub fn width() -> Option<u16> {
    let out = std::io::stdout();
    out.is_terminal().then(|| match rustix::termios::tcgetwinsize(out) {
        Ok(size) if size.ws_col > 0 => size.ws_col,
        _ => WIDTH_DEFAULT,
    })
}

/// Whether standard output may have colours: a terminal, and nobody said `NO_COLOR` or has a dumb one.
pub fn is_colourful() -> bool {
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    std::io::stdout().is_terminal() && !is_dumb && std::env::var_os("NO_COLOR").is_none_or(|word| word.is_empty())
}

/// Whether somebody sits there who can be asked.
pub fn is_attended() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks whoever sits there. Where nobody does, it is taken for yes: a script says what it means.
pub fn confirm(question: &str) -> Result<(), Failed> {
    if !is_attended() {
        return Ok(());
    }
    let mut talk = std::io::stderr().lock();
    write!(talk, "{question} [y/N] ")?;
    talk.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failed::new(Exit::Unexpected, "not confirmed: nothing was changed").hint("--yes asks no questions")),
    }
}
