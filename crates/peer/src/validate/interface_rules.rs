//! Rules of TDISP: one interface through its states, and what it refuses on the way.

use tdisp::exchange::{
    GetCapabilities, GetReport, GetState, GetVersion, LockInterface, Nonce, StartInterface,
    StopInterface,
};
use tdisp::{
    ErrorCode, HEADER_BYTES, InterfaceId, LockFlags, MessageType, ReportAssembly, RequestNumbering,
    State, VERSION_1_0, report,
};

use super::lab::{refusal_of, tdi_message};
use super::{Lab, Rule, Stop, fail};

pub(super) static RULES: &[Rule] = &[
    Rule {
        id: "tdi-version",
        says: "version 1.0 is among those that TDISP lists",
        source: "TDISP, GET_TDISP_VERSION",
        check: version,
    },
    Rule {
        id: "tdi-capabilities",
        says: "the seven requests that every DSM takes are among those it claims",
        source: "TDISP, TDISP_CAPABILITIES",
        check: capabilities,
    },
    Rule {
        id: "tdi-version-mismatch",
        says: "a request of another major version is refused with VERSION_MISMATCH",
        source: "TDISP, TDISP_ERROR",
        check: version_mismatch,
    },
    Rule {
        id: "tdi-unknown-interface",
        says: "a request about an interface that there is not is refused with INVALID_INTERFACE",
        source: "TDISP, TDISP_ERROR",
        check: unknown_interface,
    },
    Rule {
        id: "tdi-unknown-request",
        says: "a request that is not known is refused with UNSUPPORTED_REQUEST",
        source: "TDISP, TDISP_ERROR",
        check: unknown_request,
    },
    Rule {
        id: "tdi-truncated-request",
        says: "a request that ends too early is refused with INVALID_REQUEST",
        source: "TDISP, TDISP_ERROR",
        check: truncated_request,
    },
    Rule {
        id: "tdi-unlocked-refuses",
        says: "in CONFIG_UNLOCKED there is no report and no start",
        source: "TDISP, TDI states",
        check: unlocked_refuses,
    },
    Rule {
        id: "tdi-stop-unlocked",
        says: "what STOP does in CONFIG_UNLOCKED is not said in public",
        source: "TDISP, STOP_INTERFACE",
        check: stop_unlocked,
    },
    Rule {
        id: "tdi-lock-needs-keys",
        says: "without keys for the stream LOCK is refused, and nothing is locked",
        source: "TDISP, LOCK_INTERFACE",
        check: lock_needs_keys,
    },
    Rule {
        id: "tdi-lock-flags",
        says: "LOCK with a flag that is not defined is refused",
        source: "TDISP, LOCK_INTERFACE",
        check: lock_flags,
    },
    Rule {
        id: "tdi-lock",
        says: "LOCK takes the interface from CONFIG_UNLOCKED to CONFIG_LOCKED",
        source: "TDISP, TDI states",
        check: lock,
    },
    Rule {
        id: "tdi-lock-once",
        says: "LOCK in CONFIG_LOCKED and RUN is refused with INVALID_INTERFACE_STATE",
        source: "TDISP, TDI states",
        check: lock_once,
    },
    Rule {
        id: "tdi-questions-change-nothing",
        says: "GET_TDISP_VERSION, GET_TDISP_CAPABILITIES and GET_STATE leave the state as it is",
        source: "TDISP, TDI states",
        check: questions_change_nothing,
    },
    Rule {
        id: "tdi-nonce-is-fresh",
        says: "each LOCK gives another nonce",
        source: "TDISP, LOCK_INTERFACE",
        check: nonce_is_fresh,
    },
    Rule {
        id: "tdi-nonce-wrong",
        says: "START with another nonce is refused with INVALID_NONCE, and nothing starts",
        source: "TDISP, START_INTERFACE",
        check: nonce_wrong,
    },
    Rule {
        id: "tdi-nonce-of-before",
        says: "the nonce of a LOCK that was stopped starts nothing",
        source: "TDISP, START_INTERFACE",
        check: nonce_of_before,
    },
    Rule {
        id: "tdi-start",
        says: "START takes the interface from CONFIG_LOCKED to RUN, and once",
        source: "TDISP, TDI states",
        check: start,
    },
    Rule {
        id: "tdi-stop",
        says: "STOP takes the interface from CONFIG_LOCKED and from RUN to CONFIG_UNLOCKED",
        source: "TDISP, TDI states",
        check: stop,
    },
    Rule {
        id: "tdi-report",
        says: "the report can be read, and is the same in any portions, locked or running",
        source: "TDISP, GET_DEVICE_INTERFACE_REPORT",
        check: report_in_portions,
    },
    Rule {
        id: "tdi-report-past-the-end",
        says: "a portion past the end of the report is refused with INVALID_REQUEST",
        source: "TDISP, GET_DEVICE_INTERFACE_REPORT",
        check: report_past_the_end,
    },
    Rule {
        id: "tdi-report-offset",
        says: "MMIO_REPORTING_OFFSET is added to every range of the report",
        source: "TDISP, LOCK_INTERFACE",
        check: report_offset,
    },
    Rule {
        id: "tdi-session-ends",
        says: "what becomes of a locked interface when its session ends is not said in public",
        source: "TDISP, sessions",
        check: session_ends,
    },
    Rule {
        id: "tdi-only-in-session",
        says: "TDISP is not answered in the clear",
        source: "TDISP over secured messages",
        check: only_in_session,
    },
];

const ALL_REQUESTS: [MessageType; 7] = [
    MessageType::GET_VERSION,
    MessageType::GET_CAPABILITIES,
    MessageType::LOCK_INTERFACE_REQUEST,
    MessageType::GET_DEVICE_INTERFACE_REPORT,
    MessageType::GET_DEVICE_INTERFACE_STATE,
    MessageType::START_INTERFACE_REQUEST,
    MessageType::STOP_INTERFACE_REQUEST,
];

fn version(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let tdi = lab.interface()?;
    let answer = lab.tdi(&tdi, &GetVersion)?;
    match tdi.response::<GetVersion>(&answer) {
        Ok(versions) if versions.entries.contains(&VERSION_1_0) => Ok(()),
        Ok(versions) => fail(format!("{:02x?} are listed", versions.entries)),
        Err(refused) => fail(refused.to_string()),
    }
}

fn capabilities(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let tdi = lab.interface()?;
    let answer = lab.tdi(&tdi, &GetCapabilities { tsm_caps: 0 })?;
    let found = tdi.response::<GetCapabilities>(&answer);
    let found = found.or_else(|refused| fail(refused.to_string()))?.requests;
    // Public texts number the bits from 0x80 or from 0x81; either will do.
    let numbered = [RequestNumbering::From80, RequestNumbering::From81]
        .map(|numbering| tdisp::exchange::RequestSet::of(&ALL_REQUESTS, numbering));
    let claims = |wanted: &tdisp::exchange::RequestSet| {
        wanted.0.iter().zip(found.0).all(|(wanted, found)| found & wanted == *wanted)
    };
    if numbered.iter().any(claims) { Ok(()) } else { fail(format!("claims {:02x?}", found.0)) }
}

fn version_mismatch(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let tdi = lab.interface()?;
    let mut message = tdi_message(&tdi, &GetState)?;
    message[0] = 0x20;
    lab.tdi_refused(&tdi, &message, &[ErrorCode::VERSION_MISMATCH])
}

fn unknown_interface(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let named = lab.interface()?.interface();
    let other = tdisp::Requester::new(InterfaceId::new(named.requester_id() ^ 0x5500));
    let message = tdi_message(&other, &GetState)?;
    lab.tdi_refused(&other, &message, &[ErrorCode::INVALID_INTERFACE])
}

fn unknown_request(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let tdi = lab.interface()?;
    let mut message = tdi_message(&tdi, &GetState)?;
    message[1] = 0xff;
    lab.tdi_refused(&tdi, &message, &[ErrorCode::UNSUPPORTED_REQUEST])
}

fn truncated_request(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let tdi = lab.interface()?;
    let message = tdi_message(&tdi, &lab.lock_request())?;
    lab.tdi_refused(&tdi, &message[..HEADER_BYTES], &[ErrorCode::INVALID_REQUEST])
}

fn unlocked_refuses(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let tdi = lab.interface()?;
    lab.state(&tdi, State::Unlocked)?;
    let message = tdi_message(&tdi, &GetReport { offset: 0, length: 64 })?;
    lab.tdi_refused(&tdi, &message, &[ErrorCode::INVALID_INTERFACE_STATE])?;
    let message = tdi_message(&tdi, &StartInterface { nonce: Nonce([0; 32]) })?;
    lab.touch();
    lab.tdi_refused(&tdi, &message, &[ErrorCode::INVALID_INTERFACE_STATE])
}

fn stop_unlocked(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let tdi = lab.interface()?;
    let answer = lab.tdi(&tdi, &StopInterface)?;
    lab.state(&tdi, State::Unlocked)?;
    Err(Stop::Policy(match refusal_of(&tdi, &answer)? {
        Some(code) => format!("refused with {code}"),
        None => "done, and nothing changes".into(),
    }))
}

fn lock_needs_keys(lab: &mut Lab<'_>) -> Result<(), Stop> {
    const CODES: [ErrorCode; 3] = [
        ErrorCode::INVALID_REQUEST,
        ErrorCode::INVALID_DEVICE_CONFIGURATION,
        ErrorCode::INVALID_INTERFACE_STATE,
    ];
    let tdi = lab.interface()?;
    let message = tdi_message(&tdi, &lab.lock_request())?;
    lab.touch();
    lab.tdi_refused(&tdi, &message, &CODES)?;
    lab.state(&tdi, State::Unlocked)
}

fn lock_flags(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let tdi = lab.ready_interface()?;
    let flags = LockFlags(1 << 15);
    let message = tdi_message(&tdi, &LockInterface { flags, ..lab.lock_request() })?;
    lab.touch();
    let answer = lab.tdi_bytes(&message)?;
    match refusal_of(&tdi, &answer)? {
        Some(ErrorCode::INVALID_REQUEST) => lab.state(&tdi, State::Unlocked),
        Some(code) => fail(format!("refused with {code}")),
        // Reserved bits may be ignored when read.
        None => Err(Stop::Policy("the flag is ignored".into())),
    }
}

fn lock(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let (tdi, _) = lab.locked_interface()?;
    lab.state(&tdi, State::Locked)
}

fn lock_once(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let (tdi, nonce) = lab.locked_interface()?;
    let message = tdi_message(&tdi, &lab.lock_request())?;
    lab.tdi_refused(&tdi, &message, &[ErrorCode::INVALID_INTERFACE_STATE])?;
    started(lab, &tdi, nonce)?;
    lab.tdi_refused(&tdi, &message, &[ErrorCode::INVALID_INTERFACE_STATE])?;
    lab.state(&tdi, State::Run)
}

fn questions_change_nothing(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let (tdi, nonce) = lab.locked_interface()?;
    lab.tdi(&tdi, &GetVersion)?;
    lab.tdi(&tdi, &GetCapabilities { tsm_caps: 0 })?;
    lab.state(&tdi, State::Locked)?;
    started(lab, &tdi, nonce)?;
    lab.tdi(&tdi, &GetVersion)?;
    lab.tdi(&tdi, &GetCapabilities { tsm_caps: 0 })?;
    lab.state(&tdi, State::Run)
}

fn nonce_is_fresh(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let (tdi, first) = lab.locked_interface()?;
    stopped(lab, &tdi)?;
    let second = lab.lock(&tdi)?;
    if first == second { fail("the same nonce twice") } else { Ok(()) }
}

fn nonce_wrong(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let (tdi, Nonce(mut nonce)) = lab.locked_interface()?;
    nonce[31] ^= 1;
    let message = tdi_message(&tdi, &StartInterface { nonce: Nonce(nonce) })?;
    lab.tdi_refused(&tdi, &message, &[ErrorCode::INVALID_NONCE])?;
    lab.state(&tdi, State::Locked)
}

fn nonce_of_before(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let (tdi, nonce) = lab.locked_interface()?;
    stopped(lab, &tdi)?;
    lab.lock(&tdi)?;
    let message = tdi_message(&tdi, &StartInterface { nonce })?;
    lab.tdi_refused(&tdi, &message, &[ErrorCode::INVALID_NONCE])?;
    lab.state(&tdi, State::Locked)
}

fn start(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let (tdi, nonce) = lab.locked_interface()?;
    started(lab, &tdi, nonce)?;
    lab.state(&tdi, State::Run)?;
    let message = tdi_message(&tdi, &StartInterface { nonce })?;
    lab.tdi_refused(&tdi, &message, &[ErrorCode::INVALID_INTERFACE_STATE])?;
    lab.state(&tdi, State::Run)
}

fn stop(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let (tdi, _) = lab.locked_interface()?;
    stopped(lab, &tdi)?;
    lab.state(&tdi, State::Unlocked)?;
    let nonce = lab.lock(&tdi)?;
    started(lab, &tdi, nonce)?;
    stopped(lab, &tdi)?;
    lab.state(&tdi, State::Unlocked)
}

fn report_in_portions(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let (tdi, nonce) = lab.locked_interface()?;
    let whole = read_report(lab, &tdi, 1024)?;
    report::decode(&whole).map(drop).or_else(|fault| fail(fault.to_string()))?;
    if read_report(lab, &tdi, 20)? != whole {
        return fail("other bytes in portions of 20");
    }
    started(lab, &tdi, nonce)?;
    if read_report(lab, &tdi, 1024)? == whole { Ok(()) } else { fail("other bytes in RUN") }
}

fn report_past_the_end(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let (tdi, _) = lab.locked_interface()?;
    let whole = read_report(lab, &tdi, 1024)?;
    let offset = u16::try_from(whole.len()).or_else(|_| fail("more than 64 KiB"))?;
    let message = tdi_message(&tdi, &GetReport { offset, length: 16 })?;
    lab.tdi_refused(&tdi, &message, &[ErrorCode::INVALID_REQUEST])
}

fn report_offset(lab: &mut Lab<'_>) -> Result<(), Stop> {
    const OFFSET: u64 = 0x7000_0000;
    let (tdi, _) = lab.locked_interface()?;
    let plain = first_pages(&read_report(lab, &tdi, 1024)?)?;
    stopped(lab, &tdi)?;
    let request = LockInterface { mmio_reporting_offset: OFFSET, ..lab.lock_request() };
    let answer = lab.tdi(&tdi, &request)?;
    tdi.response::<LockInterface>(&answer).map(drop).or_else(|no| fail(format!("LOCK: {no}")))?;
    let moved = first_pages(&read_report(lab, &tdi, 1024)?)?;
    if plain.is_empty() {
        return Err(Stop::NotApplicable("the report has no range".into()));
    }
    // A range's place is an address in some public texts and the number of a page in others.
    let by = |unit: u64| {
        plain.len() == moved.len()
            && plain
                .iter()
                .zip(&moved)
                .all(|(one, other)| other.wrapping_sub(*one) == OFFSET / unit)
    };
    if by(1) || by(4096) { Ok(()) } else { fail(format!("{plain:x?} became {moved:x?}")) }
}

fn session_ends(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let (tdi, _) = lab.locked_interface()?;
    lab.ask(&spdm::requester::Ask::EndSession)?;
    lab.session()?;
    let found = lab.state_found(&tdi)?;
    Err(Stop::Policy(format!("it is in {found}")))
}

fn only_in_session(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let tdi = tdisp::Requester::new(lab.named()?);
    lab.connect()?;
    let message = tdi_message(&tdi, &GetState)?;
    let payload = [&[tdisp::payload::ProtocolId::TDISP.0], &*message].concat();
    let Some(answer) = lab.vendor(payload)? else { return Ok(()) };
    match refusal_of(&tdi, answer.get(1..).unwrap_or_default())? {
        Some(_) => Ok(()),
        None => fail("GET_STATE in the clear is answered"),
    }
}

fn started(lab: &mut Lab<'_>, tdi: &tdisp::Requester, nonce: Nonce) -> Result<(), Stop> {
    let answer = lab.tdi(tdi, &StartInterface { nonce })?;
    let done = tdi.response::<StartInterface>(&answer).map(drop);
    done.or_else(|refused| fail(format!("START: {refused}")))
}

fn stopped(lab: &mut Lab<'_>, tdi: &tdisp::Requester) -> Result<(), Stop> {
    let answer = lab.tdi(tdi, &StopInterface)?;
    let done = tdi.response::<StopInterface>(&answer).map(drop);
    done.or_else(|refused| fail(format!("STOP: {refused}")))
}

fn read_report(
    lab: &mut Lab<'_>,
    tdi: &tdisp::Requester,
    portion_bytes: u16,
) -> Result<Vec<u8>, Stop> {
    let mut room = vec![0; usize::from(u16::MAX)];
    let mut assembly = ReportAssembly::new(&mut room);
    while let Some(ask) = assembly.next(portion_bytes) {
        let answer = lab.tdi(tdi, &ask)?;
        let portion = tdi.response::<GetReport>(&answer);
        let portion = portion.or_else(|refused| fail(format!("the report: {refused}")))?;
        assembly.take(portion).or_else(|fault| fail(fault.to_string()))?;
    }
    assembly.report().map_or_else(|| fail("the report has no end"), |report| Ok(report.to_vec()))
}

fn first_pages(bytes: &[u8]) -> Result<Vec<u64>, Stop> {
    let report = report::decode(bytes).or_else(|fault| fail(fault.to_string()))?;
    Ok(report.ranges.iter().map(|range| range.first_page).collect())
}
