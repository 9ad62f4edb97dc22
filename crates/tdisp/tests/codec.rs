//! Every message comes back as it was written, and nothing else is taken for one.

use bindery_tdisp::exchange::{
    BindP2pStream, BindP2pStreamResponse, Capabilities, ErrorResponse, GetCapabilities, GetReport,
    GetState, GetVersion, InterfaceState, LockInterface, LockInterfaceResponse, ReportPortion,
    RequestSet, SetMmioAttribute, SetMmioAttributeResponse, StartInterface, StartInterfaceResponse,
    StopInterface, StopInterfaceResponse, UnbindP2pStream, UnbindP2pStreamResponse, VdmRequest,
    VdmResponse, Versions,
};
use bindery_tdisp::ide_km::{self, KeyId, KeyKind, KeyMaterial, KeyStatus, PortLocation};
use bindery_tdisp::report::{self, Fields, InterfaceInfo, MmioRange, RangeAttributes};
use bindery_tdisp::{
    EncodeFault, ErrorCode, HEADER_BYTES, InterfaceId, LockFlags, MessageType, Nonce, PeerFault,
    Request, Response, VERSION_1_0,
};
use proptest::collection::vec;
use proptest::prelude::*;

const ROOM: usize = 2048;

/// Layouts, written down byte by byte.
#[test]
fn requests_have_their_layout() {
    let lock = LockInterface {
        flags: LockFlags::LOCK_MSIX.with(LockFlags::ALL_REQUEST_REDIRECT),
        default_stream: 0x21,
        mmio_reporting_offset: 0x1122_3344_5566_7000,
        p2p_address_mask: 0x8899_aabb_ccdd_eeff,
    };
    let range =
        MmioRange { first_page: 0x10_0000, pages: 3, attributes: RangeAttributes(4), id: 2 };
    let cases: [(Request<'_>, &[u8]); 11] = [
        (Request::GetVersion(GetVersion), &[]),
        (Request::GetCapabilities(GetCapabilities { tsm_caps: 0x0102_0304 }), &[4, 3, 2, 1]),
        (
            Request::LockInterface(lock),
            &[
                0x14, 0, 0x21, 0, 0x00, 0x70, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0xff, 0xee, 0xdd,
                0xcc, 0xbb, 0xaa, 0x99, 0x88,
            ],
        ),
        (Request::GetReport(GetReport { offset: 0x102, length: 0x304 }), &[2, 1, 4, 3]),
        (Request::GetState(GetState), &[]),
        (Request::StartInterface(StartInterface { nonce: Nonce([9; 32]) }), &[9; 32]),
        (Request::StopInterface(StopInterface), &[]),
        (Request::BindP2pStream(BindP2pStream { stream: 5, config: None }), &[5]),
        (Request::UnbindP2pStream(UnbindP2pStream { stream: 6 }), &[6]),
        (
            Request::SetMmioAttribute(SetMmioAttribute { range }),
            &[0, 0, 0x10, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4, 0, 2, 0],
        ),
        (
            Request::VdmRequest(VdmRequest { registry: 1, vendor: &[2, 3], data: &[4] }),
            &[1, 2, 2, 3, 4],
        ),
    ];
    for ((request, body), code) in cases.into_iter().zip(0x81..) {
        let mut message = [0xff; ROOM];
        let length = request.encode(InterfaceId::new(0x0108), &mut message).unwrap();
        let header = [VERSION_1_0, code, 0, 0, 8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(message[..HEADER_BYTES], header, "{request:?}");
        assert_eq!(message[HEADER_BYTES..length], *body, "{request:?}");
    }
}

#[test]
fn responses_have_their_layout() {
    let capabilities = Capabilities {
        dsm_caps: 1,
        requests: RequestSet([0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        lock_flags: LockFlags(0x1f),
        address_width_bits: 52,
        outstanding_this: 2,
        outstanding_all: 3,
    };
    let error =
        ErrorResponse { code: ErrorCode::INVALID_NONCE, data: 0x0102_0304, extended: &[0xee] };
    let portion = ReportPortion { remainder: 0x100, portion: &[7, 8] };
    let cases: [(u8, Response<'_>, &[u8]); 12] = [
        (0x01, Response::Versions(Versions { entries: &[0x10] }), &[1, 0x10]),
        (
            0x02,
            Response::Capabilities(capabilities),
            &[
                1, 0, 0, 0, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x1f, 0, 0, 0, 0,
                52, 2, 3,
            ],
        ),
        (
            0x03,
            Response::LockInterfaceResponse(LockInterfaceResponse { nonce: Nonce([5; 32]) }),
            &[5; 32],
        ),
        (0x04, Response::ReportPortion(portion), &[2, 0, 0, 1, 7, 8]),
        (0x05, Response::InterfaceState(InterfaceState(3)), &[3]),
        (0x06, Response::StartInterfaceResponse(StartInterfaceResponse), &[]),
        (0x07, Response::StopInterfaceResponse(StopInterfaceResponse), &[]),
        (0x08, Response::BindP2pStreamResponse(BindP2pStreamResponse), &[]),
        (0x09, Response::UnbindP2pStreamResponse(UnbindP2pStreamResponse), &[]),
        (0x0a, Response::SetMmioAttributeResponse(SetMmioAttributeResponse), &[]),
        (
            0x0b,
            Response::VdmResponse(VdmResponse { registry: 0, vendor: &[], data: &[1] }),
            &[0, 0, 1],
        ),
        (0x7f, Response::ErrorResponse(error), &[2, 1, 0, 0, 4, 3, 2, 1, 0xee]),
    ];
    for (code, response, body) in cases {
        let mut message = [0xff; ROOM];
        let length = response.encode(InterfaceId::default(), &mut message).unwrap();
        assert_eq!(message[1], code, "{response:?}");
        assert_eq!(message[HEADER_BYTES..length], *body, "{response:?}");
    }
}

#[test]
fn reserved_fields_are_ignored() {
    let mut message = [0; ROOM];
    let lock = Request::LockInterface(LockInterface::default());
    let length = lock.encode(InterfaceId::new(1), &mut message).unwrap();
    for at in [2, 3, 8, 15, 19] {
        message[at] = 0xff;
    }
    let (header, read) = Request::decode(&message[..length]).unwrap();
    assert_eq!((header.interface, read), (InterfaceId::new(1), lock));
}

#[test]
fn a_field_longer_than_its_count_is_not_written() {
    let long = [0; 256];
    let versions = Response::Versions(Versions { entries: &long });
    let refused = versions.encode(InterfaceId::default(), &mut [0; ROOM]);
    assert_eq!(refused, Err(EncodeFault::TooLong { length: 256 }));
}

#[test]
fn a_report_must_end_where_it_says() {
    let mut bytes = [0; ROOM];
    let range = MmioRange::default();
    let length = report::encode(&Fields::default(), &[range; 2], b"own", &mut bytes).unwrap();
    assert_eq!(length, 16 + 2 * 16 + 4 + 3);
    assert!(report::decode(&bytes[..length]).is_ok());
    let more = PeerFault::Trailing { message: "interface report", left: 1 };
    assert_eq!(report::decode(&bytes[..=length]), Err(more));
    bytes[12..16].fill(0xff);
    assert!(report::decode(&bytes[..length]).is_err());
}

proptest! {
    #[test]
    fn requests_come_back(parts in parts(), kind in 0..11u8) {
        let request = parts.request(kind);
        let mut message = [0; ROOM];
        let length = request.encode(parts.interface, &mut message).unwrap();
        let (header, read) = Request::decode(&message[..length]).unwrap();
        prop_assert_eq!((header.version, header.interface), (VERSION_1_0, parts.interface));
        prop_assert_eq!(read, request);
        let sweep = |message: &[u8]| Request::decode(message).map(|(_, read)| format!("{read:?}"));
        check_prefixes(&message[..length], sweep);
        check_room(length, |into| request.encode(parts.interface, into));
    }

    #[test]
    fn responses_come_back(parts in parts(), kind in 0..12u8) {
        let response = parts.response(kind);
        let mut message = [0; ROOM];
        let length = response.encode(parts.interface, &mut message).unwrap();
        let (header, read) = Response::decode(&message[..length]).unwrap();
        prop_assert_eq!((header.version, header.interface), (VERSION_1_0, parts.interface));
        prop_assert_eq!(read, response);
        let sweep = |message: &[u8]| Response::decode(message).map(|(_, read)| format!("{read:?}"));
        check_prefixes(&message[..length], sweep);
        check_room(length, |into| response.encode(parts.interface, into));
    }

    #[test]
    fn reports_come_back(
        ranges in vec(any::<(u64, u32, u16, u16)>(), 0..40),
        fields: (u16, u16, u16, u32),
        own in vec(any::<u8>(), 0..40),
    ) {
        let range = |&(first_page, pages, attributes, id): &(u64, u32, u16, u16)| {
            MmioRange { first_page, pages, attributes: RangeAttributes(attributes), id }
        };
        let ranges: Vec<_> = ranges.iter().map(range).collect();
        let (info, msix_control, lnr_control, tph_control) = fields;
        let fields = Fields { info: InterfaceInfo(info), msix_control, lnr_control, tph_control };
        let mut bytes = [0; ROOM];
        let length = report::encode(&fields, &ranges, &own, &mut bytes).unwrap();
        let read = report::decode(&bytes[..length]).unwrap();
        prop_assert_eq!((read.fields, read.device_specific), (fields, &own[..]));
        prop_assert!(read.ranges.iter().eq(ranges.iter().copied()));
        for end in 0..length {
            prop_assert!(report::decode(&bytes[..end]).is_err(), "{} of {}", end, length);
        }
        check_room(length, |into| report::encode(&fields, &ranges, &own, into));
    }

    #[test]
    fn ide_km_comes_back(
        key: (u8, u8, u8, u8),
        material: ([u8; 32], [u8; 8]),
        port: (u8, u8, u8, u8),
        registers in vec(any::<u8>(), 0..80),
        kind in 0..7,
    ) {
        let (stream, kind_bits, port_index, status) = key;
        let key = KeyId { stream, kind: KeyKind(kind_bits), port: port_index };
        let material = KeyMaterial { key: material.0, iv: material.1 };
        let location = PortLocation { devfn: port.0, bus: port.1, segment: port.2 };
        let mut message = [0; ROOM];
        if let Some(request) = match kind {
            0 => Some(ide_km::Request::Query { port: port_index }),
            1 => Some(ide_km::Request::KeyProg { key, material }),
            2 => Some(ide_km::Request::SetGo(key)),
            3 => Some(ide_km::Request::SetStop(key)),
            _ => None,
        } {
            let length = request.encode(&mut message).unwrap();
            prop_assert_eq!(ide_km::Request::decode(&message[..length]), Ok(request.clone()));
            let sweep = |m: &[u8]| ide_km::Request::decode(m).map(|read| format!("{read:?}"));
            check_prefixes(&message[..length], sweep);
            prop_assert!(ide_km::Response::decode(&message[..length]).is_err());
            check_room(length, |into| request.encode(into));
        }
        let response = match kind {
            4 => ide_km::Response::GoStopAck(key),
            5 => ide_km::Response::KeyProgAck { key, status: KeyStatus(status) },
            _ => ide_km::Response::QueryResp {
                port: port_index,
                location,
                port_max: port.3,
                registers: &registers,
            },
        };
        let length = response.encode(&mut message).unwrap();
        prop_assert_eq!(ide_km::Response::decode(&message[..length]), Ok(response));
        let sweep = |m: &[u8]| ide_km::Response::decode(m).map(|read| format!("{read:?}"));
        check_prefixes(&message[..length], sweep);
        check_room(length, |into| response.encode(into));
    }

    /// Whatever is taken for a message is written as it was read, but for reserved fields.
    #[test]
    fn any_bytes_are_read_or_refused(
        mut message in vec(any::<u8>(), 0..120),
        code in prop_oneof![any::<u8>(), 0x01..=0x0bu8, Just(0x7f), 0x81..=0x8bu8],
    ) {
        if let Some(place) = message.get_mut(1) {
            *place = code;
        }
        let mut written = [0; ROOM];
        if let Ok((header, read)) = Request::decode(&message) {
            let length = read.encode(header.interface, &mut written).unwrap();
            prop_assert_eq!(length, message.len());
            prop_assert_eq!(Request::decode(&written[..length]).unwrap().1, read);
        }
        if let Ok((header, read)) = Response::decode(&message) {
            let length = read.encode(header.interface, &mut written).unwrap();
            prop_assert_eq!(length, message.len());
            prop_assert_eq!(Response::decode(&written[..length]).unwrap().1, read);
        }
        if let Ok(report) = report::decode(&message) {
            let ranges: Vec<_> = report.ranges.iter().collect();
            let own = report.device_specific;
            prop_assert_eq!(
                report::encode(&report.fields, &ranges, own, &mut written),
                Ok(message.len())
            );
        }
        let _ = ide_km::Request::decode(&message);
        let _ = ide_km::Response::decode(&message);
        let _ = MessageType(code).to_string();
    }
}

/// A prefix is refused, or it is another message: some end with whatever is left.
fn check_prefixes(message: &[u8], read: impl Fn(&[u8]) -> Result<String, PeerFault>) {
    let whole = read(message).unwrap();
    for end in 0..message.len() {
        match read(&message[..end]) {
            Err(PeerFault::Short { missing, .. }) => assert!(missing > 0),
            Err(other) => panic!("{end} bytes of {whole}: {other}"),
            Ok(other) => assert!(ends_open(message) && other != whole, "{end} bytes of {whole}"),
        }
    }
}

/// Whether the last field of a message is whatever is left.
fn ends_open(message: &[u8]) -> bool {
    let open = [
        MessageType::ERROR,
        MessageType::VDM_REQUEST,
        MessageType::VDM_RESPONSE,
        MessageType::BIND_P2P_STREAM_REQUEST,
    ];
    let tdisp = message[0] == VERSION_1_0 && open.contains(&MessageType(message[1]));
    const QUERY_RESP: u8 = 1;
    tdisp || message[0] == QUERY_RESP
}

/// A buffer is too small by a byte, or just large enough.
fn check_room(length: usize, write: impl Fn(&mut [u8]) -> Result<usize, EncodeFault>) {
    let room = length - 1;
    let refused = write(&mut vec![0; room]);
    assert_eq!(refused, Err(EncodeFault::NoRoom { needed: length, room }));
    assert_eq!(write(&mut vec![0; length]), Ok(length));
}

/// What messages are made of.
#[derive(Clone, Debug)]
struct Parts {
    interface: InterfaceId,
    bytes: (u8, u8, u8, u8),
    word: u16,
    dwords: (u32, u32),
    qwords: (u64, u64),
    nonce: [u8; 32],
    set: [u8; 16],
    short: Vec<u8>,
    long: Vec<u8>,
}

fn parts() -> impl Strategy<Value = Parts> {
    let numbers = any::<(u32, (u8, u8, u8, u8), u16, (u32, u32), (u64, u64))>();
    let runs = (vec(any::<u8>(), 0..=255), vec(any::<u8>(), 0..300));
    (numbers, any::<[u8; 32]>(), any::<[u8; 16]>(), runs).prop_map(
        |((interface, bytes, word, dwords, qwords), nonce, set, (short, long))| Parts {
            interface: InterfaceId::from_bits(interface),
            bytes,
            word,
            dwords,
            qwords,
            nonce,
            set,
            short,
            long,
        },
    )
}

impl Parts {
    fn request(&self, kind: u8) -> Request<'_> {
        match kind {
            0 => Request::GetVersion(GetVersion),
            1 => Request::GetCapabilities(GetCapabilities { tsm_caps: self.dwords.0 }),
            2 => Request::LockInterface(LockInterface {
                flags: LockFlags(self.word),
                default_stream: self.bytes.0,
                mmio_reporting_offset: self.qwords.0,
                p2p_address_mask: self.qwords.1,
            }),
            3 => Request::GetReport(GetReport { offset: self.word, length: !self.word }),
            4 => Request::GetState(GetState),
            5 => Request::StartInterface(StartInterface { nonce: Nonce(self.nonce) }),
            6 => Request::StopInterface(StopInterface),
            7 => Request::BindP2pStream(BindP2pStream {
                stream: self.bytes.0,
                config: (self.bytes.1 > 127).then_some(self.bytes.2),
            }),
            8 => Request::UnbindP2pStream(UnbindP2pStream { stream: self.bytes.0 }),
            9 => Request::SetMmioAttribute(SetMmioAttribute {
                range: MmioRange {
                    first_page: self.qwords.0,
                    pages: self.dwords.0,
                    attributes: RangeAttributes(self.word),
                    id: !self.word,
                },
            }),
            _ => Request::VdmRequest(VdmRequest {
                registry: self.bytes.0,
                vendor: &self.short,
                data: &self.long,
            }),
        }
    }

    fn response(&self, kind: u8) -> Response<'_> {
        match kind {
            0 => Response::Versions(Versions { entries: &self.short }),
            1 => Response::Capabilities(Capabilities {
                dsm_caps: self.dwords.0,
                requests: RequestSet(self.set),
                lock_flags: LockFlags(self.word),
                address_width_bits: self.bytes.0,
                outstanding_this: self.bytes.1,
                outstanding_all: self.bytes.2,
            }),
            2 => {
                Response::LockInterfaceResponse(LockInterfaceResponse { nonce: Nonce(self.nonce) })
            }
            3 => {
                Response::ReportPortion(ReportPortion { remainder: self.word, portion: &self.long })
            }
            4 => Response::InterfaceState(InterfaceState(self.bytes.0)),
            5 => Response::StartInterfaceResponse(StartInterfaceResponse),
            6 => Response::StopInterfaceResponse(StopInterfaceResponse),
            7 => Response::BindP2pStreamResponse(BindP2pStreamResponse),
            8 => Response::UnbindP2pStreamResponse(UnbindP2pStreamResponse),
            9 => Response::SetMmioAttributeResponse(SetMmioAttributeResponse),
            10 => Response::VdmResponse(VdmResponse {
                registry: self.bytes.0,
                vendor: &self.short,
                data: &self.long,
            }),
            _ => Response::ErrorResponse(ErrorResponse {
                code: ErrorCode(self.dwords.0),
                data: self.dwords.1,
                extended: &self.long,
            }),
        }
    }
}
