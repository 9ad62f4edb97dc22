//! The table in `docs/teardown.md`.

use std::collections::BTreeMap;
use std::fs;

use crate::order::{Moment, ORDERS, Row, has_kvm};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/teardown.md");
const BEGIN: &str = "<!-- written by tests/teardown.rs -->\n";

/// The committed table must be the one that was seen. Where there is no KVM its lines are taken as they
/// stand.
pub(crate) fn compare<'r>(rows: impl Iterator<Item = &'r Row>) {
    let document = fs::read_to_string(DOCUMENT).expect("docs/teardown.md is there");
    let (prose, committed) = document.split_once(BEGIN).expect("the table's place is marked");
    let seen = text(rows);
    if std::env::var_os("BINDERY_BLESS").is_some() {
        assert!(has_kvm(), "without KVM the table would lose lines");
        fs::write(DOCUMENT, format!("{prose}{BEGIN}{seen}")).expect("it can be written");
        return;
    }
    let of_vm = |line: &&str| line.starts_with("| close of the VM first ") && !has_kvm();
    let committed: Vec<_> = committed.lines().filter(|line| !of_vm(line)).collect();
    let seen: Vec<_> = seen.lines().collect();
    let differ = |(one, other): &(&&str, &&str)| one != other;
    if let Some((committed, seen)) = committed.iter().zip(&seen).find(differ) {
        panic!("docs/teardown.md says\n{committed}\nand seen is\n{seen}");
    }
    assert_eq!(committed.len(), seen.len(), "lines");
}

fn text<'r>(rows: impl Iterator<Item = &'r Row>) -> String {
    let mut shapes: BTreeMap<(Key<'r>, &str), Vec<&str>> = BTreeMap::new();
    for row in rows {
        let alike = shapes.entry((Key::of(row), &row.policy)).or_default();
        if !alike.contains(&row.shape.as_str()) {
            alike.push(&row.shape);
        }
    }
    let mut policies: BTreeMap<(Key<'r>, Vec<&str>), Vec<&str>> = BTreeMap::new();
    for ((key, policy), shapes) in shapes {
        policies.entry((key, shapes)).or_default().push(policy);
    }
    let mut text =
        "\n| order | TDI | policy | profiles | answers | binds, unbinds | waits for the device | \
                    TDI after |\n|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for ((key, shapes), policies) in policies {
        let Key { order, moment, answers, binds, unbinds, waits, after } = key;
        let order = ORDERS[order].1;
        let (policies, shapes) = (joined(&policies), shapes.join(", "));
        text += &format!(
            "| {order} | {moment} | {policies} | {shapes} | {answers} | {binds}, {unbinds} | {waits} \
             | {after} |\n"
        );
    }
    text
}

/// Policies as people read them: a key's name once.
fn joined(policies: &[&str]) -> String {
    let mut text = String::new();
    let mut last = "";
    for policy in policies {
        let (key, value) = policy.split_once(" = ").expect("a setting");
        if key == last {
            text += &format!(" or {value}");
        } else {
            text += if text.is_empty() { "" } else { "; or " };
            text += policy;
        }
        last = key;
    }
    text
}

/// What makes a line.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key<'r> {
    /// Its place in [`ORDERS`].
    order: usize,
    moment: Moment,
    answers: &'r str,
    binds: u64,
    unbinds: u64,
    waits: &'r str,
    after: &'r str,
}

impl<'r> Key<'r> {
    fn of(row: &'r Row) -> Self {
        Self {
            order: ORDERS.iter().position(|(name, _)| *name == row.order).expect("an order"),
            moment: row.moment,
            answers: &row.answers,
            binds: row.binds,
            unbinds: row.unbinds,
            waits: row.waits,
            after: &row.after,
        }
    }
}
