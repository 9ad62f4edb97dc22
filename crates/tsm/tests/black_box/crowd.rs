//! Many devices: slow ones delay those who want them and nobody else.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pci::Address;
use tdisp::MessageType;
use tsm::software::{Settings, Tsm};
use tsm::{Binding, Cancel, Entropy, FunctionFacts, Links, Registry, Transport};

use crate::support::{Answers, Clock, Device, Heard, TIMEOUT_MS, VM, settings, wait_until};

const DEVICES: u8 = 66;

struct Crowd(Vec<(Address, Arc<Device>)>);
struct Zeroes;

impl Links for Crowd {
    fn transport(&self, function: Address) -> Option<Arc<dyn Transport>> {
        let device = self.0.iter().find(|(address, _)| *address == function)?;
        Some(Arc::clone(&device.1) as Arc<dyn Transport>)
    }
}

impl Entropy for Zeroes {
    fn fill(&self, into: &mut [u8]) {
        into.fill(0);
    }
}

#[test]
fn sixty_four_binds_in_flight_delay_nobody_else() {
    let clock = Clock::standing();
    let addresses: Vec<_> =
        (1..=DEVICES).map(|bus| Address::new(0xb1d0, bus, 0, 0).unwrap()).collect();
    let devices: Vec<_> =
        addresses.iter().map(|a| (*a, Device::new(&[a.requester_id()]))).collect();
    let facts = addresses.iter().map(|address| FunctionFacts {
        address: *address,
        requester_id: address.requester_id(),
        physical_function: None,
        endpoint: true,
        tee_io: true,
        ide: true,
        secure_mailbox: true,
    });
    let heard = Arc::new(Heard::default());
    let registry = Registry::new(facts.collect(), clock.timers.clone(), settings(), heard);
    let links = Arc::new(Crowd(devices.clone()));
    registry.register(Tsm::new(links, Arc::new(Zeroes), Settings::default()));
    for address in &addresses {
        registry.connect(*address, b"tsm0").unwrap();
    }
    let ((slow, _), quick) = (addresses.split_at(64), &addresses[64..]);
    for (_, device) in &devices[..64] {
        device.except(MessageType::GET_VERSION, Answers::After(500));
    }
    let binds: Vec<_> = slow
        .iter()
        .map(|function| {
            let (registry, function) = (Arc::clone(&registry), *function);
            thread::spawn(move || registry.bind(function, VM, 1, &Cancel::new()))
        })
        .collect();
    let in_flight = || slow.iter().filter(|f| registry.binding(**f) == Binding::Binding).count();
    wait_until(|| in_flight() == 64);
    let start = Instant::now();
    for function in quick {
        registry.bind(*function, VM, 1, &Cancel::new()).unwrap();
        registry.unbind(*function);
        registry.disconnect(*function, b"tsm0").unwrap();
    }
    let took = start.elapsed();
    println!("two devices bound, unbound and disconnected in {took:?} beside 64 slow binds");
    assert_eq!(in_flight(), 64);
    assert!(took < Duration::from_millis(100), "{took:?}");
    for bind in binds {
        while !bind.is_finished() {
            clock.advance(100);
        }
        assert_eq!(bind.join().unwrap(), Ok(()));
    }
    for (_, device) in &devices {
        device.take_log();
        device.answers(Answers::After(500));
    }
    // Each takes half a second; together they take what one may.
    let end = {
        let registry = Arc::clone(&registry);
        thread::spawn(move || registry.unregister(0))
    };
    wait_until(|| devices[63].1.count("STOP") == 1);
    let start_ms = clock.now_ms();
    clock.advance(2 * TIMEOUT_MS - 1);
    wait_until(|| end.is_finished());
    assert!(clock.now_ms() - start_ms < 2 * TIMEOUT_MS);
    end.join().unwrap();
    let counters = registry.counters();
    assert_eq!(counters.binds, counters.unbinds);
}
