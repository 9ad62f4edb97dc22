//! What it costs to connect a device and to run its TDI: certificates, key exchange, measurements, six
//! keys, LOCK, START, both ends in this process.
//!
//! Each round times the flow, the sum of its own public-key operations one by one and that of its hashes,
//! MACs and ciphers, the same flow on RustCrypto, the flow with two devices on two threads against one on
//! one, and the flow over TCP. Figures are medians of the rounds; ratios are medians of each round's ratio,
//! so that a slow round is slow on both sides. With `--check` it fails where RustCrypto is not [`RUST_CRYPTO_LEAST`]
//! times as slow, the one ratio here that no busy machine hides.

#[path = "connect/noted.rs"]
mod noted;
#[path = "connect/socket.rs"]
mod socket;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use device::security::{Equipment, Manager};
use noted::{Again, Noted};
use pci::regs::{command, header};
use pci::{Address, DmaFault, Interrupt, Notices};
use spdm::algorithm::{Aead, Group, Suite, Version};
use spdm::certificate::{Chain, DeviceName, LeafUsage, Trust};
use spdm::crypto::aws_lc::{AwsLc, SystemEntropy};
use spdm::crypto::rust_crypto::{self, RustCrypto};
use spdm::crypto::{Crypto, Entropy, Signer, aws_lc, draw_key_share};
use spdm::issue::{Contents, Role, issue};
use spdm::message::{Block, CapabilityFlags, Limits};
use spdm::requester;
use spdm::responder::{Config, Identity, Responder};
use supervisor::Platform;
use supervisor::machine::Machine;
use tsm::software::{Authority, Policy, Security, Settings, Tsm};
use tsm::{
    Arch, Cancel, FunctionFacts, GuestRequest, Links, Memory, Op, Reply, Transport, Unreachable,
    VmId,
};

const ROUNDS: usize = 30;
const SUITE: Suite = Suite::P384Sha384;
const NOW: Duration = Duration::from_secs(1_767_225_600);
/// What one connect computes, both ends together.
const EXCHANGES: u32 = 2;
const VERIFICATIONS: u32 = 3;
const SIGNATURES: u32 = 2;
const VM: VmId = VmId(1);
/// What spdm-emu takes from GET_VERSION to START_INTERFACE_RESPONSE over TCP without delays, its release
/// build at both ends: 32 exchanges, in milliseconds.
const BASELINE_MS: f64 = 69.0;
/// How many times as long the flow has to take on RustCrypto.
const RUST_CRYPTO_LEAST: f64 = 2.7;

fn main() -> ExitCode {
    let stand = Stand::new();
    let again = Again::new(stand.noted());
    let rounds: Vec<_> = (0..ROUNDS).map(|_| stand.round(&again)).collect();
    print_table(&rounds);
    let rust_crypto = median(rounds.iter().map(|round| round.rust_crypto / round.flow).collect());
    if std::env::args().any(|argument| argument == "--check") && rust_crypto < RUST_CRYPTO_LEAST {
        println!("the flow on RustCrypto takes {rust_crypto:.2}x: less than {RUST_CRYPTO_LEAST}x");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Microseconds.
#[derive(Clone, Copy)]
struct Round {
    flow: f64,
    public_key: f64,
    /// Hashes, MACs and ciphers.
    symmetric: f64,
    rust_crypto: f64,
    /// Of one device after the other, and of both at once.
    serial: f64,
    parallel: f64,
    /// Milliseconds.
    socket: f64,
    exchanges: usize,
}

/// A provider of cryptography, on both sides.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Provider {
    AwsLc,
    RustCrypto,
    /// AwsLc, taken down.
    Noted,
}

impl Provider {
    const ALL: [Self; 3] = [Self::AwsLc, Self::RustCrypto, Self::Noted];

    fn crypto(self) -> &'static dyn Crypto {
        match self {
            Self::AwsLc => &AwsLc,
            Self::RustCrypto => &RustCrypto,
            Self::Noted => &Noted,
        }
    }

    /// A new key, and both coordinates of its public half.
    fn key(self) -> (Box<dyn Signer>, Vec<u8>) {
        match self {
            Self::AwsLc | Self::Noted => {
                let key = aws_lc::PrivateKey::generate(SUITE).expect("random bytes");
                let public = key.public();
                (Box::new(key), public)
            }
            Self::RustCrypto => {
                let mut scalar = [0; 48];
                SystemEntropy.fill(&mut scalar).expect("random bytes");
                // Below the order of the group.
                scalar[0] = 0x7f;
                let key = rust_crypto::PrivateKey::from_scalar(SUITE, &scalar).expect("a scalar");
                let public = key.public();
                (Box::new(key), public)
            }
        }
    }
}

/// A machine with two TEE devices, and a TSM for each provider.
struct Stand {
    machine: Machine,
    devices: [Address; 2],
    managers: [Arc<Manager>; 2],
    tsms: [String; 3],
    root: (Vec<u8>, aws_lc::PrivateKey),
}

impl Stand {
    fn new() -> Self {
        let plain = "address = \"b1d0:02:00.0\"\nmodel = \"dma-engine\"";
        let text = supervisor::DEFAULT_TOML.replace(plain, &format!("{plain}\ntee = true"));
        let platform = Platform::parse("bench", &text).expect("the default, with one word more");
        let machine = Machine::build(&platform, Arc::new(Silent));
        machine.clock.start().expect("a thread");
        let devices =
            ["b1d0:01:00.0", "b1d0:02:00.0"].map(|address| address.parse().expect("an address"));
        let managers = devices.map(|address| {
            let found = machine.devices.iter().find(|device| device.address == address);
            let device = found.expect("it is there");
            let on = command::MEMORY | command::BUS_MASTER;
            device.function.config_write(header::COMMAND, &on.to_le_bytes());
            device.security.clone().expect("a TEE device")
        });
        let key = aws_lc::PrivateKey::generate(SUITE).expect("random bytes");
        let certificate = certificate("root", &key.public(), Role::Authority, &key);
        let tsms = Provider::ALL.map(|provider| {
            let links = Wires(devices.into_iter().zip(managers.clone()).collect());
            let authority = Arc::new(Customer(certificate.clone()));
            let security = Security { crypto: provider.crypto(), authority };
            let settings = Settings::default();
            let tsm = Tsm::secure(Arc::new(links), Arc::new(System), settings, security);
            format!("tsm{}", machine.tsm.register(tsm))
        });
        Self { machine, devices, managers, tsms, root: (certificate, key) }
    }

    /// What a connect computes besides its public-key operations.
    fn noted(&self) -> Vec<noted::Note> {
        self.equip(Provider::Noted, 0);
        noted::take();
        self.up(Provider::Noted, 0);
        let notes = noted::take();
        self.down(Provider::Noted, 0);
        notes
    }

    fn round(&self, again: &Again) -> Round {
        let flow = self.one(Provider::AwsLc, 0);
        let public_key = primitives(Provider::AwsLc);
        let symmetric = micros(|| again.compute());
        let other = self.one(Provider::AwsLc, 1);
        let parallel = self.both(Provider::AwsLc);
        let rust_crypto = self.one(Provider::RustCrypto, 0);
        let (socket, exchanges) = self.over_socket();
        let serial = flow + other;
        Round { flow, public_key, symmetric, rust_crypto, serial, parallel, socket, exchanges }
    }

    /// The flow over TCP.
    fn over_socket(&self) -> (f64, usize) {
        self.equip(Provider::AwsLc, 0);
        let config = requester::Config {
            versions: Version::ALL.to_vec(),
            // Certificates come in two portions.
            limits: Limits { transfer_bytes_max: 512, message_bytes_max: 512, ..config().limits },
            suites: vec![SUITE],
            groups: Group::ALL.to_vec(),
            aeads: Aead::ALL.to_vec(),
            trust: Trust {
                roots: None,
                now: NOW,
                usage: LeafUsage::Responder,
                name: DeviceName::Any,
            },
        };
        socket::round(&self.managers[0], config)
    }

    /// One device alone.
    fn one(&self, provider: Provider, device: usize) -> f64 {
        self.equip(provider, device);
        let took = micros(|| self.up(provider, device));
        self.down(provider, device);
        took
    }

    /// Both devices at once.
    fn both(&self, provider: Provider) -> f64 {
        (0..2).for_each(|device| self.equip(provider, device));
        let start = Barrier::new(3);
        let took = thread::scope(|scope| {
            let threads = [0, 1].map(|device| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    self.up(provider, device);
                })
            });
            start.wait();
            micros(|| threads.into_iter().for_each(|thread| thread.join().expect("it came up")))
        });
        (0..2).for_each(|device| self.down(provider, device));
        took
    }

    /// Gives a device a new identity.
    fn equip(&self, provider: Provider, device: usize) {
        let (certificate_of_root, root) = &self.root;
        let (key, public) = provider.key();
        let leaf = certificate("leaf", &public, Role::Device(DeviceName::Any), root);
        let chain = Chain::new(&AwsLc, SUITE, vec![certificate_of_root.clone(), leaf]);
        let crypto = provider.crypto();
        let identity = Identity::new(crypto, &chain, key).expect("a short chain");
        let responder = Responder::new(crypto, Box::new(SystemEntropy), config(), vec![identity]);
        let responder = responder.expect("one identity");
        let block = |index| Block { index, kind: 1, value: vec![index; SUITE.hash_bytes()] };
        let measurements = (1..4).map(block).collect();
        let equipment = Mutex::new(Some(Equipment { responder, measurements }));
        self.managers[device].equip(Box::new(move || equipment.lock().ok()?.take()));
    }

    /// Connects a device, and takes the TDI of its function 0 to RUN.
    fn up(&self, provider: Provider, device: usize) {
        let (registry, function) = (&self.machine.tsm, self.devices[device]);
        let connected = registry.connect(function, self.tsms[provider as usize].as_bytes());
        connected.expect("a device that is trusted");
        registry.bind(function, VM, 0x10, &Cancel::new()).expect("nobody else has it");
        for state in [1_u32, 2] {
            let request = &state.to_le_bytes();
            let (arch, op) = (Arch::Cca, Op::SetTdiState);
            let request = GuestRequest { arch, op, request, response_room: 0 };
            let answered = registry.request(function, &request, &NoMemory, &Cancel::new());
            answered.expect("LOCK, then START");
        }
    }

    fn down(&self, provider: Provider, device: usize) {
        let name = self.tsms[provider as usize].as_bytes();
        self.machine.tsm.disconnect(self.devices[device], name).expect("it is connected");
    }
}

fn certificate(subject: &str, public: &[u8], role: Role, signer: &dyn Signer) -> Vec<u8> {
    let contents = Contents {
        issuer: "root",
        subject,
        suite: SUITE,
        public,
        serial: [1; 8],
        not_before: NOW,
        not_after: None,
        role,
    };
    issue(&contents, signer).expect("a signature")
}

fn config() -> Config {
    let flags = CapabilityFlags::CERTIFICATE
        | CapabilityFlags::CHALLENGE
        | CapabilityFlags::MEASUREMENTS_SIGNED
        | CapabilityFlags::ENCRYPT
        | CapabilityFlags::MAC
        | CapabilityFlags::KEY_EXCHANGE
        | CapabilityFlags::HEARTBEAT
        | CapabilityFlags::KEY_UPDATE;
    Config {
        versions: Version::ALL.to_vec(),
        limits: Limits {
            timeout_exponent: 20,
            flags,
            transfer_bytes_max: 4608,
            message_bytes_max: 4608,
        },
        groups: Group::ALL.to_vec(),
        aeads: Aead::ALL.to_vec(),
        sessions_max: 2,
        heartbeat_s: 0,
    }
}

/// The public-key operations of one connect, one after the other.
fn primitives(provider: Provider) -> f64 {
    const MESSAGE: &[u8] = &[7; 148];
    let crypto = provider.crypto();
    let (signer, public) = provider.key();
    let peer = draw_key_share(crypto, &mut SystemEntropy, Group::Secp384r1).expect("a share");
    let peer = peer.public();
    let signature = signer.sign(MESSAGE).expect("a signature");
    micros(|| {
        for _ in 0..EXCHANGES {
            let share = draw_key_share(crypto, &mut SystemEntropy, Group::Secp384r1);
            let share = share.expect("a share");
            assert_eq!(share.public().len(), 96);
            share.agree(&peer).expect("a point");
        }
        for _ in 0..SIGNATURES {
            signer.sign(MESSAGE).expect("a signature");
        }
        for _ in 0..VERIFICATIONS {
            crypto.verify(SUITE, &public, MESSAGE, &signature).expect("its own");
        }
    })
}

fn micros(what: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    what();
    begun.elapsed().as_secs_f64() * 1e6
}

fn print_table(rounds: &[Round]) {
    let of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
    println!("| | median | |");
    println!("|---|---|---|");
    println!("| connect, LOCK, START | {:.0} us | |", of(|round| round.flow));
    let (public_key, ratio) = (of(|r| r.public_key), of(|r| r.flow / r.public_key));
    println!("| its public-key operations | {public_key:.0} us | the flow takes {ratio:.2}x |");
    let ratio = of(|r| r.flow / (r.public_key + r.symmetric));
    let primitives = of(|r| r.public_key + r.symmetric);
    println!(
        "| with its hashes, MACs, ciphers | {primitives:.0} us | the flow takes {ratio:.2}x |"
    );
    let (rust_crypto, ratio) = (of(|r| r.rust_crypto), of(|r| r.rust_crypto / r.flow));
    println!("| the flow on RustCrypto | {rust_crypto:.0} us | {ratio:.2}x |");
    let (parallel, ratio) = (of(|r| r.parallel), of(|r| r.serial / r.parallel));
    println!("| two devices at once | {parallel:.0} us | {ratio:.2}x one after the other |");
    let (socket, ratio) = (of(|r| r.socket), of(|r| BASELINE_MS / r.socket));
    let exchanges = rounds.first().map_or(0, |round| round.exchanges);
    println!(
        "| over TCP, {exchanges} exchanges | {socket:.2} ms | {BASELINE_MS} ms is {ratio:.1}x that |"
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

struct Wires(BTreeMap<Address, Arc<Manager>>);

impl Links for Wires {
    fn transport(&self, function: Address) -> Option<Arc<dyn Transport>> {
        Some(Arc::new(Channel(Arc::clone(self.0.get(&function)?))))
    }
}

struct Channel(Arc<Manager>);

impl Transport for Channel {
    fn submit(&self, object: &[u8], _: Reply) -> Option<Vec<u8>> {
        Some(self.0.exchange(object).unwrap_or_default())
    }

    fn abort(&self) {}
}

/// Trusts this root.
struct Customer(Vec<u8>);

impl Authority for Customer {
    fn policy(&self, _: &FunctionFacts) -> Policy {
        let roots = Some(vec![self.0.clone()]);
        let (usage, name) = (LeafUsage::Responder, DeviceName::Any);
        Policy {
            trust: Trust { roots, now: NOW, usage, name },
            measurements: None,
            challenge: false,
        }
    }
}

struct System;

impl tsm::Entropy for System {
    fn fill(&self, into: &mut [u8]) {
        SystemEntropy.fill(into).expect("random bytes");
    }
}

struct NoMemory;

impl Memory for NoMemory {
    fn read(&self, _: u64, _: &mut [u8]) -> Result<(), Unreachable> {
        Err(Unreachable)
    }
}

struct Silent;

impl Notices for Silent {
    fn dma_fault(&self, _: Address, _: &DmaFault) {}
    fn interrupt_unheard(&self, _: Address, _: Interrupt) {}
}
