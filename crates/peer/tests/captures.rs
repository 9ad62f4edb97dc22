//! Real sessions of spdm-emu in words: everything is understood, every check holds, and a capture
//! that is changed anywhere never goes unnoticed where something protects it.
//!
//! `BINDERY_SPDM_CAPTURES` names a folder with `*.pcap` and `*.keys`. They are not part of this
//! repository: where the variable is not set, the tests are shown as ignored.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bindery_peer::capture::{self, Packet};
use bindery_peer::key_log;
use bindery_peer::overhear::{Check, Overheard, Protection, Told};
use libtest_mimic::{Arguments, Failed, Trial};
use spdm::crypto::aws_lc::AwsLc;

const VARIABLE: &str = "BINDERY_SPDM_CAPTURES";

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = match std::env::var_os(VARIABLE) {
        Some(folder) => captures(Path::new(&folder)).into_iter().flat_map(trials).collect(),
        None => {
            println!("{VARIABLE} is not set: real captures are not read");
            vec![Trial::test("captures", || Ok(())).with_ignored_flag(true)]
        }
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn captures(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder of captures");
    let mut captures: Vec<_> = entries
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pcap"))
        .collect();
    captures.sort();
    assert!(!captures.is_empty(), "no *.pcap in {}", folder.display());
    captures
}

fn trials(capture: PathBuf) -> [Trial; 3] {
    let name = capture.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let [whole, changed, blind] = [capture.clone(), capture.clone(), capture];
    [
        Trial::test(format!("{name}: all holds"), move || all_holds(&whole)),
        Trial::test(format!("{name}: changes are noticed"), move || changes(&changed)),
        Trial::test(format!("{name}: without keys"), move || without_keys(&blind)),
    ]
}

fn packets(capture: &Path) -> Result<Vec<Packet>, Failed> {
    Ok(capture::read(&std::fs::read(capture)?)?)
}

fn hear(packets: &[Packet], keys: &str) -> Result<Vec<Told>, Failed> {
    let mut overheard = Overheard::new(&AwsLc, key_log::read(keys)?);
    Ok(packets.iter().map(|packet| overheard.object(&packet.bytes)).collect())
}

fn keys(capture: &Path) -> Result<String, Failed> {
    Ok(std::fs::read_to_string(capture.with_extension("keys"))?)
}

fn all_holds(capture: &Path) -> Result<(), Failed> {
    let packets = packets(capture)?;
    let told = hear(&packets, &keys(capture)?)?;
    let checks = |told: &[Told], wanted: fn(&Check) -> bool| {
        told.iter().flat_map(|one| &one.checks).filter(|check| wanted(check)).count()
    };
    let fails: Vec<_> = told
        .iter()
        .enumerate()
        .filter(|(_, one)| one.checks.iter().any(|check| matches!(check, Check::Fails(_))))
        .collect();
    assert!(fails.is_empty(), "{fails:#?}");
    // The first session and what leads to it: a challenge, a key exchange, measurements twice.
    let signed = |check: &Check| *check == Check::Holds("the signature verifies".into());
    assert_eq!(checks(&told[..160], signed), 4);
    let opened = |check: &Check| *check == Check::Holds("the record opens".into());
    assert_eq!(checks(&told[..160], opened), 110);
    assert!(checks(&told[160..], signed) > 0 && checks(&told[160..], opened) > 0);
    for words in ["TDISP LOCK_INTERFACE_REQUEST", "TDISP DEVICE_INTERFACE_STATE", "IDE_KM KEY_PROG"]
    {
        assert!(told.iter().any(|one| one.words.contains(words)), "{words}");
    }
    Ok(())
}

/// One bit of a record is turned over: that record does not open, nor does anything behind it.
fn changes(capture: &Path) -> Result<(), Failed> {
    let whole = packets(capture)?;
    let keys = keys(capture)?;
    let before = hear(&whole, &keys)?;
    let protected = |one: &Told| {
        matches!(one.protection, Protection::Session(_))
            && one.checks.contains(&Check::Holds("the record opens".into()))
    };
    for index in (0..before.len()).filter(|&index| protected(&before[index])).step_by(9) {
        let mut packets = whole.clone();
        let bytes = &mut packets[index].bytes;
        // Behind the header of the object and of the record.
        bytes[16] ^= 1;
        let told = hear(&packets, &keys)?;
        assert!(matches!(told[index].checks[..], [Check::Fails(_)]), "{:?}", told[index]);
        assert_eq!(told[..index], before[..index]);
    }
    Ok(())
}

fn without_keys(capture: &Path) -> Result<(), Failed> {
    let told = hear(&packets(capture)?, "")?;
    let opened = |one: &Told| {
        let session = matches!(one.protection, Protection::Session(_));
        session && !matches!(one.checks[..], [Check::NotMade(_)])
    };
    assert!(!told.iter().any(opened));
    assert!(told.iter().any(|one| matches!(one.protection, Protection::Session(_))));
    Ok(())
}
