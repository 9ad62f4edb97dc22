//! Messages of SPDM in words: the name, and what matters of the fields.

use spdm::message::*;

use super::{Told, decode};
use spdm::PeerFault;
use spdm::key_schedule::Side;
use spdm::message::Shape;

/// Tells what a message says. Gives its length without padding.
pub(super) fn of(bytes: &[u8], shape: &Shape, told: &mut Told) -> Result<usize, PeerFault> {
    let code = Header::of(bytes)?.code;
    let (fields, length) = fields(code, bytes, shape)?;
    let separator = if fields.is_empty() { "" } else { ": " };
    told.words = format!("{code}{separator}{fields}");
    told.message = bytes[..length].to_vec();
    Ok(length)
}

/// Tells what a discovery of the mailbox says.
pub(super) fn discovery(side: Side, payload: &[u8]) -> String {
    match (side, payload) {
        (Side::Requester, [index, ..]) => format!("DOE discovery: index {index}"),
        (Side::Responder, [v0, v1, kind, next, ..]) => {
            let vendor = u16::from_le_bytes([*v0, *v1]);
            format!("DOE discovery: vendor {vendor:#06x}, type {kind}, next index {next}")
        }
        _ => "DOE discovery, without a payload".into(),
    }
}

fn fields(code: Code, bytes: &[u8], shape: &Shape) -> Result<(String, usize), PeerFault> {
    match code {
        Code::GET_VERSION => say(bytes, shape, |_: GetVersion| String::new()),
        Code::VERSION => say(bytes, shape, |m: VersionResponse| versions(&m)),
        Code::GET_CAPABILITIES => say(bytes, shape, |GetCapabilities(limits)| limit_words(&limits)),
        Code::CAPABILITIES => say(bytes, shape, |Capabilities(limits)| limit_words(&limits)),
        Code::NEGOTIATE_ALGORITHMS => say(bytes, shape, |m: NegotiateAlgorithms| {
            algorithms(m.asymmetric, m.hash, &m.structures)
        }),
        Code::ALGORITHMS => {
            say(bytes, shape, |m: Algorithms| algorithms(m.asymmetric, m.hash, &m.structures))
        }
        Code::GET_DIGESTS => say(bytes, shape, |_: GetDigests| String::new()),
        Code::DIGESTS => say(bytes, shape, |m: Digests| {
            let slots = (0..8).filter(|slot| m.provisioned >> slot & 1 != 0);
            let slots: Vec<_> = slots.map(|slot: u8| slot.to_string()).collect();
            format!("slots with certificates: {}", slots.join(", "))
        }),
        Code::GET_CERTIFICATE => say(bytes, shape, |m: GetCertificate| {
            format!("slot {}, from {}, up to {} bytes", m.slot, m.offset, m.length)
        }),
        Code::CERTIFICATE => say(bytes, shape, |m: Certificate| {
            format!("slot {}, {} bytes, {} to come", m.slot, m.portion.len(), m.remainder)
        }),
        Code::CHALLENGE => {
            say(bytes, shape, |m: Challenge| format!("slot {}, summary {:#04x}", m.slot, m.summary))
        }
        Code::CHALLENGE_AUTH => say(bytes, shape, |m: ChallengeAuth| {
            format!("slot {}, {} bytes of opaque data", m.slot, m.opaque.len())
        }),
        Code::GET_MEASUREMENTS => say(bytes, shape, get_measurements),
        Code::MEASUREMENTS => say(bytes, shape, |m: Measurements| measurements(&m)),
        Code::KEY_EXCHANGE => say(bytes, shape, |m: KeyExchange| {
            format!("slot {}, session {:#06x}, summary {:#04x}", m.slot, m.session, m.summary)
        }),
        Code::KEY_EXCHANGE_RSP => say(bytes, shape, |m: KeyExchangeResponse| {
            format!("session {:#06x}, heartbeat {} s", m.session, m.heartbeat_s)
        }),
        _ => other_fields(code, bytes, shape),
    }
}

fn other_fields(code: Code, bytes: &[u8], shape: &Shape) -> Result<(String, usize), PeerFault> {
    match code {
        Code::FINISH => say(bytes, shape, |_: Finish| String::new()),
        Code::FINISH_RSP => say(bytes, shape, |_: FinishResponse| String::new()),
        Code::HEARTBEAT => say(bytes, shape, |_: Heartbeat| String::new()),
        Code::HEARTBEAT_ACK => say(bytes, shape, |_: HeartbeatAck| String::new()),
        Code::KEY_UPDATE => say(bytes, shape, |m: KeyUpdate| key_operation(m.operation, m.tag)),
        Code::KEY_UPDATE_ACK => {
            say(bytes, shape, |m: KeyUpdateAck| key_operation(m.operation, m.tag))
        }
        Code::END_SESSION => say(bytes, shape, |m: EndSession| {
            if m.attributes == 0 {
                String::new()
            } else {
                format!("attributes {:#x}", m.attributes)
            }
        }),
        Code::END_SESSION_ACK => say(bytes, shape, |_: EndSessionAck| String::new()),
        Code::ERROR => say(bytes, shape, error),
        Code::RESPOND_IF_READY => {
            say(bytes, shape, |m: RespondIfReady| format!("{}, token {}", m.request, m.token))
        }
        Code::CHUNK_SEND => say(bytes, shape, chunk),
        Code::CHUNK_SEND_ACK => say(bytes, shape, |m: ChunkSendAck| {
            format!("handle {}, chunk {}, {} bytes", m.handle, m.sequence, m.response.len())
        }),
        Code::CHUNK_GET => {
            say(bytes, shape, |m: ChunkGet| format!("handle {}, chunk {}", m.handle, m.sequence))
        }
        Code::CHUNK_RESPONSE => say(bytes, shape, |ChunkResponse(m)| chunk(m)),
        _ => Ok((format!("{} bytes that are not read here", bytes.len()), bytes.len())),
    }
}

fn say<M: Message>(
    bytes: &[u8],
    shape: &Shape,
    words: impl FnOnce(M) -> String,
) -> Result<(String, usize), PeerFault> {
    let (message, length) = decode::<M>(bytes, shape)?;
    Ok((words(message), length))
}

fn versions(message: &VersionResponse) -> String {
    let entries = message.entries.iter();
    let words = entries.map(|entry| format!("{}.{}", entry >> 12, entry >> 8 & 0xf));
    words.collect::<Vec<_>>().join(", ")
}

fn limit_words(limits: &Limits) -> String {
    const NAMES: [(CapabilityFlags, &str); 13] = [
        (CapabilityFlags::CERTIFICATE, "CERT"),
        (CapabilityFlags::CHALLENGE, "CHAL"),
        (CapabilityFlags::MEASUREMENTS_SIGNED, "MEAS_SIG"),
        (CapabilityFlags::MEASUREMENTS_FRESH, "MEAS_FRESH"),
        (CapabilityFlags::ENCRYPT, "ENCRYPT"),
        (CapabilityFlags::MAC, "MAC"),
        (CapabilityFlags::KEY_EXCHANGE, "KEY_EX"),
        (CapabilityFlags(1 << 10), "PSK"),
        (CapabilityFlags(1 << 11), "PSK_WITH_CONTEXT"),
        (CapabilityFlags::HEARTBEAT, "HBEAT"),
        (CapabilityFlags::KEY_UPDATE, "KEY_UPD"),
        (CapabilityFlags::HANDSHAKE_IN_THE_CLEAR, "HANDSHAKE_IN_THE_CLEAR"),
        (CapabilityFlags::CHUNK, "CHUNK"),
    ];
    let known = NAMES.into_iter().filter(|(flag, _)| limits.flags.has(*flag));
    let mut names: Vec<String> = known.clone().map(|(_, name)| name.to_owned()).collect();
    let rest = known.fold(limits.flags.0, |rest, (flag, _)| rest & !flag.0);
    if rest != 0 {
        names.push(format!("{rest:#x}"));
    }
    let Limits { transfer_bytes_max, message_bytes_max, .. } = limits;
    format!(
        "{}; {transfer_bytes_max} bytes at once, {message_bytes_max} in chunks",
        names.join(" ")
    )
}

/// Algorithms by the names of the specification.
fn algorithms(asymmetric: u32, hash: u32, structures: &[Structure]) -> String {
    const ASYMMETRIC: [&str; 9] = [
        "RSASSA-2048",
        "RSAPSS-2048",
        "RSASSA-3072",
        "RSAPSS-3072",
        "ECDSA-P256",
        "RSASSA-4096",
        "RSAPSS-4096",
        "ECDSA-P384",
        "ECDSA-P521",
    ];
    const HASHES: [&str; 6] = ["SHA-256", "SHA-384", "SHA-512", "SHA3-256", "SHA3-384", "SHA3-512"];
    const GROUPS: [&str; 6] =
        ["ffdhe2048", "ffdhe3072", "ffdhe4096", "secp256r1", "secp384r1", "secp521r1"];
    const CIPHERS: [&str; 3] = ["AES-128-GCM", "AES-256-GCM", "ChaCha20-Poly1305"];
    const SCHEDULES: [&str; 1] = ["SPDM's"];
    let mut words = vec![
        format!("signature {}", bit_names(asymmetric, &ASYMMETRIC)),
        format!("hash {}", bit_names(hash, &HASHES)),
    ];
    words.extend(structures.iter().map(|one| {
        let (kind, names): (String, &[&str]) = match one.kind {
            Structure::DHE => ("key exchange".into(), &GROUPS),
            Structure::AEAD => ("cipher".into(), &CIPHERS),
            Structure::REQUESTER_ASYMMETRIC => ("the requester's signature".into(), &ASYMMETRIC),
            Structure::KEY_SCHEDULE => ("key schedule".into(), &SCHEDULES),
            other => (format!("kind {other}"), &[]),
        };
        format!("{kind} {}", bit_names(one.bits.into(), names))
    }));
    words.join(", ")
}

/// The names of the bits that are set, from the lowest; bits without a name as they are.
pub(super) fn bit_names(bits: u32, names: &[&str]) -> String {
    let is_set = |at: &usize| bits >> at & 1 != 0;
    let mut words: Vec<String> =
        (0..names.len()).filter(is_set).map(|at| names[at].to_owned()).collect();
    let rest = bits.checked_shr(u32::try_from(names.len()).unwrap_or(u32::MAX)).unwrap_or(0);
    if rest != 0 {
        words.push(format!("{:#x}", rest << names.len()));
    }
    if words.is_empty() { "none".into() } else { words.join("|") }
}

fn get_measurements(message: GetMeasurements) -> String {
    let which = match message.operation {
        0 => "how many".into(),
        OPERATION_ALL => "all".into(),
        one => format!("number {one}"),
    };
    match message.signed {
        Some((slot, _)) => format!("{which}, signed by slot {slot}"),
        None => format!("{which}, not signed"),
    }
}

fn measurements(message: &Measurements) -> String {
    match message.blocks.as_slice() {
        [] => format!("there are {}", message.total),
        blocks => {
            let numbers = blocks.iter().map(|block| block.index.to_string());
            format!("numbers {}", numbers.collect::<Vec<_>>().join(", "))
        }
    }
}

fn key_operation(operation: KeyOperation, tag: u8) -> String {
    let what = match operation {
        KeyOperation::UpdateRequester => "the requester's keys",
        KeyOperation::UpdateAll => "the keys of both directions",
        KeyOperation::Verify => "the new keys work",
    };
    format!("{what}, tag {tag:#04x}")
}

fn error(message: ErrorMessage) -> String {
    let data =
        if message.data == 0 { String::new() } else { format!(", data {:#04x}", message.data) };
    format!("{}{data}", message.code)
}

fn chunk(message: ChunkSend) -> String {
    let last = if message.last { ", the last" } else { "" };
    let ChunkSend { handle, sequence, chunk, .. } = message;
    format!("handle {handle}, chunk {sequence}, {} bytes{last}", chunk.len())
}
