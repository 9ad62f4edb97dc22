//! Rules of SPDM sessions: what makes one, what protects it, how it ends.

use spdm::Frame;
use spdm::message::{Code, ErrorCode, Header};
use spdm::requester::Ask;
use spdm::secured::SessionId;

use super::{Lab, Rule, Stop, fail};

pub(super) static RULES: &[Rule] = &[
    Rule {
        id: "session-is-made",
        says: "KEY_EXCHANGE_RSP is signed, both HMACs hold, and records open",
        source: "DSP0274, KEY_EXCHANGE and FINISH",
        check: session_is_made,
    },
    Rule {
        id: "finish-forged",
        says: "a FINISH whose record does not open makes no session",
        source: "DSP0277, error handling",
        check: finish_forged,
    },
    Rule {
        id: "record-forged",
        says: "a record that was changed is not obeyed, and is refused",
        source: "DSP0277, error handling",
        check: record_forged,
    },
    Rule {
        id: "record-repeated",
        says: "a record that was taken before is not taken again",
        source: "DSP0277, sequence numbers",
        check: record_repeated,
    },
    Rule {
        id: "session-unknown",
        says: "a record of a session that there is not is refused",
        source: "DSP0274, ERROR",
        check: session_unknown,
    },
    Rule {
        id: "session-only",
        says: "a request that belongs into a session is refused outside of one",
        source: "DSP0274, sessions",
        check: session_only,
    },
    Rule {
        id: "heartbeat",
        says: "HEARTBEAT is answered in a session",
        source: "DSP0274, HEARTBEAT",
        check: heartbeat,
    },
    Rule {
        id: "keys-of-one-direction",
        says: "after an update of the requester's keys both directions go on",
        source: "DSP0274, KEY_UPDATE",
        check: keys_of_one_direction,
    },
    Rule {
        id: "keys-of-both-directions",
        says: "after an update of all keys both directions go on",
        source: "DSP0274, KEY_UPDATE",
        check: keys_of_both_directions,
    },
    Rule {
        id: "session-ends",
        says: "after END_SESSION no record of the session is taken",
        source: "DSP0274, END_SESSION",
        check: session_ends,
    },
    Rule {
        id: "session-again",
        says: "after a session another one can be made in the same connection",
        source: "DSP0274, sessions",
        check: session_again,
    },
];

fn session_is_made(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.session()?;
    lab.ask(&Ask::Digests).map(drop)
}

fn finish_forged(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.connect_to_chain()?;
    let exchange = lab.frame(Ask::Session { slot: 0, summary: 0 })?;
    let answer = lab.send(&exchange)?;
    let finish = match lab.next(&answer)? {
        Frame::Secured(record) => record,
        Frame::Clear(_) => {
            return Err(Stop::NotApplicable("FINISH goes in the clear".into()));
        }
    };
    let forged = Frame::Secured(changed(finish.clone()));
    refused(&lab.send(&forged)?)?;
    // The right one comes too late.
    refused(&lab.send(&Frame::Secured(finish))?)
}

fn record_forged(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let record = record(lab)?;
    refused(&lab.send(&Frame::Secured(changed(record)))?)
}

fn record_repeated(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let record = record(lab)?;
    let answer = lab.send(&Frame::Secured(record.clone()))?;
    lab.accept(&answer)?;
    refused(&lab.send(&Frame::Secured(record))?)
}

fn session_unknown(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let mut record = record(lab)?;
    // Another number in the requester's half of the session's.
    record[0] ^= 0xff;
    refused(&lab.send(&Frame::Secured(record))?)
}

fn session_only(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let selected = lab.connect()?;
    for code in [Code::HEARTBEAT, Code::KEY_UPDATE, Code::END_SESSION] {
        let parameter = u8::from(code == Code::KEY_UPDATE);
        let answer = lab.say(&[selected.version.wire(), code.0, parameter, 0])?;
        if answer.header.code != Code::ERROR {
            return fail(format!("{code} in the clear is answered by {}", answer.header.code));
        }
    }
    Ok(())
}

fn heartbeat(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.session()?;
    lab.ask(&Ask::Heartbeat).map(drop)
}

fn keys_of_one_direction(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.session()?;
    lab.ask(&Ask::UpdateKeys { both: false })?;
    lab.ask(&Ask::Digests).map(drop)
}

fn keys_of_both_directions(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.session()?;
    lab.ask(&Ask::UpdateKeys { both: true })?;
    lab.ask(&Ask::Digests).map(drop)
}

fn session_ends(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.session()?;
    let end = lab.frame(Ask::EndSession)?;
    let answer = lab.send(&end)?;
    lab.accept(&answer)?;
    refused(&lab.send(&end)?)
}

fn session_again(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.session()?;
    lab.ask(&Ask::EndSession)?;
    lab.ask(&Ask::Session { slot: 0, summary: 0 })?;
    lab.ask(&Ask::Digests).map(drop)
}

/// The record of a request in a new session.
fn record(lab: &mut Lab<'_>) -> Result<Vec<u8>, Stop> {
    lab.session()?;
    match lab.frame(Ask::Digests)? {
        Frame::Secured(record) => Ok(record),
        Frame::Clear(_) => fail("a session without records"),
    }
}

/// A record with a bit turned over, behind its session and length.
fn changed(mut record: Vec<u8>) -> Vec<u8> {
    const SESSION_AND_LENGTH_BYTES: usize = 6;
    if let Some(byte) = record.get_mut(SESSION_AND_LENGTH_BYTES) {
        *byte ^= 1;
    }
    record
}

/// The answer must be ERROR in the clear, as there are no keys to say it in.
fn refused(answer: &Frame) -> Result<(), Stop> {
    const CODES: [ErrorCode; 3] =
        [ErrorCode::DECRYPT_ERROR, ErrorCode::INVALID_SESSION, ErrorCode::UNEXPECTED_REQUEST];
    match answer {
        Frame::Clear(message) => {
            let header = Header::of(message).or_else(|fault| fail(fault.to_string()))?;
            match (header.code, ErrorCode(header.parameter1)) {
                (Code::ERROR, code) if CODES.contains(&code) => Ok(()),
                (Code::ERROR, code) => fail(format!("ERROR {code}, not {CODES:?}")),
                (code, _) => fail(format!("{code} instead of ERROR")),
            }
        }
        Frame::Secured(record) => {
            let id = SessionId::of_record(record).map_or(0, SessionId::joined);
            fail(format!("a record of session {id:#010x} instead of ERROR"))
        }
    }
}
