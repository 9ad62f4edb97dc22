//! A counterexample as a timeline: a column for each thread, time going down.
//!
//! Runs of steps of one thread are folded to the first and the last ones. Objects are called by what they are, with
//! a number only where there are several of a kind.

use std::collections::BTreeMap;

use explore::Event;
use scenario::run::Broken;

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

/// One entry: who, and what.
struct Line {
    thread: usize,
    text: String,
    at: String,
}

/// The timeline, a line each, the violation last.
pub(super) fn draw(broken: &Broken, ascii: bool) -> Vec<String> {
    let pen = if ascii { &ASCII } else { &LINES };
    let clock = broken.tale.iter().any(|event| event.thread.is_none());
    let mut heads: Vec<_> = (0..broken.threads.len()).map(|thread| format!("T{thread}")).collect();
    heads.extend(clock.then(|| "clock".to_owned()));
    let tale = with_calls_late(&broken.tale);
    let roles = Roles::of(&tale);
    let lines = lines(&tale, &roles, heads.len() - 1, pen);
    let where_width = lines.iter().map(|line| line.at.chars().count()).max().unwrap_or(0).min(22);
    let where_width = if heads.len() > 3 { 0 } else { where_width };
    let column = (WIDTH - 2 - where_width) / heads.len().max(1) - 3;
    let mut drawn = vec![row(&heads, "", column, pen.bar), rule(heads.len(), column, pen)];
    let mut before = None;
    for line in &lines {
        if before.is_some_and(|before| before != line.thread) {
            drawn.push(row(&vec![String::new(); heads.len()], "", column, pen.bar));
        }
        before = Some(line.thread);
        for (part, text) in wrapped(&line.text, column).into_iter().enumerate() {
            let mut cells = vec![String::new(); heads.len()];
            cells[line.thread] = if part == 0 { text } else { format!("  {text}") };
            let at = if part == 0 && where_width > 0 { line.at.as_str() } else { "" };
            drawn.push(row(&cells, at, column, pen.bar));
        }
    }
    let said = roles.rename(&format!("{}: {}", broken.kind, broken.message));
    drawn.push(rule(heads.len(), column, pen));
    drawn.extend(wrapped(&said, WIDTH - 4).into_iter().map(|line| format!("  {line}")));
    drawn
}

fn row(cells: &[String], at: &str, column: usize, bar: char) -> String {
    let separator = format!(" {bar} ");
    let cells: Vec<_> = cells.iter().map(|cell| fit(cell, column)).collect();
    format!("  {}  {at}", cells.join(&separator)).trim_end().to_owned()
}

fn rule(threads: usize, column: usize, pen: &Pen) -> String {
    let dashes: String = std::iter::repeat_n(pen.rule, column).collect();
    let joint = format!("{0}{1}{0}", pen.rule, pen.cross);
    format!("  {}", vec![dashes; threads].join(&joint))
}

/// `text` in exactly so many characters.
fn fit(text: &str, width: usize) -> String {
    let cut: String = text.chars().take(width).collect();
    format!("{cut:width$}")
}

/// The tale with the begin of each call just before its first step: a call that has begun and not taken a step has
/// done nothing.
fn with_calls_late(tale: &[Event]) -> Vec<Event> {
    let mut late: Vec<Event> = Vec::new();
    let mut begun: BTreeMap<Option<usize>, Event> = BTreeMap::new();
    for event in tale {
        if event.what.starts_with(BEGIN) {
            begun.insert(event.thread, event.clone());
            continue;
        }
        late.extend(begun.remove(&event.thread));
        late.push(event.clone());
    }
    late.extend(begun.into_values());
    late
}

/// How the tale marks the begin and the end of a call.
const BEGIN: &str = "--> ";
const END: &str = "<-- ";

/// The entries of a tale, folded.
fn lines(tale: &[Event], roles: &Roles, clock: usize, pen: &Pen) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut index = 0;
    while let Some(event) = tale.get(index) {
        let run = tale[index..].iter().take_while(|it| is_plain(it) && it.thread == event.thread);
        let run = run.count();
        if run == 0 {
            lines.push(line(event, roles, clock, pen));
            index += 1;
            continue;
        }
        fold(&tale[index..index + run], roles, clock, pen, &mut lines);
        index += run;
    }
    lines
}

/// Whether it is neither the begin nor the end of a call.
fn is_plain(event: &Event) -> bool {
    !event.what.starts_with(BEGIN) && !event.what.starts_with(END)
}

fn fold(run: &[Event], roles: &Roles, clock: usize, pen: &Pen, lines: &mut Vec<Line>) {
    let told = |event: &Event| line(event, roles, clock, pen);
    if run.len() <= FIRST + LAST + 1 {
        lines.extend(run.iter().map(told));
        return;
    }
    let hidden = run.len() - FIRST - LAST;
    lines.extend(run[..FIRST].iter().map(told));
    let thread = run[0].thread.unwrap_or(clock);
    lines.push(Line { thread, text: format!("{}{hidden} steps", pen.more), at: String::new() });
    lines.extend(run[run.len() - LAST..].iter().map(told));
}

/// Steps of a run that are shown at its begin and at its end.
const FIRST: usize = 1;
const LAST: usize = 3;

fn line(event: &Event, roles: &Roles, clock: usize, pen: &Pen) -> Line {
    let text = match (event.what.strip_prefix(BEGIN), event.what.strip_prefix(END)) {
        (Some(call), _) => format!("{}{call}", pen.enter),
        (_, Some(answer)) => format!("{}{answer}", pen.leave),
        (None, None) => roles.rename(&event.what),
    };
    let at = event.at.map_or(String::new(), |at| {
        let mut parts = at.file().rsplit('/');
        let file = parts.next().unwrap_or_default();
        format!("{file}:{}", at.line())
    });
    Line { thread: event.thread.unwrap_or(clock), text, at }
}

/// What objects are called in a timeline.
struct Roles(BTreeMap<String, String>);

impl Roles {
    fn of(tale: &[Event]) -> Self {
        let mut kinds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for event in tale.iter().filter(|event| is_plain(event)) {
            let Some(object) = event.what.split(' ').find(|word| word.contains('#')) else {
                continue;
            };
            let kind = object.split('#').next().unwrap_or_default();
            let known = kinds.entry(kind).or_default();
            if !known.contains(&object) {
                known.push(object);
            }
        }
        let mut roles = BTreeMap::new();
        for (kind, objects) in kinds {
            for (index, object) in objects.iter().enumerate() {
                let role = match objects.len() {
                    1 => kind.to_owned(),
                    _ => format!("{kind} {}", letter(index)),
                };
                roles.insert((*object).to_owned(), role);
            }
        }
        Self(roles)
    }

    fn rename(&self, text: &str) -> String {
        let words = text.split(' ').map(|word| {
            let bare = word.trim_end_matches([';', ',', '.', ':']);
            let rest = &word[bare.len()..];
            self.0.get(bare).map_or_else(|| word.to_owned(), |role| format!("{role}{rest}"))
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

/// A, B, …, Z, then numbers.
fn letter(index: usize) -> String {
    match u8::try_from(index) {
        Ok(index) if index < 26 => char::from(b'A' + index).to_string(),
        _ => index.to_string(),
    }
}
