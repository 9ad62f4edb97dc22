//! Every order in which a TDI's files, objects and connection can end, in each profile and policy, by a
//! C client that is built from `bindery uapi --header`; and a kill at each of its system calls.
//!
//! After each end the ledger must be as before, one unbind must have followed each bind, and nothing may
//! have waited longer than two seconds. What each step answered is the table in `docs/teardown.md`, which a
//! trial compares; `BINDERY_BLESS=1` writes it anew.

#[path = "teardown/bystander.rs"]
mod bystander;
#[path = "teardown/kill.rs"]
mod kill;
#[path = "teardown/neighbour.rs"]
mod neighbour;
#[path = "teardown/order.rs"]
mod order;
mod programs;
#[path = "teardown/session.rs"]
mod session;
#[path = "teardown/shape.rs"]
mod shape;
#[path = "teardown/table.rs"]
mod table;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use libtest_mimic::{Arguments, Failed, Trial};
use order::Row;
use shape::{POLICIES, Policy, SHAPES, Shape};

/// The rows of a shape under a policy, found by whichever trial is first.
struct Part {
    shape: &'static Shape,
    policy: &'static Policy,
    rows: OnceLock<Vec<Row>>,
}

impl Part {
    fn rows(&self) -> &[Row] {
        self.rows.get_or_init(|| order::run_all(self.shape, self.policy))
    }
}

fn main() -> ExitCode {
    let mut parts = Vec::new();
    for shape in SHAPES {
        for policy in POLICIES {
            parts.push(Arc::new(Part { shape, policy, rows: OnceLock::new() }));
        }
    }
    let mut trials = Vec::new();
    for part in &parts {
        let part = Arc::clone(part);
        trials.push(trial(format!("orders: {}, {}", part.shape, part.policy), move || {
            assert!(!part.rows().is_empty());
        }));
    }
    for shape in SHAPES {
        trials
            .push(trial(format!("kill at each call: {shape}"), move || kill::at_each_call(shape)));
    }
    trials.push(trial("a neighbour is not delayed".to_owned(), neighbour::is_not_delayed));
    trials.push(trial("docs/teardown.md".to_owned(), move || {
        table::compare(parts.iter().flat_map(|part| part.rows()));
    }));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(name: String, run: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || -> Result<(), Failed> {
        run();
        Ok(())
    })
}
