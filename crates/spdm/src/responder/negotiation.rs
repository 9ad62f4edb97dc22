//! GET_VERSION, GET_CAPABILITIES, NEGOTIATE_ALGORITHMS: what both sides agree on.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Answer, Chunks, Connection, Denied, Device, Phase, Responder, unexpected};
use crate::algorithm::{Selected, Suite, Version};
use crate::endpoint::transcript;
use crate::message::{
    Algorithms, Capabilities, CapabilityFlags, Code, ErrorCode, GetCapabilities, GetVersion,
    Header, Limits, NegotiateAlgorithms, OTHER_PARAMS_OPAQUE_FORMAT_1, Shape, Structure,
    VersionResponse, decode, encode,
};

/// Measurements have the format of DMTF.
const MEASUREMENT_SPECIFICATION_DMTF: u8 = 0x01;

impl Responder {
    /// Begins anew: all sessions end.
    pub(super) fn get_version(&mut self, device: &mut dyn Device, message: &[u8]) -> Answer {
        let shape = Shape::unnegotiated(Version::V12);
        let (GetVersion, length) = decode(message, &shape)?;
        let ended = core::mem::take(&mut self.sessions);
        ended.iter().for_each(|session| device.session_ended(session.id()));
        let response = encode(&VersionResponse::of(&self.config.versions), &shape)?;
        self.phase = Phase::Versioned { vca: [&message[..length], &response].concat() };
        Ok(response)
    }

    pub(super) fn get_capabilities(&mut self, header: Header, message: &[u8]) -> Answer {
        let Phase::Versioned { vca } = &mut self.phase else {
            return Err(unexpected(header.code));
        };
        if header.code != Code::GET_CAPABILITIES {
            return Err(unexpected(header.code));
        }
        let version = Version::from_wire(header.version)
            .filter(|version| self.config.versions.contains(version))
            .ok_or(Denied::new(ErrorCode::VERSION_MISMATCH))?;
        let shape = Shape::unnegotiated(version);
        let (GetCapabilities(peer), length) = decode(message, &shape)?;
        check_consistent(&peer)?;
        let response = encode(&Capabilities(self.config.limits), &shape)?;
        let vca = [vca.as_slice(), &message[..length], &response].concat();
        self.phase = Phase::Capable { vca, version, peer };
        Ok(response)
    }

    pub(super) fn negotiate_algorithms(&mut self, header: Header, message: &[u8]) -> Answer {
        let Phase::Capable { vca, version, peer } = &self.phase else {
            return Err(unexpected(header.code));
        };
        if header.code != Code::NEGOTIATE_ALGORITHMS {
            return Err(unexpected(header.code));
        }
        if header.version != version.wire() {
            return Err(Denied::new(ErrorCode::VERSION_MISMATCH));
        }
        let shape = Shape::unnegotiated(*version);
        let (offered, length) = decode::<NegotiateAlgorithms>(message, &shape)?;
        let selected = self.select(*version, &offered)?;
        let response = encode(&answer(selected, &offered), &shape)?;
        let vca = [vca.as_slice(), &message[..length], &response].concat();
        let challenged = transcript(self.crypto, selected.suite, &[&vca]);
        let connection = Connection {
            selected,
            peer: *peer,
            vca,
            challenged,
            measured: None,
            chunks: Chunks::default(),
        };
        self.phase = Phase::Negotiated(Box::new(connection));
        Ok(response)
    }

    /// Selects the best of what is offered; policy `complete-negotiation`.
    fn select(&self, version: Version, offered: &NegotiateAlgorithms) -> Result<Selected, Denied> {
        let bits = |kind| Structure::bits_of(&offered.structures, kind);
        let suite = self.identities.first().map(|identity| identity.suite);
        let suite = suite.filter(|suite| offers(offered, *suite));
        let (dhe, aead) = (bits(Structure::DHE), bits(Structure::AEAD));
        let group = self.config.groups.iter().find(|group| dhe & group.bit() != 0);
        let aead = self.config.aeads.iter().find(|one| aead & one.bit() != 0);
        let schedule = bits(Structure::KEY_SCHEDULE) & Structure::KEY_SCHEDULE_SPDM != 0;
        let opaque = offered.other_params & OTHER_PARAMS_OPAQUE_FORMAT_1 != 0;
        match (suite, group, aead) {
            (Some(suite), Some(&group), Some(&aead)) if schedule && opaque => {
                Ok(Selected { version, suite, group, aead })
            }
            _ => Err(Denied::new(ErrorCode::INVALID_REQUEST)),
        }
    }
}

/// Refuses capabilities that contradict each other: what belongs to a session without a way to one,
/// and long messages without chunks.
fn check_consistent(peer: &Limits) -> Result<(), Denied> {
    let flags = peer.flags;
    let any = |bits: CapabilityFlags| flags.0 & bits.0 != 0;
    let session = CapabilityFlags::KEY_EXCHANGE | CapabilityFlags::PRE_SHARED_KEY;
    let protection = CapabilityFlags::ENCRYPT | CapabilityFlags::MAC;
    let within = CapabilityFlags::HEARTBEAT
        | CapabilityFlags::KEY_UPDATE
        | CapabilityFlags::HANDSHAKE_IN_THE_CLEAR;
    let consistent = any(session) == any(protection) && (any(session) || !any(within));
    let short = any(CapabilityFlags::CHUNK) || peer.message_bytes_max == peer.transfer_bytes_max;
    if consistent && short { Ok(()) } else { Err(Denied::new(ErrorCode::INVALID_REQUEST)) }
}

fn offers(offered: &NegotiateAlgorithms, suite: Suite) -> bool {
    offered.asymmetric & suite.asymmetric_bit() != 0 && offered.hash & suite.hash_bit() != 0
}

/// The response; the requester never signs, so no algorithm is selected for it.
fn answer(selected: Selected, offered: &NegotiateAlgorithms) -> Algorithms {
    let bits = |kind| match kind {
        Structure::DHE => Some(selected.group.bit()),
        Structure::AEAD => Some(selected.aead.bit()),
        Structure::REQUESTER_ASYMMETRIC => Some(0),
        Structure::KEY_SCHEDULE => Some(Structure::KEY_SCHEDULE_SPDM),
        _ => None,
    };
    let structures: Vec<_> = offered
        .structures
        .iter()
        .filter_map(|one| Some(Structure { kind: one.kind, bits: bits(one.kind)? }))
        .collect();
    let measures = offered.measurement_specification & MEASUREMENT_SPECIFICATION_DMTF;
    Algorithms {
        measurement_specification: measures,
        other_params: OTHER_PARAMS_OPAQUE_FORMAT_1,
        measurement_hash: if measures == 0 { 0 } else { selected.suite.measurement_hash_bit() },
        asymmetric: selected.suite.asymmetric_bit(),
        hash: selected.suite.hash_bit(),
        log_specification: 0,
        structures,
    }
}
