//! `bindery spdm decode`: a captured session in words, with everything checked that can be.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use ::spdm::crypto::Secret;
use ::spdm::crypto::aws_lc::AwsLc;
use ::spdm::key_schedule::Side;
use clap::Args;
use peer::capture::{self, Packet};
use peer::key_log;
use peer::overhear::{Check, Overheard, Protection, Told};

use crate::exit;
use crate::terminal::{Style, Tone, print};

/// Tell a captured SPDM session in words, and check it.
///
/// CAPTURE is a pcap file with a DOE object in each packet (link type 292). Each line is a message: who
/// says it (-> the requester, <- the responder), whether in the clear or in which session, and what.
/// Below it stands what does not hold, and what could not be checked: signatures, HMACs, records,
/// certificates. Records open with the secrets of --keys. The root of a chain of certificates is taken
/// as it is shown.
///
/// Exits with 0 where everything that could be checked holds, 1 where something does not, 2 where a file
/// cannot be read as what it should be.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The capture
    capture: PathBuf,
    /// The secrets of its key exchanges: `--dhe_secret HEX`, one after the other
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Show what holds, too
    #[arg(long)]
    checks: bool,
    /// Show each message's bytes, in the clear
    #[arg(long)]
    hex: bool,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let secrets = match &arguments.keys {
        Some(path) => secrets(path),
        None => Ok(Vec::new()),
    };
    match secrets.and_then(|secrets| Ok((secrets, packets(&arguments.capture)?))) {
        Ok((secrets, packets)) => {
            let (text, all_hold) = Teller::new(arguments).tell(secrets, &packets);
            print(&text);
            ExitCode::from(u8::from(!all_hold))
        }
        Err(mistake) => {
            eprintln!("bindery: {mistake}");
            ExitCode::from(exit::USAGE)
        }
    }
}

fn secrets(path: &Path) -> Result<Vec<Secret>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    key_log::read(&text).map_err(|mistake| format!("{}: {mistake}", path.display()))
}

fn packets(path: &Path) -> Result<Vec<Packet>, String> {
    let file = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    capture::read(&file).map_err(|mistake| format!("{}: {mistake}", path.display()))
}

struct Teller<'a> {
    arguments: &'a Arguments,
    style: Style,
    text: String,
    held: usize,
    failed: usize,
    not_made: usize,
}

impl<'a> Teller<'a> {
    fn new(arguments: &'a Arguments) -> Self {
        let style = Style::of_stdout();
        Self { arguments, style, text: String::new(), held: 0, failed: 0, not_made: 0 }
    }

    /// The session in words, and whether everything holds.
    fn tell(mut self, secrets: Vec<Secret>, packets: &[Packet]) -> (String, bool) {
        let mut overheard = Overheard::new(&AwsLc, secrets);
        let begin = packets.first().map_or(Duration::ZERO, |packet| packet.time);
        for (number, packet) in (1_usize..).zip(packets) {
            let after = packet.time.saturating_sub(begin);
            self.message(number, after, &overheard.object(&packet.bytes));
        }
        let Self { held, failed, not_made, .. } = self;
        let count = packets.len();
        self.line(&format!(
            "{count} objects; {held} checks hold, {failed} do not, {not_made} could not be made"
        ));
        (self.text, failed == 0)
    }

    fn message(&mut self, number: usize, after: Duration, told: &Told) {
        let arrow = match told.side {
            Side::Requester => "->",
            Side::Responder => "<-",
        };
        let protection = match told.protection {
            Protection::Clear => String::new(),
            Protection::Session(id) => format!("[{id:08x}] "),
        };
        self.line(&format!("{} {arrow} {protection}{}", time(number, after), told.words));
        if self.arguments.hex && !told.message.is_empty() {
            for row in told.message.chunks(HEX_BYTES) {
                let digits: String = row.iter().map(|byte| format!("{byte:02x}")).collect();
                self.line(&format!("{INDENT}{}", self.style.paint(Tone::Faint, digits)));
            }
        }
        told.checks.iter().for_each(|check| self.check(check));
    }

    fn check(&mut self, check: &Check) {
        let (count, shown) = match check {
            Check::Holds(what) => {
                let shown = self.arguments.checks.then(|| format!("holds: {what}"));
                (&mut self.held, shown.map(|text| self.style.paint(Tone::Green, text)))
            }
            Check::Fails(what) => {
                let shown = format!("DOES NOT HOLD: {what}");
                (&mut self.failed, Some(self.style.paint(Tone::Red, shown)))
            }
            Check::NotMade(why) => {
                let shown = format!("not checked: {why}");
                (&mut self.not_made, Some(self.style.paint(Tone::Yellow, shown)))
            }
        };
        *count += 1;
        if let Some(shown) = shown {
            self.line(&format!("{INDENT}{shown}"));
        }
    }

    fn line(&mut self, line: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{}", line.trim_end());
    }
}

/// Before what belongs to a message.
const INDENT: &str = "                   ";
const HEX_BYTES: usize = 32;

fn time(number: usize, after: Duration) -> String {
    format!("{number:>5} {:>6}.{:06}", after.as_secs(), after.subsec_micros())
}
