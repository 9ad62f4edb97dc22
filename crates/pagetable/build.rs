//! Tells the compiler that `--cfg loom` is a name and not a slip.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(loom)");
    println!("cargo::rerun-if-changed=build.rs");
}
