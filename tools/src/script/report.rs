//! What went wrong in a script, for a person to read.

use std::fmt;
use std::path::PathBuf;

use super::syntax::Script;

/// Lines of history that a report shows.
const HISTORY: usize = 16;

/// Why a script failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The script.
    pub path: PathBuf,
    /// Line of the step, from 1.
    pub line: usize,
    /// The step as it is written.
    pub source: String,
    /// What is wrong, in a sentence.
    pub message: String,
    /// What came instead, in the words of the dialect.
    pub got: Option<String>,
    /// What differs.
    pub differences: Vec<String>,
    /// What happened before.
    pub history: Vec<String>,
}

impl Failure {
    /// A failure of no step: the subject could not be made, or broke.
    pub(super) fn outside(script: &Script, message: String) -> Box<Self> {
        Box::new(Self {
            path: script.path.clone(),
            line: 1,
            source: script.title.clone(),
            message,
            got: None,
            differences: Vec::new(),
            history: Vec::new(),
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, source, message, got, differences, history } = self;
        writeln!(f, "{}:{line}: {message}", path.display())?;
        writeln!(f, "    expected  {}", source.trim())?;
        if let Some(got) = got {
            writeln!(f, "    got       {got}")?;
        }
        for difference in differences {
            writeln!(f, "      - {difference}")?;
        }
        if !history.is_empty() {
            writeln!(f, "    before it:")?;
        }
        let skipped = history.len().saturating_sub(HISTORY);
        if skipped > 0 {
            writeln!(f, "      ({skipped} segments and actions left out)")?;
        }
        for event in history.iter().skip(skipped) {
            writeln!(f, "      {event}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
