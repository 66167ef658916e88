//! Compiles the steering program with clang.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    let source = "ebpf/steer.bpf.c";
    println!("cargo::rerun-if-changed={source}");
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join("steer.bpf.o");
    let status = Command::new(&clang)
        .args(["-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-c", source, "-o"])
        .arg(&out)
        // Where Debian and its like keep asm/types.h.
        .arg(format!("-I/usr/include/{arch}-linux-gnu"))
        .status();
    let trouble = match status {
        Ok(status) if status.success() => return,
        Ok(_) => format!("{clang} could not compile {source}"),
        Err(error) => format!("{clang} could not be run: {error}"),
    };
    println!(
        "cargo::error={trouble}. Needed: clang with the bpf target, the kernel's headers and libbpf's (Debian: apt install clang libbpf-dev linux-libc-dev). CLANG names another compiler."
    );
    std::process::exit(1);
}
