//! Protocol scripts: one behaviour each, in a text dialect, run against this stack and against the Linux kernel.
//!
//! `tests/script/README.md` describes the dialect. A script injects segments, says which segments have to come back and
//! when, and lets an application connect, write, read and close. [`Script`]s are parsed by [`parse`] and run by
//! [`run_mimbox`], in virtual time.

mod backend;
mod command;
mod converter;
mod endpoint;
mod kernel;
mod known;
mod lane;
mod lex;
mod packet;
mod parse;
mod report;
mod run;
mod stream;
mod suite;
mod syntax;
mod table;

use std::path::Path;

pub use command::{ScriptArgs, command};
pub use known::known_failures;
pub use lex::ParseError;
pub use parse::parse;
pub use report::Failure;
pub use suite::{LinuxVerdict, Verdict, file_name, files, judge, run_directory, run_linux_all};
pub use syntax::{BackendKind, Linux, Script, Subject};
pub use table::{KERNEL_RELEASE, kernel_release, table};

/// Runs a script against this stack.
///
/// # Errors
/// The first step that did not go as written.
pub fn run_mimbox(script: &Script) -> Result<(), Box<Failure>> {
    let failed = |message| Failure::outside(script, message);
    match script.subject {
        Subject::Endpoint => {
            let mut endpoint = endpoint::Endpoint::new(&script.settings).map_err(failed)?;
            run::run(script, &mut endpoint, run::endpoint_lanes(script))
        }
        Subject::Converter => {
            let mut converter = converter::Converter::new(&script.settings).map_err(failed)?;
            let [client, server] = converter::ends(script.settings.mode);
            run::run(script, &mut converter, run::converter_lanes(script, client, server))
        }
    }
}

/// Runs a script against the kernel, in a namespace of this name. Needs root.
///
/// # Errors
/// When the namespace cannot be made; the inner one is the first step that did not go as written.
pub fn run_linux(script: &Script, namespace: &str) -> anyhow::Result<Result<(), Box<Failure>>> {
    kernel::with_kernel(namespace, &script.settings, |kernel| run::run(script, kernel, run::endpoint_lanes(script)))
}

/// Reads and parses the script in a file.
///
/// # Errors
/// When the file cannot be read or its text not be understood.
pub fn load(path: &Path) -> anyhow::Result<Script> {
    use anyhow::Context as _;
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(parse(path, &text)?)
}
