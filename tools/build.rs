//! Compiles the lab client's BPF program with clang, and tells the program which compiler built it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

fn main() {
    tell_compiler();
    let source = Path::new("ebpf/dst_opt.bpf.c");
    println!("cargo::rerun-if-changed={}", source.display());
    println!("cargo::rerun-if-env-changed=CLANG");

    let Some(out_dir) = env::var_os("OUT_DIR") else {
        fail("cargo did not set OUT_DIR");
    };
    let object = PathBuf::from(out_dir).join("dst_opt.bpf.o");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());

    let mut command = Command::new(&clang);
    command.args(["-O2", "-g", "-Wall", "-Werror", "-target", "bpf"]);
    // Debian keeps <asm/types.h> in a directory named after the architecture, where a BPF target does not look.
    for architecture in ["x86_64", "aarch64", "riscv64"] {
        let directory = format!("/usr/include/{architecture}-linux-gnu");
        if Path::new(&directory).is_dir() {
            command.arg("-I").arg(directory);
        }
    }
    command.arg("-c").arg(source).arg("-o").arg(&object);

    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!(
            "{clang} could not compile {} ({status}); it needs clang with the bpf target and libbpf-dev (`make setup` installs them)",
            source.display()
        )),
        Err(error) => fail(&format!("cannot run {clang}: {error}; `make setup` installs it, or name another in CLANG")),
    }
}

/// Instruction counts are compared between builds of one compiler only.
fn tell_compiler() {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(rustc).arg("--version").output().ok();
    let version = said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned());
    println!("cargo::rustc-env=MIMBOX_RUSTC={}", version.as_deref().unwrap_or("an unknown rustc"));
}

fn fail(why: &str) -> ! {
    eprintln!("error: {why}");
    exit(1);
}
