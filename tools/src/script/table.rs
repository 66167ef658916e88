//! `docs/tcp-linux.md`: every script, what this stack does, what the kernel does, and why where it differs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::suite::file_name;
use super::syntax::{Linux, Script, Subject};

/// The kernel that the scripts are about.
pub const KERNEL_RELEASE: &str = "6.18";

/// The release of the kernel that runs here.
pub fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// The page. What it says of the kernel is what the scripts say; `mimbox-lab script --linux` puts that to the test.
pub fn table(scripts: &[Script], known: &BTreeMap<String, String>) -> String {
    let (mut same, mut differs, mut skipped) = (0, 0, 0);
    let mut rows = String::new();
    for script in scripts {
        let name = file_name(&script.path);
        let ours = match known.get(&name) {
            None => "holds".to_owned(),
            Some(why) => format!("**fails**: {why}"),
        };
        let theirs = match &script.linux {
            _ if script.subject == Subject::Converter => {
                skipped += 1;
                "not run: a converter's script".to_owned()
            }
            Linux::Same => {
                same += 1;
                "the same".to_owned()
            }
            Linux::Differs(why) => {
                differs += 1;
                format!("**differs**: {why}")
            }
            Linux::Skip(why) => {
                skipped += 1;
                format!("not run: {why}")
            }
        };
        // Nothing but a full page would say if this failed, and a String never does.
        let _ = writeln!(rows, "| `{}` | {} | {} | {} |", name, cell(&script.title), cell(&ours), cell(&theirs));
    }
    format!(
        "# This stack's TCP beside the kernel's\n\n\
         One row for each script of `tests/script/`. Every script holds against this stack unless the row says that it\n\
         fails; Linux {KERNEL_RELEASE} does the same in {same} of them, something else in {differs}, and {skipped} cannot be put to it.\n\n\
         Made by `mimbox-lab script --linux --table docs/tcp-linux.md`, which runs the scripts against the kernel first (as\n\
         root: it makes network namespaces). A script that says the kernel does the same has to hold there, and one that says\n\
         it differs has to fail.\n\n\
         | script | behaviour | this stack | Linux {KERNEL_RELEASE} |\n|---|---|---|---|\n{rows}"
    )
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
