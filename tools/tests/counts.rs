//! No count of instructions or cache lines grows unnoticed. It compares in the release build only:
//! `cargo test --release -p mimbox-tools --test counts`.

use std::io::Write as _;
use std::process::Command;

#[test]
fn no_count_grows_by_more_than_a_twentieth() {
    let output = Command::new(env!("CARGO_BIN_EXE_mimbox-lab"))
        .args(["bench", "counts", "--file", concat!(env!("CARGO_MANIFEST_DIR"), "/counts.toml")])
        .output()
        .expect("mimbox-lab runs");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if said.contains("NOTHING IS COMPARED") {
        // Past the test harness, which keeps to itself what passing tests print.
        let _ = writeln!(std::io::stderr(), "\n{said}");
    }
    assert!(output.status.success(), "{said}{errors}");
}
