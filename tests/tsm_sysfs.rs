//! TSMs in sysfs and through `bindery tsm`: connecting as shells do it, virtual functions that go while
//! their TDIs are bound, what goes on meanwhile, and that nothing is left of a TDI's life.

mod programs;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use programs::{BINDERY, Scratch, run, succeed};
use serde_json::Value;

/// What the scripts share. `is STATUS TEXT COMMAND`: how a command ends, and what it says. Write with
/// `put`, which says what a write met.
const PRELUDE: &str = r#"
pf=/sys/bus/pci/devices/b1d0:01:00.0
vf=/sys/bus/pci/devices/b1d0:01:00.1
LC_ALL=C; export LC_ALL
put() { env printf '%s\n' "$1" > "$2"; }
is() {
    told=$( { eval "$3"; } 2>&1 )
    status=$?
    case $status:$told in
    "$1":*"$2"*) ;;
    *) echo "$3: status $status: $told"; exit 1 ;;
    esac
}
now_ms() { echo $(($(date +%s%N) / 1000000)); }
"#;

/// A run of a script with its own place for sockets; `$0` is the command, `$1` the scratch directory.
fn script(options: &[&str], scratch: &Scratch, text: &str) -> Command {
    let mut command = run(options);
    command
        .args(["timeout", "60", "sh", "-c", &format!("{PRELUDE}{text}"), BINDERY])
        .arg(scratch.path());
    command.env("XDG_RUNTIME_DIR", scratch.path()).env_remove("BINDERY");
    command
}

/// The program that holds a TDI.
fn held_tdi(scratch: &Scratch) {
    let header = succeed(Command::new(BINDERY).args(["uapi", "--header", "rfc"]));
    std::fs::write(scratch.path().join("rfc.h"), header).unwrap();
    scratch.c_client("held_tdi", &[&format!("-I{}", scratch.path().display())]);
}

fn json(scratch: &Scratch, name: &str) -> Value {
    let path = scratch.path().join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The only instance's row of a function.
fn row<'v>(status: &'v Value, function: &str) -> &'v Value {
    let rows = status[0]["functions"].as_array().unwrap();
    rows.iter().find(|row| row["function"] == function).unwrap_or(&Value::Null)
}

#[test]
fn attributes_come_go_and_answer_as_the_kernels() {
    let scratch = Scratch::new();
    succeed(&mut script(
        &[],
        &scratch,
        r#"
        is 0 tsm0 "ls /sys/class/tsm"
        is 0 ../../devices/platform/bindery-tsm/tsm/tsm0 "readlink /sys/class/tsm/tsm0"
        is 0 MODALIAS=platform:bindery-tsm "cat /sys/class/tsm/tsm0/device/uevent"
        is 0 /sys/class/tsm "readlink -f /sys/class/tsm/tsm0/subsystem"
        is 0 'bound connect disconnect dsm' "ls $pf/tsm | tr '\n' ' '"
        is 0 '-rw-r--r-- -r--r--r-- --w-------' "stat -c %A $pf/tsm/connect $pf/tsm/dsm $pf/tsm/disconnect | tr '\n' ' '"
        for name in connect dsm bound; do is 0 '\n' "od -An -c $pf/tsm/$name"; done
        is 1 denied "cat $pf/tsm/disconnect 2>&1 || exit 1"
        for absent in $vf/tsm $vf/authenticated /sys/bus/pci/devices/b1d0:02:00.0/tsm; do is 1 '' "test -e $absent"; done

        is 1 'Invalid argument' "put zzz $pf/tsm/connect"
        is 1 'No such device or address' "put tsm9 $pf/tsm/connect"
        is 1 'No such device or address' "put tsm0 $pf/tsm/disconnect"
        is 0 '' "put tsm0-foo $pf/tsm/connect"
        is 1 'Device or resource busy' "put tsm0 $pf/tsm/connect"
        is 1 'Device or resource busy' "put tsm9 $pf/tsm/connect"
        for name in tsm/connect authenticated; do is 0 tsm0 "cat $pf/$name"; done
        is 0 'bound dsm' "ls $vf/tsm | tr '\n' ' '"
        is 0 b1d0:01:00.0 "cat $vf/tsm/dsm"
        is 0 tsm0 "cat $vf/authenticated"
        is 0 '\n' "od -An -c $vf/tsm/bound"

        is 1 'Invalid argument' "put tsm9 $pf/tsm/disconnect"
        is 1 'Invalid argument' "put tsm0-foo $pf/tsm/disconnect"
        is 0 '' "put tsm0 $pf/tsm/disconnect"
        is 1 'No such device or address' "put tsm0 $pf/tsm/disconnect"
        is 1 '' "test -e $vf/tsm"
        is 0 'bound connect disconnect dsm' "ls $pf/tsm | tr '\n' ' '"
    "#,
    ));
}

#[test]
fn host_bridges_tell_of_streams() {
    let scratch = Scratch::new();
    succeed(&mut script(
        &[],
        &scratch,
        r#"
        bridge=/sys/devices/pcib1d0:00
        is 0 '-r--r--r--' "stat -c %A $bridge/available_secure_streams"
        is 0 256 "cat $bridge/available_secure_streams"
        is 1 '' "ls $bridge | grep '^stream'"
        is 0 '' "put tsm0 $pf/tsm/connect"
        is 0 stream0.0.0 "ls $bridge | grep '^stream'"
        is 0 /sys/devices/pcib1d0:00/b1d0:00:01.0/b1d0:01:00.0 "readlink -f $bridge/stream0.0.0"
        is 0 0x "cat $bridge/stream0.0.0/vendor"
        is 0 255 "cat $bridge/available_secure_streams"
        is 0 '' "put tsm0 $pf/tsm/disconnect"
        is 1 '' "test -e $bridge/stream0.0.0"
        is 1 '' "ls $bridge | grep '^stream'"
        is 0 256 "cat $bridge/available_secure_streams"
        is 0 '' "$0 tsm connect b1d0:01:00.0"
        is 0 stream0.0.0 "ls $bridge | grep '^stream'"
        is 0 '' "$0 tsm disconnect b1d0:01:00.0"
        is 0 256 "cat $bridge/available_secure_streams"
    "#,
    ));
}

#[test]
fn others_go_on_while_a_device_is_connected() {
    let scratch = Scratch::new();
    succeed(&mut script(
        &[],
        &scratch,
        r#"
        is 0 '' "$0 tsm fault b1d0:01:00.0 connect=slow:700"
        begun=$(now_ms)
        put tsm0 $pf/tsm/connect & writer=$!
        until "$0" tsm status --json --pid $BINDERY > $1/during && grep -q '"exchange": "connect' $1/during; do :; done
        is 0 '\n' "od -An -c $pf/tsm/connect"
        is 0 0x "cat $pf/vendor"
        is 0 '' "exec 9<>/dev/iommu; exec 8<>/dev/vfio/devices/vfio3"
        is 0 '' "put 1 /sys/bus/pci/devices/b1d0:02:00.0/reset"
        is 1 'Device or resource busy' "put tsm0 $pf/tsm/connect"
        took=$(($(now_ms) - begun))
        kill -0 $writer && [ $took -lt 700 ] || { echo "others took $took ms"; exit 1; }
        wait $writer || { echo connect failed; exit 1; }
        is 0 tsm0 "cat $pf/tsm/connect"
        is 0 'connect=slow:700' "$0 tsm status"
        is 0 '' "$0 tsm fault b1d0:01:00.0 none"
        is 0 '' "! $0 tsm status | grep -q fault"
    "#,
    ));
}

#[test]
fn virtual_functions_go_at_once_and_come_back() {
    let scratch = Scratch::new();
    held_tdi(&scratch);
    succeed(&mut script(
        &[],
        &scratch,
        r#"
        ledger() { "$0" ls --ledger --json --pid $BINDERY > $1 || exit 1; }
        status() { "$0" tsm status --json --pid $BINDERY > $1 || exit 1; }
        hold() {
            mkfifo $1/in.$2 && : > $1/out.$2
            BINDERY_CDEV=/dev/vfio/devices/vfio1 $1/held_tdi < $1/in.$2 > $1/out.$2 & holder=$!
            exec 7> $1/in.$2
            until grep -q bound $1/out.$2; do kill -0 $holder || exit 1; sleep 0.01; done
        }
        ledger $1/before
        is 0 '' "put tsm0 $pf/tsm/connect"
        ledger $1/connected
        hold $1 first
        status $1/bound
        is 0 tsm0 "cat $vf/tsm/bound"
        is 0 'tdi UNLOCKED' "$0 ls"

        ( exec 7>&-; put 0 $pf/sriov_numvfs ) & writer=$!
        until grep -q asked $1/out.first; do sleep 0.01; done
        # The write waits for the holder, who does not hurry; the TDI does not.
        status $1/unbound
        is 1 '' "test -e /dev/vfio/devices/vfio1"
        is 1 '' "test -e /dev/vfio/devices/vfio2"
        is 1 '' "test -e $vf/tsm"
        is 0 2 "cat $pf/sriov_numvfs"
        begun=$(now_ms)
        is 0 '' "exec 9<>/dev/iommu; exec 8<>/dev/vfio/devices/vfio0"
        is 0 '' "put tsm0 $pf/tsm/disconnect; put tsm0 $pf/tsm/connect"
        is 0 '' "put b1d0:02:00.0 /sys/bus/pci/drivers/vfio-pci/unbind; put b1d0:02:00.0 /sys/bus/pci/drivers/vfio-pci/bind"
        took=$(($(now_ms) - begun))
        kill -0 $writer && [ $took -lt 2000 ] || { echo "others took $took ms"; exit 1; }
        exec 7>&-
        wait $holder || { echo the holder failed; exit 1; }
        wait $writer || { echo numvfs failed; exit 1; }
        is 1 '' "test -e $vf"
        is 0 '' "! $0 ls | grep -q 01:00.1"

        is 0 '' "put 2 $pf/sriov_numvfs"
        is 0 'bound dsm' "ls $vf/tsm | tr '\n' ' '"
        ledger $1/back
        # What a driver of the physical function made is for those who know its token.
        BINDERY_CDEV=/dev/vfio/devices/vfio1 $1/held_tdi 2>&1 < /dev/null | grep -q 'BIND: Permission denied' || exit 1
        export BINDERY_PF_CDEV=/dev/vfio/devices/vfio0
        hold $1 second
        exec 7>&-
        wait $holder || { echo the second holder failed; exit 1; }
        is 0 '' "put tsm0 $pf/tsm/disconnect"
        ledger $1/after
        status $1/end
    "#,
    ));
    let (bound, unbound) = (json(&scratch, "bound"), json(&scratch, "unbound"));
    let vf = "b1d0:01:00.1";
    assert_eq!(row(&bound, vf)["host"], "bound");
    assert_eq!(row(&bound, vf)["tsm"], "CONFIG_UNLOCKED");
    assert_eq!(row(&bound, vf)["device"], "CONFIG_UNLOCKED");
    assert_eq!(row(&bound, vf)["dsm"], "b1d0:01:00.0");
    assert_eq!(row(&unbound, vf)["host"], "unbound", "{unbound}");
    assert_eq!(
        (&unbound[0]["counts"]["binds"], &unbound[0]["counts"]["unbinds"]),
        (&1.into(), &1.into())
    );
    assert_eq!(json(&scratch, "back"), json(&scratch, "connected"));
    assert_eq!(json(&scratch, "after"), json(&scratch, "before"));
    assert_ne!(json(&scratch, "connected"), json(&scratch, "before"), "keys are in the ledger");
    let end = json(&scratch, "end");
    assert_eq!((&end[0]["counts"]["binds"], &end[0]["counts"]["unbinds"]), (&2.into(), &2.into()));
}

#[test]
fn the_ledger_tells_what_is_held() {
    let scratch = Scratch::new();
    held_tdi(&scratch);
    succeed(&mut script(
        &[],
        &scratch,
        r#"
        is 0 '' "$0 tsm connect b1d0:01:00.0"
        mkfifo $1/in
        BINDERY_CDEV=/dev/vfio/devices/vfio1 $1/held_tdi < $1/in > $1/out & holder=$!
        exec 7> $1/in
        until grep -q bound $1/out; do kill -0 $holder || exit 1; sleep 0.01; done
        is 0 '1 device, 1 hwpt, 1 ioas, 1 vdevice, 1 viommu' "$0 ls --ledger --pid $BINDERY"
        "$0" ls --ledger --json --pid $BINDERY > $1/held
        exec 7>&-
        wait $holder
    "#,
    ));
    let held = json(&scratch, "held");
    let ledger = &held["instances"][0]["ledger"];
    let paths: Vec<_> =
        ledger["files"].as_array().unwrap().iter().map(|file| &file["path"]).collect();
    assert_eq!(paths, ["/dev/vfio/devices/vfio1", "/dev/iommu"]);
    assert_eq!(ledger["serving"], 0);
    let manager = &ledger["managers"][0];
    assert_eq!((&manager["function"], &manager["tsm"]), (&"b1d0:01:00.0".into(), &"tsm0".into()));
    for keys in ["keys", "device_keys", "port_keys"] {
        assert_eq!(manager[keys], 6, "{keys}");
    }
    assert_eq!((&manager["sessions"], &manager["device_sessions"]), (&1.into(), &1.into()));
    let tdi = ledger["tdis"].as_array().unwrap().iter().find(|tdi| tdi["host"] == "bound").unwrap();
    assert_eq!((&tdi["function"], &tdi["guest_id"]), (&"b1d0:01:00.1".into(), &8.into()));
}

/// A run that lasts until dropped.
struct Instance(Child);

impl Instance {
    fn start(scratch: &Scratch) -> Self {
        let mut command = script(&[], scratch, "echo ready; read end");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ended = self.0.wait();
    }
}

/// `bindery tsm` from outside any run: its status and what it says on standard error.
fn tsm(scratch: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(BINDERY);
    let output = command.arg("tsm").args(arguments);
    let output = output.env("XDG_RUNTIME_DIR", scratch).env_remove("BINDERY").output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn an_order_needs_to_know_for_whom() {
    let scratch = Scratch::new();
    let instances = [Instance::start(&scratch), Instance::start(&scratch)];
    let at = scratch.path();
    let mut pids: Vec<u32> = std::fs::read_dir(at.join("bindery"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    pids.sort_unstable();
    let connect = ["connect", "b1d0:01:00.0"];
    let (status, said) = tsm(at, &connect);
    assert_eq!(status, Some(125), "{said}");
    assert!(said.starts_with("bindery: several runs of yours are going on; "), "{said}");
    let pid = pids[1].to_string();
    for pid in &pids {
        assert!(said.contains(&format!("\n  {pid}  timeout 60 sh -c ")), "{pid} in {said}");
    }
    let (status, said) = tsm(at, &[&connect[..], &["--pid", "1"]].concat());
    assert_eq!(status, Some(125), "{said}");
    assert!(said.contains("process 1 is no bindery run of yours"), "{said}");

    let of_second = ["--pid", &pid];
    let ask = |arguments: &[&str]| tsm(at, &[arguments, &of_second[..]].concat());
    assert_eq!(ask(&connect), (Some(0), String::new()));
    for (arguments, said) in [
        (&["connect", "b1d0:01:00.0"][..], "is connected to tsm0 (EBUSY)\n"),
        (&["connect", "b1d0:01:00.1"], "has no such attribute (ENOENT)\n"),
        (&["connect", "1:0.0"], "bindery ls lists them (ENOENT)\n"),
        (&["disconnect", "b1d0:01:00.0", "tsm1"], " (EINVAL)\n"),
        (&["fault", "b1d0:01:00.0", "bind=late"], "refused (of unbind)\n"),
    ] {
        let (status, told) = ask(arguments);
        assert_eq!(status, Some(1), "{told}");
        assert!(told.ends_with(said), "{told}");
    }
    assert_eq!(ask(&["fault", "b1d0:01:00.1", "bind=slow:500*1"]), (Some(0), String::new()));
    let mut status = Command::new(BINDERY);
    status.args(["tsm", "status", "--json", "--pid", &pid]).env("XDG_RUNTIME_DIR", at);
    let status: Value = serde_json::from_str(&succeed(&mut status)).unwrap();
    assert_eq!(status[0]["tsms"], serde_json::json!(["tsm0"]));
    assert_eq!(row(&status, "b1d0:01:00.0")["connected_to"], "tsm0");
    assert_eq!(row(&status, "b1d0:01:00.1")["faults"], serde_json::json!(["bind=slow:500*1"]));
    assert_eq!(ask(&["disconnect", "b1d0:01:00.0"]), (Some(0), String::new()));
    assert_eq!(ask(&["disconnect", "b1d0:01:00.0"]).0, Some(1));
    drop(instances);
    assert_eq!(std::fs::read_dir(at.join("bindery")).unwrap().count(), 0);
}
