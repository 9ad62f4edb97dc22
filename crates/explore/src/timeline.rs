//! What happened in an execution, as text: a column for each thread, a line for each event.
//!
//! Plain ASCII, so that it can be pasted into a mail. Takes no lock.

use crate::picture::Event;

/// Lays the events of `threads` threads out in columns, `width` characters wide in all. What the clock did
/// begins at the left edge; a line of dots stands where one thread stopped and another went on. What does not
/// fit its column goes on in the next line.
pub fn columns(tale: &[Event], threads: usize, width: usize) -> String {
    let column = (width / threads.max(1)).max(COLUMN_MIN);
    let mut text = header(threads, column);
    let mut previous = None;
    for event in tale {
        if previous.is_some_and(|previous| previous != event.thread) {
            text.push_str(&".".repeat(column * threads.max(1)));
            text.push('\n');
        }
        previous = Some(event.thread);
        let indent = event.thread.unwrap_or(0) * column;
        let what = match event.thread {
            None => format!("clock: {}", event.what),
            Some(_) if event.at.is_some() => format!("  {}", event.what),
            Some(_) => event.what.clone(),
        };
        for line in wrapped(&what, column - 1) {
            text.push_str(&" ".repeat(indent));
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text
}

/// A column is at least so wide, whatever was asked for.
const COLUMN_MIN: usize = 12;

fn header(threads: usize, column: usize) -> String {
    let names: String =
        (0..threads).map(|thread| format!("{:column$}", format!("T{thread}"))).collect();
    format!("{}\n", names.trim_end())
}

fn wrapped(what: &str, width: usize) -> Vec<String> {
    let letters: Vec<char> = what.chars().collect();
    let mut lines: Vec<String> = Vec::new();
    let mut rest = letters.as_slice();
    while !rest.is_empty() {
        // What goes on is indented, so that it is not taken for another event.
        let indent = if lines.is_empty() { 0 } else { 4.min(width / 2) };
        let (line, more) = rest.split_at(rest.len().min(width - indent));
        lines.push(" ".repeat(indent) + &line.iter().collect::<String>());
        rest = more;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_has_its_column() {
        let event = |thread, what: &str, step: bool| Event {
            thread,
            what: what.to_owned(),
            at: step.then(std::panic::Location::caller),
            is_step: step,
        };
        let tale = [
            event(Some(0), "--> bind", false),
            event(Some(0), "lock Group#3", true),
            event(Some(1), "--> close the file of it", false),
            event(None, "fire Deadline#1", true),
        ];
        let expected = "\
T0              T1
--> bind
  lock Group#3
................................
                --> close the f
                    ile of it
................................
clock: fire Dea
    dline#1
";
        assert_eq!(columns(&tale, 2, 32), expected);
    }
}
