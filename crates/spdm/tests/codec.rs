//! Every message comes back from its bytes, alone and padded, and no prefix of it is taken.

use bindery_spdm::algorithm::{Aead, Group, Selected, Suite, Version};
use bindery_spdm::message::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// Checks that `message` comes back, and that every prefix of its bytes is refused.
fn comes_back<M: Message + PartialEq + core::fmt::Debug>(message: &M, shape: &Shape) {
    let bytes = encode(message, shape).unwrap();
    let (again, length) = decode::<M>(&bytes, shape).unwrap();
    assert_eq!((&again, length), (message, bytes.len()));
    for end in 0..bytes.len() {
        // A prefix is short; or, where the message ends in zeros that were cut, not the same.
        if let Ok((other, _)) = decode::<M>(&bytes[..end], shape) {
            panic!("{} bytes of {:?} read as {other:?}", end, message);
        }
    }
    let mut padded = bytes.clone();
    padded.extend([0; 3]);
    assert_eq!(decode::<M>(&padded, shape).unwrap(), (again, length));
    padded.push(0);
    assert!(decode::<M>(&padded, shape).is_err());
    padded.truncate(length);
    padded.push(1);
    assert!(decode::<M>(&padded, shape).is_err());
    let mut other_code = bytes.clone();
    other_code[1] ^= 0x80;
    assert!(decode::<M>(&other_code, shape).is_err());
    let mut other_version = bytes;
    other_version[0] ^= 0x40;
    assert!(decode::<M>(&other_version, shape).is_err());
}

/// Checks a message whose last field has no length of its own.
fn comes_back_open<M: Message + PartialEq + core::fmt::Debug>(message: &M, shape: &Shape) {
    let bytes = encode(message, shape).unwrap();
    let (again, length) = decode::<M>(&bytes, shape).unwrap();
    assert_eq!((&again, length), (message, bytes.len()));
    for end in 0..bytes.len() {
        if let Ok((other, _)) = decode::<M>(&bytes[..end], shape) {
            assert_ne!(&other, message);
        }
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    let versions = prop::sample::select(Version::ALL.to_vec());
    let suites = prop::sample::select(Suite::ALL.to_vec());
    let groups = prop::sample::select(Group::ALL.to_vec());
    (versions, suites, groups, any::<bool>(), any::<bool>()).prop_map(
        |(version, suite, group, summary, signed)| {
            let selected = Selected { version, suite, group, aead: Aead::Aes256Gcm };
            Shape { summary, signed, ..Shape::negotiated(selected) }
        },
    )
}

/// A shape, and bytes to take fields from.
fn material() -> impl Strategy<Value = (Shape, Vec<u8>, [u8; 32], [u8; 8], u16, u8)> {
    (
        shapes(),
        vec(any::<u8>(), 0..200),
        any::<[u8; 32]>(),
        any::<[u8; 8]>(),
        any::<u16>(),
        any::<u8>(),
    )
}

fn context(shape: &Shape, context: [u8; 8]) -> [u8; 8] {
    if shape.version.has_context() { context } else { [0; 8] }
}

fn filled(length: usize, byte: u8) -> Vec<u8> {
    vec![byte; length]
}

proptest! {
    #[test]
    fn negotiation((shape, bytes, _, _, word, byte) in material()) {
        comes_back(&GetVersion, &shape);
        let entries = bytes.iter().map(|&byte| u16::from(byte) << 8 | word).collect();
        comes_back(&VersionResponse { entries }, &shape);
        let limits = Limits {
            timeout_exponent: byte,
            flags: CapabilityFlags(u32::from(word) << 8),
            transfer_bytes_max: 42 + u32::from(byte),
            message_bytes_max: 300 + u32::from(word),
        };
        comes_back(&GetCapabilities(limits), &shape);
        comes_back(&Capabilities(limits), &shape);
        let structures: Vec<_> =
            (0..byte % 8).map(|kind| Structure { kind, bits: word }).collect();
        comes_back(&NegotiateAlgorithms {
            measurement_specification: byte,
            other_params: byte,
            asymmetric: word.into(),
            hash: byte.into(),
            log_specification: byte,
            structures: structures.clone(),
        }, &shape);
        comes_back(&Algorithms {
            measurement_specification: byte,
            other_params: byte,
            measurement_hash: 7,
            asymmetric: word.into(),
            hash: byte.into(),
            log_specification: byte,
            structures,
        }, &shape);
    }

    #[test]
    fn certificates((shape, bytes, nonce, given, word, byte) in material()) {
        comes_back(&GetDigests, &shape);
        let digests = vec![filled(shape.hash_bytes, 3); byte.count_ones() as usize];
        comes_back(&Digests { supported: 0xff, provisioned: byte, digests }, &shape);
        let slot = byte & 7;
        comes_back(&GetCertificate { slot, offset: word, length: !word }, &shape);
        comes_back(
            &Certificate { slot, model: byte, portion: bytes.clone(), remainder: word },
            &shape,
        );
        let context = context(&shape, given);
        comes_back(&Challenge { slot, summary: byte, nonce, context }, &shape);
        comes_back(&ChallengeAuth {
            slot,
            provisioned: byte,
            chain_hash: filled(shape.hash_bytes, 1),
            nonce,
            summary: filled(if shape.summary { shape.hash_bytes } else { 0 }, 2),
            opaque: bytes,
            context,
            signature: filled(shape.signature_bytes, 3),
        }, &shape);
    }

    #[test]
    fn measurements((shape, bytes, nonce, given, word, byte) in material()) {
        let context = context(&shape, given);
        let signed = shape.signed.then_some((byte & 7, nonce));
        comes_back(&GetMeasurements { operation: byte, signed, context }, &shape);
        let block = |index| Block { index, kind: byte, value: bytes.clone() };
        comes_back(&Measurements {
            total: byte,
            slot_and_change: byte,
            blocks: (1..=byte % 5).map(block).collect(),
            nonce,
            opaque: word.to_le_bytes().to_vec(),
            context,
            signature: filled(if shape.signed { shape.signature_bytes } else { 0 }, 9),
        }, &shape);
    }

    #[test]
    fn sessions((shape, bytes, random, _, word, byte) in material()) {
        comes_back(&KeyExchange {
            summary: byte,
            slot: byte & 7,
            session: word,
            policy: byte,
            random,
            exchange: filled(shape.exchange_bytes, 5),
            opaque: bytes.clone(),
        }, &shape);
        comes_back(&KeyExchangeResponse {
            heartbeat_s: byte,
            session: word,
            mutual: byte,
            mutual_slot: byte,
            random,
            exchange: filled(shape.exchange_bytes, 5),
            summary: filled(if shape.summary { shape.hash_bytes } else { 0 }, 2),
            opaque: bytes.clone(),
            signature: filled(shape.signature_bytes, 3),
            verify_data: filled(shape.hash_bytes, 4),
        }, &shape);
        comes_back(&Finish { verify_data: filled(shape.hash_bytes, 4) }, &shape);
        comes_back(&FinishResponse, &shape);
        comes_back(&Heartbeat, &shape);
        comes_back(&HeartbeatAck, &shape);
        for operation in
            [KeyOperation::UpdateRequester, KeyOperation::UpdateAll, KeyOperation::Verify]
        {
            comes_back(&KeyUpdate { operation, tag: byte }, &shape);
            comes_back(&KeyUpdateAck { operation, tag: byte }, &shape);
        }
        comes_back(&EndSession { attributes: byte }, &shape);
        comes_back(&EndSessionAck, &shape);
        let vendor = VendorDefined { standard: word, vendor: vec![byte; 2], payload: bytes.into() };
        comes_back(&vendor, &shape);
        comes_back(&VendorResponse(vendor), &shape);
    }

    #[test]
    fn errors_and_chunks((shape, bytes, extended, _, word, byte) in material()) {
        comes_back_open(
            &ErrorMessage { code: ErrorCode(byte), data: byte, extended: extended.to_vec() },
            &shape,
        );
        comes_back(&RespondIfReady { request: Code(byte), token: byte }, &shape);
        let piece = ChunkSend {
            handle: byte,
            sequence: word,
            last: byte & 1 != 0,
            message_bytes: (word == 0).then_some(99),
            chunk: bytes.clone(),
        };
        comes_back(&piece, &shape);
        let first = ChunkSend { sequence: 0, message_bytes: Some(77), ..piece };
        comes_back(&ChunkResponse(first), &shape);
        comes_back(&ChunkGet { handle: byte, sequence: word }, &shape);
        comes_back_open(
            &ChunkSendAck {
                early_error: byte & 1 != 0, handle: byte, sequence: word, response: bytes,
            },
            &shape,
        );
    }
}

#[test]
fn fields_that_contradict_are_refused() {
    let shape = Shape::unnegotiated(Version::V13);
    let limits = Limits {
        timeout_exponent: 0,
        flags: CapabilityFlags(0),
        transfer_bytes_max: 41,
        message_bytes_max: 41,
    };
    let too_small = encode(&Capabilities(limits), &shape).unwrap();
    assert!(decode::<Capabilities>(&too_small, &shape).is_err());
    let limits = Limits { transfer_bytes_max: 64, message_bytes_max: 63, ..limits };
    let reversed = encode(&Capabilities(limits), &shape).unwrap();
    assert!(decode::<Capabilities>(&reversed, &shape).is_err());
    let unsupported = Digests { supported: 1, provisioned: 3, digests: vec![vec![], vec![]] };
    let unsupported = encode(&unsupported, &shape).unwrap();
    assert!(decode::<Digests>(&unsupported, &shape).is_err());
}

#[test]
fn versions_after_1_3_are_passed_over() {
    let both = VersionResponse { entries: vec![0x1200, 0x1300, 0x1400] };
    assert_eq!(both.best(&Version::ALL), Some(Version::V13));
    assert_eq!(both.best(&[Version::V12]), Some(Version::V12));
    assert_eq!(VersionResponse { entries: vec![0x1400] }.best(&Version::ALL), None);
}
