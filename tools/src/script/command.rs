//! `mimbox-lab script`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;

use super::known::known_failures;
use super::load;
use super::suite::{Verdict, file_name, files, judge, run_linux_all};
use super::syntax::Script;
use super::table::table;

/// Which scripts to run, and against what.
#[derive(Args, Clone, Debug)]
pub struct ScriptArgs {
    /// Scripts (*.pkt), or directories of them.
    #[arg(value_name = "FILE", default_value = "tests/script")]
    pub paths: Vec<PathBuf>,
    /// Say of every script what became of it, not only of those that fail.
    #[arg(short, long)]
    pub verbose: bool,
    /// Run them against the kernel of this machine instead, in real time; needs root.
    #[arg(long)]
    pub linux: bool,
    /// With --linux, how many scripts run at a time.
    #[arg(long, default_value_t = 4)]
    pub threads: usize,
    /// Write the table of all these scripts, and where the kernel differs, to this file.
    #[arg(long, value_name = "FILE")]
    pub table: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// When a script cannot be read or understood, or its table not be written.
pub fn command(args: &ScriptArgs) -> anyhow::Result<ExitCode> {
    let scripts = files(&args.paths)?.iter().map(|path| load(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let bad = if args.linux { against_linux(args, &scripts)? } else { against_mimbox(args, &scripts)? };
    if let Some(path) = &args.table {
        let mut known = std::collections::BTreeMap::new();
        for script in &scripts {
            known.extend(known_of(script)?);
        }
        std::fs::write(path, table(&scripts, &known)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn known_of(script: &Script) -> anyhow::Result<std::collections::BTreeMap<String, String>> {
    known_failures(script.path.parent().unwrap_or(Path::new(".")))
}

fn against_mimbox(args: &ScriptArgs, scripts: &[Script]) -> anyhow::Result<usize> {
    let (mut good, mut bad, mut listed) = (0, 0, 0);
    for script in scripts {
        let verdict = judge(script, &known_of(script)?);
        match &verdict {
            Verdict::Passed => good += 1,
            Verdict::KnownFailure(..) => listed += 1,
            Verdict::Failed(_) | Verdict::Mended(_) => bad += 1,
        }
        if args.verbose || !verdict.is_good() {
            println!("{}: {verdict}", file_name(&script.path));
        }
    }
    println!("{good} hold, {bad} fail, {listed} fail as known");
    Ok(bad)
}

fn against_linux(args: &ScriptArgs, scripts: &[Script]) -> anyhow::Result<usize> {
    if !rustix::process::geteuid().is_root() {
        bail!("--linux makes network namespaces and TUN devices: run it as root");
    }
    let verdicts = run_linux_all(scripts, args.threads, |script, verdict| {
        if args.verbose || !verdict.is_good() {
            println!("{}: {verdict}", file_name(&script.path));
        }
    });
    let bad = verdicts.iter().filter(|verdict| !verdict.is_good()).count();
    println!("{} as the scripts say, {bad} not", verdicts.len() - bad);
    Ok(bad)
}
