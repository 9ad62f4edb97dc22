//! Devices through groups and containers, under `bindery run`: a C client that tries who may have what and closes in
//! every order, and the crates.io client of before iommufd. On an iommufd, and on VFIO's own type1.
//!
//! The crates.io client is this very program, run again with `CLIENT` as its first argument.

mod programs;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;

use libtest_mimic::{Arguments, Trial};
use programs::{Scratch, installed, is_root, run, succeed, unprivileged};

/// Makes this program the client.
const CLIENT: &str = "group-client";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(CLIENT) {
        return client();
    }
    let arguments = Arguments::from_args();
    let trial = |name: &str, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    let trials = vec![
        trial("groups_on_an_iommufd", || {
            let scratch = Scratch::new();
            say_ok(run(&[]).arg(scratch.c_client("groups", &[])));
        }),
        trial("groups_on_type1", || {
            let scratch = Scratch::new();
            let program = scratch.c_client("groups", &[]);
            say_ok(scratch.run_with_type1().arg(program).arg("type1"));
        }),
        trial("groups_unprivileged", || {
            let scratch = Scratch::new();
            let program = scratch.c_client("groups", &["-static"]);
            say_ok(unprivileged(&scratch.bindery()).args(["run", "--"]).arg(program));
        })
        .with_ignored_flag(is_root() && !installed("setpriv"))
        .with_kind("needs setpriv"),
        trial("type1_of_the_kernels_module", || {
            let scratch = Scratch::new();
            let program = scratch.c_client("type1", &[]);
            say_ok(scratch.run_with_type1().arg(program));
        }),
        trial("crates_io_client_on_an_iommufd", || {
            succeed(&mut as_client(run(&[])));
        }),
        trial("crates_io_client_on_type1", || {
            let scratch = Scratch::new();
            succeed(&mut as_client(scratch.run_with_type1()));
        }),
        trial("crates_io_client_four_at_once", || {
            let clients: Vec<_> =
                (0..4).map(|_| thread::spawn(|| succeed(&mut as_client(run(&[]))))).collect();
            for client in clients {
                client.join().expect("each client passes");
            }
        }),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn say_ok(command: &mut Command) {
    let printed = succeed(command);
    assert!(printed.ends_with(": ok\n"), "{printed}");
}

fn as_client(mut command: Command) -> Command {
    let this = std::env::current_exe().expect("a test knows its own program");
    command.arg(this).arg(CLIENT);
    command
}

fn client() -> ExitCode {
    let address = std::env::var("BINDERY_BDF").expect("`bindery run` names a device");
    match group_client::run(&Path::new("/sys/bus/pci/devices").join(address), 5) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
