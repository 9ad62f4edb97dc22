//! Explores one scenario by one worker, and says in a line of JSON what came of it: `judge FILE SECONDS`.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use bindery_mutants::judge;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, seconds] = arguments.as_slice() else {
        eprintln!("judge FILE SECONDS");
        return ExitCode::from(2);
    };
    let time = Duration::from_secs(seconds.parse().unwrap_or(60));
    let judged = judge(Path::new(file), time)
        .and_then(|judged| serde_json::to_string(&judged).map_err(|error| error.to_string()));
    match judged {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
