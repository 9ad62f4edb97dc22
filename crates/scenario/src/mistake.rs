//! What is wrong with a scenario, and where: file, line, column, the line itself with the place underlined.
//!
//! Takes no lock.

use std::fmt;
use std::ops::Range;

/// A mistake in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// What the text is called: a file's path, or the command line.
    pub source: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    excerpt: String,
    width: usize,
}

impl Mistake {
    /// The mistake `message` at bytes `at` of `text`.
    pub fn new(source: &str, text: &str, at: Range<usize>, message: impl Into<String>) -> Self {
        let start = floor(text, at.start);
        let end = floor(text, at.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        Self {
            source: source.to_owned(),
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            message: message.into(),
            excerpt: text[line_start..line_end].to_owned(),
            width: text[start..end.min(line_end)].chars().count().max(1),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, line, column, message, excerpt, width } = self;
        let indent = column - 1;
        writeln!(f, "{source}:{line}:{column}: {message}")?;
        writeln!(f, "  {excerpt}")?;
        write!(f, "  {:indent$}{:^<width$}", "", "")
    }
}

impl std::error::Error for Mistake {}

fn floor(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_shown() {
        let mistake = Mistake::new("a.toml", "one\ntwö three\nfour", 9..14, "no such thing");
        let shown = "a.toml:2:5: no such thing\n  twö three\n      ^^^^^";
        assert_eq!(mistake.to_string(), shown);
        let end = Mistake::new("a.toml", "one", 90..99, "more is needed");
        assert_eq!((end.line, end.column), (1, 4));
    }
}
