//! What a bind and an unbind of a TDI cost, and which layer takes which share.
//!
//! Each measure contains the one below it: the device's security manager alone, the TSM on top of it, iommufd
//! on top of that (in this process), and a C client under `bindery run`. A layer's share is the difference.
//! Every round runs all of them.

#[path = "../tests/in_process/mod.rs"]
mod in_process;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use in_process::{Client, PF, Stand};
use tdisp::exchange::{GetCapabilities, GetState, GetVersion, StopInterface};
use tdisp::payload::{self, ProtocolId};
use tdisp::{InterfaceId, SessionId};
use tsm::{Cancel, VmId};

const ROUNDS: usize = 9;
const CYCLES: u32 = 2000;
const BINDERY: &str = env!("CARGO_BIN_EXE_bindery");
const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/bind/client.c");
const GUEST_ID: u64 = 0x20;

/// From the inside out.
const LAYERS: [&str; 4] = [
    "device: 4 requests of TDISP",
    "tsm: slot, record, bytes",
    "iommufd: ioctl, vdevice",
    "front end: 2 calls",
];

fn main() -> ExitCode {
    let client = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bind_client");
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-Wall", "-Werror", "-o"]).arg(&client).arg(CLIENT);
    if !cc.status().is_ok_and(|status| status.success()) {
        eprintln!("bind bench: no C compiler, or it refused {CLIENT}");
        return ExitCode::FAILURE;
    }
    let stand = Stand::connected("");
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        eprintln!("bind: round {} of {ROUNDS}", round + 1);
        let Some(program) = under_bindery(&client) else { return ExitCode::FAILURE };
        rounds.push([device(&stand), tsm(&stand), iommufd(&stand), program]);
    }
    print_table(&rounds);
    ExitCode::SUCCESS
}

/// The messages of a bind and an unbind, to the security manager alone.
fn device(stand: &Stand) -> f64 {
    let function = &stand.machine.devices[PF];
    let manager = function.security.as_ref().expect("a TEE device");
    let requester_id = u16::from(function.address.bus) << 8 | u16::from(function.address.devfn());
    let interface = InterfaceId::new(requester_id);
    let mut room = [0; 256];
    let mut request = |write: &dyn Fn(&mut [u8]) -> Result<usize, tdisp::EncodeFault>| {
        let length = payload::join(ProtocolId::TDISP, &mut room, write).expect("it fits");
        room[..length].to_vec()
    };
    let requests = [
        request(&|into| tdisp::encode(interface, &GetVersion, into)),
        request(&|into| tdisp::encode(interface, &GetCapabilities::default(), into)),
        request(&|into| tdisp::encode(interface, &GetState, into)),
        request(&|into| tdisp::encode(interface, &StopInterface, into)),
    ];
    let mut answer = vec![0; 4096];
    timed(|| {
        for request in &requests {
            assert!(manager.respond(SessionId(1), request, &mut answer).is_some());
        }
    })
}

fn tsm(stand: &Stand) -> f64 {
    let (registry, function) = (&stand.machine.tsm, stand.address(PF));
    let (vm, cancel) = (VmId(1), Cancel::new());
    timed(|| {
        registry.bind(function, vm, GUEST_ID, &cancel).expect("nobody else has it");
        registry.unbind(function);
    })
}

fn iommufd(stand: &Stand) -> f64 {
    let client = Client::open(stand);
    let device = client.device(stand, PF);
    let vdevice = client.vdevice(&device, GUEST_ID);
    let ns = timed(|| {
        assert_eq!(client.tsm_bind(vdevice.id), Ok(0));
        assert_eq!(client.tsm_unbind(vdevice.id), Ok(0));
    });
    device.close();
    client.close();
    ns
}

fn under_bindery(client: &Path) -> Option<f64> {
    let output = Command::new(BINDERY)
        .args(["run", "--"])
        .arg(client)
        .arg(CYCLES.to_string())
        .output()
        .ok()?;
    if !output.status.success() {
        eprintln!("bind bench: {}", String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

/// Nanoseconds of one cycle.
fn timed(mut cycle: impl FnMut()) -> f64 {
    for _ in 0..CYCLES / 20 {
        cycle();
    }
    let begun = Instant::now();
    for _ in 0..CYCLES {
        cycle();
    }
    begun.elapsed().as_nanos() as f64 / f64::from(CYCLES)
}

fn print_table(rounds: &[[f64; 4]]) {
    let of_all = |layer: usize| sorted(rounds.iter().map(|round| round[layer]).collect());
    let whole = median(&of_all(LAYERS.len() - 1));
    println!("| layer | up to here ns | quartiles | its own ns | share |");
    println!("|---|---|---|---|---|");
    let mut below = 0.0;
    for (layer, name) in LAYERS.iter().enumerate() {
        let all = of_all(layer);
        let here = median(&all);
        let (low, high) = (all[all.len() / 4], all[all.len() * 3 / 4]);
        let own = here - below;
        println!(
            "| {name} | {here:.0} | {low:.0}-{high:.0} | {own:.0} | {:.0} % |",
            100.0 * own / whole
        );
        below = here;
    }
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}
