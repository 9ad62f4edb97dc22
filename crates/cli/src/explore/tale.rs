//! A counterexample ready to be drawn: who did what in which order, in runs of one thread, folded, with the locks that
//! are held, and objects called by what they are.
//!
//! An object has a number only where there are several of its kind. A lock that is given back in the run that took it
//! has no entry for that: it is held no more in the entries that follow.

use std::collections::BTreeMap;

use explore::{Event, ViolationKind};
use scenario::run::Broken;

/// What is drawn.
pub(super) struct Tale {
    /// Columns: the threads, and the clock where a deadline fires.
    pub(super) heads: Vec<String>,
    pub(super) runs: Vec<Run>,
    /// What each column waits for in the end, where all wait.
    pub(super) stuck: Vec<Option<String>>,
    pub(super) violation: String,
}

/// What one thread did before another went on.
pub(super) struct Run {
    pub(super) column: usize,
    pub(super) entries: Vec<Entry>,
    /// The locks that its thread holds while others go on.
    pub(super) holds: Vec<String>,
}

/// Something that was done.
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) text: String,
    /// Which step of the schedule it is, from 1; `None` where it belongs to the one before.
    pub(super) step: Option<usize>,
    /// Source file without its directories, and line; empty where there is none.
    pub(super) at: String,
    /// The locks that its thread holds from then on.
    pub(super) holds: Vec<String>,
    /// It tells little.
    pub(super) is_folded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A call begins.
    Begin,
    /// A call returns.
    Answer,
    /// A step, or a part of one.
    Step,
}

impl Tale {
    pub(super) fn of(broken: &Broken) -> Self {
        let clock = broken.tale.iter().any(|event| event.thread.is_none());
        let mut heads: Vec<_> =
            (0..broken.threads.len()).map(|thread| format!("T{thread}")).collect();
        heads.extend(clock.then(|| "clock".to_owned()));
        let events = with_calls_late(&broken.tale);
        let roles = Roles::of(&events);
        let violation = roles.rename(&format!("{}: {}", broken.kind, broken.message));
        let entries = entries(&events, &roles, heads.len() - 1);
        let runs = runs(entries);
        let stuck = stuck(broken, &roles, heads.len());
        Self { heads, runs, stuck, violation }
    }
}

/// What the threads of a deadlock wait for, from its message.
fn stuck(broken: &Broken, roles: &Roles, columns: usize) -> Vec<Option<String>> {
    let mut stuck = vec![None; columns];
    if broken.kind != ViolationKind::Deadlock {
        return stuck;
    }
    for part in broken.message.split("; ") {
        let told = part.strip_prefix('T').and_then(|part| part.split_once(' '));
        let Some((thread, what)) = told else { continue };
        let column = thread.parse().ok().and_then(|thread: usize| stuck.get_mut(thread));
        if let Some(cell) = column {
            *cell = Some(roles.rename(&what.replace(" held by", ", held by")));
        }
    }
    stuck
}

/// The tale with the begin of each call just before its first step, without those that take none: a call that has
/// begun and not taken a step has done nothing.
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
    late
}

/// How the tale marks the begin and the end of a call, and what is done with locks and lives.
const BEGIN: &str = "--> ";
const END: &str = "<-- ";
const LOCK: &str = "lock ";
const UNLOCK: &str = "unlock ";
const USE: &str = "use ";

/// An entry, and what is not drawn of it.
struct Told {
    column: usize,
    entry: Entry,
    /// The lock that it takes or gives back.
    lock: Option<String>,
    gives_back: bool,
}

fn entries(events: &[Event], roles: &Roles, clock: usize) -> Vec<Told> {
    let mut held: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let (mut steps, mut told) = (0, Vec::new());
    for (index, event) in events.iter().enumerate() {
        steps += usize::from(event.is_step);
        // A use that is no step of its own is of interest where it is the one that goes wrong.
        let is_last = index + 1 == events.len();
        if event.what.starts_with(USE) && !event.is_step && !is_last {
            continue;
        }
        let column = event.thread.unwrap_or(clock);
        let holds = held.entry(column).or_default();
        let (kind, text) = match (event.what.strip_prefix(BEGIN), event.what.strip_prefix(END)) {
            (Some(call), _) => (Kind::Begin, call.to_owned()),
            (_, Some(answer)) => (Kind::Answer, answer.to_owned()),
            (None, None) => (Kind::Step, roles.rename(&event.what)),
        };
        let named = |verb: &str| text.strip_prefix(verb).filter(|_| kind == Kind::Step);
        let (takes, gives) = (named(LOCK).map(str::to_owned), named(UNLOCK).map(str::to_owned));
        holds.extend(takes.clone());
        holds.retain(|lock| Some(lock) != gives.as_ref());
        let entry = Entry {
            kind,
            text,
            step: event.is_step.then_some(steps),
            // A lock is given back where its guard ends, and no line says that.
            at: if gives.is_some() { String::new() } else { place(event) },
            holds: holds.clone(),
            is_folded: false,
        };
        told.push(Told { column, entry, gives_back: gives.is_some(), lock: takes.or(gives) });
    }
    told
}

fn place(event: &Event) -> String {
    event.at.map_or(String::new(), |at| {
        let file = at.file().rsplit('/').next().unwrap_or_default();
        format!("{file}:{}", at.line())
    })
}

fn runs(told: Vec<Told>) -> Vec<Run> {
    let mut rest = told.into_iter().peekable();
    let mut runs = Vec::new();
    while let Some(first) = rest.next() {
        let column = first.column;
        let mut of_run = vec![first];
        while let Some(next) = rest.next_if(|next| next.column == column) {
            of_run.push(next);
        }
        let holds = of_run.last().map_or(Vec::new(), |last| last.entry.holds.clone());
        let entries = folded(without_own_unlocks(of_run), &holds);
        runs.push(Run { column, entries, holds });
    }
    runs
}

fn without_own_unlocks(run: Vec<Told>) -> Vec<Told> {
    let mut taken: Vec<String> = Vec::new();
    let mut kept = Vec::new();
    for told in run {
        let own = told.lock.as_ref().and_then(|lock| taken.iter().position(|own| own == lock));
        match (told.gives_back, own) {
            (true, Some(own)) => drop(taken.remove(own)),
            (gives_back, _) => {
                taken.extend(told.lock.clone().filter(|_| !gives_back));
                kept.push(told);
            }
        }
    }
    kept
}

/// Steps of a stretch that are shown at its begin and at its end.
const FIRST: usize = 1;
const LAST: usize = 3;
/// It is not worth a line to hide fewer.
const FOLDED_MIN: usize = 3;

/// Folds the middle of each stretch of steps, but for where a lock is taken that stays held when the run ends.
fn folded(mut run: Vec<Told>, held: &[String]) -> Vec<Entry> {
    let taken = |lock: &String| run.iter().rposition(|told| told.lock.as_ref() == Some(lock));
    let stays: Vec<usize> = held.iter().filter_map(taken).collect();
    let mut from = 0;
    while from < run.len() {
        let is_step = |told: &&Told| told.entry.kind == Kind::Step;
        let stretch = run[from..].iter().take_while(is_step).count();
        if stretch >= FIRST + FOLDED_MIN + LAST {
            let (first, last) = (from + FIRST, from + stretch - LAST);
            for (index, told) in run.iter_mut().enumerate().take(last).skip(first) {
                told.entry.is_folded = !stays.contains(&index);
            }
        }
        from += stretch.max(1);
    }
    run.into_iter().map(|told| told.entry).collect()
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

/// Whether it is neither the begin nor the end of a call.
fn is_plain(event: &Event) -> bool {
    !event.what.starts_with(BEGIN) && !event.what.starts_with(END)
}

/// A, B, …, Z, then numbers.
fn letter(index: usize) -> String {
    match u8::try_from(index) {
        Ok(index) if index < 26 => char::from(b'A' + index).to_string(),
        _ => index.to_string(),
    }
}
