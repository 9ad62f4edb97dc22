//! Evidence about a device, judged without the device: what it said when the session was made, who it is,
//! what runs on it, and what its interface is.
//!
//! [`judge`] goes through the objects in the order in which they rest on each other: the algorithms are in
//! VCA, the key that signs is in the chain, measurements are signed over VCA. Nothing signs the interface
//! report but the session that it came through, which cannot be looked at afterwards; who keeps evidence
//! keeps a digest beside it.
//!
//! Takes no lock and does no IO.

use spdm::algorithm::{Selected, Version};
use spdm::certificate::{Chain, Trust};
use spdm::crypto::{Crypto, hash};
use spdm::message::{
    Algorithms, Block, GetMeasurements, Header, Measurements, NegotiateAlgorithms, Shape,
    VersionResponse, decode,
};
use spdm::{PeerFault, Purpose, signed_message};
use tdisp::report::{self, InterfaceInfo};

use crate::overhear::{Check, selected};

/// What there is to judge, as it was kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence<'a> {
    /// GET_VERSION to ALGORITHMS, one after the other.
    pub vca: Option<&'a [u8]>,
    /// The bytes of a slot.
    pub chain: Option<&'a [u8]>,
    /// GET_MEASUREMENTS and MEASUREMENTS.
    pub measurements: Option<&'a [u8]>,
    /// The interface report.
    pub report: Option<&'a [u8]>,
}

/// What it is judged by.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Whose certificates are trusted.
    pub trust: Trust,
    /// What the measurements were asked for with.
    pub nonce: Option<[u8; 32]>,
    /// Measurements that must be there.
    pub measurements: Vec<Block>,
}

/// What was found about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The object, as people call it.
    pub about: &'static str,
    /// What it says.
    pub words: Vec<String>,
    /// Whether it holds.
    pub checks: Vec<Check>,
}

/// Judges evidence. Every object has a finding, the absent ones too.
pub fn judge(crypto: &dyn Crypto, evidence: &Evidence<'_>, expected: &Expected) -> Vec<Finding> {
    let mut judge = Judge { crypto, expected, selected: None, public: None };
    let vca = judge.finding("the negotiation", evidence.vca, Judge::negotiation);
    let chain = judge.finding("the certificates", evidence.chain, Judge::certificates);
    let vca_bytes = evidence.vca.unwrap_or_default();
    let measurements =
        judge.finding("the measurements", evidence.measurements, |judge, bytes, f| {
            judge.measurements(vca_bytes, bytes, f)
        });
    let report = judge.finding("the interface report", evidence.report, Judge::report);
    vec![vca, chain, measurements, report]
}

/// Whether nothing in the findings speaks against the device.
pub fn holds(findings: &[Finding]) -> bool {
    let fails = |check: &Check| matches!(check, Check::Fails(_));
    !findings.iter().any(|finding| finding.checks.iter().any(fails))
}

struct Judge<'a> {
    crypto: &'a dyn Crypto,
    expected: &'a Expected,
    selected: Option<Selected>,
    /// The leaf's key.
    public: Option<Vec<u8>>,
}

impl Judge<'_> {
    fn finding(
        &mut self,
        about: &'static str,
        bytes: Option<&[u8]>,
        look: impl FnOnce(&mut Self, &[u8], &mut Finding) -> Result<(), PeerFault>,
    ) -> Finding {
        let mut finding = Finding { about, words: Vec::new(), checks: Vec::new() };
        match bytes {
            None => finding.checks.push(Check::NotMade("there are none".into())),
            Some(bytes) => {
                if let Err(fault) = look(self, bytes, &mut finding) {
                    finding.checks.push(Check::Fails(fault.to_string()));
                }
            }
        }
        finding
    }

    fn negotiation(&mut self, bytes: &[u8], finding: &mut Finding) -> Result<(), PeerFault> {
        let [_, version, asked, _, offered, algorithms] = split_vca(bytes)?;
        let spoken = Version::from_wire(Header::of(asked)?.version);
        let listed = decode::<VersionResponse>(version, &Shape::unnegotiated(Version::V12))?.0;
        let Some(spoken) = spoken else {
            finding.checks.push(Check::NotMade("this version is not read here".into()));
            return Ok(());
        };
        let shape = Shape::unnegotiated(spoken);
        decode::<NegotiateAlgorithms>(offered, &shape)?;
        let (algorithms, _) = decode::<Algorithms>(algorithms, &shape)?;
        self.selected = selected(spoken, &algorithms);
        let Some(Selected { suite, group, aead, .. }) = self.selected else {
            finding.checks.push(Check::NotMade("these algorithms are not computed here".into()));
            return Ok(());
        };
        let (major, minor) = (spoken.wire() >> 4, spoken.wire() & 0xf);
        finding.words.push(format!("SPDM {major}.{minor}, {suite:?}, {group:?}, {aead:?}"));
        let best = listed.best(&Version::ALL);
        finding.check("the best version that both speak was taken", best == Some(spoken));
        Ok(())
    }

    fn certificates(&mut self, bytes: &[u8], finding: &mut Finding) -> Result<(), PeerFault> {
        let Some(Selected { suite, .. }) = self.selected else {
            finding.checks.push(Check::NotMade(NO_ALGORITHMS.into()));
            return Ok(());
        };
        let chain = Chain::read(bytes, suite)?;
        finding.words.push(format!("{} certificates", chain.certificates.len()));
        match self.expected.trust.judge(self.crypto, suite, &chain) {
            Ok(public) => {
                let root = match &self.expected.trust.roots {
                    Some(_) => "they lead to a root that is trusted",
                    None => "they lead to the root that they show, which nobody verified",
                };
                finding.checks.push(Check::Holds(root.into()));
                self.public = Some(public);
            }
            Err(fault) => finding.checks.push(Check::Fails(fault.to_string())),
        }
        Ok(())
    }

    fn measurements(
        &mut self,
        vca: &[u8],
        bytes: &[u8],
        finding: &mut Finding,
    ) -> Result<(), PeerFault> {
        let Some(selected) = self.selected else {
            finding.checks.push(Check::NotMade(NO_ALGORITHMS.into()));
            return Ok(());
        };
        let shape = Shape::negotiated(selected);
        let (request, response) = split_measurements(bytes, selected.version)?;
        let (request, _) = decode::<GetMeasurements>(request, &shape)?;
        let signed = Shape { signed: request.signed.is_some(), ..shape };
        let (measured, length) = decode::<Measurements>(response, &signed)?;
        finding.words.extend(measured.blocks.iter().map(block_words));
        let Some((_, nonce)) = request.signed else {
            finding.checks.push(Check::Fails("nobody signed them".into()));
            return Ok(());
        };
        if let Some(expected) = self.expected.nonce {
            finding.check("they were taken for this nonce", expected == nonce);
        } else {
            finding.checks.push(Check::NotMade("no nonce was given: they may be old".into()));
        }
        self.signature(vca, bytes, response.len() - length, &measured.signature, finding);
        for block in &self.expected.measurements {
            let what = format!("number {} is as expected", block.index);
            finding.check(&what, measured.blocks.contains(block));
        }
        Ok(())
    }

    /// Checks the signature at the end of `bytes`, before so many bytes of padding.
    fn signature(
        &self,
        vca: &[u8],
        bytes: &[u8],
        padding: usize,
        signature: &[u8],
        finding: &mut Finding,
    ) {
        let (Some(selected), Some(public)) = (self.selected, &self.public) else {
            let why = "the certificates do not hold: nobody knows who signed";
            return finding.checks.push(Check::NotMade(why.into()));
        };
        let unsigned = &bytes[..bytes.len() - padding - signature.len()];
        let transcript = hash(self.crypto, selected.suite, &[vca, unsigned].concat());
        let message = signed_message(selected.version, Purpose::Measurements, &transcript);
        let verified = self.crypto.verify(selected.suite, public, &message, signature);
        finding.check("the device's key signed them, and the negotiation", verified.is_ok());
    }

    fn report(&mut self, bytes: &[u8], finding: &mut Finding) -> Result<(), PeerFault> {
        let report = match report::decode(bytes) {
            Ok(report) => report,
            Err(fault) => {
                finding.checks.push(Check::Fails(fault.to_string()));
                return Ok(());
            }
        };
        finding.words.push(info_words(report.fields.info));
        for range in report.ranges.iter() {
            let report::MmioRange { first_page, pages, attributes, id } = range;
            finding.words.push(format!(
                "range {id}: {pages} pages from {first_page:#x}, attributes {:#x}",
                attributes.0
            ));
        }
        if !report.device_specific.is_empty() {
            finding
                .words
                .push(format!("{} bytes of the device's own", report.device_specific.len()));
        }
        let why = "nothing signs it but the session that it came through";
        finding.checks.push(Check::NotMade(why.into()));
        Ok(())
    }
}

const NO_ALGORITHMS: &str = "the algorithms are not known";

impl Finding {
    fn check(&mut self, what: &str, holds: bool) {
        let check = if holds { Check::Holds } else { Check::Fails };
        self.checks.push(check(what.to_owned()));
    }
}

fn block_words(block: &Block) -> String {
    const RAW: u8 = 0x80;
    let kind = match block.kind & !RAW {
        0 => "immutable ROM",
        1 => "mutable firmware",
        2 => "hardware configuration",
        3 => "firmware configuration",
        4 => "manifest",
        5 => "device mode",
        6 => "version of mutable firmware",
        7 => "security version of mutable firmware",
        _ => "something else",
    };
    let value: String =
        block.value.iter().take(VALUE_BYTES_SHOWN).map(|b| format!("{b:02x}")).collect();
    let more = if block.value.len() > VALUE_BYTES_SHOWN { "…" } else { "" };
    let form = if block.kind & RAW == 0 { "hash" } else { "raw" };
    format!("number {}, {kind}, {form} {value}{more}", block.index)
}

const VALUE_BYTES_SHOWN: usize = 16;

fn info_words(info: InterfaceInfo) -> String {
    const NAMES: [(InterfaceInfo, &str); 5] = [
        (InterfaceInfo::NO_FW_UPDATE, "no firmware update while locked"),
        (InterfaceInfo::DMA_WITHOUT_PASID, "DMA without PASID"),
        (InterfaceInfo::DMA_WITH_PASID, "DMA with PASID"),
        (InterfaceInfo::ATS, "ATS"),
        (InterfaceInfo::PRS, "PRS"),
    ];
    let said = NAMES.into_iter().filter(|(bit, _)| info.contains(*bit)).map(|(_, name)| name);
    let said: Vec<_> = said.collect();
    if said.is_empty() { "it claims nothing".into() } else { said.join(", ") }
}

/// The six messages of VCA, each by the length that it says itself or always has.
fn split_vca(bytes: &[u8]) -> Result<[&[u8]; 6], PeerFault> {
    const GET_VERSION: usize = 4;
    const CAPABILITIES: usize = 20;
    let mut rest = bytes;
    let mut take = |length: usize, message| {
        let missing = length.saturating_sub(rest.len());
        let (one, after) =
            rest.split_at_checked(length).ok_or(PeerFault::Short { message, missing })?;
        rest = after;
        Ok::<_, PeerFault>((one, after))
    };
    let (get_version, after) = take(GET_VERSION, "GET_VERSION")?;
    let entries = usize::from(after.get(5).copied().unwrap_or_default());
    let (version, _) = take(6 + 2 * entries, "VERSION")?;
    let (get_capabilities, _) = take(CAPABILITIES, "GET_CAPABILITIES")?;
    let (capabilities, after) = take(CAPABILITIES, "CAPABILITIES")?;
    let (negotiate, after) = take(own_length(after), "NEGOTIATE_ALGORITHMS")?;
    let (algorithms, after) = take(own_length(after), "ALGORITHMS")?;
    if !after.is_empty() {
        return Err(PeerFault::Trailing { message: "the negotiation", left: after.len() });
    }
    Ok([get_version, version, get_capabilities, capabilities, negotiate, algorithms])
}

/// The length that messages about algorithms say behind their header; none has less than its header.
fn own_length(message: &[u8]) -> usize {
    const HEADER: usize = 4;
    let length = message.get(HEADER..).and_then(<[u8]>::first_chunk::<2>);
    length.map_or(HEADER, |length| usize::from(u16::from_le_bytes(*length)).max(HEADER))
}

/// GET_MEASUREMENTS, whose length follows from its attributes, and what answers it.
fn split_measurements(bytes: &[u8], version: Version) -> Result<(&[u8], &[u8]), PeerFault> {
    const SIGNATURE_WANTED: u8 = 0x01;
    const NONCE_AND_SLOT: usize = 33;
    const CONTEXT: usize = 8;
    let header = Header::of(bytes)?;
    let signed = header.parameter1 & SIGNATURE_WANTED != 0;
    let length = 4
        + if signed { NONCE_AND_SLOT } else { 0 }
        + if version.has_context() { CONTEXT } else { 0 };
    let missing = length.saturating_sub(bytes.len());
    let short = PeerFault::Short { message: "GET_MEASUREMENTS", missing };
    bytes.split_at_checked(length).ok_or(short)
}
