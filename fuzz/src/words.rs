//! Texts that people write: scenario files, scenarios on one line, faults on demand.
//!
//! A mistake has a place inside the text; what is read prints as what reads back the same.

use scenario::{Scenario, script};
use tsm::fault::Fault;

/// Reads `bytes` as each of them.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    file(text);
    line(text);
    if let Ok(fault) = text.parse::<Fault>() {
        assert_eq!(fault.to_string().parse::<Fault>().ok(), Some(fault));
    }
}

fn file(text: &str) {
    let Err(mistake) = Scenario::parse("fuzz.toml", text) else { return };
    let lines: Vec<&str> = text.split('\n').collect();
    assert!((1..=lines.len()).contains(&mistake.line), "{mistake}");
    let width = lines[mistake.line - 1].chars().count();
    assert!((1..=width + 1).contains(&mistake.column), "{mistake}");
}

fn line(text: &str) {
    match script::parse(text) {
        Ok(threads) => {
            let printed = script::line(&threads);
            let again = script::parse(&printed).expect("what is printed can be read");
            assert_eq!(script::line(&again), printed);
            let calls = |threads: &script::Threads| {
                let steps = threads.iter().flatten();
                steps.map(|step| (step.call, step.expected.clone())).collect::<Vec<_>>()
            };
            assert_eq!(calls(&again), calls(&threads));
        }
        Err(error) => assert!(error.at.start <= error.at.end && error.at.end <= text.len()),
    }
}
