//! The same flow over TCP on the loopback, our requester at one end and our device at the other.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use device::security::Manager;
use peer::bring_up::{self, Stage, Stream, Tour};
use peer::mailbox_link::MailboxLink;
use peer::socket::{self, Command, Connection, Mailbox, Message, Transport};
use spdm::Frame;
use spdm::crypto::aws_lc::{AwsLc, SystemEntropy};
use spdm::flow::{Link, Plan};
use spdm::requester::{self, Requester};
use tdisp::InterfaceId;
use tdisp::exchange::LockInterface;

/// Bytes of a report asked for at a time, so that there are as many exchanges as in what this is held against.
const PORTION_BYTES: u16 = 16;
const PATIENCE: Duration = Duration::from_secs(10);

/// From the first byte of GET_VERSION to the last of START_INTERFACE_RESPONSE, in milliseconds, and the exchanges
/// on the way.
pub(crate) fn round(manager: &Arc<Manager>, config: requester::Config) -> (f64, usize) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let mut device = Device(Arc::clone(manager));
    let server = thread::spawn(move || {
        let _ = socket::serve(&listener, &mut device, &mut |_| {});
    });
    let connection = Connection::to(&address, PATIENCE).expect("it listens");
    let mut link = Counted { link: MailboxLink::new(connection, None), exchanges: 0 };
    let mut requester = Requester::new(&AwsLc, Box::new(SystemEntropy), config);
    let begun = Instant::now();
    let mut started = None;
    let tour = Tour {
        session: Plan::default(),
        keys: Some(Stream { stream: 0, port: 0, key: [7; 32] }),
        interface: Some(InterfaceId::new(0x0100)),
        lock: LockInterface::default(),
        portion_bytes: PORTION_BYTES,
    };
    bring_up::take(&mut requester, &mut link, &tour, &mut |stage| {
        if matches!(stage, Stage::Started) {
            started = Some(begun.elapsed());
        }
    })
    .expect("a device that is trusted");
    let exchanges = link.exchanges - AFTER_START;
    drop(link);
    let mut end = Connection::to(&address, PATIENCE).expect("it still listens");
    let (command, transport) = (Command::SHUTDOWN, Transport::PCI_DOE);
    end.send(&Message { command, transport, payload: Vec::new() }).expect("it is told to end");
    let _ = end.receive();
    server.join().expect("it ended");
    (started.expect("it runs").as_secs_f64() * 1e3, exchanges)
}

/// GET_STATE, STOP, GET_STATE, six K_SET_STOP and END_SESSION.
const AFTER_START: usize = 10;

struct Counted {
    link: MailboxLink,
    exchanges: usize,
}

impl Link for Counted {
    type Fault = peer::mailbox_link::LinkFault;

    fn exchange(&mut self, frame: &Frame) -> Result<Frame, Self::Fault> {
        self.exchanges += 1;
        self.link.exchange(frame)
    }

    fn wait(&mut self, time_us: u64) -> Result<(), Self::Fault> {
        Link::wait(&mut self.link, time_us)
    }
}

struct Device(Arc<Manager>);

impl Mailbox for Device {
    fn answer(&mut self, object: &[u8]) -> Option<Vec<u8>> {
        self.0.exchange(object)
    }
}
