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
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::mistake::Mistake;
use crate::script::{CALLS_MAX, Step, THREADS_MAX, Threads};

/// A scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// What it is about, in a sentence.
    pub title: String,
    /// Its number in the list of scenarios, if it has one.
    pub number: Option<String>,
    /// What is to come out.
    pub expect: Verdict,
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
];

impl Scenario {
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

struct Reader<'t> {
    source: &'t str,
    text: &'t str,
}

type Read<T> = Result<T, Box<Mistake>>;
type Value<'i> = Spanned<DeValue<'i>>;

const KEYS: [&str; 8] =
    ["title", "number", "expect", "design", "without", "settings", "setup", "thread"];

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
        let without = text("without")?;
        let design = text("design")?;
        if let (None, Some(_)) = (&design, &without) {
            let at = table.get("without").map_or(0..0, Spanned::span);
            return Err(
                self.mistake(at, "without names a rule of a design, and no design is named")
            );
        }
        let threads = table.get("thread").map(|value| self.threads(value)).transpose()?;
        let threads = threads.filter(|threads| !threads.is_empty());
        let threads = threads.ok_or_else(|| self.mistake(0..0, "there is no [[thread]]"))?;
        Ok(Scenario {
            title,
            number: text("number")?,
            expect: table
                .get("expect")
                .map(|value| self.verdict(value))
                .transpose()?
                .unwrap_or_default(),
            design: design.map(|design| (design, without)),
            settings: table
                .get("settings")
                .map(|value| self.settings(value))
                .transpose()?
                .unwrap_or_default(),
            setup: table
                .get("setup")
                .map(|value| self.calls_of(value))
                .transpose()?
                .unwrap_or_default(),
            threads,
        })
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
        Step::parse(&text).map_err(|error| {
            // Inside the quotes; an escape before it would shift the place, and calls need none.
            let start = value.span().start + 1;
            self.mistake(start + error.at.start..start + error.at.end, error.to_string())
        })
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
            crate::script::line(&scenario.threads),
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
