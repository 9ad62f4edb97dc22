//! Printing: emphasis for people, where there are people (a terminal, and no `NO_COLOR`), JSON for
//! programs, and an end without ado where nobody reads any more.

use std::io::{self, IsTerminal, Write};
use std::{env, fmt};

use serde::Serialize;

/// Writes `text` to stdout.
pub(crate) fn print(text: &str) {
    let mut stdout = io::stdout();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    // `bindery ls | head -n 1` is no mistake.
    if let Err(error) = written.or_else(unless_reader_left) {
        eprintln!("bindery: cannot write to stdout: {error}");
    }
}

fn unless_reader_left(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
}

/// Writes `value` to stdout as JSON for reading.
pub(crate) fn print_json(value: &impl Serialize) {
    print(&json(value));
}

/// `value` as JSON for reading; empty, and told, where it has no form in JSON.
pub(crate) fn json(value: &impl Serialize) -> String {
    match serde_json::to_string_pretty(value) {
        Ok(text) => format!("{text}\n"),
        Err(error) => {
            eprintln!("bindery: {error}");
            String::new()
        }
    }
}

/// How to emphasise on stdout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    colour: bool,
}

/// A manner of emphasis, as a terminal's parameter for it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tone {
    Bold,
    Faint,
    Red,
    Green,
    Yellow,
}

impl Style {
    /// No colour where stdout is no terminal, a dumb one, or `NO_COLOR` is set.
    pub(crate) fn of_stdout() -> Self {
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self { colour: io::stdout().is_terminal() && !unwanted && !dumb }
    }

    /// No colour.
    pub(crate) fn plain() -> Self {
        Self { colour: false }
    }

    /// `text` in `tone`.
    pub(crate) fn paint(self, tone: Tone, text: impl fmt::Display) -> String {
        if !self.colour {
            return text.to_string();
        }
        let parameter = match tone {
            Tone::Bold => 1,
            Tone::Faint => 2,
            Tone::Red => 31,
            Tone::Green => 32,
            Tone::Yellow => 33,
        };
        format!("\x1b[{parameter}m{text}\x1b[0m")
    }
}

/// A header and rows, in columns that line up.
pub(crate) fn columns<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let lines: Vec<_> = [header.map(str::to_owned)].into_iter().chain(rows).collect();
    let mut widths = [0; N];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let padded = |line: &[String; N]| {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    lines.iter().map(padded).collect()
}

/// A cell: its text, `-` for none.
pub(crate) fn or_dash(text: Option<&String>) -> String {
    text.map_or("-", String::as_str).to_owned()
}

/// `text` in lines of at most `width` characters, broken at spaces.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_spaces() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("unbreakable", 3), ["unbreakable"]);
        assert_eq!(wrapped("", 3), Vec::<String>::new());
    }
}
