//! Lets the copy of the waist in this crate pass as the crate `busbar-abi`, version 1.0.0: abi_stable compares both.
#![allow(clippy::print_stdout, reason = "this is how a build script talks to cargo")]

fn main() {
    println!("cargo::rustc-env=CARGO_PKG_NAME=busbar-abi");
    println!("cargo::rustc-env=CARGO_PKG_VERSION=1.0.0");
    println!("cargo::rustc-check-cfg=cfg(waist, values(\"layout\", \"newer\", \"older\", \"next\"))");
    println!("cargo::rustc-cfg=waist=\"newer\"");
    println!("cargo::rerun-if-changed=build.rs");
}
