//! TDISP and IDE_KM, from a requester that sends anything and from a device that answers anything.

use tdisp::exchange::{GetReport, Nonce};
use tdisp::ide_km::{self, KeyTable};
use tdisp::report::{self, Extent, MemoryBar};
use tdisp::transition::TABLE;
use tdisp::{
    Dsm, InterfaceId, Outcome, REPORT_BYTES_MAX, ReportAssembly, Requester, Response, SessionId,
    Settings, StandIn, State,
};

use crate::input::Input;

/// A message to the DSM follows.
pub const TDISP: u8 = 0;
/// A message to the keys follows.
pub const IDE_KM: u8 = 1;
/// An answer to a requester follows.
pub const ANSWER: u8 = 2;
/// What the device draws each time.
pub const NONCE: Nonce = Nonce([0x11; 32]);
/// A reporting offset.
pub const PAGES: u64 = 0x1_0000;

const BAR: MemoryBar = MemoryBar {
    number: 0,
    address: 0xfe00_0000,
    length: 0x4000,
    msix_table: Some(Extent { offset: 0x1000, length: 0x40 }),
    msix_pba: Some(Extent { offset: 0x2000, length: 0x8 }),
    non_tee: false,
};

/// Sends the messages that `bytes` say, each after a byte for its kind.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut dsm = Dsm::<2>::new(Settings::default());
    dsm.add(0).expect("room for two");
    dsm.add(1).expect("room for two");
    let mut keys = KeyTable::<2>::new();
    let mut report = [0; REPORT_BYTES_MAX];
    let mut assembly = ReportAssembly::new(&mut report);
    while !input.is_empty() {
        let kind = input.byte();
        let message = input.counted();
        match kind % 3 {
            TDISP => ask_dsm(&mut dsm, SessionId(u32::from(kind / 3)), &message),
            IDE_KM => ask_keys(&mut keys, &message),
            _ => judge(&mut assembly, &message),
        }
    }
    if let Some(report) = assembly.report() {
        let _ = report::decode(report);
    }
}

fn ask_dsm(dsm: &mut Dsm<2>, session: SessionId, request: &[u8]) {
    let mut response = [0; 256];
    let answer =
        dsm.respond(session, request, &mut hardware(), &mut response).expect("room enough");
    let (_, response) = Response::decode(&response[..answer.length]).expect("an answer");
    if let Some(change) = answer.change {
        let edge = |row: &[Outcome; 4]| row[change.from as usize] == Outcome::Go(change.to);
        assert!(TABLE.iter().any(|(_, row)| edge(row)), "{change:?}");
        assert!(!matches!(response, Response::ErrorResponse(_)), "{change:?}");
    }
    for (_, tdi) in dsm.tdis() {
        let locked = matches!(tdi.state(), State::Locked | State::Run);
        assert_eq!(tdi.report().is_some(), locked);
        assert!(tdi.report().is_none_or(|report| report::decode(report).is_ok()));
    }
}

fn ask_keys(keys: &mut KeyTable<2>, request: &[u8]) {
    let mut response = [0; 64];
    if let Ok(answer) = keys.respond(request, &hardware(), &mut response) {
        ide_km::Response::decode(&response[..answer.length]).expect("an answer");
    }
}

fn judge(assembly: &mut ReportAssembly<'_>, response: &[u8]) {
    let _ = ide_km::Response::decode(response);
    let _ = report::decode(response);
    let requester = Requester::new(InterfaceId::new(0));
    assembly.next(64);
    if let Ok(portion) = requester.response::<GetReport>(response) {
        let _ = assembly.take(portion);
    }
}

fn hardware() -> StandIn {
    StandIn { bar: BAR, nonce: NONCE, streams: 2, ..StandIn::default() }
}
