//! Many TDIs being bound at once, by slow devices: nothing else may wait for them.

mod programs;

use std::fs;

use programs::{Scratch, run, succeed};

/// Binds in flight.
const COUNT: usize = 64;
/// What anything else may take, in microseconds, while a bind takes two seconds.
const MOST_US: u64 = 10_000;

#[test]
fn open_unbind_and_destroy_do_not_wait_for_64_binds_in_flight() {
    let scratch = Scratch::new();
    let platform = scratch.path().join("crowd.toml");
    fs::write(&platform, platform_text()).unwrap();
    let program = scratch.c_client("crowd", &[]);
    let platform = platform.to_str().unwrap();
    let printed = succeed(run(&["--platform", platform]).arg(program).arg(COUNT.to_string()));
    println!("{printed}");
    assert!(value(&printed, "in_flight_us") > 500_000, "the binds were over: {printed}");
    for what in ["open", "unbind", "destroy"] {
        let line = printed.lines().find(|line| line.starts_with(what)).expect("a line for each");
        assert!(value(line, "median_us") <= MOST_US, "{line}");
    }
}

fn value(text: &str, key: &str) -> u64 {
    let (_, rest) = text.split_once(&format!("{key}=")).expect("the key is printed");
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// A machine with `COUNT` devices that bind slowly and two that do not; below a
/// root port as many as it has IDE streams for.
fn platform_text() -> String {
    const ON_A_BUS: usize = 8;
    const FIRST_BUS: usize = 1;
    let all = COUNT + 2;
    let mut text = String::from("[settings]\nexchange_timeout_ms = 10000\n");
    for bus in 0..all.div_ceil(ON_A_BUS) {
        let (device, bus) = (bus + 1, bus + FIRST_BUS);
        text += &format!(
            "[[function]]\naddress = \"b1d0:00:{device:02x}.0\"\nmodel = \"root-port\"\n\
             secondary_bus = {bus}\n"
        );
    }
    for number in 0..all {
        let (bus, device) = (number / ON_A_BUS + FIRST_BUS, number % ON_A_BUS);
        let address = format!("b1d0:{bus:02x}:{device:02x}.0");
        text +=
            &format!("[[function]]\naddress = \"{address}\"\nmodel = \"dma-engine\"\ntee = true\n");
        if number < COUNT {
            text += &format!("[[fault]]\nfunction = \"{address}\"\nfault = \"bind=slow:2000\"\n");
        }
    }
    text
}
