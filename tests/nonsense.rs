//! A client that throws random calls harms nobody: no panic, no hang, and afterwards a device that
//! binds and works.

mod programs;

use programs::{Scratch, run, succeed};

const CALLS: &str = "30000";

#[test]
fn random_calls_harm_nobody() {
    let scratch = Scratch::new();
    let program = scratch.c_client("nonsense", &[]);
    for seed in 1..=6 {
        let printed = succeed(run(&[]).arg(&program).args([&seed.to_string(), CALLS]));
        assert_eq!(printed.trim(), format!("{CALLS} calls"), "seed {seed}");
    }
}
