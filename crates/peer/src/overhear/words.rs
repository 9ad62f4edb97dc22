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
            format!("signatures {:#x}, hashes {:#x}{}", m.asymmetric, m.hash, kinds(&m.structures))
        }),
        Code::ALGORITHMS => say(bytes, shape, |m: Algorithms| {
            format!("signature {:#x}, hash {:#x}{}", m.asymmetric, m.hash, kinds(&m.structures))
        }),
        Code::GET_DIGESTS => say(bytes, shape, |_: GetDigests| String::new()),
        Code::DIGESTS => say(bytes, shape, |m: Digests| {
            format!("slots {:#010b} have certificates", m.provisioned)
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
    const NAMES: [(CapabilityFlags, &str); 10] = [
        (CapabilityFlags::CERTIFICATE, "CERT"),
        (CapabilityFlags::CHALLENGE, "CHAL"),
        (CapabilityFlags::MEASUREMENTS_SIGNED, "MEAS_SIG"),
        (CapabilityFlags::MEASUREMENTS_FRESH, "MEAS_FRESH"),
        (CapabilityFlags::ENCRYPT, "ENCRYPT"),
        (CapabilityFlags::MAC, "MAC"),
        (CapabilityFlags::KEY_EXCHANGE, "KEY_EX"),
        (CapabilityFlags::HEARTBEAT, "HBEAT"),
        (CapabilityFlags::KEY_UPDATE, "KEY_UPD"),
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

fn kinds(structures: &[Structure]) -> String {
    let words = structures.iter().map(|one| match one.kind {
        Structure::DHE => format!(", DHE {:#x}", one.bits),
        Structure::AEAD => format!(", AEAD {:#x}", one.bits),
        Structure::REQUESTER_ASYMMETRIC => format!(", requester's signatures {:#x}", one.bits),
        Structure::KEY_SCHEDULE => format!(", key schedule {:#x}", one.bits),
        other => format!(", kind {other} {:#x}", one.bits),
    });
    words.collect()
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
