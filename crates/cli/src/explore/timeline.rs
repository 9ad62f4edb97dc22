//! A counterexample as text: a column for each thread, time going down, in 80 columns.

use scenario::run::Broken;

use super::tale::{Entry, Kind, Run, Tale};
use crate::terminal::wrapped;

/// Columns of a page that pastes into a mail.
pub(super) const WIDTH: usize = 80;

/// Characters that lines are drawn with.
struct Pen {
    bar: char,
    rule: char,
    cross: char,
    enter: &'static str,
    leave: &'static str,
    more: &'static str,
}

const LINES: Pen =
    Pen { bar: '│', rule: '─', cross: '┼', enter: "▶ ", leave: "◀ ", more: "⋮ " };
const ASCII: Pen = Pen { bar: '|', rule: '-', cross: '+', enter: "> ", leave: "< ", more: ". " };

/// Where and how lines are drawn.
struct Sheet<'p> {
    pen: &'p Pen,
    columns: usize,
    /// Of a column.
    width: usize,
    /// Of the place in the source; 0: left out.
    where_width: usize,
    lines: Vec<String>,
}

/// The timeline, a line each, the violation last.
pub(super) fn draw(broken: &Broken, ascii: bool) -> Vec<String> {
    let tale = Tale::of(broken);
    let mut sheet = Sheet::new(&tale, if ascii { &ASCII } else { &LINES });
    let heads: Vec<&str> = tale.heads.iter().map(String::as_str).collect();
    sheet.row(&heads, "");
    sheet.rule();
    for (index, run) in tale.runs.iter().enumerate() {
        if index > 0 {
            sheet.row(&[], "");
        }
        sheet.run(run, index + 1 == tale.runs.len());
    }
    if tale.stuck.iter().any(Option::is_some) {
        sheet.row(&[], "");
        for (column, what) in tale.stuck.iter().enumerate() {
            if let Some(what) = what {
                sheet.cell(column, what, "");
            }
        }
    }
    sheet.rule();
    let said = wrapped(&tale.violation, WIDTH - 4);
    sheet.lines.extend(said.into_iter().map(|line| format!("  {line}")));
    sheet.lines
}

impl<'p> Sheet<'p> {
    fn new(tale: &Tale, pen: &'p Pen) -> Self {
        let columns = tale.heads.len().max(1);
        let places = tale.runs.iter().flat_map(|run| &run.entries);
        let longest = places.map(|entry| entry.at.chars().count()).max().unwrap_or(0);
        let where_width = if columns > 3 { 0 } else { longest.min(WHERE_MAX) };
        let width = (WIDTH - 2 - where_width) / columns - 3;
        Self { pen, columns, width, where_width, lines: Vec::new() }
    }

    /// What one thread did, and what it holds when others go on.
    fn run(&mut self, run: &Run, is_last: bool) {
        let mut rest = run.entries.as_slice();
        while let Some((entry, others)) = rest.split_first() {
            let hidden = rest.iter().take_while(|entry| entry.is_folded).count();
            if hidden > 0 {
                let text = format!("{}{hidden} steps", self.pen.more);
                self.cell(run.column, &text, "");
                rest = &rest[hidden..];
                continue;
            }
            self.entry(run.column, entry);
            rest = others;
        }
        if !run.holds.is_empty() && !is_last {
            self.cell(run.column, &format!("(holds {})", run.holds.join(", ")), "");
        }
    }

    fn entry(&mut self, column: usize, entry: &Entry) {
        let mark = match entry.kind {
            Kind::Begin => self.pen.enter,
            Kind::Answer => self.pen.leave,
            Kind::Step => "",
        };
        self.cell(column, &format!("{mark}{}", entry.text), &entry.at);
    }

    /// Text in one column, in as many lines as it takes.
    fn cell(&mut self, column: usize, text: &str, at: &str) {
        for (part, text) in wrapped(text, self.width).into_iter().enumerate() {
            let mut cells = vec![String::new(); self.columns];
            cells[column] = if part == 0 { text } else { format!("  {text}") };
            let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
            self.row(&cells, if part == 0 && self.where_width > 0 { at } else { "" });
        }
    }

    /// One line; columns that are not given are empty.
    fn row(&mut self, cells: &[&str], at: &str) {
        let cells = (0..self.columns).map(|column| {
            let cell = cells.get(column).copied().unwrap_or_default();
            fit(cell, self.width)
        });
        let separator = format!(" {} ", self.pen.bar);
        let line = format!("  {}  {at}", cells.collect::<Vec<_>>().join(&separator));
        self.lines.push(line.trim_end().to_owned());
    }

    fn rule(&mut self) {
        let dashes: String = std::iter::repeat_n(self.pen.rule, self.width).collect();
        let joint = format!("{0}{1}{0}", self.pen.rule, self.pen.cross);
        self.lines.push(format!("  {}", vec![dashes; self.columns].join(&joint)));
    }
}

/// A place in the source is at most so wide.
const WHERE_MAX: usize = 22;

/// `text` in exactly so many characters.
fn fit(text: &str, width: usize) -> String {
    let cut: String = text.chars().take(width).collect();
    format!("{cut:width$}")
}
