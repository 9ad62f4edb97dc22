//! Rules of IDE_KM: keys of the device's link.

use tdisp::ide_km::{KEY_BYTES, KeyId, KeyKind, KeyStatus, Request, Response};
use tdisp::payload::ProtocolId;

use super::{Lab, Rule, Stop, fail};

pub(super) static RULES: &[Rule] = &[
    Rule {
        id: "ide-query",
        says: "QUERY is answered for the port that is asked about, with whole registers",
        source: "PCI Express, IDE_KM QUERY",
        check: query,
    },
    Rule {
        id: "ide-keys-work",
        says: "a key for each sub-stream and direction is programmed, used and stopped",
        source: "PCI Express, IDE_KM KEY_PROG and K_SET_GO",
        check: keys_work,
    },
    Rule {
        id: "ide-port-unknown",
        says: "KEY_PROG for a port that there is not is answered by KP_ACK with status 2",
        source: "PCI Express, IDE_KM KP_ACK",
        check: port_unknown,
    },
    Rule {
        id: "ide-sub-stream-unknown",
        says: "KEY_PROG for a sub-stream that there is not is answered by KP_ACK with status 3",
        source: "PCI Express, IDE_KM KP_ACK",
        check: sub_stream_unknown,
    },
    Rule {
        id: "ide-length-wrong",
        says: "KEY_PROG of the wrong length is answered by KP_ACK with status 1",
        source: "PCI Express, IDE_KM KP_ACK",
        check: length_wrong,
    },
    Rule {
        id: "ide-go-without-key",
        says: "K_SET_GO for a key that was never programmed is not acknowledged",
        source: "PCI Express, IDE_KM K_SET_GO",
        check: go_without_key,
    },
    Rule {
        id: "ide-only-in-session",
        says: "keys are not taken in the clear",
        source: "PCI Express, IDE_KM over secured messages",
        check: only_in_session,
    },
];

fn query(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let (registers, _) = registers(lab)?;
    if registers.is_multiple_of(4) {
        Ok(())
    } else {
        fail(format!("{registers} bytes of registers"))
    }
}

/// Bytes of registers of the port, and the highest port.
fn registers(lab: &mut Lab<'_>) -> Result<(usize, u8), Stop> {
    lab.session()?;
    let port = lab.subject.port;
    let Some(answer) = lab.keys(&Request::Query { port })? else {
        return Err(Stop::NotApplicable("the device does not speak IDE_KM".into()));
    };
    match Response::decode(&answer) {
        Ok(Response::QueryResp { port: found, port_max, registers, .. }) if found == port => {
            Ok((registers.len(), port_max))
        }
        Ok(other) => fail(format!("{other:?} instead of QUERY_RESP for port {port}")),
        Err(fault) => fail(fault.to_string()),
    }
}

fn keys_work(lab: &mut Lab<'_>) -> Result<(), Stop> {
    registers(lab)?;
    lab.set_keys()?;
    for key in lab.all_keys() {
        lab.acked(&Request::SetStop(key), key)?;
    }
    Ok(())
}

fn port_unknown(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let (_, port_max) = registers(lab)?;
    let Some(port) = port_max.checked_add(1) else {
        return Err(Stop::NotApplicable("every number is a port's".into()));
    };
    let key = KeyId { port, ..first_key(lab) };
    status(lab.program(key)?, KeyStatus::UNSUPPORTED_PORT)
}

fn sub_stream_unknown(lab: &mut Lab<'_>) -> Result<(), Stop> {
    registers(lab)?;
    // Sub-stream 15: there are three.
    let key = KeyId { kind: KeyKind(0xf0), ..first_key(lab) };
    status(lab.program(key)?, KeyStatus::UNSUPPORTED_VALUE)
}

fn length_wrong(lab: &mut Lab<'_>) -> Result<(), Stop> {
    const KEY_PROG: u8 = 2;
    registers(lab)?;
    let KeyId { stream, kind, port } = first_key(lab);
    let head = [ProtocolId::IDE_KM.0, KEY_PROG, 0, 0, stream, 0, kind.0, port];
    // The IV is not there.
    let payload = [&head[..], &[0; KEY_BYTES]].concat();
    let Some(answer) = lab.protocol(ProtocolId::IDE_KM, payload)? else {
        return fail("ERROR instead of KP_ACK");
    };
    match Response::decode(&answer) {
        Ok(Response::KeyProgAck { status: found, .. }) => {
            status(found, KeyStatus::INCORRECT_LENGTH)
        }
        Ok(other) => fail(format!("{other:?} instead of KP_ACK")),
        Err(fault) => fail(fault.to_string()),
    }
}

fn go_without_key(lab: &mut Lab<'_>) -> Result<(), Stop> {
    registers(lab)?;
    let key = first_key(lab);
    match lab.keys(&Request::SetGo(key))? {
        None => Ok(()),
        Some(answer) => match Response::decode(&answer) {
            Ok(Response::GoStopAck(found)) if found == key => fail("K_GOSTOP_ACK"),
            Ok(other) => fail(format!("{other:?}")),
            Err(fault) => fail(fault.to_string()),
        },
    }
}

fn only_in_session(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.connect()?;
    let port = lab.subject.port;
    match lab.keys(&Request::Query { port })? {
        None => Ok(()),
        Some(_) => fail("QUERY in the clear is answered"),
    }
}

fn first_key(lab: &Lab<'_>) -> KeyId {
    KeyId { stream: lab.subject.stream, kind: KeyKind(0), port: lab.subject.port }
}

fn status(found: KeyStatus, expected: KeyStatus) -> Result<(), Stop> {
    if found == expected {
        Ok(())
    } else {
        fail(format!("KP_ACK with status {}, not {}", found.0, expected.0))
    }
}
