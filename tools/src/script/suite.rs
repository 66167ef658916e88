//! A directory of scripts, run as a whole.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, bail};

use super::known::known_failures;
use super::syntax::{Linux, Script, Subject};
use super::{Failure, load, run_linux, run_mimbox};

/// What became of one script.
#[derive(Debug)]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It does not, and nobody knew.
    Failed(Box<Failure>),
    /// It does not, as is known.
    KnownFailure(Box<Failure>, String),
    /// It holds although it is listed as failing: the list is to be mended.
    Mended(String),
}

impl Verdict {
    /// True when nothing is to be done.
    pub const fn is_good(&self) -> bool {
        matches!(self, Self::Passed | Self::KnownFailure(..))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => write!(f, "passed"),
            Self::Failed(failure) => write!(f, "{failure}"),
            Self::KnownFailure(failure, why) => write!(f, "fails as known ({why}): {}", failure.message),
            Self::Mended(why) => write!(f, "holds, but KNOWN.md says that it fails: {why}"),
        }
    }
}

/// The script files that `paths` name: files as they are, directories by what is in them.
///
/// # Errors
/// When a path is not there.
pub fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        if !path.is_dir() {
            found.push(path.clone());
            continue;
        }
        let before = found.len();
        for entry in std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
            let entry = entry?.path();
            if entry.extension().is_some_and(|extension| extension == "pkt") {
                found.push(entry);
            }
        }
        if found.len() == before {
            bail!("{}: there is no script (*.pkt) in it", path.display());
        }
    }
    found.sort();
    Ok(found)
}

/// Runs one script and judges it by what is known.
pub fn judge(script: &Script, known: &BTreeMap<String, String>) -> Verdict {
    let name = file_name(&script.path);
    match (guarded(script), known.get(&name)) {
        (Ok(()), None) => Verdict::Passed,
        (Ok(()), Some(why)) => Verdict::Mended(why.clone()),
        (Err(failure), None) => Verdict::Failed(failure),
        (Err(failure), Some(why)) => Verdict::KnownFailure(failure, why.clone()),
    }
}

/// A run in which a panic is a failure like any other.
fn guarded(script: &Script) -> Result<(), Box<Failure>> {
    std::panic::catch_unwind(|| run_mimbox(script)).unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(Failure::outside(script, format!("panic: {what}")))
    })
}

/// Runs every script of a directory against this stack.
///
/// # Errors
/// When a file cannot be read or understood, or `KNOWN.md` names a script that is not there.
pub fn run_directory(directory: &Path) -> anyhow::Result<Vec<(Script, Verdict)>> {
    let known = known_failures(directory)?;
    let mut results = Vec::new();
    for path in files(&[directory.to_owned()])? {
        let script = load(&path)?;
        let verdict = judge(&script, &known);
        results.push((script, verdict));
    }
    for name in known.keys() {
        if !results.iter().any(|(script, _)| file_name(&script.path) == *name) {
            bail!("KNOWN.md names {name}, which is not there");
        }
    }
    Ok(results)
}

/// How often a script that should hold is put to the kernel: in real time, on a machine that does other things, a segment
/// may be late.
const ATTEMPTS: usize = 3;

/// What the kernel made of a script.
#[derive(Debug)]
pub enum LinuxVerdict {
    /// It holds.
    Same,
    /// It does not, for the reason that the script gives.
    Differs(Box<Failure>),
    /// It was not put to the kernel, for the reason that the script gives.
    Skipped,
    /// It does not hold, and the script does not say so.
    Unexpected(Box<Failure>),
    /// It holds, and the script says that it does not.
    Agrees,
    /// It could not be put to the kernel at all.
    Broken(String),
}

impl LinuxVerdict {
    /// True when the script says what the kernel does.
    pub const fn is_good(&self) -> bool {
        matches!(self, Self::Same | Self::Differs(_) | Self::Skipped)
    }
}

impl fmt::Display for LinuxVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same => write!(f, "the same"),
            Self::Differs(failure) => write!(f, "differs as said: {}", failure.message),
            Self::Skipped => write!(f, "skipped"),
            Self::Unexpected(failure) => write!(f, "{failure}"),
            Self::Agrees => write!(f, "holds, but the script says that Linux differs"),
            Self::Broken(error) => write!(f, "cannot be run: {error}"),
        }
    }
}

/// Puts one script to the kernel.
fn judge_linux(script: &Script, namespace: &str) -> LinuxVerdict {
    if matches!(script.linux, Linux::Skip(_)) || script.subject == Subject::Converter {
        return LinuxVerdict::Skipped;
    }
    let mut last = None;
    for attempt in 0..ATTEMPTS {
        match run_linux(script, &format!("{namespace}-{attempt}")) {
            Err(error) => return LinuxVerdict::Broken(format!("{error:#}")),
            Ok(Ok(())) => {
                return if script.linux == Linux::Same { LinuxVerdict::Same } else { LinuxVerdict::Agrees };
            }
            Ok(Err(failure)) => last = Some(failure),
        }
    }
    match (last, &script.linux) {
        (Some(failure), Linux::Same) => LinuxVerdict::Unexpected(failure),
        (Some(failure), _) => LinuxVerdict::Differs(failure),
        (None, _) => LinuxVerdict::Skipped,
    }
}

/// Puts scripts to the kernel, `threads` at a time; `tell` hears of each when it is done.
pub fn run_linux_all(
    scripts: &[Script],
    threads: usize,
    tell: impl Fn(&Script, &LinuxVerdict) + Sync,
) -> Vec<LinuxVerdict> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(script) = scripts.get(index) else { break };
                    let verdict = judge_linux(script, &format!("mbscript-{}-{index}", std::process::id()));
                    tell(script, &verdict);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((index, verdict));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, verdict)| verdict).collect()
}

/// The last part of a path.
pub fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
