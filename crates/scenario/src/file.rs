//! Scenario files: TOML, every mistake with its place.
//!
//! ```toml
//! title = "Destroy is unbinding the vdevice. Close the device file."
//! number = "S12"
//! expect = "safe"
//!
//! [settings]
//! uapi = "rfc"
//! close_order = "unbind-first"
//!
//! [setup]
//! calls = ["tsm_bind vdev0"]
//!
//! [[thread]]
//! calls = ["destroy vdev0 -> ok, ENOENT"]
//!
//! [[thread]]
//! calls = ["close vfio0 -> ok"]
//! ```
//!
//! Takes no lock.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use designs::{Design, Rules};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::mistake::Mistake;
use crate::models::{in_designs, objects};
use crate::script::{self, CALLS_MAX, Step, THREADS_MAX, Threads};
use crate::words::{Call, Verb};

/// A scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// What it is about, in a sentence.
    pub title: String,
    /// Its number in the list of scenarios, if it has one.
    pub number: Option<String>,
    /// What is to come out.
    pub expect: Verdict,
    /// What the violation is to say, among other words.
    pub says: Option<String>,
    /// Explored are interleavings with so many preemptions at most; `None`: all.
    pub preemptions: Option<u32>,
    /// The design that is explored instead of the shipped code, and the rule that it is without.
    pub design: Option<(String, Option<String>)>,
    /// Settings that differ from the defaults, by key.
    pub settings: BTreeMap<String, Setting>,
    /// Calls made before the threads begin, one after the other.
    pub setup: Vec<Step>,
    /// What each thread does.
    pub threads: Threads,
}

/// A setting, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its value.
    pub value: String,
    /// Its place in the file.
    pub at: Range<usize>,
}

/// What comes out of exploring a scenario.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing goes wrong in any interleaving.
    #[default]
    Safe,
    /// Something goes wrong in one.
    Counterexample,
    /// Threads wait for each other.
    Deadlock,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::ALL.iter().find(|(_, verdict)| verdict == self);
        f.write_str(named.map_or("", |(name, _)| name))
    }
}

impl fmt::Display for Scenario {
    /// As a file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        writeln!(f, "title = {}", quoted(&self.title))?;
        let (design, without) = self.design.clone().unzip();
        let expect = self.expect.to_string();
        for (key, value) in [
            ("number", self.number.as_ref()),
            ("expect", Some(&expect)),
            ("says", self.says.as_ref()),
            ("design", design.as_ref()),
            ("without", without.flatten().as_ref()),
        ] {
            if let Some(value) = value {
                writeln!(f, "{key} = {}", quoted(value))?;
            }
        }
        if let Some(preemptions) = self.preemptions {
            writeln!(f, "preemptions = {preemptions}")?;
        }
        if !self.settings.is_empty() {
            writeln!(f, "\n[settings]")?;
        }
        for (key, setting) in &self.settings {
            writeln!(f, "{key} = {}", quoted(&setting.value))?;
        }
        let calls = |steps: &[Step]| {
            let quoted: Vec<_> = steps.iter().map(|step| quoted(&step.to_string())).collect();
            quoted.join(", ")
        };
        if !self.setup.is_empty() {
            writeln!(f, "\n[setup]\ncalls = [{}]", calls(&self.setup))?;
        }
        self.threads
            .iter()
            .try_for_each(|steps| writeln!(f, "\n[[thread]]\ncalls = [{}]", calls(steps)))
    }
}

impl Verdict {
    /// All, with the names that files use.
    pub const ALL: [(&'static str, Self); 3] = [
        ("safe", Self::Safe),
        ("counterexample", Self::Counterexample),
        ("deadlock", Self::Deadlock),
    ];
}

/// What a key's values are.
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// The values that it takes.
    pub values: &'static [&'static str],
}

/// The keys of `[settings]`: those of platform files that scenarios can set, and what befalls the device.
pub const SETTINGS: &[Key] = &[
    Key {
        name: "uapi",
        values: &["rfc", "linux-7.3", "rfc-v5-2026-05", "rfc-v7-2026-10", "rfc-2025-05"],
    },
    Key { name: "close_order", values: &["unbind-first", "linux-7.3"] },
    Key { name: "reset_while_bound", values: &["refuse", "unbind", "error"] },
    Key { name: "client_clears_bme", values: &["error", "refuse"] },
    Key { name: "flr_while_locked", values: &["unlocked", "error"] },
    Key { name: "tvm", values: &["implicit", "kvm"] },
    Key { name: "viommu", values: &["plain", "realm"] },
    Key {
        name: "bind",
        values: &["ok", "slow", "silent", "null", "error-before", "error-after-commit"],
    },
    Key { name: "unbind", values: &["ok", "slow", "silent", "refused"] },
    Key { name: "clock", values: &["runs", "stopped"] },
];

impl Scenario {
    /// A scenario of threads alone, with what is usual for the rest.
    pub fn of(threads: Threads) -> Self {
        Self {
            title: script::line(&threads),
            number: None,
            expect: Verdict::Safe,
            says: None,
            preemptions: None,
            design: None,
            settings: BTreeMap::new(),
            setup: Vec::new(),
            threads,
        }
    }

    /// Whether deadlines fire: not where what is to end must end without one.
    pub fn clock_runs(&self) -> bool {
        self.settings.get("clock").is_none_or(|clock| clock.value == "runs")
    }

    /// Looks whether what the calls name exists.
    ///
    /// # Errors
    /// The place of the first call that names something else, and why.
    pub fn check(&self) -> Result<(), (Range<usize>, String)> {
        for step in self.setup.iter().chain(self.threads.iter().flatten()) {
            let Call { verb, number } = step.call;
            if self.design.is_some() && in_designs(step.call).is_none() {
                let known = Verb::ALL.iter().map(|verb| Call { verb: *verb, number: 0 });
                let known = known.filter(|call| in_designs(*call).is_some());
                let known: Vec<_> = known.map(|call| call.to_string()).collect();
                let message =
                    format!("designs have no {}; they have {}", step.call, known.join(", "));
                return Err((step.at.clone(), message));
            }
            let there = objects(verb.object());
            if number >= there {
                let last = Call { verb, number: there - 1 };
                let message = format!("there is no such object; the last is that of {last}");
                return Err((step.at.clone(), message));
            }
        }
        Ok(())
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// The first [`Mistake`].
    pub fn parse(source: &str, text: &str) -> Result<Self, Box<Mistake>> {
        let reader = Reader { source, text };
        let table = DeTable::parse(text).map_err(|error| {
            let message = error.message().trim().replace('\n', ", ");
            reader.mistake(error.span().unwrap_or(0..0), message)
        })?;
        reader.scenario(table.get_ref())
    }
}

/// Looks whether there is such a design, and such a rule in it.
///
/// # Errors
/// The key that is wrong, and why.
pub fn check_design(design: &str, without: Option<&str>) -> Result<(), (&'static str, String)> {
    if Design::of(design).is_none() {
        let names: Vec<_> = designs::ALL.iter().map(|design| design.name).collect();
        let message = format!("there is no design {design:?}; designs are {}", names.join(", "));
        return Err(("design", message));
    }
    let Some(rule) = without else { return Ok(()) };
    if design != WITH_RULES {
        return Err(("without", format!("rules can be left out of design {WITH_RULES} only")));
    }
    if Rules::without(rule).is_none() {
        let names = Rules::NAMES.join(", ");
        return Err(("without", format!("there is no rule {rule:?}; rules are {names}")));
    }
    Ok(())
}

/// The design whose rules can be left out.
pub const WITH_RULES: &str = "D";

struct Reader<'t> {
    source: &'t str,
    text: &'t str,
}

type Read<T> = Result<T, Box<Mistake>>;
type Value<'i> = Spanned<DeValue<'i>>;

const KEYS: [&str; 10] = [
    "title",
    "number",
    "expect",
    "says",
    "preemptions",
    "design",
    "without",
    "settings",
    "setup",
    "thread",
];

impl Reader<'_> {
    fn mistake(&self, at: Range<usize>, message: impl Into<String>) -> Box<Mistake> {
        Box::new(Mistake::new(self.source, self.text, at, message))
    }

    fn scenario(&self, table: &DeTable<'_>) -> Read<Scenario> {
        self.allow(table, &KEYS)?;
        let text = |key: &str| table.get(key).map(|value| self.text_of(key, value)).transpose();
        let title = text("title")?;
        let title =
            title.ok_or_else(|| self.mistake(0..0, "title is missing: what is this about?"))?;
        let threads = table.get("thread").map(|value| self.threads(value)).transpose()?;
        let threads = threads.filter(|threads| !threads.is_empty());
        let threads = threads.ok_or_else(|| self.mistake(0..0, "there is no [[thread]]"))?;
        let read = |key: &str| table.get(key);
        let scenario = Scenario {
            title,
            number: text("number")?,
            expect: read("expect")
                .map(|value| self.verdict(value))
                .transpose()?
                .unwrap_or_default(),
            says: text("says")?,
            preemptions: read("preemptions").map(|value| self.preemptions(value)).transpose()?,
            design: self.design(table)?,
            settings: read("settings")
                .map(|value| self.settings(value))
                .transpose()?
                .unwrap_or_default(),
            setup: read("setup").map(|value| self.calls_of(value)).transpose()?.unwrap_or_default(),
            threads,
        };
        scenario.check().map_err(|(at, message)| self.mistake(at, message))?;
        Ok(scenario)
    }

    fn design(&self, table: &DeTable<'_>) -> Read<Option<(String, Option<String>)>> {
        let text = |key: &str| table.get(key).map(|value| self.text_of(key, value)).transpose();
        let place = |key: &str| table.get(key).map_or(0..0, Spanned::span);
        let (design, without) = (text("design")?, text("without")?);
        let Some(design) = design else {
            return match without {
                None => Ok(None),
                Some(_) => Err(self.mistake(
                    place("without"),
                    "without names a rule of a design, and no design is named",
                )),
            };
        };
        check_design(&design, without.as_deref())
            .map_err(|(key, message)| self.mistake(place(key), message))?;
        for key in ["settings", "setup"] {
            if table.get(key).is_some() {
                return Err(self.mistake(place(key), format!("a design has no {key}")));
            }
        }
        Ok(Some((design, without)))
    }

    fn preemptions(&self, value: &Value<'_>) -> Read<u32> {
        let number = value.get_ref().as_integer().and_then(|number| number.as_str().parse().ok());
        number.ok_or_else(|| self.mistake(value.span(), "preemptions is a number: preemptions = 2"))
    }

    fn allow(&self, table: &DeTable<'_>, keys: &[&str]) -> Read<()> {
        let unknown = table.keys().find(|key| !keys.contains(&key.get_ref().as_ref()));
        unknown.map_or(Ok(()), |key| {
            let message =
                format!("there is no key {:?}; keys are {}", key.get_ref(), keys.join(", "));
            Err(self.mistake(key.span(), message))
        })
    }

    fn text_of(&self, key: &str, value: &Value<'_>) -> Read<String> {
        let text = value.get_ref().as_str().map(str::to_owned);
        text.ok_or_else(|| self.mistake(value.span(), format!("{key} is text: {key} = \"…\"")))
    }

    fn table_of<'v, 'i>(&self, name: &str, value: &'v Value<'i>) -> Read<&'v DeTable<'i>> {
        let table = value.get_ref().as_table();
        table.ok_or_else(|| self.mistake(value.span(), format!("{name} is a table")))
    }

    fn array_of<'v, 'i>(&self, name: &str, value: &'v Value<'i>) -> Read<&'v DeArray<'i>> {
        let array = value.get_ref().as_array();
        array.ok_or_else(|| self.mistake(value.span(), format!("{name} is a list")))
    }

    fn verdict(&self, value: &Value<'_>) -> Read<Verdict> {
        let name = self.text_of("expect", value)?;
        let found = Verdict::ALL.iter().find(|(other, _)| *other == name);
        found.map(|(_, verdict)| *verdict).ok_or_else(|| {
            let names = Verdict::ALL.map(|(name, _)| name).join(", ");
            self.mistake(
                value.span(),
                format!("there is no verdict {name:?}; verdicts are {names}"),
            )
        })
    }

    fn settings(&self, value: &Value<'_>) -> Read<BTreeMap<String, Setting>> {
        let table = self.table_of("settings", value)?;
        let names: Vec<_> = SETTINGS.iter().map(|key| key.name).collect();
        self.allow(table, &names)?;
        let mut settings = BTreeMap::new();
        for key in SETTINGS {
            let Some(value) = table.get(key.name) else { continue };
            let chosen = self.text_of(key.name, value)?;
            if !key.values.contains(&chosen.as_str()) {
                let values = key.values.join(", ");
                let message = format!("{} cannot be {chosen:?}; it is one of {values}", key.name);
                return Err(self.mistake(value.span(), message));
            }
            settings.insert(key.name.to_owned(), Setting { value: chosen, at: value.span() });
        }
        Ok(settings)
    }

    fn threads(&self, value: &Value<'_>) -> Read<Threads> {
        let array = self.array_of("thread", value)?;
        if array.len() > THREADS_MAX {
            let message = format!("{} threads, where at most {THREADS_MAX} can be", array.len());
            return Err(self.mistake(value.span(), message));
        }
        array.iter().map(|thread| self.calls_of(thread)).collect()
    }

    /// The `calls` of a table.
    fn calls_of(&self, value: &Value<'_>) -> Read<Vec<Step>> {
        let table = self.table_of("what has calls", value)?;
        self.allow(table, &["calls"])?;
        let missing = || self.mistake(value.span(), "calls is missing: what is done?");
        let calls = table.get("calls").ok_or_else(missing)?;
        let array = self.array_of("calls", calls)?;
        if array.is_empty() || array.len() > CALLS_MAX {
            let message = format!("{} calls, where 1 to {CALLS_MAX} can be", array.len());
            return Err(self.mistake(calls.span(), message));
        }
        array.iter().map(|call| self.step(call)).collect()
    }

    fn step(&self, value: &Value<'_>) -> Read<Step> {
        let text = self.text_of("a call", value)?;
        // Inside the quotes; an escape before it would shift the place, and calls need none.
        let start = value.span().start + 1;
        let mut step = Step::parse(&text).map_err(|error| {
            self.mistake(start + error.at.start..start + error.at.end, error.to_string())
        })?;
        step.at = start + step.at.start..start + step.at.end;
        Ok(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
title = "Destroy races close."
number = "S12"
expect = "safe"

[settings]
uapi = "rfc"
bind = "slow"

[setup]
calls = ["tsm_bind vdev0"]

[[thread]]
calls = ["destroy vdev0 -> ok, ENOENT"]

[[thread]]
calls = ["close vfio0 -> ok"]
"#;

    #[test]
    fn a_file_says_all_there_is() {
        let scenario = Scenario::parse("a.toml", TEXT).unwrap();
        assert_eq!(scenario.number.as_deref(), Some("S12"));
        assert_eq!(scenario.expect, Verdict::Safe);
        assert_eq!(scenario.settings["bind"].value, "slow");
        assert_eq!((scenario.setup.len(), scenario.threads.len()), (1, 2));
        assert_eq!(
            script::line(&scenario.threads),
            "destroy vdev0 -> ok, ENOENT | close vfio0 -> ok"
        );
    }

    #[test]
    fn every_mistake_has_a_line_and_a_column() {
        for (from, to, place, says) in [
            ("close vfio0", "close vdev0", (17, 11), "vfioN"),
            ("-> ok, ENOENT", "-> ok, ENONE", (14, 32), "ENONE"),
            ("bind = \"slow\"", "bind = \"fast\"", (8, 8), "slow, silent"),
            ("uapi =", "api =", (7, 1), "uapi"),
            ("expect = \"safe\"", "expect = \"sound\"", (4, 10), "counterexample"),
            ("title = ", "titel = ", (2, 1), "title"),
            ("[[thread]]\ncalls = [\"close", "[[thread]]\ncals = [\"close", (17, 1), "calls"),
            ("[settings]", "[settings", (6, 10), ""),
            ("number", "without = \"tombstone\"\nnumber", (3, 11), "design"),
        ] {
            let mistake = Scenario::parse("a.toml", &TEXT.replacen(from, to, 1)).unwrap_err();
            assert_eq!((mistake.line, mistake.column), place, "{mistake}");
            assert!(mistake.message.contains(says), "{mistake}");
        }
    }
}
