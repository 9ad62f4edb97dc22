//! Real messages, exchanged by spdm-emu's requester and responder, are read and written unchanged.
//!
//! `BINDERY_SPDM_CAPTURES` names a folder with `*.decoded.txt`, a line for each message, ending in
//! its bytes in hexadecimal. They are not part of this repository: where the variable is not set,
//! the test is shown as ignored.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bindery_tdisp::exchange::{GetReport, LockInterface, StartInterface};
use bindery_tdisp::payload::{self, ProtocolId};
use bindery_tdisp::report::{self, MmioRange};
use bindery_tdisp::{EncodeFault, Request, Requester, Response, State, ide_km};
use libtest_mimic::{Arguments, Failed, Trial};

const VARIABLE: &str = "BINDERY_SPDM_CAPTURES";
const CASES: [(&str, Case); 2] = [
    ("messages come back", messages_come_back),
    ("the exchange makes sense", exchange_makes_sense),
];

type Case = fn(&[Vec<u8>]) -> Result<(), Failed>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = match std::env::var_os(VARIABLE) {
        Some(folder) => captures(Path::new(&folder)).into_iter().flat_map(trials).collect(),
        None => {
            println!("{VARIABLE} is not set: real captures are not read");
            let skipped = |(name, _)| Trial::test(name, || Ok(())).with_ignored_flag(true);
            CASES.map(skipped).into()
        }
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn captures(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder of captures");
    let mut captures: Vec<_> = entries
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| path.to_string_lossy().ends_with(".decoded.txt"))
        .collect();
    captures.sort();
    assert!(!captures.is_empty(), "no *.decoded.txt in {}", folder.display());
    captures
}

fn trials(capture: PathBuf) -> [Trial; 2] {
    CASES.map(|(name, case)| {
        let capture = capture.clone();
        let name = format!("{}: {name}", capture.display());
        Trial::test(name, move || case(&payloads(&std::fs::read_to_string(capture)?)?))
    })
}

/// The payloads of PCI-SIG in a capture: what follows header, registry, vendor and length.
fn payloads(capture: &str) -> Result<Vec<Vec<u8>>, Failed> {
    let lines = capture.lines().filter(|line| {
        line.contains("VENDOR_DEFINED") && (line.contains(" TDISP ") || line.contains(" IDE_KM "))
    });
    let payloads: Result<Vec<_>, Failed> = lines
        .map(|line| {
            let hex = line.split_whitespace().last().unwrap_or_default();
            let bytes: Result<Vec<u8>, _> = (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(hex.get(at..at + 2).unwrap_or("odd"), 16))
                .collect();
            let bytes = bytes?;
            let (head, payload) = bytes.split_at_checked(11).ok_or("a short line")?;
            let standard = u16::from_le_bytes([head[4], head[5]]);
            let vendor = u16::from_le_bytes([head[7], head[8]]);
            let length = u16::from_le_bytes([head[9], head[10]]);
            assert_eq!((standard, vendor), (payload::STANDARD_ID, payload::VENDOR_ID));
            assert_eq!(usize::from(length), payload.len());
            Ok(payload.to_vec())
        })
        .collect();
    let payloads = payloads?;
    assert_eq!(payloads.len(), 60, "13 exchanges with six keys set and stopped, then TDISP");
    Ok(payloads)
}

fn messages_come_back(payloads: &[Vec<u8>]) -> Result<(), Failed> {
    for (index, whole) in payloads.iter().enumerate() {
        let (protocol, message) = payload::split(whole)?;
        let mut written = vec![0; whole.len()];
        let length = payload::join(protocol, &mut written, |into| {
            let is_request = index % 2 == 0;
            match (protocol, is_request) {
                (ProtocolId::IDE_KM, true) => read(ide_km::Request::decode(message)).encode(into),
                (ProtocolId::IDE_KM, false) => read(ide_km::Response::decode(message)).encode(into),
                (_, true) => {
                    let (header, request) = read(Request::decode(message));
                    request.encode(header.interface, into)
                }
                (_, false) => {
                    let (header, response) = read(Response::decode(message));
                    response.encode(header.interface, into)
                }
            }
        });
        assert_eq!(length, Ok::<_, EncodeFault>(whole.len()));
        assert_eq!(written, *whole, "message {index}");
    }
    Ok(())
}

fn exchange_makes_sense(payloads: &[Vec<u8>]) -> Result<(), Failed> {
    let messages: Vec<_> = payloads.iter().map(|payload| payload::split(payload)).collect();
    let tdisp: Vec<_> = messages
        .chunks_exact(2)
        .filter_map(|pair| match (&pair[0], &pair[1]) {
            (Ok((ProtocolId::TDISP, asked)), Ok((_, answer))) => Some((*asked, *answer)),
            _ => None,
        })
        .collect();
    let (mut nonce, mut started, mut report, mut states) = (None, None, Vec::new(), Vec::new());
    for (asked, answer) in tdisp {
        let (header, request) = Request::decode(asked)?;
        let requester = Requester::new(header.interface);
        assert_eq!((header.interface.requester_id(), header.interface.segment()), (0xbeef, None));
        if let Request::LockInterface(lock) = request {
            assert_eq!((lock.flags.0, lock.mmio_reporting_offset), (7, 0xd000_0000));
            nonce = Some(requester.response::<LockInterface>(answer)?.nonce);
        } else if let Request::StartInterface(StartInterface { nonce }) = request {
            started = Some(nonce);
        } else if let Request::GetReport(GetReport { offset, .. }) = request {
            assert_eq!(usize::from(offset), report.len());
            report.extend(requester.response::<GetReport>(answer)?.portion);
        }
        if let (_, Response::InterfaceState(state)) = Response::decode(answer)? {
            states.push(State::try_from(state)?);
        }
    }
    assert!(nonce.is_some() && nonce == started);
    assert_eq!(states, [State::Unlocked, State::Locked, State::Run, State::Unlocked]);
    let report = report::decode(&report)?;
    let ends: Vec<_> = report.ranges.iter().map(|r: MmioRange| (r.first_page, r.pages)).collect();
    assert_eq!(ends, [(0, 1), (0x8000, 4), (0x1_0000, 8), (0x2_0000, 8)]);
    assert_eq!(report.device_specific, b"tdisp_dev_emu\0\0\0");
    Ok(())
}

fn read<T, E: std::fmt::Display>(decoded: Result<T, E>) -> T {
    decoded.unwrap_or_else(|fault| panic!("{fault}"))
}
