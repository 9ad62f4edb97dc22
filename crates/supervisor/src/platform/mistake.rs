//! What can be wrong with a platform file or a `--device` option, and how it is told.
//!
//! A [`Mistake`] prints as compilers print: the place, what is wrong, what is allowed, then the line
//! with a caret under the culprit. Takes no lock.

use std::fmt;
use std::io;
use std::ops::Range;

use thiserror::Error;

/// Why there is no platform.
#[derive(Debug, Error)]
pub enum PlatformError {
    /// The file cannot be read.
    #[error("{file}: cannot be read: {error}")]
    Unreadable {
        /// The file as it was named.
        file: String,
        /// What the system said.
        error: io::Error,
    },
    /// The file is not UTF-8.
    #[error("{file}: byte {offset} is not UTF-8 text; a platform file is TOML")]
    NotText {
        /// The file as it was named.
        file: String,
        /// Bytes before the first bad one.
        offset: usize,
    },
    /// It can be read, and says something wrong.
    #[error(transparent)]
    Mistake(#[from] Box<Mistake>),
}

/// One thing wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    place: Place,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// Not TOML.
    #[error("{message}")]
    Syntax {
        /// The parser's words.
        message: String,
    },
    /// A key that nothing reads.
    #[error("unknown key `{key}` in {table}; keys: {}", list(.allowed))]
    UnknownKey {
        /// The key as written.
        key: String,
        /// The table it stands in.
        table: String,
        /// What may stand there.
        allowed: Vec<&'static str>,
    },
    /// A setting whose behaviour this version does not have.
    #[error("`{key}` is not available in this version; keys: {}", list(.allowed))]
    KeyNotYet {
        /// The key.
        key: &'static str,
        /// What may stand there.
        allowed: Vec<&'static str>,
    },
    /// A value that names nothing.
    #[error("`{key}` has no value {value:?}; values: {}", list(.allowed))]
    UnknownValue {
        /// The key.
        key: &'static str,
        /// The value as written.
        value: String,
        /// What it may be.
        allowed: Vec<&'static str>,
    },
    /// A value of another type.
    #[error("`{key}` is {expected}, not {found}")]
    WrongType {
        /// The key.
        key: String,
        /// What it takes.
        expected: &'static str,
        /// What was written.
        found: &'static str,
    },
    /// A number outside its range.
    #[error("`{key}` is {value}; allowed: {allowed}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// The value as written.
        value: String,
        /// The range, in words.
        allowed: &'static str,
    },
    /// A key that must be there is not.
    #[error("`{key}` is missing in {table}")]
    Missing {
        /// The key.
        key: &'static str,
        /// The table that lacks it.
        table: String,
    },
    /// No such model.
    #[error("unknown model {model:?}; models: {}", list(.allowed))]
    UnknownModel {
        /// The model as written.
        model: String,
        /// The models there are.
        allowed: Vec<&'static str>,
    },
    /// Not a PCI address.
    #[error(
        "{text:?} is not a PCI address; expected dddd:bb:dd.f in hexadecimal, such as b1d0:01:00.0"
    )]
    NotAnAddress {
        /// The text as written.
        text: String,
    },
    /// A fault of a function that is not there.
    #[error("the platform has no function {address}")]
    NoSuchFunction {
        /// The address.
        address: pci::Address,
    },
    /// A fault of a function that has no TDI.
    #[error("{address} takes no part in TEE-IO (`tee = true`), so no fault can befall its TDI")]
    NoTdi {
        /// The address.
        address: pci::Address,
    },
    /// A text that is no fault.
    #[error(transparent)]
    NotAFault(tsm::fault::BadFault),
    /// Two functions at one address.
    #[error("{address} is taken by another function; each needs an address of its own")]
    AddressTaken {
        /// The address.
        address: pci::Address,
    },
    /// The virtual functions do not fit behind the physical function.
    #[error("{vfs} virtual functions do not fit behind {address}; at most {most}")]
    VirtualFunctionsDoNotFit {
        /// The physical function.
        address: pci::Address,
        /// How many were asked for.
        vfs: u64,
        /// How many fit.
        most: u64,
    },
    /// A function other than 0 of a device without function 0.
    #[error("{address} has no function 0 beside it; a PCI device always has function 0")]
    NoFunctionZero {
        /// The lonely function.
        address: pci::Address,
    },
    /// Two bridges lead to one bus.
    #[error("bus {bus:02x} is already behind another bridge")]
    BusTaken {
        /// The bus.
        bus: u8,
    },
    /// A root port that is not on a root bus.
    #[error("a root port stands on a root bus; bus {bus:02x} is behind {above}")]
    NotOnRootBus {
        /// The bus it stands on.
        bus: u8,
        /// The bridge that leads there.
        above: pci::Address,
    },
    /// A bridge leads to a bus that is not below it.
    #[error("secondary_bus {bus:#04x} must be above the bridge's own bus {own:#04x}")]
    BusNotBelow {
        /// The bus behind the bridge.
        bus: u8,
        /// The bus that the bridge is on.
        own: u8,
    },
    /// Addresses of the IOMMU that do not go together.
    #[error("{what}")]
    BadSpan {
        /// What is wrong, in words.
        what: String,
    },
    /// What an IOMMU of the kind that `iommu` names cannot be like.
    #[error("not with `iommu = {hardware:?}`: {what}")]
    OtherHardware {
        /// The kind.
        hardware: &'static str,
        /// What it is like.
        what: &'static str,
    },
    /// An option that is not `key=value`.
    #[error("{text:?} is not key=value; keys: {}", list(.allowed))]
    NotKeyValue {
        /// The part of the option.
        text: String,
        /// What may stand there.
        allowed: Vec<&'static str>,
    },
    /// One key twice.
    #[error("`{key}` is said twice")]
    Repeated {
        /// The key.
        key: String,
    },
    /// No room for another function.
    #[error("no bus is free for another device; give it an `address`")]
    NoFreeBus,
}

impl Mistake {
    pub(super) fn new(source: &Source, span: Range<usize>, fault: Fault) -> Box<Self> {
        Box::new(Self { place: Place::find(source, span), fault })
    }

    /// The line, from 1.
    pub fn line(&self) -> usize {
        self.place.line
    }

    /// The character in the line, from 1.
    pub fn column(&self) -> usize {
        self.place.column
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { name, line, column, width, text } = &self.place;
        writeln!(f, "{name}:{line}:{column}: {}", self.fault)?;
        writeln!(f, "{line:6} | {text}")?;
        let lead: String =
            text.chars().take(column - 1).map(|c| if c == '\t' { c } else { ' ' }).collect();
        write!(f, "       | {lead}{}", "^".repeat(*width))
    }
}

impl std::error::Error for Mistake {}

/// A text that is being read, with the name that people know it by.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) text: String,
}

/// Where in a source: enough of it to show.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    name: String,
    line: usize,
    column: usize,
    /// Carets to draw, at least one.
    width: usize,
    /// The whole line.
    text: String,
}

impl Place {
    fn find(source: &Source, span: Range<usize>) -> Self {
        let text = source.text.as_str();
        let start = floor_char_boundary(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let end = floor_char_boundary(text, span.end).clamp(start, line_end);
        Self {
            name: source.name.clone(),
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            width: text[start..end].chars().count().max(1),
            text: text[line_start..line_end].chars().map(printable).collect(),
        }
    }
}

/// The nearest place at or before `index` where a character begins.
fn floor_char_boundary(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

/// Escape sequences in a file must not reach the terminal.
fn printable(c: char) -> char {
    if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }
}

fn list(words: &[&'static str]) -> String {
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, span: Range<usize>) -> String {
        let source = Source { name: "p.toml".into(), text: text.into() };
        Mistake::new(&source, span, Fault::NoFreeBus).to_string()
    }

    #[test]
    fn points_at_the_culprit() {
        let text = "a = 1\n\tb = 'äß'\n";
        let start = text.find("'ä").unwrap();
        assert_eq!(
            shown(text, start..start + 6),
            "p.toml:2:6: no bus is free for another device; give it an `address`\n     \
             2 | \tb = 'äß'\n       | \t    ^^^^"
        );
    }

    #[test]
    fn survives_spans_outside_and_inside_characters() {
        for (start, end) in [(0, 0), (99, 200), (5, 1), (1, 2)] {
            let text = "ä\u{1b}[2J";
            let shown = shown(text, start..end);
            assert!(!shown.contains('\u{1b}'), "{shown}");
        }
    }
}
