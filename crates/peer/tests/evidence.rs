//! Evidence of a device of the default platform, judged: good, for another nonce, under another root, and with any
//! bit of it turned over.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bindery_peer::evidence::{Evidence, Expected, Finding, holds, judge};
use bindery_peer::overhear::Check;
use pci::regs::{command, header};
use pci::{Address, DmaFault, Interrupt, Notices};
use spdm::algorithm::Suite;
use spdm::certificate::{Chain, DeviceName, LeafUsage, Trust};
use spdm::crypto::aws_lc::AwsLc;
use supervisor::Platform;
use supervisor::machine::Machine;
use tsm::ObjectKind;

const NONCE: [u8; 32] = [0x5a; 32];

struct Unheard;

impl Notices for Unheard {
    fn dma_fault(&self, _: Address, _: &DmaFault) {}

    fn interrupt_unheard(&self, _: Address, _: Interrupt) {}
}

/// What a connected device shows, over [`NONCE`].
struct Shown {
    /// Of its interface, which is locked.
    report: Vec<u8>,
    vca: Vec<u8>,
    chain: Vec<u8>,
    measurements: Vec<u8>,
}

impl Shown {
    fn new() -> Self {
        let machine = Machine::build(&Platform::default(), Arc::new(Unheard));
        let function = machine.devices.iter().find(|device| device.tee).unwrap().address;
        machine.tsm.connect(function, b"tsm0").unwrap();
        lock(&machine, function);
        let before = machine.tsm.evidence(function, None).unwrap();
        let shown = machine.tsm.evidence(function, Some(NONCE)).unwrap();
        let find = |kind| shown.iter().find(|object| object.kind == kind).unwrap();
        let measured = |objects: &[tsm::EvidenceObject]| {
            objects.iter().find(|object| object.kind == ObjectKind::Measurement).unwrap().generation
        };
        assert_eq!(measured(&shown), measured(&before) + 1);
        assert_eq!(find(ObjectKind::Measurement).nonce, Some(NONCE));
        let bytes = |kind| find(kind).bytes.clone();
        Self {
            report: bytes(ObjectKind::InterfaceReport),
            vca: bytes(ObjectKind::Vca),
            chain: bytes(ObjectKind::Certificate),
            measurements: bytes(ObjectKind::Measurement),
        }
    }

    fn judge(&self, expected: &Expected) -> Vec<Finding> {
        let Self { vca, chain, measurements, report } = self;
        let evidence = Evidence {
            vca: Some(vca),
            chain: Some(chain),
            measurements: Some(measurements),
            report: Some(report),
        };
        judge(&AwsLc, &evidence, expected)
    }

    /// What an owner expects who knows the vendor's root.
    fn expected(&self) -> Expected {
        let chain = Chain::read(&self.chain, Suite::P384Sha384).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let roots = Some(vec![chain.certificates[0].clone()]);
        let trust = Trust { roots, now, usage: LeafUsage::Responder, name: DeviceName::Any };
        Expected { trust, nonce: Some(NONCE), measurements: Vec::new() }
    }
}

/// Binds the function's TDI and locks it, as a VMM does for its guest.
fn lock(machine: &Machine, function: Address) {
    const LOCKED: u32 = 1;
    let device = machine.devices.iter().find(|device| device.address == function).unwrap();
    let on = command::MEMORY | command::BUS_MASTER;
    device.function.config_write(header::COMMAND, &on.to_le_bytes());
    let cancel = tsm::Cancel::new();
    let vm = machine.tsm.new_vm();
    machine.tsm.bind(function, vm, 7, &cancel).unwrap();
    let request = tsm::GuestRequest {
        arch: tsm::Arch::Cca,
        op: tsm::Op::SetTdiState,
        request: &LOCKED.to_le_bytes(),
        response_room: 0,
    };
    machine.tsm.request(function, &request, &NoMemory, &cancel).unwrap();
}

struct NoMemory;

impl tsm::Memory for NoMemory {
    fn read(&self, _: u64, _: &mut [u8]) -> Result<(), tsm::Unreachable> {
        Err(tsm::Unreachable)
    }
}

fn all_checks(findings: &[Finding]) -> Vec<&Check> {
    findings.iter().flat_map(|finding| &finding.checks).collect()
}

#[test]
fn good_evidence_holds() {
    let shown = Shown::new();
    let findings = shown.judge(&shown.expected());
    assert!(holds(&findings), "{findings:#?}");
    let made = all_checks(&findings).into_iter().filter(|check| matches!(check, Check::Holds(_)));
    assert_eq!(made.count(), 4, "version, certificates, nonce, signature: {findings:#?}");
    let report = &findings[3].words;
    assert!(report.iter().any(|words| words.contains("pages from")), "{report:?}");
}

#[test]
fn another_nonce_and_another_root_are_noticed() {
    let shown = Shown::new();
    let nonce = Some([0; 32]);
    assert!(!holds(&shown.judge(&Expected { nonce, ..shown.expected() })));
    let others = Shown::new().expected();
    assert!(!holds(&shown.judge(&others)));
}

#[test]
fn any_bit_turned_over_is_noticed() {
    let mut shown = Shown::new();
    let expected = shown.expected();
    type Part = fn(&mut Shown) -> &mut Vec<u8>;
    let parts: [(&str, Part); 3] = [
        ("vca", |shown| &mut shown.vca),
        ("chain", |shown| &mut shown.chain),
        ("measurements", |shown| &mut shown.measurements),
    ];
    for (name, part) in parts {
        for byte in 0..part(&mut shown).len() {
            // Reserved bytes mean nothing, and measurements are not signed over the chain.
            if name == "chain" && (2..4).contains(&byte) {
                continue;
            }
            part(&mut shown)[byte] ^= 1;
            let findings = shown.judge(&expected);
            let noticed = !holds(&findings)
                || !all_checks(&findings).iter().any(|check| {
                    **check
                        == Check::Holds("the device's key signed them, and the negotiation".into())
                });
            assert!(noticed, "{name}, byte {byte}: {findings:#?}");
            part(&mut shown)[byte] ^= 1;
        }
    }
}
