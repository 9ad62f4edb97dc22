//! `bindery spdm` from outside: our requester and our device over TCP, the rules, what was said in words;
//! and QEMU's own mailbox in front of our device, driven through its config space as a guest would.
//!
//! `BINDERY_SPDM_PEER=HOST:PORT` names a device to run our requester against; without it that test is
//! shown as ignored.

mod programs;
#[expect(dead_code, reason = "no guest memory and no monitor are needed here")]
mod qtest;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libtest_mimic::{Arguments, Failed, Trial};
use peer::bring_up::{self, Stage, Stream, Tour};
use programs::{BINDERY, Scratch};
use qtest::{PROGRAM, Qemu};
use spdm::Frame;
use spdm::algorithm::{Aead, Group, Suite, Version};
use spdm::certificate::{DeviceName, LeafUsage, Trust};
use spdm::crypto::aws_lc::{AwsLc, SystemEntropy};
use spdm::doe;
use spdm::flow::{Link, Plan};
use spdm::message::{CapabilityFlags, Limits};
use spdm::requester::{Config, Requester};
use tdisp::exchange::LockInterface;
use tdisp::{InterfaceId, LockFlags, State};

const PEER: &str = "BINDERY_SPDM_PEER";

fn main() {
    let arguments = Arguments::from_args();
    let trial = |name: &str, test: fn() -> Result<(), Failed>| Trial::test(name, test);
    let qemu_missing = !qtest::new_enough();
    let trials = vec![
        trial("requester_against_responder", requester_against_responder),
        trial("another_root_is_refused", another_root_is_refused),
        trial("what_was_said_in_words", what_was_said_in_words),
        trial("rules_hold", rules_hold),
        trial("nobody_and_nonsense", nobody_and_nonsense),
        trial("who_is_no_device", who_is_no_device),
        trial("evidence_is_judged", evidence_is_judged),
        trial("peer_of_the_environment", peer_of_the_environment)
            .with_ignored_flag(std::env::var_os(PEER).is_none())
            .with_kind(format!("needs a device, named by {PEER}")),
        trial("session_through_qemus_mailbox", session_through_qemus_mailbox)
            .with_ignored_flag(qemu_missing)
            .with_kind("needs qemu-system-x86_64 10 or newer"),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn bindery() -> Command {
    Command::new(BINDERY)
}

/// Our device, listening.
struct Responder {
    child: Child,
    address: String,
}

impl Responder {
    fn start(arguments: &[&str]) -> Self {
        let mut child = bindery()
            .args(["spdm", "responder", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("bindery starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the responder says where it listens");
        let address = line.trim_end().rsplit(' ').next().unwrap_or_default().to_owned();
        Self { child, address }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spdm(command: &str, responder: &Responder, arguments: &[&str]) -> Output {
    let output =
        bindery().args(["spdm", command, "--connect", &responder.address]).args(arguments).output();
    output.expect("bindery starts")
}

fn status(output: &Output) -> i32 {
    let code = output.status.code();
    let told = String::from_utf8_lossy(&output.stderr);
    code.unwrap_or_else(|| panic!("{:?}: {told}", output.status))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn requester_against_responder() -> Result<(), Failed> {
    let scratch = Scratch::new();
    let root = scratch.path().join("root.der");
    let responder = Responder::start(&["--write-root", text(&root)]);
    for version in ["1.2", "1.3"] {
        let arguments = ["--root", text(&root), "--tdi", "01:00.0", "--ide", "--challenge"];
        let output =
            spdm("requester", &responder, &[&arguments[..], &["--spdm", version]].concat());
        let told = String::from_utf8_lossy(&output.stdout);
        assert_eq!(status(&output), 0, "{told}{}", String::from_utf8_lossy(&output.stderr));
        let stages =
            ["to the root given", "6 IDE keys in use", "CONFIG_LOCKED", "RUN", "completed in"];
        let mut rest: &str = &told;
        for stage in stages {
            let (_, after) = rest.split_once(stage).unwrap_or_else(|| panic!("{stage}: {told}"));
            rest = after;
        }
    }
    Ok(())
}

fn another_root_is_refused() -> Result<(), Failed> {
    let scratch = Scratch::new();
    let root = scratch.path().join("root.der");
    drop(Responder::start(&["--write-root", text(&root)]));
    let other = Responder::start(&[]);
    let output = spdm("requester", &other, &["--root", text(&root)]);
    assert_eq!(status(&output), 1);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("the root is not trusted"), "{told}");
    let output = spdm("requester", &other, &["--name", "pci:Vendor=ffff"]);
    assert_eq!(status(&output), 1);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("the leaf names"), "{told}");
    Ok(())
}

fn what_was_said_in_words() -> Result<(), Failed> {
    let scratch = Scratch::new();
    let [pcap, keys, theirs] =
        ["session.pcap", "session.keys", "device.pcap"].map(|name| scratch.path().join(name));
    let responder = Responder::start(&["--pcap", text(&theirs)]);
    let arguments = ["--pcap", text(&pcap), "--key-log", text(&keys), "--tdi", "01:00.0", "--ide"];
    assert_eq!(status(&spdm("requester", &responder, &arguments)), 0);
    let decode = |pcap: &Path, arguments: &[&str]| {
        let output = bindery().args(["spdm", "decode", text(pcap)]).args(arguments).output();
        output.expect("bindery starts")
    };
    let output = decode(&pcap, &["--keys", text(&keys), "--checks", "--hex"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(status(&output), 0, "{told}");
    assert!(told.contains(" 0 do not, 0 could not be made"), "{told}");
    for words in ["KEY_EXCHANGE_RSP", "IDE_KM KEY_PROG", "TDISP START_INTERFACE_REQUEST 01:00.0"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    // Both sides wrote down the same, and nobody opens it without the keys.
    let output = decode(&theirs, &[]);
    assert_eq!(status(&output), 0);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("its session's keys are not known") && !told.contains("TDISP"), "{told}");
    let objects = |pcap: &Path| -> Result<Vec<Vec<u8>>, Failed> {
        let packets = peer::capture::read(&std::fs::read(pcap)?)?;
        Ok(packets.into_iter().map(|packet| packet.bytes).collect())
    };
    assert_eq!(objects(&pcap)?, objects(&theirs)?);
    // A secret that was changed opens nothing.
    let changed = std::fs::read_to_string(&keys)?.replace(['1', '2'], "3");
    std::fs::write(&keys, changed)?;
    let output = decode(&pcap, &["--keys", text(&keys)]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("no secret in the key log is of this key exchange"), "{told}");
    Ok(())
}

fn rules_hold() -> Result<(), Failed> {
    let scratch = Scratch::new();
    let junit = scratch.path().join("rules.xml");
    let responder = Responder::start(&[]);
    let output = spdm("validate", &responder, &["--tdi", "01:00.0", "--junit", text(&junit)]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(status(&output), 0, "{told}");
    assert!(told.contains(" 0 FAIL, ") && told.contains(" 0 NOT APPLICABLE"), "{told}");
    let xml = std::fs::read_to_string(&junit)?;
    assert_eq!(xml.matches("<testcase ").count(), peer::validate::rules().count());
    assert!(xml.contains("failures=\"0\"") && xml.ends_with("</testsuite>\n"), "{xml}");
    let output = spdm("validate", &responder, &["--only", "tdi-lock"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(status(&output), 0);
    assert!(told.contains("1 rules: 0 PASS, 0 FAIL, 0 POLICY, 1 NOT APPLICABLE"), "{told}");
    Ok(())
}

fn nobody_and_nonsense() -> Result<(), Failed> {
    let nobody = {
        let responder = Responder::start(&[]);
        responder.address.clone()
    };
    let run = |arguments: &[&str]| {
        let output = bindery().arg("spdm").args(arguments).output().expect("bindery starts");
        (status(&output), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for command in ["requester", "validate"] {
        let (code, told) = run(&[command, "--connect", &nobody]);
        assert_eq!(code, 3, "{told}");
        assert!(told.contains("nobody answers at"), "{told}");
    }
    let (code, told) = run(&["validate", "--connect", &nobody, "--only", "no-such"]);
    assert!(code == 2 && told.contains("there is no rule \"no-such\""), "{told}");
    let (code, _) = run(&["requester", "--connect", &nobody, "--tdi", "nonsense"]);
    assert_eq!(code, 2);
    let (code, told) = run(&["decode", "/dev/null"]);
    assert!(code == 2 && told.contains("it ends at byte 0"), "{told}");
    let (code, told) = run(&["responder", "--device", "b1d0:02:00.0"]);
    assert!(code == 2 && told.contains("no TEE-IO capable"), "{told}");
    Ok(())
}

/// Who listens and is no device: says nothing, hangs up, speaks HTTP, promises more than ever comes, stops
/// after a while.
fn who_is_no_device() -> Result<(), Failed> {
    type Says = fn(TcpStream) -> std::io::Result<()>;
    /// The header of a frame with an object of so many bytes.
    fn header(bytes: u32) -> Vec<u8> {
        [1, 2, bytes].into_iter().flat_map(u32::to_be_bytes).collect()
    }
    fn hear(mut stream: &TcpStream) -> std::io::Result<()> {
        stream.read(&mut [0; 64]).map(drop)
    }
    fn stay(stream: TcpStream) -> std::io::Result<()> {
        while { &stream }.read(&mut [0; 64])? > 0 {}
        Ok(())
    }
    let others: [(&str, Says, &str); 5] = [
        ("silent", stay, "says nothing for 1 s"),
        ("gone", |stream| hear(&stream), "closed the connection"),
        (
            "HTTP",
            |mut stream| {
                hear(&stream)?;
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?;
                stay(stream)
            },
            "a frame of ",
        ),
        (
            "huge",
            |mut stream| {
                hear(&stream)?;
                stream.write_all(&header(u32::MAX))?;
                stay(stream)
            },
            "a frame of 4294967295 bytes",
        ),
        (
            "half",
            |mut stream| {
                hear(&stream)?;
                stream.write_all(&[&header(32)[..], &[1; 3]].concat())?;
                stay(stream)
            },
            "says nothing for 1 s",
        ),
    ];
    for (name, says, told) in others {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || says(stream));
            }
        });
        for command in [&["requester"][..], &["validate", "--only", "version-as-1.0"]] {
            let output = bindery()
                .arg("spdm")
                .args(command)
                .args(["--patience", "1", "--connect", &address])
                .output()?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(status(&output), 3, "{name} to {command:?}: {said}");
            assert!(said.contains(told), "{name} to {command:?}: {said}");
        }
    }
    Ok(())
}

/// The evidence of a run, whole and with a byte of each file changed.
fn evidence_is_judged() -> Result<(), Failed> {
    let scratch = Scratch::new();
    let out = scratch.path().join("evidence");
    let nonce = "5a".repeat(32);
    let script = format!(
        "set -e; {BINDERY} tsm connect $BINDERY_BDF; {BINDERY} evidence $BINDERY_BDF --out {} --nonce {nonce}",
        text(&out)
    );
    let output = programs::run(&[]).args(["sh", "-c", &script]).output()?;
    assert_eq!(status(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
    let verify = |arguments: &[&str]| -> Result<(i32, String), Failed> {
        let output = bindery().args(["verify", text(&out)]).args(arguments).output()?;
        Ok((status(&output), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    let (code, told) = verify(&["--nonce", &nonce])?;
    assert_eq!(code, 0, "{told}");
    for words in ["they were taken for this nonce", "the device's key signed them", "immutable ROM"]
    {
        assert!(told.contains(words), "{words}: {told}");
    }
    let (code, told) = verify(&["--nonce", &"00".repeat(32)])?;
    assert!(code == 1 && told.contains("DOES NOT HOLD"), "{told}");
    for file in ["vca.bin", "certificates.bin", "measurements.bin"] {
        let path = out.join(file);
        let whole = std::fs::read(&path)?;
        let mut changed = whole.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        std::fs::write(&path, &changed)?;
        let (code, told) = verify(&[])?;
        assert!(code == 1 && told.contains(&format!("{file} is not what evidence.json")), "{told}");
        std::fs::write(&path, &whole)?;
    }
    std::fs::remove_file(out.join("vca.bin"))?;
    assert_eq!(verify(&[])?.0, 2);
    Ok(())
}

fn peer_of_the_environment() -> Result<(), Failed> {
    let address = std::env::var(PEER)?;
    let output = bindery()
        .args(["spdm", "requester", "--usage", "server", "--connect", &address])
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(status(&output), 0, "{told}");
    Ok(())
}

/// One whole flow through the DOE mailbox that QEMU's NVMe controller has, to our device behind it.
fn session_through_qemus_mailbox() -> Result<(), Failed> {
    let scratch = Scratch::new();
    let responder = Responder::start(&[]);
    let port = responder.address.rsplit(':').next().unwrap_or_default();
    let controller = format!("nvme,drive=disk,serial=x,addr={SLOT}.0,spdm_port={port}");
    let arguments = [
        "-machine",
        "q35",
        "-accel",
        "tcg",
        "-drive",
        "if=none,id=disk,file=null-co://,format=raw",
        "-device",
        &controller,
    ];
    let mut mailbox =
        QemuMailbox::find(Qemu::start(Command::new(PROGRAM), scratch.path(), &arguments));
    for (index, protocol) in doe::Protocol::ALL.into_iter().enumerate() {
        let answer = mailbox.exchange_object(&doe::ask_discovery(u8::try_from(index)?));
        assert_eq!(answer[..4], [1, 0, 0, 0], "{answer:x?}");
        assert_eq!(answer[8..11], [1, 0, protocol as u8], "{answer:x?}");
    }
    let mut requester = Requester::new(&AwsLc, Box::new(SystemEntropy), config()?);
    let tour = Tour {
        session: Plan { challenge: true, ..Plan::default() },
        keys: Some(Stream { stream: 0, port: 0, key: [7; 32] }),
        interface: Some(InterfaceId::new(0x0100)),
        lock: LockInterface {
            flags: LockFlags::NO_FW_UPDATE,
            default_stream: 0,
            mmio_reporting_offset: 0,
            p2p_address_mask: 0,
        },
        portion_bytes: 64,
    };
    let mut stages = Vec::new();
    let taken =
        bring_up::take(&mut requester, &mut mailbox, &tour, &mut |stage| stages.push(stage));
    taken.map_err(|fault| format!("after {stages:?}: {fault}"))?;
    assert!(stages.iter().any(|stage| matches!(stage, Stage::State(State::Run))), "{stages:?}");
    assert!(mailbox.qemu.quit().success());
    Ok(())
}

const SLOT: u8 = 3;

fn config() -> Result<Config, Failed> {
    let flags = CapabilityFlags::CERTIFICATE
        | CapabilityFlags::CHALLENGE
        | CapabilityFlags::ENCRYPT
        | CapabilityFlags::MAC
        | CapabilityFlags::KEY_EXCHANGE;
    Ok(Config {
        versions: Version::ALL.to_vec(),
        limits: Limits {
            timeout_exponent: 20,
            flags,
            transfer_bytes_max: 4600,
            message_bytes_max: 4600,
        },
        suites: Suite::ALL.to_vec(),
        groups: Group::ALL.to_vec(),
        aeads: Aead::ALL.to_vec(),
        trust: Trust {
            roots: None,
            now: SystemTime::now().duration_since(UNIX_EPOCH)?,
            usage: LeafUsage::Responder,
            name: DeviceName::Any,
        },
    })
}

/// A mailbox of QEMU's, by its registers.
struct QemuMailbox {
    qemu: Qemu,
    /// Where the DOE capability is in memory.
    at: u64,
}

const PCIEXBAR: u16 = 0x60;
/// Where the host bridge shows config space: what firmware would choose.
const ECAM: u64 = 0xb000_0000;
const ECAM_ENABLE: u32 = 1;
const EXTENDED_CAPABILITIES: u64 = 0x100;
const DOE_CAPABILITY: u32 = 0x2e;
const CONTROL: u64 = 0x08;
const CONTROL_GO: u32 = 1 << 31;
const STATUS: u64 = 0x0c;
const STATUS_READY: u32 = 1 << 31;
const STATUS_ERROR: u32 = 1 << 2;
const WRITE_MAILBOX: u64 = 0x10;
const READ_MAILBOX: u64 = 0x14;

impl QemuMailbox {
    fn find(mut qemu: Qemu) -> Self {
        let base = u32::try_from(ECAM).expect("below 4 GiB");
        qemu.config_write(0, PCIEXBAR + 4, 0);
        qemu.config_write(0, PCIEXBAR, base | ECAM_ENABLE);
        let function = ECAM + (u64::from(SLOT) << 15);
        let mut offset = EXTENDED_CAPABILITIES;
        loop {
            let capability = qemu.load(function + offset);
            if capability & 0xffff == DOE_CAPABILITY {
                return Self { qemu, at: function + offset };
            }
            offset = u64::from(capability >> 20);
            assert_ne!(offset, 0, "the controller has no DOE");
        }
    }

    fn exchange_object(&mut self, object: &[u8]) -> Vec<u8> {
        for dword in object.chunks_exact(4) {
            let dword = u32::from_le_bytes([dword[0], dword[1], dword[2], dword[3]]);
            self.qemu.store(self.at + WRITE_MAILBOX, dword);
        }
        self.qemu.store(self.at + CONTROL, CONTROL_GO);
        let at = self.at;
        self.qemu.wait_until("an answer in the mailbox", |qemu| {
            let status = qemu.load(at + STATUS);
            assert_eq!(status & STATUS_ERROR, 0, "the mailbox is in Error");
            status & STATUS_READY != 0
        });
        let mut answer = self.pop().to_vec();
        let length = self.pop();
        answer.extend(length);
        for _ in 2..u32::from_le_bytes(length) {
            answer.extend(self.pop());
        }
        answer
    }

    fn pop(&mut self) -> [u8; 4] {
        let dword = self.qemu.load(self.at + READ_MAILBOX);
        self.qemu.store(self.at + READ_MAILBOX, 0);
        dword.to_le_bytes()
    }
}

impl Link for QemuMailbox {
    type Fault = Failed;

    fn exchange(&mut self, frame: &Frame) -> Result<Frame, Failed> {
        let object = frame.to_object()?;
        Ok(Frame::from_object(&self.exchange_object(&object))?)
    }

    fn wait(&mut self, time_us: u64) -> Result<(), Failed> {
        std::thread::sleep(Duration::from_micros(time_us));
        Ok(())
    }
}
