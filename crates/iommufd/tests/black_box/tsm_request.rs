//! Guests' requests: each layout of each profile, what is refused first, what is left over.

use tsm::{Binding, State};
use uapi::iommufd::{
    TsmGuestRequest, TsmReq, TsmReqV5, tsm_request, tsm_scope, tvm_arch, viommu_type,
};
use uapi::{Command, CommandId, Errno, Profile};
use zerocopy::IntoBytes;

use crate::support::{Answers, Client, Confidential, MEMORY_BYTES, Platform, READ_ONLY};

const REQUEST_AT: u64 = 0x10_0000;
const RESPONSE_AT: u64 = 0x11_0000;
const NOWHERE: u64 = 0x1000 + MEMORY_BYTES;

const REQUEST_BYTES_MAX: u32 = 16 << 12;
const RESPONSE_BYTES_MAX: u32 = 4096 << 12;

/// A request about `vdevice` that the TSM takes: the state of the TDI is to be `state`.
fn set_state(client: &Client, vdevice_id: u32, state: State) -> TsmReq {
    client.memory.write(REQUEST_AT, &(state as u32).to_le_bytes()).unwrap();
    TsmReq {
        size: 48,
        vdevice_id,
        op: tsm_request::SET_TDI_STATE,
        tvm_arch: tvm_arch::CCA,
        req_len: 4,
        req_uptr: REQUEST_AT,
        ..TsmReq::default()
    }
}

/// Runs a command and returns what the system call does.
fn run<T: IntoBytes + zerocopy::Immutable>(
    client: &Client,
    id: CommandId,
    argument: &T,
) -> Result<u32, Errno> {
    client.put(argument, size_of::<T>());
    client.ctx.ioctl(client, Command::of(id).request, client.at)
}

fn ask(client: &Client, argument: &TsmReq) -> Result<u32, Errno> {
    run(client, CommandId::VdeviceTsmReq, argument)
}

/// A bound vdevice.
fn bound(profile: Profile) -> (Confidential, u32) {
    let fixture = Confidential::new(profile);
    let vdevice = fixture.vdevice();
    fixture.device.bind_tdi(vdevice).unwrap();
    (fixture, vdevice)
}

#[test]
fn a_request_is_refused_in_order() {
    let fixture = Confidential::new(Profile::Rfc);
    let client = &fixture.client;
    let mut argument = TsmReq {
        vdevice_id: 99,
        req_len: REQUEST_BYTES_MAX + 1,
        resp_len: RESPONSE_BYTES_MAX + 1,
        req_uptr: NOWHERE,
        ..set_state(client, 0, State::Locked)
    };
    (argument.op, argument.tvm_arch) = (0, 0);
    assert_eq!(ask(client, &argument), Err(Errno::ENOENT));
    argument.vdevice_id = fixture.vdevice();
    for arch in [0, 4, u32::MAX] {
        argument.tvm_arch = arch;
        assert_eq!(ask(client, &argument), Err(Errno::EINVAL), "architecture {arch}");
    }
    for (arch, ops) in [
        (tvm_arch::CCA, [0, 3, 4, 8, u32::MAX]),
        (tvm_arch::TDX, [0, 3, 4, 8, u32::MAX]),
        (tvm_arch::SEV, [0, 8, 9, 10, u32::MAX]),
    ] {
        argument.tvm_arch = arch;
        for op in ops {
            argument.op = op;
            assert_eq!(ask(client, &argument), Err(Errno::EINVAL), "{op} of {arch}");
        }
    }
    argument.op = tsm_request::SEV_ENABLE_DMA;
    assert_eq!(ask(client, &argument), Err(Errno::E2BIG), "the request");
    argument.req_len = REQUEST_BYTES_MAX;
    assert_eq!(ask(client, &argument), Err(Errno::E2BIG), "the room");
    argument.resp_len = RESPONSE_BYTES_MAX;
    assert_eq!(ask(client, &argument), Err(Errno::EFAULT));
    argument = TsmReq { vdevice_id: argument.vdevice_id, ..set_state(client, 0, State::Locked) };
    assert_eq!(ask(client, &argument), Err(Errno::ENXIO), "not bound");
    client.tsm_bind(argument.vdevice_id).unwrap();
    assert_eq!(ask(client, &argument), Ok(0));
    fixture.tee.registry.disconnect(fixture.tee.function, b"tsm0").unwrap();
    assert_eq!(ask(client, &argument), Err(Errno::ENXIO), "disconnected behind its back");
}

#[test]
fn a_device_without_a_tsm_serves_no_request() {
    let client = Client::open_as(Profile::Rfc);
    let device = Platform::new().bind(&client);
    let hwpt = client.nest_parent(device.id());
    let viommu = client.viommu(viommu_type::ARM_SMMUV3, device.id(), hwpt).unwrap();
    let vdevice = client.vdevice(viommu, device.id(), 1).unwrap();
    let argument = set_state(&client, vdevice, State::Locked);
    assert_eq!(ask(&client, &argument), Err(Errno::EOPNOTSUPP));
}

#[test]
fn what_is_left_over_is_returned() {
    let (fixture, vdevice) = bound(Profile::Rfc);
    let client = &fixture.client;
    let mut argument = set_state(client, vdevice, State::Locked);
    argument.req_len = 4;
    assert_eq!(ask(client, &argument), Ok(0));
    assert_eq!(fixture.device.tdi(), Binding::Bound { state: State::Locked });
    // OBJECT_INFO of the interface report: four bytes.
    client.memory.write(REQUEST_AT, &3_u32.to_le_bytes()).unwrap();
    argument.op = tsm_request::OBJECT_INFO;
    (argument.resp_uptr, argument.resp_len) = (RESPONSE_AT, 100);
    assert_eq!(ask(client, &argument), Ok(96));
    let mut length = [0; 4];
    client.memory.read(RESPONSE_AT, &mut length).unwrap();
    let length = u32::from_le_bytes(length);
    // READ_OBJECT from its third byte on.
    let mut fields = [0_u8; 16];
    (fields[0], fields[8]) = (3, 2);
    client.memory.write(REQUEST_AT, &fields).unwrap();
    (argument.op, argument.req_len) = (tsm_request::READ_OBJECT, 16);
    argument.resp_len = length;
    assert_eq!(ask(client, &argument), Ok(2));
}

/// No code of ours: the struct's old contents are overwritten, whatever became of the request.
#[test]
fn the_tsms_code_is_always_written() {
    let (fixture, vdevice) = bound(Profile::Rfc);
    let client = &fixture.client;
    let code_after = |argument: TsmReq| {
        let answer = ask(client, &TsmReq { tsm_code: u64::MAX, ..argument });
        (answer, client.struct_now::<TsmReq>().tsm_code)
    };
    let argument = set_state(client, vdevice, State::Run);
    assert_eq!(code_after(argument), (Err(Errno::EINVAL), 0), "RUN before LOCKED");
    let argument = set_state(client, vdevice, State::Locked);
    assert_eq!(code_after(argument), (Ok(0), 0));
    assert_eq!(code_after(TsmReq { vdevice_id: 99, ..argument }), (Err(Errno::ENOENT), 0));
    assert_eq!(code_after(TsmReq { op: 99, ..argument }), (Err(Errno::EINVAL), 0));
}

#[test]
fn an_answer_that_cannot_be_written_is_a_fault_and_the_request_was_done() {
    let (fixture, vdevice) = bound(Profile::Rfc);
    let client = &fixture.client;
    let argument = TsmReq { tsm_code: 1, ..set_state(client, vdevice, State::Locked) };
    let mut unwritable = client.thread(0);
    unwritable.at = READ_ONLY.start;
    assert_eq!(ask(&unwritable, &argument), Err(Errno::EFAULT));
    assert_eq!(fixture.device.tdi(), Binding::Bound { state: State::Locked });
    // What only reads can be asked again.
    client.memory.write(REQUEST_AT, &3_u32.to_le_bytes()).unwrap();
    let mut read = TsmReq {
        op: tsm_request::OBJECT_INFO,
        resp_len: 4,
        resp_uptr: READ_ONLY.start,
        tsm_code: 1,
        ..argument
    };
    assert_eq!(ask(client, &read), Err(Errno::EFAULT));
    assert_eq!(client.struct_now::<TsmReq>().tsm_code, 0, "the code is written all the same");
    read.resp_uptr = RESPONSE_AT;
    assert_eq!(ask(client, &read), Ok(0));
    fixture.device.end();
    fixture.tee.assert_settled();
}

#[test]
fn the_client_memory_that_a_request_points_to_is_reached() {
    let (fixture, vdevice) = bound(Profile::Rfc);
    let client = &fixture.client;
    assert_eq!(ask(client, &set_state(client, vdevice, State::Locked)), Ok(0));
    let regenerate = |nonce_at: u64| {
        let mut fields = [0_u8; 24];
        (fields[0], fields[8]) = (3, 1);
        fields[16..].copy_from_slice(&nonce_at.to_le_bytes());
        client.memory.write(REQUEST_AT, &fields).unwrap();
        let argument = set_state(client, vdevice, State::Locked);
        client.memory.write(REQUEST_AT, &fields).unwrap();
        ask(client, &TsmReq { op: tsm_request::REGEN_OBJECT, req_len: 24, ..argument })
    };
    assert_eq!(regenerate(NOWHERE), Err(Errno::EFAULT));
    assert_eq!(regenerate(RESPONSE_AT), Ok(0));
}

#[test]
fn scopes_of_v5() {
    let (fixture, vdevice_id) = bound(Profile::RfcV5_2026_05);
    let client = &fixture.client;
    let asked = |argument: &TsmReqV5| run(client, CommandId::VdeviceTsmReqV5, argument);
    client.memory.write(REQUEST_AT, &(State::Locked as u32).to_le_bytes()).unwrap();
    let mut argument = TsmReqV5 {
        vdevice_id: 99,
        scope: 4,
        req_len: REQUEST_BYTES_MAX + 1,
        req_uptr: REQUEST_AT,
        reserved: 1,
        ..TsmReqV5::default()
    };
    assert_eq!(asked(&argument), Err(Errno::EOPNOTSUPP));
    argument.reserved = 0;
    assert_eq!(asked(&argument), Err(Errno::ENOENT));
    argument.vdevice_id = vdevice_id;
    assert_eq!(asked(&argument), Err(Errno::EINVAL));
    argument.scope = tsm_scope::STATE_CHANGE;
    assert_eq!(asked(&argument), Err(Errno::E2BIG));
    argument.req_len = 4;
    assert_eq!(asked(&argument), Ok(0));
    assert_eq!(fixture.device.tdi(), Binding::Bound { state: State::Locked });
    for debug in [tsm_scope::DEBUG_READ, tsm_scope::DEBUG_WRITE] {
        assert_eq!(asked(&TsmReqV5 { scope: debug, ..argument }), Err(Errno::EINVAL));
    }
    let info = TsmReqV5 {
        scope: tsm_scope::INFO,
        req_len: 0,
        resp_len: 10,
        resp_uptr: RESPONSE_AT,
        ..argument
    };
    assert_eq!(asked(&info), Ok(2));
    let mut state = [0; 4];
    client.memory.read(RESPONSE_AT, &mut state).unwrap();
    assert_eq!(u32::from_le_bytes(state), State::Locked as u32);
}

#[test]
fn what_a_tdx_host_asked_for_in_2025() {
    let fixture = Confidential::new(Profile::Rfc2025_05);
    let client = &fixture.client;
    let vdevice_id = fixture.vdevice();
    let asked =
        |argument: &TsmGuestRequest| run(client, CommandId::VdeviceTsmGuestRequest, argument);
    let mut argument = TsmGuestRequest {
        vdevice_id: 99,
        r#type: 5,
        resp_len: RESPONSE_BYTES_MAX + 1,
        resp_uptr: RESPONSE_AT,
        ..TsmGuestRequest::default()
    };
    assert_eq!(asked(&argument), Err(Errno::ENOENT));
    argument.vdevice_id = vdevice_id;
    for unknown in [0, 5, u32::MAX] {
        argument.r#type = unknown;
        assert_eq!(asked(&argument), Err(Errno::EINVAL));
    }
    argument.r#type = 1;
    assert_eq!(asked(&argument), Err(Errno::E2BIG));
    argument.resp_len = 64;
    assert_eq!(asked(&argument), Err(Errno::ENOENT), "not bound");
    fixture.device.bind_tdi(vdevice_id).unwrap();
    for (r#type, state) in [(1, State::Locked), (2, State::Run), (4, State::Unlocked)] {
        assert_eq!(asked(&TsmGuestRequest { r#type, ..argument }), Ok(0));
        assert_eq!(client.struct_now::<TsmGuestRequest>().resp_len, 0, "nothing is answered");
        assert_eq!(fixture.device.tdi(), Binding::Bound { state });
    }
    assert_eq!(asked(&TsmGuestRequest { r#type: 3, ..argument }), Ok(0));
    assert_eq!(client.struct_now::<TsmGuestRequest>().resp_len, 4, "the state");
}

#[test]
fn a_request_is_given_up_with_the_file() {
    let (fixture, vdevice) = bound(Profile::Rfc);
    fixture.tee.device.answers(Answers::Never);
    let before = fixture.tee.device.asked();
    let asker = fixture.client.thread(1);
    let argument = set_state(&asker, vdevice, State::Locked);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask(&asker, &argument));
        fixture.tee.device.wait_asked(before);
        fixture.client.ctx.cancel_commands();
        assert_eq!(asking.join().unwrap(), Err(Errno::EINTR));
    });
    assert_eq!(ask(&fixture.client, &argument), Err(Errno::EINTR));
    fixture.device.end();
    fixture.tee.assert_settled();
}

/// While a request is read the vdevice ends: nobody waits for the client's memory.
#[test]
fn a_vdevice_ends_while_its_request_is_read() {
    let (fixture, vdevice) = bound(Profile::Rfc);
    let client = &fixture.client;
    let argument = set_state(client, vdevice, State::Locked);
    let ending = std::sync::Arc::clone(&fixture.device);
    client.memory.during_read_at(REQUEST_AT, move || ending.end());
    assert_eq!(ask(client, &argument), Err(Errno::ENOENT));
    fixture.tee.assert_settled();
}

/// As above, while the nonce is read that its request points to.
#[test]
fn a_vdevice_ends_while_the_nonce_of_its_request_is_read() {
    const NONCE_AT: u64 = REQUEST_AT + 0x200;
    let (fixture, vdevice) = bound(Profile::Rfc);
    let client = &fixture.client;
    let argument = set_state(client, vdevice, State::Locked);
    assert_eq!(ask(client, &argument), Ok(0));
    let mut fields = [0_u8; 24];
    (fields[0], fields[8]) = (3, 1);
    fields[16..].copy_from_slice(&NONCE_AT.to_le_bytes());
    client.memory.write(REQUEST_AT, &fields).unwrap();
    let ending = std::sync::Arc::clone(&fixture.device);
    let (ended, has_ended) = std::sync::mpsc::channel();
    client.memory.during_read_at(NONCE_AT, move || {
        let end = std::thread::spawn(move || ending.end());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !end.is_finished() && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        ended.send(end.is_finished()).unwrap();
    });
    let regenerate = TsmReq { op: tsm_request::REGEN_OBJECT, req_len: 24, ..argument };
    assert_eq!(ask(client, &regenerate), Err(Errno::ENOENT));
    assert_eq!(has_ended.recv(), Ok(true), "the end does not wait for the client's memory");
    fixture.tee.assert_settled();
}
