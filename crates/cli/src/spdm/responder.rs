//! `bindery spdm responder`: an emulated device for any requester.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use ::spdm::Frame;
use ::spdm::certificate::Chain;
use ::spdm::crypto::aws_lc::{AwsLc, SystemEntropy};
use ::spdm::flow::{self, Link};
use ::spdm::requester::{Ask, Outcome, Requester};
use clap::Args;
use device::security::Manager;
use pci::regs::{command, header};
use pci::{Address, DmaFault, Function, Interrupt, Notices};
use peer::mailbox_link::Capture;
use peer::socket::{self, Mailbox, SocketFault};
use supervisor::Platform;
use supervisor::machine::Machine;

use super::requester::{anybody, capture_into};
use crate::exit;
use crate::terminal::print;

/// Be a device: answer SPDM, IDE_KM and TDISP over a socket, in spdm-emu's frames.
///
/// The device is a TEE-IO function of the platform, as the TSM of `bindery run` finds it, with memory and
/// bus mastering enabled as a host would do before LOCK. QEMU's `-device nvme,spdm_port=` and DMTF's
/// requesters speak to it. Serves one connection after the other until one asks to shut down.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where to listen
    #[arg(long, value_name = "HOST:PORT", default_value_t = format!("127.0.0.1:{}", socket::PORT))]
    listen: String,
    /// The machine whose device it is (see `bindery platform`)
    #[arg(long, value_name = "FILE")]
    platform: Option<PathBuf>,
    /// The device's function 0 [default: the first that is TEE-IO capable]
    #[arg(long, value_name = "FUNCTION")]
    device: Option<Address>,
    /// Write the certificate of the device's root into this file, in DER
    #[arg(long, value_name = "FILE")]
    write_root: Option<PathBuf>,
    /// Write every object into this pcap file
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(mistake) => {
            eprintln!("bindery: {mistake}");
            ExitCode::from(exit::USAGE)
        }
    }
}

fn serve(arguments: &Arguments) -> Result<(), String> {
    let platform = match &arguments.platform {
        Some(path) => Platform::read(path).map_err(|error| error.to_string())?,
        None => Platform::default(),
    };
    let machine = Machine::build(&platform, Arc::new(Unheard));
    let (address, manager) = device(&machine, arguments.device)?;
    enable(&machine, &manager);
    keep_time(&machine, &manager).map_err(|error| format!("cannot start a thread: {error}"))?;
    if let Some(path) = &arguments.write_root {
        write_root(path, &manager)?;
    }
    let capture = arguments.pcap.as_deref().map(capture_into).transpose()?;
    let cannot = |error| format!("cannot listen at {}: {error}", arguments.listen);
    let listener = TcpListener::bind(&arguments.listen).map_err(cannot)?;
    let at = listener.local_addr().map_err(cannot)?;
    print(&format!("device {address} listens at {at}\n"));
    let mut device = Device { manager, capture };
    let mut lost = |fault: &SocketFault| eprintln!("bindery: a connection ended: {fault}");
    socket::serve(&listener, &mut device, &mut lost).map_err(|error| error.to_string())
}

/// The device that is meant, and its security manager.
fn device(machine: &Machine, wanted: Option<Address>) -> Result<(Address, Arc<Manager>), String> {
    let mut capable = machine.devices.iter().filter_map(|device| {
        let manager = device.security.as_ref()?;
        device.physical_function.is_none().then_some((device.address, manager))
    });
    let found = match wanted {
        Some(wanted) => capable.find(|(address, _)| *address == wanted),
        None => capable.next(),
    };
    let (address, manager) = found.ok_or_else(|| match wanted {
        Some(wanted) => format!("{wanted} is no TEE-IO capable physical function of the platform"),
        None => "the platform has no TEE-IO capable function".into(),
    })?;
    Ok((address, Arc::clone(manager)))
}

/// Memory and bus mastering on, as LOCK wants them.
fn enable(machine: &Machine, manager: &Arc<Manager>) {
    let of_device = machine
        .devices
        .iter()
        .filter(|device| device.security.as_ref().is_some_and(|other| Arc::ptr_eq(other, manager)));
    for device in of_device {
        let function: &dyn Function = device.function.as_ref();
        let mut bytes = [0; 2];
        function.config_read(header::COMMAND, &mut bytes);
        let on = u16::from_le_bytes(bytes) | command::MEMORY | command::BUS_MASTER;
        function.config_write(header::COMMAND, &on.to_le_bytes());
    }
}

/// From now on the device ends sessions whose heartbeat does not come.
fn keep_time(machine: &Machine, manager: &Arc<Manager>) -> io::Result<()> {
    machine.clock.start()?;
    let manager = Arc::clone(manager);
    thread::Builder::new().name("sessions".to_owned()).spawn(move || while manager.tend() {})?;
    Ok(())
}

fn write_root(path: &Path, manager: &Arc<Manager>) -> Result<(), String> {
    let mut requester = Requester::new(&AwsLc, Box::new(SystemEntropy), anybody());
    let mut link = Inside(Arc::clone(manager));
    let mut ask =
        |ask| flow::run(&mut requester, &mut link, &ask).map_err(|fault| fault.to_string());
    let Outcome::Connected(selected) = ask(Ask::Connect)? else { return Err(MIXED_UP.into()) };
    ask(Ask::Digests)?;
    let Outcome::Certificate(chain) = ask(Ask::Certificate { slot: 0 })? else {
        return Err(MIXED_UP.into());
    };
    let chain = Chain::read(&chain, selected.suite).map_err(|fault| fault.to_string())?;
    let root = chain.certificates.first().ok_or(MIXED_UP)?;
    fs::write(path, root).map_err(|error| format!("{}: {error}", path.display()))
}

const MIXED_UP: &str = "the device answers something else than was asked";

/// The way to a device in this process.
struct Inside(Arc<Manager>);

impl Link for Inside {
    type Fault = Infallible;

    fn exchange(&mut self, frame: &Frame) -> Result<Frame, Infallible> {
        let answer = frame.to_object().ok().and_then(|object| self.0.exchange(&object));
        let frame = answer.and_then(|answer| Frame::from_object(&answer).ok());
        // Nothing of an answer is refused by the requester as any wrong one.
        Ok(frame.unwrap_or(Frame::Clear(Vec::new())))
    }

    fn wait(&mut self, _: u64) -> Result<(), Infallible> {
        Ok(())
    }
}

/// The device behind the socket.
struct Device {
    manager: Arc<Manager>,
    capture: Option<Capture>,
}

impl Mailbox for Device {
    fn answer(&mut self, object: &[u8]) -> Option<Vec<u8>> {
        let answer = self.manager.exchange(object)?;
        if let Some(capture) = &mut self.capture {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let written = capture.packet(now, object).and_then(|()| capture.packet(now, &answer));
            if let Err(error) = written {
                eprintln!("bindery: the capture cannot be written any more: {error}");
                self.capture = None;
            }
        }
        Some(answer)
    }
}

/// Nobody drives the device's engine, so nothing goes wrong with it.
struct Unheard;

impl Notices for Unheard {
    fn dma_fault(&self, _: Address, _: &DmaFault) {}

    fn interrupt_unheard(&self, _: Address, _: Interrupt) {}
}
