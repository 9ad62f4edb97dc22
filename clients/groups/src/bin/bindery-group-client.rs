//! The client as a program of its own: `bindery run -- bindery-group-client [ROUNDS]`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let rounds = std::env::args().nth(1).map_or(Ok(1), |word| word.parse());
    let (Ok(rounds), Ok(address)) = (rounds, std::env::var("BINDERY_BDF")) else {
        eprintln!("Usage: BINDERY_BDF=ADDRESS bindery-group-client [ROUNDS]");
        return ExitCode::from(2);
    };
    match bindery_group_client::run(&Path::new("/sys/bus/pci/devices").join(address), rounds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bindery-group-client: {failure}");
            ExitCode::FAILURE
        }
    }
}
