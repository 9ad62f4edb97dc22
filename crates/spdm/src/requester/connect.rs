//! VERSION, CAPABILITIES, ALGORITHMS: what both sides agree on.

use alloc::vec::Vec;

use super::{Config, Connection, Outcome, Pending, Requester, Step};
use crate::algorithm::{Selected, Version};
use crate::endpoint::transcript;
use crate::fault::{Error, PeerFault};
use crate::message::{
    Algorithms, Capabilities, GetCapabilities, GetVersion, Limits, NegotiateAlgorithms,
    OTHER_PARAMS_OPAQUE_FORMAT_1, Shape, Structure, VersionResponse, decode, encode,
};

/// Measurements have the format of DMTF.
const MEASUREMENT_SPECIFICATION_DMTF: u8 = 0x01;

pub(super) struct ExpectCapabilities {
    version: Version,
    /// From GET_VERSION to GET_CAPABILITIES.
    vca: Vec<u8>,
}

pub(super) struct ExpectAlgorithms {
    version: Version,
    peer: Limits,
    /// From GET_VERSION to NEGOTIATE_ALGORITHMS.
    vca: Vec<u8>,
}

impl Requester {
    pub(super) fn version(&mut self, message: &[u8]) -> Result<Step, Error> {
        let shape = Shape::unnegotiated(Version::V12);
        let (response, length) = decode::<VersionResponse>(message, &shape)?;
        let Some(version) = response.best(&self.config.versions) else {
            let value = response.entries.last().copied().unwrap_or_default().into();
            let (message, field) = ("VERSION", "VersionNumberEntry");
            return Err(PeerFault::UnknownValue { message, field, value }.into());
        };
        let shape = Shape::unnegotiated(version);
        let request = encode(&GetCapabilities(self.config.limits), &shape)?;
        let asked = encode(&GetVersion, &shape)?;
        let vca = [asked.as_slice(), &message[..length], &request].concat();
        let pending = Pending::Capabilities(ExpectCapabilities { version, vca });
        Ok(Step::Send(self.send(request, pending)?))
    }

    pub(super) fn capabilities(
        &mut self,
        expect: ExpectCapabilities,
        message: &[u8],
    ) -> Result<Step, Error> {
        let ExpectCapabilities { version, vca } = expect;
        let shape = Shape::unnegotiated(version);
        let (Capabilities(peer), length) = decode(message, &shape)?;
        let request = encode(&self.offer(), &shape)?;
        let vca = [vca.as_slice(), &message[..length], &request].concat();
        let pending = Pending::Algorithms(ExpectAlgorithms { version, peer, vca });
        Ok(Step::Send(self.send(request, pending)?))
    }

    pub(super) fn algorithms(
        &mut self,
        expect: ExpectAlgorithms,
        message: &[u8],
    ) -> Result<Step, Error> {
        let ExpectAlgorithms { version, peer, vca } = expect;
        let (response, length) = decode::<Algorithms>(message, &Shape::unnegotiated(version))?;
        let selected = self.selected(version, &response)?;
        let vca = [vca.as_slice(), &message[..length]].concat();
        let challenged = transcript(self.crypto, selected.suite, &[&vca]);
        self.has_begun_session = false;
        self.connection = Some(Connection {
            selected,
            peer,
            vca,
            challenged,
            measured: None,
            signed: Vec::new(),
            digests: None,
            slots: [const { None }; 8],
            session: None,
        });
        Ok(Step::Done(Outcome::Connected(selected)))
    }

    fn offer(&self) -> NegotiateAlgorithms {
        let config = &self.config;
        let dhe = config.groups.iter().fold(0, |bits, group| bits | group.bit());
        let aead = config.aeads.iter().fold(0, |bits, aead| bits | aead.bit());
        let structures = [
            (Structure::DHE, dhe),
            (Structure::AEAD, aead),
            (Structure::REQUESTER_ASYMMETRIC, 0),
            (Structure::KEY_SCHEDULE, Structure::KEY_SCHEDULE_SPDM),
        ];
        NegotiateAlgorithms {
            measurement_specification: MEASUREMENT_SPECIFICATION_DMTF,
            other_params: OTHER_PARAMS_OPAQUE_FORMAT_1,
            asymmetric: config.suites.iter().fold(0, |bits, one| bits | one.asymmetric_bit()),
            hash: config.suites.iter().fold(0, |bits, one| bits | one.hash_bit()),
            log_specification: 0,
            structures: structures.map(|(kind, bits)| Structure { kind, bits }).into(),
        }
    }

    /// What the responder selected, which must be one of each that was offered.
    fn selected(&self, version: Version, response: &Algorithms) -> Result<Selected, PeerFault> {
        let unknown =
            |field, value| PeerFault::UnknownValue { message: "ALGORITHMS", field, value };
        let bits = |kind| Structure::bits_of(&response.structures, kind);
        let (dhe, aead) = (bits(Structure::DHE), bits(Structure::AEAD));
        let Config { suites, groups, aeads, .. } = &self.config;
        let suite = suites
            .iter()
            .find(|suite| response.asymmetric == suite.asymmetric_bit())
            .filter(|suite| response.hash == suite.hash_bit())
            .ok_or_else(|| unknown("BaseAsymSel", response.asymmetric.into()))?;
        let group = groups.iter().find(|group| group.bit() == dhe);
        let aead_found = aeads.iter().find(|one| one.bit() == aead);
        if bits(Structure::KEY_SCHEDULE) != Structure::KEY_SCHEDULE_SPDM {
            return Err(unknown("KeySchedule", bits(Structure::KEY_SCHEDULE).into()));
        }
        if response.other_params != OTHER_PARAMS_OPAQUE_FORMAT_1 {
            return Err(unknown("OtherParamsSelection", response.other_params.into()));
        }
        Ok(Selected {
            version,
            suite: *suite,
            group: *group.ok_or_else(|| unknown("DHE", dhe.into()))?,
            aead: *aead_found.ok_or_else(|| unknown("AEAD", aead.into()))?,
        })
    }
}
