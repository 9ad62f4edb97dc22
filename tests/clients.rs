//! Programs that know nothing of Bindery, under `bindery run`: the crates.io client, C clients
//! (static too), lspci; as nobody, as root, many at once.

mod programs;

use std::process::Command;
use std::thread;

use libtest_mimic::{Arguments, Trial};
use programs::{BINDERY, Scratch, installed, is_root, run, succeed, unprivileged};

fn main() {
    let arguments = Arguments::from_args();
    let trials = vec![
        Trial::test("crates_io_client_three_rounds", || {
            let printed = succeed(run(&[]).args([BINDERY, "demo-client", "--rounds", "3"]));
            assert!(!printed.is_empty());
            Ok(())
        }),
        Trial::test("crates_io_client_eight_at_once", || {
            eight_at_once();
            Ok(())
        }),
        Trial::test("static_client_shares_device_files", || {
            let scratch = Scratch::new();
            let program = scratch.c_client("family", &["-static"]);
            succeed(run(&[]).arg(program));
            Ok(())
        }),
        Trial::test("close_open_bind_100000_times", || {
            let scratch = Scratch::new();
            let program = scratch.c_client("churn", &[]);
            let printed = succeed(run(&[]).arg(program).arg("100000"));
            assert_eq!(printed.trim(), "100000 rounds");
            Ok(())
        }),
        Trial::test("unprivileged_demo", || {
            let scratch = Scratch::new();
            succeed(unprivileged(&scratch.bindery()).arg("demo"));
            Ok(())
        })
        .with_ignored_flag(is_root() && !installed("setpriv"))
        .with_kind("needs setpriv"),
        Trial::test("unprivileged_static_client", || {
            let scratch = Scratch::new();
            let program = scratch.c_client("family", &["-static"]);
            succeed(unprivileged(&scratch.bindery()).args(["run", "--"]).arg(program));
            Ok(())
        })
        .with_ignored_flag(is_root() && !installed("setpriv"))
        .with_kind("needs setpriv"),
        Trial::test("sudo_elevates_inside_where_root_runs_it", || {
            sudo_elevates();
            Ok(())
        })
        .with_ignored_flag(!is_root() || !installed("sudo") || !installed("setpriv"))
        .with_kind("needs root, sudo"),
        Trial::test("lspci_shows_both_machines", || {
            lspci_shows_both_machines();
            Ok(())
        })
        .with_ignored_flag(!installed("lspci"))
        .with_kind("needs lspci"),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn eight_at_once() {
    let clients: Vec<_> = (0..8)
        .map(|_| thread::spawn(|| succeed(run(&[]).args([BINDERY, "demo-client"]))))
        .collect();
    for client in clients {
        client.join().expect("each client passes");
    }
}

/// Inside a `bindery run` by root, an unprivileged program becomes root again through sudo and uses the device.
fn sudo_elevates() {
    let scratch = Scratch::new();
    let program = scratch.c_client("family", &[]);
    let printed =
        succeed(run(&[]).args(["sudo", "-n", "--preserve-env=BINDERY_CDEV"]).arg(program));
    assert!(printed.contains("SCM_RIGHTS: ok"), "{printed}");
    // sudo is setuid: without no_new_privs it elevates a user who may not do it by himself.
    let identity = succeed(run(&[]).args(["sh", "-c", "sudo -n id -u"]));
    assert_eq!(identity.trim(), "0");
    let flag = succeed(run(&[]).args(["grep", "NoNewPrivs", "/proc/self/status"]));
    assert_eq!(flag.split_whitespace().last(), Some("0"));
}

fn lspci_shows_both_machines() {
    let outside = succeed(Command::new("lspci").arg("-D"));
    let inside = succeed(run(&[]).args(["lspci", "-Dvv"]));
    for line in outside.lines() {
        let address = line.split(' ').next().expect("an address");
        assert!(inside.contains(address), "{address} of the machine is missing:\n{inside}");
    }
    for address in ["b1d0:00:01.0", "b1d0:01:00.0", "b1d0:01:00.1", "b1d0:02:00.0", "b1d0:03:00.1"]
    {
        assert!(inside.contains(address), "{address} is missing:\n{inside}");
    }
    assert!(inside.contains("MSI-X: Enable-"), "{inside}");
    assert!(inside.contains("Kernel driver in use: vfio-pci"), "{inside}");
    assert!(!inside.contains("<access denied>") || !is_root(), "{inside}");
}
