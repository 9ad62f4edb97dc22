//! The demo client as a program of its own: `bindery run -- bindery-demo-client`.

use std::process::ExitCode;

use bindery_demo::{Failure, Settings, device_from_environment, run};

const USAGE: &str = "\
Usage: bindery-demo-client [--rounds N]

Is assigned the device that BINDERY_BDF names, has it copy memory, and gives it back;
N times (1 unless told). Exits 0 when every copy was right, 1 when something failed.";

fn main() -> ExitCode {
    let rounds = match rounds(std::env::args().skip(1)) {
        Ok(Some(rounds)) => rounds,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("bindery-demo-client: {wrong}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match drive(rounds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bindery-demo-client: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn drive(rounds: u32) -> Result<(), Failure> {
    let settings = Settings { device: device_from_environment()?, rounds, confidential: false };
    run(&settings, &mut |done| println!("round {}: {}", done.round, done.step))
}

/// How many rounds; `None` where help was asked for.
fn rounds(mut words: impl Iterator<Item = String>) -> Result<Option<u32>, String> {
    let mut rounds = 1;
    while let Some(word) = words.next() {
        let count = match word.as_str() {
            "-h" | "--help" => return Ok(None),
            "--rounds" => words.next().ok_or("--rounds needs a number")?,
            other => match other.strip_prefix("--rounds=") {
                Some(count) => count.to_owned(),
                None => return Err(format!("unknown option {other:?}")),
            },
        };
        rounds = count.parse().map_err(|_| format!("--rounds {count:?} is not a number"))?;
    }
    Ok(Some(rounds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Option<u32>, String> {
        rounds(words.iter().map(|word| (*word).to_owned()))
    }

    #[test]
    fn rounds_are_read_in_both_spellings() {
        assert_eq!(parsed(&[]), Ok(Some(1)));
        assert_eq!(parsed(&["--rounds", "3"]), Ok(Some(3)));
        assert_eq!(parsed(&["--rounds=3"]), Ok(Some(3)));
        assert_eq!(parsed(&["--help"]), Ok(None));
        for wrong in [&["--rounds"][..], &["--rounds", "many"], &["3"]] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
