//! `bindery spdm requester`: what a TSM does with a device, against any device behind a socket.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::spdm::algorithm::{Aead, Group, Suite, Version};
use ::spdm::certificate::{Chain, DeviceName, LeafUsage, Trust};
use ::spdm::crypto::Crypto;
use ::spdm::crypto::aws_lc::{AwsLc, SystemEntropy};
use ::spdm::flow::{Broken, Established, Plan};
use ::spdm::message::{CapabilityFlags, Limits};
use ::spdm::requester::{Config, Requester};
use clap::Args;
use peer::bring_up::{self, Fault, Stage, Stream, Tour};
use peer::capture;
use peer::mailbox_link::{Capture, LinkFault, MailboxLink};
use peer::noted_secrets::NotedSecrets;
use peer::socket::{self, Connection, SocketFault};
use tdisp::exchange::LockInterface;
use tdisp::{InterfaceId, LockFlags, report};

use crate::exit;
use crate::terminal::print;

/// Do with a device what a TSM does: SPDM session, IDE keys, TDISP from CONFIG_UNLOCKED to RUN and back.
///
/// The device is one behind a socket that takes DOE objects in spdm-emu's frames, such as spdm-emu's
/// responder or `bindery spdm responder`. Each stage is printed as it ends.
///
/// Exits with 0 where the flow was completed, 1 where the peer broke a rule or refused, 2 for wrong
/// arguments, 3 where there is no peer.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) peer: Peer,
    /// The interface to lock, run and stop, such as 01:00.0
    #[arg(long, value_name = "FUNCTION", value_parser = super::interface)]
    tdi: Option<InterfaceId>,
    /// Give keys to this stream of the device's link
    #[arg(long, value_name = "STREAM", num_args = 0..=1, default_missing_value = "0")]
    ide: Option<u8>,
    /// The port whose stream gets keys
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    port: u8,
    /// Have the device prove by CHALLENGE that it has the key of its certificate
    #[arg(long)]
    challenge: bool,
}

/// Where the peer is, and how it is spoken to.
#[derive(Clone, Debug, Args)]
pub(crate) struct Peer {
    /// Where the device listens
    #[arg(long, value_name = "HOST:PORT", default_value_t = format!("127.0.0.1:{}", socket::PORT))]
    pub(super) connect: String,
    /// The root that its certificates must lead to, in DER; without it, the one that it shows
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// The name that its certificate must have: pci:Vendor=… or dmtf:ACME:WIDGET:1
    #[arg(long, value_name = "NAME", value_parser = super::device_name)]
    name: Option<DeviceName>,
    /// What its certificate must be for: to respond in SPDM, or to be a server, as DMTF's samples are
    #[arg(long, value_name = "USAGE", default_value = "responder", value_parser = usage)]
    usage: LeafUsage,
    /// Speak only this version: 1.2 or 1.3
    #[arg(long, value_name = "VERSION", value_parser = version)]
    spdm: Option<Version>,
    /// Seconds that an answer may take
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    patience: f32,
    /// Write every object into this pcap file
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Write the secrets that open it into this file; who has it reads the sessions
    #[arg(long, value_name = "FILE")]
    key_log: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match arguments.peer.open() {
        Ok((requester, link)) => flow(arguments, requester, link),
        Err(refused) => refused.tell(),
    }
}

/// Why a conversation did not begin.
pub(super) enum NotOpened {
    Mistake(String),
    NoPeer(SocketFault),
}

impl NotOpened {
    pub(super) fn tell(self) -> ExitCode {
        match self {
            Self::Mistake(mistake) => {
                eprintln!("bindery: {mistake}");
                ExitCode::from(exit::USAGE)
            }
            Self::NoPeer(fault) => {
                eprintln!("bindery: {fault}");
                ExitCode::from(NO_PEER)
            }
        }
    }
}

/// There is nobody to speak to.
pub(super) const NO_PEER: u8 = 3;

impl Peer {
    /// Connects, with a requester that has not spoken yet.
    pub(super) fn open(&self) -> Result<(Requester, MailboxLink), NotOpened> {
        let (make, link) = self.open_many()?;
        Ok((make(), link))
    }

    /// Connects, with a maker of such requesters.
    pub(super) fn open_many(&self) -> Result<(Maker, MailboxLink), NotOpened> {
        let config = self.config().map_err(NotOpened::Mistake)?;
        let crypto = self.crypto().map_err(NotOpened::Mistake)?;
        let capture = self.pcap.as_deref().map(capture_into).transpose();
        let capture = capture.map_err(NotOpened::Mistake)?;
        let patience = Duration::from_secs_f32(self.patience);
        let connection = Connection::to(&self.connect, patience).map_err(NotOpened::NoPeer)?;
        let make =
            Box::new(move || Requester::new(crypto, Box::new(SystemEntropy), config.clone()));
        Ok((make, MailboxLink::new(connection, capture)))
    }

    fn config(&self) -> Result<Config, String> {
        let roots = match &self.root {
            Some(path) => Some(vec![read(path)?]),
            None => None,
        };
        let anybody = anybody();
        Ok(Config {
            versions: self.spdm.map_or(anybody.versions, |version| vec![version]),
            trust: Trust {
                roots,
                usage: self.usage,
                name: self.name.clone().unwrap_or(DeviceName::Any),
                ..anybody.trust
            },
            ..anybody
        })
    }

    /// Cryptography, which lives as long as the process where it writes a key log.
    fn crypto(&self) -> Result<&'static dyn Crypto, String> {
        let Some(path) = &self.key_log else { return Ok(&AwsLc) };
        let log = create(path)?;
        Ok(Box::leak(Box::new(NotedSecrets::new(&AwsLc, log))))
    }
}

/// Makes requesters that have not spoken yet.
pub(super) type Maker = Box<dyn Fn() -> Requester>;

/// A capture that is written into `path`.
pub(super) fn capture_into(path: &Path) -> Result<Capture, String> {
    let writer = capture::Writer::new(create(path)?);
    writer.map_err(|error| format!("{}: {error}", path.display()))
}

/// A requester's that speaks all that is spoken here, with whoever has a certificate.
pub(super) fn anybody() -> Config {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Config {
        versions: Version::ALL.to_vec(),
        limits: LIMITS,
        suites: Suite::ALL.to_vec(),
        groups: Group::ALL.to_vec(),
        aeads: Aead::ALL.to_vec(),
        trust: Trust { roots: None, now, usage: LeafUsage::Responder, name: DeviceName::Any },
    }
}

/// What this side is capable of.
const LIMITS: Limits = Limits {
    timeout_exponent: 0x10,
    flags: CapabilityFlags(
        CapabilityFlags::CERTIFICATE.0
            | CapabilityFlags::CHALLENGE.0
            | CapabilityFlags::ENCRYPT.0
            | CapabilityFlags::MAC.0
            | CapabilityFlags::KEY_EXCHANGE.0
            | CapabilityFlags::HEARTBEAT.0
            | CapabilityFlags::KEY_UPDATE.0,
    ),
    transfer_bytes_max: 4608,
    message_bytes_max: 4608,
};

fn flow(arguments: &Arguments, mut requester: Requester, mut link: MailboxLink) -> ExitCode {
    let key = {
        use ::spdm::crypto::Entropy;
        let mut key = [0; tdisp::ide_km::KEY_BYTES];
        if let Err(fault) = SystemEntropy.fill(&mut key) {
            eprintln!("bindery: {fault}");
            return ExitCode::from(exit::OURS);
        }
        key
    };
    let tour = Tour {
        session: Plan { challenge: arguments.challenge, ..Plan::default() },
        keys: arguments.ide.map(|stream| Stream { stream, port: arguments.port, key }),
        interface: arguments.tdi,
        lock: LockInterface {
            flags: LockFlags::NO_FW_UPDATE,
            default_stream: arguments.ide.unwrap_or_default(),
            mmio_reporting_offset: 0,
            p2p_address_mask: 0,
        },
        portion_bytes: PORTION_BYTES,
    };
    let verified = arguments.peer.root.is_some();
    let taken = bring_up::take(&mut requester, &mut link, &tour, &mut |stage| {
        print(&format!("{}\n", words(&stage, verified)));
    });
    let (exchanges, is_there) = (link.sent, link.has_heard());
    link.part();
    match taken {
        Ok(()) => {
            print(&format!("completed in {exchanges} exchanges\n"));
            ExitCode::SUCCESS
        }
        Err(fault) => {
            let requests = if exchanges == 1 { "request" } else { "requests" };
            eprintln!("bindery: after {exchanges} {requests}: {}", reason(&fault));
            if is_there { ExitCode::FAILURE } else { ExitCode::from(NO_PEER) }
        }
    }
}

/// Bytes of a report asked for at a time; what any device must be able to send.
const PORTION_BYTES: u16 = 1024;

/// Why the flow ended, to the bottom.
pub(super) fn reason(fault: &Fault<LinkFault>) -> String {
    if let Fault::Session(Broken::Link(fault)) = fault {
        return fault.to_string();
    }
    fault.to_string()
}

fn words(stage: &Stage, verified: bool) -> String {
    match stage {
        Stage::Session(established) => session_words(established, verified),
        Stage::Port(location, registers) => format!(
            "IDE port at {:02x}:{:02x}.{}, {registers} bytes of registers",
            location.bus,
            location.devfn >> 3,
            location.devfn & 7
        ),
        Stage::KeysGo(count) => format!("{count} IDE keys in use"),
        Stage::KeysStop(count) => format!("{count} IDE keys stopped"),
        Stage::Versions(versions) => {
            let versions = versions.iter().map(|one| format!("{}.{}", one >> 4, one & 0xf));
            format!("TDISP {}", versions.collect::<Vec<_>>().join(", "))
        }
        Stage::Capabilities(capabilities) => format!(
            "DSM: lock flags {:#x}, {} address bits",
            capabilities.lock_flags.0, capabilities.address_width_bits
        ),
        Stage::State(state) => format!("the interface is in {state}"),
        Stage::Locked => "locked".into(),
        Stage::Report(report) => report_words(report),
        Stage::Started => "started".into(),
        Stage::Stopped => "stopped".into(),
        Stage::Ended => "session ended".into(),
    }
}

fn session_words(established: &Established, verified: bool) -> String {
    let selected = established.selected;
    let certificates =
        Chain::read(&established.chain, selected.suite).map_or(0, |chain| chain.certificates.len());
    let root = if verified { "to the root given" } else { "to a root that nobody verified" };
    format!(
        "session {:08x}: SPDM {}.{}, {:?}, {:?}, {:?}; {certificates} certificates {root}; {} measurements, signed",
        established.id.joined(),
        selected.version.wire() >> 4,
        selected.version.wire() & 0xf,
        selected.suite,
        selected.group,
        selected.aead,
        established.measurements.blocks.len()
    )
}

fn report_words(bytes: &[u8]) -> String {
    match report::decode(bytes) {
        Ok(report) => {
            let ranges = report.ranges.iter();
            let pages: u64 = ranges.map(|range| u64::from(range.pages)).sum();
            let count = report.ranges.iter().count();
            format!("report of {} bytes: {count} ranges, {pages} pages", bytes.len())
        }
        Err(fault) => format!("report of {} bytes that is none: {fault}", bytes.len()),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn create(path: &Path) -> Result<Box<dyn Write + Send>, String> {
    let file = fs::File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Box::new(file))
}

fn usage(text: &str) -> Result<LeafUsage, String> {
    match text {
        "responder" => Ok(LeafUsage::Responder),
        "server" => Ok(LeafUsage::Server),
        _ => Err("responder or server".into()),
    }
}

fn version(text: &str) -> Result<Version, String> {
    match text {
        "1.2" => Ok(Version::V12),
        "1.3" => Ok(Version::V13),
        _ => Err("1.2 and 1.3 are spoken".into()),
    }
}

fn seconds(text: &str) -> Result<f32, String> {
    let seconds: f32 = text.parse().map_err(|_| "no number of seconds")?;
    let sensible = 0.001..=3600.0;
    if sensible.contains(&seconds) { Ok(seconds) } else { Err("0.001 to 3600 seconds".into()) }
}
