//! Who devices are, and what the TSM trusts: a vendor's root that is made with the machine, and below it
//! a certificate for each device, made when the device is first spoken to.
//!
//! Nothing of it outlives the machine. Takes no lock. Source of the names: PCIe 6.1, 6.31.3.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use device::security::{Equip, Equipment};
use pci::{Address, Function};
use spdm::algorithm::{Aead, Group, Suite, Version};
use spdm::certificate::{Chain, DeviceName, LeafUsage, Trust};
use spdm::crypto::aws_lc::{AwsLc, PrivateKey, SystemEntropy};
use spdm::crypto::{CryptoFault, hash};
use spdm::issue::{Contents, Role, issue};
use spdm::message::{Block, CapabilityFlags, Limits};
use spdm::responder::{self, Responder};
use tsm::FunctionFacts;
use tsm::software::{Authority, Policy, Security};

use super::Identity;

/// What devices sign with.
const SUITE: Suite = Suite::P384Sha384;
const ISSUER: &str = "Bindery root";
/// Sessions of a device at a time: one more than there are TSMs.
const SESSIONS_MAX: usize = 2;
/// The longest time between two messages of a session, in seconds.
const HEARTBEAT_S: u8 = 240;
/// The longest message that a device receives in one piece, in bytes.
const TRANSFER_BYTES_MAX: u32 = 4608;
/// The longest message that it receives in chunks, in bytes.
const MESSAGE_BYTES_MAX: u32 = 0x1_0000;
/// Certificates hold from so long before the machine: clocks differ.
const BEFORE: Duration = Duration::from_secs(86_400);

/// The vendor of all devices of a machine.
#[derive(Default)]
pub(super) struct Vendor {
    root: OnceLock<Option<Root>>,
}

/// The vendor's root.
struct Root {
    certificate: Vec<u8>,
    key: PrivateKey,
}

/// What a device is sold as.
#[derive(Clone, Debug)]
pub(super) struct Product {
    /// The name in its certificate.
    name: String,
    serial: [u8; 8],
    measurements: Vec<Block>,
}

impl Product {
    /// The device whose security manager is in `function`.
    pub(super) fn of(function: &dyn Function) -> Self {
        let found = Identity::of(&|offset, into| function.config_read(offset, into));
        let name = name(&found);
        let address = function.address();
        let [domain_high, domain_low] = address.domain.to_be_bytes();
        let serial = [0, 0, 0, 0, domain_high, domain_low, address.bus, address.devfn()];
        Self { measurements: measurements(&name), name, serial }
    }
}

/// What a device certifies to be, in the form of PCIe.
fn name(found: &Identity) -> String {
    let Identity { vendor, device, subsystem_vendor, subsystem_device, class, revision } = found;
    format!(
        "Vendor={vendor:04x}:Device={device:04x}:CC={class:06x}:REV={revision:02x}:\
         SSVID={subsystem_vendor:04x}:SSID={subsystem_device:04x}"
    )
}

/// What runs on a device of this name: hashes of its ROM, its firmware and its configuration.
fn measurements(name: &str) -> Vec<Block> {
    const IMMUTABLE_ROM: u8 = 0;
    const FIRMWARE: u8 = 1;
    const HARDWARE_CONFIGURATION: u8 = 2;
    let texts = [
        (IMMUTABLE_ROM, "Bindery boot ROM".to_owned()),
        (FIRMWARE, format!("Bindery firmware {}", env!("CARGO_PKG_VERSION"))),
        (HARDWARE_CONFIGURATION, name.to_owned()),
    ];
    let blocks = (1..).zip(texts);
    blocks
        .map(|(index, (kind, text))| {
            let value = hash(&AwsLc, SUITE, text.as_bytes());
            Block { index, kind, value }
        })
        .collect()
}

impl Vendor {
    /// What makes the device's certificates when they are first asked for.
    pub(super) fn equip(self: &Arc<Self>, product: Product) -> Equip {
        let vendor = Arc::clone(self);
        Box::new(move || vendor.equipment(&product).ok())
    }

    fn root(&self) -> Result<&Root, CryptoFault> {
        let root = self.root.get_or_init(|| Root::make().ok());
        root.as_ref().ok_or(CryptoFault::NoEntropy)
    }

    fn equipment(&self, product: &Product) -> Result<Equipment, spdm::Error> {
        let root = self.root()?;
        let key = PrivateKey::generate(SUITE)?;
        let leaf = issue(
            &Contents {
                issuer: ISSUER,
                subject: "Bindery device",
                suite: SUITE,
                public: &key.public(),
                serial: product.serial,
                not_before: now().saturating_sub(BEFORE),
                not_after: None,
                role: Role::Device(DeviceName::Pci(product.name.clone())),
            },
            &root.key,
        )?;
        let chain = Chain::new(&AwsLc, SUITE, vec![root.certificate.clone(), leaf]);
        let identity = responder::Identity::new(&AwsLc, &chain, Box::new(key))?;
        let entropy = Box::new(SystemEntropy);
        let responder = Responder::new(&AwsLc, entropy, config(), vec![identity])?;
        Ok(Equipment { responder, measurements: product.measurements.clone() })
    }
}

impl Root {
    fn make() -> Result<Self, CryptoFault> {
        let key = PrivateKey::generate(SUITE)?;
        let contents = Contents {
            issuer: ISSUER,
            subject: ISSUER,
            suite: SUITE,
            public: &key.public(),
            serial: [0; 8],
            not_before: now().saturating_sub(BEFORE),
            not_after: None,
            role: Role::Authority,
        };
        Ok(Self { certificate: issue(&contents, &key)?, key })
    }
}

fn config() -> responder::Config {
    let flags = CapabilityFlags::CERTIFICATE
        | CapabilityFlags::CHALLENGE
        | CapabilityFlags::MEASUREMENTS_SIGNED
        | CapabilityFlags::MEASUREMENTS_FRESH
        | CapabilityFlags::ENCRYPT
        | CapabilityFlags::MAC
        | CapabilityFlags::KEY_EXCHANGE
        | CapabilityFlags::HEARTBEAT
        | CapabilityFlags::KEY_UPDATE
        | CapabilityFlags::CHUNK;
    responder::Config {
        versions: Version::ALL.to_vec(),
        limits: Limits {
            timeout_exponent: 20,
            flags,
            transfer_bytes_max: TRANSFER_BYTES_MAX,
            message_bytes_max: MESSAGE_BYTES_MAX,
        },
        groups: Group::ALL.to_vec(),
        aeads: Aead::ALL.to_vec(),
        sessions_max: SESSIONS_MAX,
        heartbeat_s: HEARTBEAT_S,
    }
}

/// What the machine's TSM trusts: the vendor, for the devices that it sold, as it sold them.
struct Customer {
    vendor: Arc<Vendor>,
    products: BTreeMap<Address, Product>,
}

/// The TSM's side of SPDM with these devices, by the address of function 0.
pub(super) fn security(vendor: &Arc<Vendor>, products: BTreeMap<Address, Product>) -> Security {
    let customer = Customer { vendor: Arc::clone(vendor), products };
    Security { crypto: &AwsLc, authority: Arc::new(customer) }
}

impl Authority for Customer {
    fn policy(&self, dsm: &FunctionFacts) -> Policy {
        let root = self.vendor.root().map(|root| root.certificate.clone());
        let product = self.products.get(&dsm.address);
        // Of a device that nobody sold, nothing is trusted.
        let roots = root.ok().filter(|_| product.is_some());
        let name = product.map(|product| product.name.clone()).unwrap_or_default();
        Policy {
            trust: Trust {
                roots: Some(roots.into_iter().collect()),
                now: now(),
                usage: LeafUsage::Responder,
                name: DeviceName::Pci(name),
            },
            measurements: product.map(|product| product.measurements.clone()),
            challenge: false,
        }
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
