//! What a device's security manager is asked: keys, and the life of its interfaces.

use bindery_fuzz::input::Output;
use pci::regs::header;

use crate::write;

pub(crate) fn security() {
    use bindery_fuzz::security::{ANSWER, IDE_KM, NONCE, PAGES, TDISP};
    use tdisp::exchange::{GetReport, GetState, LockInterface, StartInterface, StopInterface};
    use tdisp::ide_km::{self, Direction, KeyId, KeyKind, KeyMaterial, SubStream};
    use tdisp::{InterfaceId, LockFlags, Request};

    let mut out = Output::default();
    let mut message = [0; 256];
    let kind = KeyKind::new(false, Direction::Receive, SubStream::Posted);
    let key = KeyId { stream: 1, kind, port: 0 };
    let material = KeyMaterial::new([7; 32], 1);
    for request in [
        ide_km::Request::Query { port: 0 },
        ide_km::Request::KeyProg { key, material },
        ide_km::Request::SetGo(key),
        ide_km::Request::SetStop(key),
    ] {
        let length = request.encode(&mut message).expect("room for a request");
        out.put(&[IDE_KM]);
        out.counted(&message[..length]);
    }
    let lock = LockInterface {
        flags: LockFlags::LOCK_MSIX,
        mmio_reporting_offset: PAGES,
        ..LockInterface::default()
    };
    for request in [
        Request::LockInterface(lock),
        Request::GetReport(GetReport { offset: 0, length: 0xffff }),
        Request::StartInterface(StartInterface { nonce: NONCE }),
        Request::GetState(GetState),
        Request::StopInterface(StopInterface),
    ] {
        let length = request.encode(InterfaceId::new(0), &mut message).expect("room for a request");
        out.put(&[TDISP]);
        out.counted(&message[..length]);
    }
    let portion = tdisp::exchange::ReportPortion { remainder: 0, portion: &[0; 20] };
    let answer = tdisp::Response::ReportPortion(portion);
    let length = answer.encode(InterfaceId::new(0), &mut message).expect("room for an answer");
    out.put(&[ANSWER]);
    out.counted(&message[..length]);
    write("tdisp", "life", &out.into_bytes());
}

/// Keys, and for each function: locked, running, broken in its own way, stopped.
pub(crate) fn dsm() {
    use bindery_fuzz::dsm::{Deed, IDS, NONCE};
    use tdisp::exchange::{GetReport, LockInterface, StartInterface, StopInterface};
    use tdisp::ide_km::{self, Direction, KeyId, KeyKind, KeyMaterial, SubStream};
    use tdisp::payload::{ProtocolId, join};
    use tdisp::{InterfaceId, LockFlags, Request};
    let mut out = Output::default();
    out.put(&[0]);
    let ask = |out: &mut Output, protocol, write: &dyn Fn(&mut [u8]) -> Option<usize>| {
        let mut payload = [0; 128];
        let full = tdisp::EncodeFault::NoRoom { needed: 0, room: 0 };
        let length = join(protocol, &mut payload, |into| write(into).ok_or(full));
        let payload = payload[..length.expect("room enough")].to_vec();
        Deed::Ask { session: 1, payload }.encode(out);
    };
    for sub in SubStream::ALL {
        for direction in Direction::ALL {
            let key = KeyId { stream: 0, kind: KeyKind::new(false, direction, sub), port: 0 };
            let material = KeyMaterial::new([7; 32], 1);
            for request in [ide_km::Request::KeyProg { key, material }, ide_km::Request::SetGo(key)]
            {
                ask(&mut out, ProtocolId::IDE_KM, &|into| request.encode(into).ok());
            }
        }
    }
    let off = vec![0, 0];
    let breaches = [
        Deed::Config { function: 0, offset: header::COMMAND, bytes: off },
        Deed::Write { function: 1, table: true, offset: 8, value: 5 },
        Deed::Reset { function: 2, bus: false },
    ];
    for (id, breach) in IDS.into_iter().zip(breaches) {
        let lock = LockInterface { flags: LockFlags::LOCK_MSIX, ..LockInterface::default() };
        for request in [
            Request::LockInterface(lock),
            Request::GetReport(GetReport { offset: 0, length: 200 }),
            Request::StartInterface(StartInterface { nonce: NONCE }),
        ] {
            let interface = InterfaceId::new(id);
            ask(&mut out, ProtocolId::TDISP, &|into| request.encode(interface, into).ok());
        }
        breach.encode(&mut out);
        let (stop, interface) = (Request::StopInterface(StopInterface), InterfaceId::new(id));
        ask(&mut out, ProtocolId::TDISP, &|into| stop.encode(interface, into).ok());
    }
    Deed::EndSession(1).encode(&mut out);
    Deed::LoseKeys.encode(&mut out);
    Deed::Reset { function: 0, bus: true }.encode(&mut out);
    write("dsm", "life", &out.into_bytes());
}
