//! Every protocol script of `tests/script/`: against this stack, against the kernel, and in the table that compares them.

use std::path::Path;

use mimbox_tools::lab::require_privileges;
use mimbox_tools::script::{
    KERNEL_RELEASE, Script, Verdict, file_name, files, kernel_release, known_failures, load, run_directory,
    run_linux_all, table,
};

fn directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/script"))
}

fn scripts() -> Vec<Script> {
    let files = files(&[directory().to_owned()]).expect("the scripts are there");
    files.iter().map(|path| load(path).expect("a sound script")).collect()
}

#[test]
fn every_script_holds_against_this_stack() {
    let results = run_directory(directory()).expect("the scripts can be read");
    let bad: Vec<String> = results
        .iter()
        .filter(|(_, verdict)| !verdict.is_good())
        .map(|(script, verdict)| format!("{}: {verdict}", file_name(&script.path)))
        .collect();
    let known = results.iter().filter(|(_, verdict)| matches!(verdict, Verdict::KnownFailure(..))).count();
    println!("{} scripts, {known} of them fail as known", results.len());
    assert!(results.len() >= 150, "only {} scripts", results.len());
    assert!(bad.is_empty(), "{} of {} scripts fail:\n\n{}", bad.len(), results.len(), bad.join("\n"));
}

#[test]
fn the_kernel_does_what_the_scripts_say() {
    if !require_privileges().expect("namespaces and TUN devices need root") {
        eprintln!("NOT RUN: the scripts against the kernel (MIMBOX_UNPRIVILEGED=1)");
        return;
    }
    if !kernel_release().starts_with(KERNEL_RELEASE) {
        eprintln!("NOT RUN: the scripts say what Linux {KERNEL_RELEASE} does, this is {}", kernel_release());
        return;
    }
    let scripts = scripts();
    let verdicts = run_linux_all(&scripts, 4, |_, _| {});
    let bad: Vec<String> = scripts
        .iter()
        .zip(&verdicts)
        .filter(|(_, verdict)| !verdict.is_good())
        .map(|(script, verdict)| format!("{}: {verdict}", file_name(&script.path)))
        .collect();
    assert!(bad.is_empty(), "{} of {} scripts are wrong about Linux:\n\n{}", bad.len(), scripts.len(), bad.join("\n"));
}

#[test]
fn the_table_is_that_of_these_scripts() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/tcp-linux.md"));
    let written = std::fs::read_to_string(path).expect("docs/tcp-linux.md is there");
    let known = known_failures(directory()).expect("a sound KNOWN.md");
    assert!(
        written == table(&scripts(), &known),
        "docs/tcp-linux.md is not up to date: mimbox-lab script --linux --table docs/tcp-linux.md"
    );
}
