//! What VENDOR_DEFINED carries: IDE_KM and TDISP, in words.

use std::collections::BTreeMap;
use std::fmt::Write;

use spdm::message::{STANDARD_PCI_SIG, VENDOR_PCI_SIG, VendorDefined, VendorResponse, decode};
use tdisp::ide_km::{self, Direction, KeyId, KeyStatus, SubStream};
use tdisp::payload::{self, ProtocolId};
use tdisp::{InterfaceId, Request, Response, State, report};

use super::words::bit_names;
use super::*;

/// Reports of interfaces, as far as they were overheard.
#[derive(Default)]
pub(super) struct Reports(BTreeMap<InterfaceId, Vec<u8>>);

/// Tells what a vendor-defined message says.
pub(super) fn tell(
    bytes: &[u8],
    shape: &Shape,
    reports: &mut Reports,
    told: &mut Told,
) -> Result<(), PeerFault> {
    let (message, length) = match told.side {
        Side::Requester => decode::<VendorDefined>(bytes, shape)?,
        Side::Responder => {
            let (VendorResponse(message), length) = decode(bytes, shape)?;
            (message, length)
        }
    };
    told.message = bytes[..length].to_vec();
    let from_pci_sig =
        message.standard == STANDARD_PCI_SIG && message.vendor == VENDOR_PCI_SIG.to_le_bytes();
    if !from_pci_sig {
        let vendor: String =
            message.vendor.iter().rev().map(|byte| format!("{byte:02x}")).collect();
        let (standard, length) = (message.standard, message.payload.len());
        let name = match (standard, vendor.as_str()) {
            (STANDARD_PCI_SIG, CXL) => " (CXL)",
            _ => "",
        };
        told.words = format!("vendor 0x{vendor}{name} of registry {standard}: {length} bytes");
        return Ok(());
    }
    let words = payload::split(&message.payload).and_then(|(protocol, inside)| match protocol {
        ProtocolId::IDE_KM => key_management(told.side, inside),
        ProtocolId::TDISP => interfaces(told.side, inside, reports),
        ProtocolId(other) => {
            Ok(format!("protocol {other:#04x} of PCI-SIG, {} bytes", inside.len()))
        }
    });
    match words {
        Ok(words) => told.words = words,
        Err(fault) => {
            told.words = "a message of PCI-SIG's".into();
            told.checks.push(Check::Fails(fault.to_string()));
        }
    }
    Ok(())
}

fn key_management(side: Side, message: &[u8]) -> Result<String, tdisp::PeerFault> {
    use ide_km::{Request, Response};
    Ok(match side {
        Side::Requester => match Request::decode(message)? {
            Request::Query { port } => format!("IDE_KM QUERY port {port}"),
            Request::KeyProg { key, .. } => format!("IDE_KM KEY_PROG {}", key_words(key)),
            Request::SetGo(key) => format!("IDE_KM K_SET_GO {}", key_words(key)),
            Request::SetStop(key) => format!("IDE_KM K_SET_STOP {}", key_words(key)),
        },
        Side::Responder => match Response::decode(message)? {
            Response::QueryResp { port, location, port_max, registers } => format!(
                "IDE_KM QUERY_RESP port {port} of 0 to {port_max} at {:02x}:{:02x}.{}, {} bytes of registers",
                location.bus,
                location.devfn >> 3,
                location.devfn & 7,
                registers.len()
            ),
            Response::KeyProgAck { key, status } => {
                format!("IDE_KM KP_ACK {}: {}", key_words(key), status_words(status))
            }
            Response::GoStopAck(key) => format!("IDE_KM K_GOSTOP_ACK {}", key_words(key)),
        },
    })
}

fn key_words(key: KeyId) -> String {
    let direction = match key.kind.direction() {
        Direction::Receive => "RX",
        Direction::Transmit => "TX",
    };
    let sub_stream = match key.kind.sub_stream() {
        Some(SubStream::Posted) => "PR",
        Some(SubStream::NonPosted) => "NPR",
        Some(SubStream::Completion) => "CPL",
        None => "unknown sub-stream",
    };
    let KeyId { stream, port, .. } = key;
    let set = u8::from(key.kind.set());
    format!("stream {stream}, port {port}, set {set}, {direction} {sub_stream}")
}

fn status_words(status: KeyStatus) -> String {
    match status {
        KeyStatus::SUCCESS => "success".into(),
        KeyStatus::INCORRECT_LENGTH => "incorrect length".into(),
        KeyStatus::UNSUPPORTED_PORT => "unsupported port".into(),
        KeyStatus::UNSUPPORTED_VALUE => "unsupported value".into(),
        KeyStatus::UNSPECIFIED => "unspecified failure".into(),
        KeyStatus(other) => format!("status {other}"),
    }
}

fn interfaces(
    side: Side,
    message: &[u8],
    reports: &mut Reports,
) -> Result<String, tdisp::PeerFault> {
    let (header, fields) = match side {
        Side::Requester => {
            let (header, request) = Request::decode(message)?;
            (header, request_words(&request))
        }
        Side::Responder => {
            let (header, response) = Response::decode(message)?;
            (header, response_words(header.interface, &response, reports)?)
        }
    };
    let separator = if fields.is_empty() { "" } else { ": " };
    Ok(format!("TDISP {} {}{separator}{fields}", header.message_type, header.interface))
}

/// The vendor whose messages follow those of TDISP in sessions of DMTF's tools.
const CXL: &str = "1e98";
const LOCK_FLAGS: [&str; 5] =
    ["NO_FW_UPDATE", "CACHE_LINE_128", "LOCK_MSIX", "BIND_P2P", "ALL_REQUEST_REDIRECT"];

fn request_words(request: &Request<'_>) -> String {
    match request {
        Request::GetVersion(_)
        | Request::GetState(_)
        | Request::StopInterface(_)
        | Request::StartInterface(_) => String::new(),
        Request::GetCapabilities(body) => format!("TSM capabilities {:#x}", body.tsm_caps),
        Request::LockInterface(body) => format!(
            "flags {}, stream {}, MMIO offset {:#x}, P2P mask {:#x}",
            bit_names(body.flags.0.into(), &LOCK_FLAGS),
            body.default_stream,
            body.mmio_reporting_offset,
            body.p2p_address_mask
        ),
        Request::GetReport(body) => format!("from {}, up to {} bytes", body.offset, body.length),
        Request::BindP2pStream(body) => format!("stream {}", body.stream),
        Request::UnbindP2pStream(body) => format!("stream {}", body.stream),
        Request::SetMmioAttribute(body) => range_words(&body.range),
        Request::VdmRequest(body) => format!("{} bytes", body.data.len()),
    }
}

fn response_words(
    interface: InterfaceId,
    response: &Response<'_>,
    reports: &mut Reports,
) -> Result<String, tdisp::PeerFault> {
    Ok(match response {
        Response::Versions(body) => {
            let versions = body.entries.iter().map(|one| format!("{}.{}", one >> 4, one & 0xf));
            versions.collect::<Vec<_>>().join(", ")
        }
        Response::Capabilities(body) => format!(
            "DSM capabilities {:#x}, lock flags {}, {} address bits, {} and {} outstanding",
            body.dsm_caps,
            bit_names(body.lock_flags.0.into(), &LOCK_FLAGS),
            body.address_width_bits,
            body.outstanding_this,
            body.outstanding_all
        ),
        Response::LockInterfaceResponse(_) => "a nonce".into(),
        Response::ReportPortion(body) => {
            let whole = reports.0.entry(interface).or_default();
            whole.extend(body.portion);
            let portion = format!("{} bytes, {} to come", body.portion.len(), body.remainder);
            if body.remainder > 0 {
                return Ok(portion);
            }
            let whole = reports.0.remove(&interface).unwrap_or_default();
            format!("{portion}{}", report_words(&whole)?)
        }
        Response::InterfaceState(body) => State::try_from(*body)?.to_string(),
        Response::ErrorResponse(body) => format!("{} (data {:#x})", body.code, body.data),
        Response::VdmResponse(body) => format!("{} bytes", body.data.len()),
        Response::StartInterfaceResponse(_)
        | Response::StopInterfaceResponse(_)
        | Response::BindP2pStreamResponse(_)
        | Response::UnbindP2pStreamResponse(_)
        | Response::SetMmioAttributeResponse(_) => String::new(),
    })
}

fn report_words(whole: &[u8]) -> Result<String, tdisp::PeerFault> {
    let report = report::decode(whole)?;
    const INFO: [&str; 5] = ["NO_FW_UPDATE", "DMA_WITHOUT_PASID", "DMA_WITH_PASID", "ATS", "PRS"];
    let info = bit_names(report.fields.info.0.into(), &INFO);
    let mut words = format!("; report: info {info}");
    for range in report.ranges.iter() {
        // Writing to a string does not fail.
        let _ = write!(words, "; {}", range_words(&range));
    }
    if !report.device_specific.is_empty() {
        let _ = write!(words, "; {} bytes of the device's own", report.device_specific.len());
    }
    Ok(words)
}

fn range_words(range: &report::MmioRange) -> String {
    let report::MmioRange { first_page, pages, attributes, id } = range;
    let attributes =
        bit_names(attributes.0.into(), &["MSIX_TABLE", "MSIX_PBA", "NON_TEE", "UPDATABLE"]);
    format!("range {id}: {pages} pages from {first_page:#x}, attributes {attributes}")
}
