//! The data object exchange mailbox as a client uses it.

use pci::regs::{doe, ext_id};
use pci::{Function, Reset};

use crate::rig::Rig;

struct Client<'a> {
    rig: &'a Rig,
    at: u16,
}

impl<'a> Client<'a> {
    fn new(rig: &'a Rig) -> Self {
        Self { rig, at: rig.extended(ext_id::DOE) }
    }

    fn write(&self, register: u16, value: u32) {
        self.rig.engines[0].config_write(self.at + register, &value.to_le_bytes());
    }

    fn read(&self, register: u16) -> u32 {
        let mut bytes = [0; 4];
        self.rig.engines[0].config_read(self.at + register, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn send(&self, object: &[u32]) {
        for &dword in object {
            self.write(doe::WRITE_MAILBOX, dword);
        }
        self.write(doe::CONTROL, doe::GO);
    }

    /// The whole answer, or the status where there is none.
    fn receive(&self) -> Result<Vec<u32>, u32> {
        let mut answer = Vec::new();
        while self.read(doe::STATUS) == doe::READY {
            answer.push(self.read(doe::READ_MAILBOX));
            self.write(doe::READ_MAILBOX, 0);
        }
        let status = self.read(doe::STATUS);
        if answer.is_empty() { Err(status) } else { Ok(answer) }
    }

    fn discover(&self, index: u32) -> Result<Vec<u32>, u32> {
        self.send(&[1, 3, index]);
        self.receive()
    }
}

#[test]
fn discovery_lists_the_protocols() {
    let rig = Rig::new();
    let client = Client::new(&rig);
    assert_eq!(client.discover(0), Ok(vec![1, 3, 0x0100_0001]));
    assert_eq!(client.discover(1), Ok(vec![1, 3, 0x0201_0001]));
    assert_eq!(client.discover(2), Ok(vec![1, 3, 0x0002_0001]));
    assert_eq!(client.discover(3), Ok(vec![1, 3, 0xffff]));
}

#[test]
fn other_objects_end_in_error_until_abort() {
    let rig = Rig::new();
    let client = Client::new(&rig);
    let objects: [&[u32]; 5] =
        [&[0x0001_0001, 3, 0], &[0x0002_0001, 2], &[1, 4, 0], &[], &[0x1234, 3, 0]];
    for object in objects {
        client.send(object);
        assert_eq!(client.receive(), Err(doe::ERROR), "{object:x?}");
        client.send(&[1, 3, 0]);
        assert_eq!(client.receive(), Err(doe::ERROR), "it stays");
        client.write(doe::CONTROL, doe::ABORT);
        assert!(client.discover(0).is_ok());
    }
    client.send(&[7; 100]);
    assert_eq!(client.receive(), Err(doe::ERROR), "too long");
    rig.engines[0].reset(Reset::Function);
    assert!(client.discover(0).is_ok());
}

#[test]
fn an_answer_that_was_not_read_is_not_written_over() {
    let rig = Rig::new();
    let client = Client::new(&rig);
    client.send(&[1, 3, 0]);
    client.send(&[1, 3, 1]);
    assert_eq!(client.receive(), Err(doe::ERROR));
}

#[test]
fn it_is_busy_while_it_is_claimed() {
    let rig = Rig::new();
    let client = Client::new(&rig);
    client.send(&[1, 3, 0]);
    let (first, second) = (rig.manager.claim_mailbox(), rig.manager.claim_mailbox());
    for deed in [doe::ABORT, doe::GO] {
        assert_eq!(client.discover(0), Err(doe::BUSY));
        client.write(doe::CONTROL, deed);
    }
    drop(first);
    rig.engines[0].reset(Reset::Function);
    assert_eq!(client.read(doe::STATUS), doe::BUSY);
    drop(second);
    assert_eq!(client.read(doe::STATUS), 0);
    assert!(client.discover(1).is_ok());
}
