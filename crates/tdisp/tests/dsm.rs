//! A requester and a DSM, bytes between them.

mod rig;

use std::collections::BTreeMap;

use bindery_tdisp::exchange::{
    GetCapabilities, GetReport, GetState, GetVersion, LockInterface, StopInterface, VdmRequest,
};
use bindery_tdisp::{
    Breach, Change, DeviceRefusal, EncodeFault, ErrorCode, Full, FunctionReset, InterfaceId,
    LockFlags, MessageType, Nonce, REPORT_BYTES_MAX, RESPONSE_BYTES_MIN, Refused, ReportAssembly,
    Requester, Settings, State, report,
};
use proptest::collection::vec;
use proptest::prelude::*;

use rig::{OTHER, PF, Rig, US, VF, error, refused};

#[test]
fn from_lock_to_stop() {
    let mut rig = Rig::new(Settings::default());
    let versions = rig.ask(US, PF, GetVersion, |versions| versions.entries.to_vec());
    assert_eq!(versions, Ok(vec![0x10]));
    let capabilities = rig.ask(US, PF, GetCapabilities::default(), |c| c).unwrap();
    assert!(capabilities.requests.takes(MessageType::LOCK_INTERFACE_REQUEST));
    assert!(capabilities.address_width_bits >= 52 && capabilities.outstanding_all > 0);

    let nonce = rig.lock(PF, LockFlags::LOCK_MSIX).unwrap();
    let change = Change { requester_id: PF, from: State::Unlocked, to: State::Locked };
    assert_eq!(rig.change, Some(change));
    let mut bytes = [0; REPORT_BYTES_MAX];
    let mut assembly = ReportAssembly::new(&mut bytes);
    let mut portions = 0;
    while let Some(asked) = assembly.next(40) {
        rig.ask(US, PF, asked, |portion| assembly.take(portion)).unwrap().unwrap();
        portions += 1;
    }
    let report = report::decode(assembly.report().unwrap()).unwrap();
    assert_eq!((portions, report.ranges.len(), report.device_specific), (4, 4, &[7; 60][..]));

    rig.start(US, PF, nonce).unwrap();
    assert_eq!((rig.state(PF), rig.state(VF)), (State::Run, State::Unlocked));
    assert_eq!(rig.start(US, PF, nonce), refused(ErrorCode::INVALID_INTERFACE_STATE));
    rig.stop(PF).unwrap();
    let change = Change { requester_id: PF, from: State::Run, to: State::Unlocked };
    assert_eq!((rig.change, rig.state(PF)), (Some(change), State::Unlocked));
    assert_eq!(rig.device.told, [("lock", PF), ("start", PF), ("stop", PF)]);
}

#[test]
fn interfaces_do_not_share_a_state() {
    let mut rig = Rig::new(Settings::default());
    let (pf, vf) = (rig.lock(PF, LockFlags(0)).unwrap(), rig.lock(VF, LockFlags(0)).unwrap());
    assert_eq!(rig.start(US, VF, pf), refused(ErrorCode::INVALID_NONCE));
    rig.start(US, VF, vf).unwrap();
    assert!(rig.dsm.breach(PF, Breach::BarWritten).is_some());
    assert_eq!((rig.state(PF), rig.state(VF)), (State::Error, State::Run));
    rig.stop(PF).unwrap();
    assert_eq!((rig.state(PF), rig.state(VF)), (State::Unlocked, State::Run));
}

/// Each request is wrong in everything that follows what it is tested for.
#[test]
fn checks_come_in_order() {
    let mut rig = Rig::new(Settings::default());
    rig.lock(PF, LockFlags(0)).unwrap();
    let message = |version: u8, kind: u8, function: u32, rest: usize| {
        let mut message = vec![version, kind, 0, 0];
        message.extend(function.to_le_bytes());
        message.resize(16 + rest, 0);
        message
    };
    let mut ask = |request: &[u8]| error(&rig.send(OTHER, request));
    let unknown = 0x0fff;
    for end in 0..16 {
        let cut = &message(0x11, 0xff, unknown, 0)[..end];
        assert_eq!(ask(cut), (ErrorCode::INVALID_REQUEST, 0), "{end} bytes");
    }
    for kind in (0..=0x80).chain(0x88..=0xff) {
        let code = (ErrorCode::UNSUPPORTED_REQUEST, u32::from(kind));
        assert_eq!(ask(&message(0x11, kind, unknown, 5)), code);
    }
    for kind in 0x81..=0x87 {
        let long = message(0x11, kind, unknown, 99);
        assert_eq!(ask(&long), (ErrorCode::INVALID_REQUEST, 0), "length of {kind:#x}");
    }
    let start = |version, function| message(version, 0x86, function, 32);
    assert_eq!(ask(&start(0x11, unknown)), (ErrorCode::VERSION_MISMATCH, 0));
    assert_eq!(ask(&start(0x10, unknown)), (ErrorCode::INVALID_INTERFACE, 0));
    let in_segment = InterfaceId::in_segment(1, PF).bits();
    assert_eq!(ask(&start(0x10, in_segment)), (ErrorCode::INVALID_INTERFACE, 0));
    assert_eq!(ask(&start(0x10, VF.into())), (ErrorCode::INVALID_INTERFACE_STATE, 0));
    assert_eq!(ask(&start(0x10, PF.into())), (ErrorCode::INVALID_NONCE, 0));
    let mut lock = message(0x10, 0x83, PF.into(), 20);
    lock[16..].fill(0xff);
    assert_eq!(ask(&lock), (ErrorCode::INVALID_INTERFACE_STATE, 0), "before its fields");
    for kind in [0x81, 0x82, 0x85] {
        let rest = if kind == 0x82 { 4 } else { 0 };
        let known = ask(&message(0x10, kind, unknown, rest));
        assert_eq!(known, (ErrorCode::INVALID_INTERFACE, 0));
    }
}

#[test]
fn an_error_names_the_interface_that_was_asked() {
    let mut rig = Rig::new(Settings::default());
    let asked = InterfaceId::in_segment(7, 0x1234);
    let mut request = [0; 32];
    let length = Requester::new(asked).request(&GetState, &mut request).unwrap();
    let response = rig.send(US, &request[..length]);
    assert_eq!(error(&response).0, ErrorCode::INVALID_INTERFACE);
    assert_eq!(response[4..16], request[4..16]);
}

#[test]
fn lock_is_refused_for_its_fields_before_the_device_hears() {
    let settings = Settings { lock_flags: LockFlags::LOCK_MSIX, ..Settings::default() };
    let mut rig = Rig::new(settings);
    let wrong = refused(ErrorCode::INVALID_REQUEST);
    assert_eq!(rig.lock(PF, LockFlags::NO_FW_UPDATE), wrong);
    assert_eq!(rig.lock(PF, LockFlags(0x8000)), wrong);
    let offset = LockInterface { mmio_reporting_offset: 0x800, ..LockInterface::default() };
    assert_eq!(rig.ask(US, PF, offset, |r| r.nonce), wrong);
    rig.device.dry = true;
    assert_eq!(rig.lock(PF, LockFlags(0)), refused(ErrorCode::INSUFFICIENT_ENTROPY));
    assert_eq!((rig.device.told.len(), rig.state(PF)), (0, State::Unlocked));
}

#[test]
fn what_the_device_refuses_stays_as_it_was() {
    let mut rig = Rig::new(Settings::default());
    let codes = [
        (DeviceRefusal::Busy, ErrorCode::BUSY),
        (DeviceRefusal::InsecureStream, ErrorCode::INVALID_REQUEST),
        (DeviceRefusal::Misconfigured, ErrorCode::INVALID_DEVICE_CONFIGURATION),
        (DeviceRefusal::Unspecified, ErrorCode::UNSPECIFIED),
    ];
    for (refusal, code) in codes {
        rig.device.refuses = Some(refusal);
        assert_eq!(rig.lock(PF, LockFlags(0)), refused(code));
        assert_eq!(rig.state(PF), State::Unlocked);
    }
    rig.device.refuses = None;
    let nonce = rig.lock(PF, LockFlags(0)).unwrap();
    rig.device.refuses = Some(DeviceRefusal::Busy);
    assert_eq!(rig.start(US, PF, nonce), refused(ErrorCode::BUSY));
    assert_eq!(rig.state(PF), State::Locked);
    rig.device.refuses = None;
    assert_eq!(rig.start(US, PF, nonce), Ok(()), "the nonce holds");
}

#[test]
fn only_the_session_that_locked_starts() {
    let mut rig = Rig::new(Settings::default());
    let nonce = rig.lock(PF, LockFlags(0)).unwrap();
    assert_eq!(rig.start(OTHER, PF, nonce), refused(ErrorCode::INVALID_NONCE));
    assert_eq!(rig.state(PF), State::Locked);
    let mut told = Vec::new();
    rig.dsm.session_ended(OTHER, |change| told.push(change));
    assert_eq!(told, []);
    rig.dsm.session_ended(US, |change| told.push(change));
    assert_eq!(told, [Change { requester_id: PF, from: State::Locked, to: State::Error }]);
}

#[test]
fn in_error_only_stop_and_questions_are_answered() {
    let mut rig = Rig::new(Settings::default());
    let nonce = rig.lock(PF, LockFlags(0)).unwrap();
    rig.dsm.breach(PF, Breach::BusMasterCleared);
    let state = ErrorCode::INVALID_INTERFACE_STATE;
    assert_eq!(rig.lock(PF, LockFlags(0)), refused(state));
    assert_eq!(rig.start(US, PF, nonce), refused(state));
    let report = GetReport { offset: 0, length: 0xffff };
    assert_eq!(rig.ask(US, PF, report, |_| ()), refused(state));
    assert_eq!(rig.state(PF), State::Error);
    assert!(rig.ask(US, PF, GetVersion, |_| ()).is_ok());
    assert!(rig.ask(US, PF, GetCapabilities::default(), drop).is_ok());
    assert_eq!(rig.ask(OTHER, PF, StopInterface, drop), Ok(()), "from any session");
    assert_eq!(rig.state(PF), State::Unlocked);
    assert_eq!(rig.start(US, PF, nonce), refused(state), "the nonce is gone");
}

#[test]
fn resets_reach_the_interfaces() {
    for (function_reset, after) in
        [(FunctionReset::Unlocks, State::Unlocked), (FunctionReset::Breaches, State::Error)]
    {
        let mut rig = Rig::new(Settings { function_reset, ..Settings::default() });
        rig.lock(PF, LockFlags(0)).unwrap();
        rig.lock(VF, LockFlags(0)).unwrap();
        let change = Change { requester_id: PF, from: State::Locked, to: after };
        assert_eq!(rig.dsm.reset_function(PF), Some(change));
        assert_eq!(rig.state(VF), State::Locked);
        rig.dsm.reset_conventional(|_| ());
        assert_eq!((rig.state(PF), rig.state(VF)), (State::Unlocked, State::Unlocked));
    }
}

#[test]
fn the_table_is_bounded() {
    let mut rig = Rig::new(Settings::default());
    assert_eq!(rig.dsm.add(PF), Err(Full::Present { requester_id: PF }));
    assert_eq!(rig.dsm.add(9), Err(Full::Table { capacity: 2 }));
    assert_eq!(rig.dsm.remove(VF).map(|tdi| tdi.state()), Some(State::Unlocked));
    assert!(rig.dsm.remove(VF).is_none());
    assert_eq!(rig.ask(US, VF, GetState, drop), refused(ErrorCode::INVALID_INTERFACE));
    rig.dsm.add(9).unwrap();
    let mut functions: Vec<_> = rig.dsm.tdis().map(|(function, _)| function).collect();
    functions.sort_unstable();
    assert_eq!(functions, [9, PF]);
}

#[test]
fn a_request_without_room_for_the_answer_does_nothing() {
    let mut rig = Rig::new(Settings::default());
    let mut request = [0; 64];
    let requester = Requester::new(InterfaceId::new(PF));
    let length = requester.request(&LockInterface::default(), &mut request).unwrap();
    let mut small = [0; RESPONSE_BYTES_MIN - 1];
    let answer = rig.dsm.respond(US, &request[..length], &mut rig.device, &mut small);
    let room = small.len();
    assert_eq!(answer, Err(EncodeFault::NoRoom { needed: RESPONSE_BYTES_MIN, room }));
    assert_eq!((rig.device.told.len(), rig.state(PF)), (0, State::Unlocked));
}

#[test]
fn what_is_not_taken_is_called_by_its_type() {
    let mut rig = Rig::new(Settings::default());
    let vdm = VdmRequest { registry: 0, vendor: &[1, 0], data: &[] };
    let data = MessageType::VDM_REQUEST.0.into();
    let expected = Err(Refused::Error { code: ErrorCode::UNSUPPORTED_REQUEST, data });
    assert_eq!(rig.ask(US, PF, vdm, |_| ()), expected);
}

/// What may happen, chosen by a fuzzer.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Lock,
    StartRight(bool),
    StartOld,
    Stop,
    Breach,
    Reset,
    State,
}

/// What the model keeps of a function: its state and what START must show.
#[derive(Clone, Copy, Default)]
struct Believed {
    state: State,
    nonce: Option<Nonce>,
    old: Option<Nonce>,
}

impl Believed {
    fn enter(&mut self, state: State) {
        self.old = self.nonce.take().or(self.old);
        self.state = state;
    }
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        3 => Just(Deed::Lock),
        3 => any::<bool>().prop_map(Deed::StartRight),
        1 => Just(Deed::StartOld),
        2 => Just(Deed::Stop),
        1 => Just(Deed::Breach),
        1 => Just(Deed::Reset),
        1 => Just(Deed::State),
    ]
}

proptest! {
    /// Any deeds on two functions: the DSM is where a model of a few lines is.
    #[test]
    fn is_where_the_model_is(deeds in vec((deed(), any::<bool>()), 0..60)) {
        let mut rig = Rig::new(Settings::default());
        let mut model: BTreeMap<u16, Believed> = BTreeMap::new();
        for (deed, virtual_function) in deeds {
            let function = if virtual_function { VF } else { PF };
            let believed = model.entry(function).or_default();
            let bad_state = refused(ErrorCode::INVALID_INTERFACE_STATE);
            match deed {
                Deed::Lock => {
                    let answer = rig.lock(function, LockFlags(0));
                    prop_assert_eq!(answer.is_ok(), believed.state == State::Unlocked);
                    if let Ok(nonce) = answer {
                        believed.enter(State::Locked);
                        believed.nonce = Some(nonce);
                    }
                }
                Deed::StartRight(same_session) => {
                    let nonce = believed.nonce.unwrap_or(Nonce([0; 32]));
                    let session = if same_session { US } else { OTHER };
                    let answer = rig.start(session, function, nonce);
                    if believed.state != State::Locked {
                        prop_assert_eq!(answer, bad_state);
                    } else if same_session {
                        prop_assert_eq!(answer, Ok(()));
                        believed.enter(State::Run);
                    } else {
                        prop_assert_eq!(answer, refused(ErrorCode::INVALID_NONCE));
                    }
                }
                Deed::StartOld => {
                    let nonce = believed.old.unwrap_or(Nonce([0; 32]));
                    let answer = rig.start(US, function, nonce);
                    let wrong = believed.state == State::Locked;
                    let nonce = refused(ErrorCode::INVALID_NONCE);
                    prop_assert_eq!(answer, if wrong { nonce } else { bad_state });
                }
                Deed::Stop => {
                    prop_assert_eq!(rig.stop(function), Ok(()));
                    believed.enter(State::Unlocked);
                }
                Deed::Breach => {
                    let counts = matches!(believed.state, State::Locked | State::Run);
                    let change = rig.dsm.breach(function, Breach::MemoryCleared);
                    prop_assert_eq!(change.is_some(), counts);
                    if counts {
                        believed.enter(State::Error);
                    }
                }
                Deed::Reset => {
                    rig.dsm.reset_function(function);
                    believed.enter(State::Unlocked);
                }
                Deed::State => {}
            }
            prop_assert_eq!(rig.state(function), believed.state);
        }
    }

    /// Whatever comes, something that the requester understands goes back, and only LOCK, START and
    /// STOP change anything.
    #[test]
    fn any_bytes_are_answered(
        requests in vec((vec(any::<u8>(), 0..60), 0x80..0x90u8, any::<bool>()), 1..20),
    ) {
        let mut rig = Rig::new(Settings::default());
        for (mut request, kind, plain) in requests {
            if plain && request.len() >= 16 {
                request[..8].copy_from_slice(&[0x10, kind, 0, 0, 0, 1, 0, 0]);
            }
            let response = rig.send(US, &request);
            prop_assert!(bindery_tdisp::Response::decode(&response).is_ok());
            if let Some(change) = rig.change {
                prop_assert!(matches!(request[1], 0x83 | 0x86 | 0x87), "{change:?}");
                prop_assert_ne!(response[1], 0x7f);
            }
        }
    }
}
