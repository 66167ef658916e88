//! What is wrong with a configuration file: where, what, and what to do about it.

use std::fmt;
use std::ops::Range;

/// One thing that is wrong in a configuration file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Line, from 1; zero when the problem has no place in the file.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The line itself, for display.
    pub source: String,
    /// How many characters of the line are meant.
    pub width: usize,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub help: String,
}

impl Problem {
    /// A problem at `span` (bytes) of `text`.
    pub(super) fn at(text: &str, span: Range<usize>, what: String, help: String) -> Self {
        let start = floor_boundary(text, span.start);
        let end = floor_boundary(text, span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let source = text[line_start..line_end].trim_end_matches('\r').to_owned();
        Self {
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            width: text[start..end.min(line_end)].chars().count().max(1),
            source,
            what,
            help,
        }
    }
}

/// The last character boundary of `text` that is not behind `at`.
fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Why a configuration cannot be used. Its `Display` shows every problem with its place and its remedy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// The file's name as the operator gave it.
    pub file: String,
    /// At least one problem, in the order of the file's lines.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let Problem { line, column, source, width, what, help } = problem;
            if index > 0 {
                f.write_str("\n")?;
            }
            if *line == 0 {
                write!(f, "{}: {what}", self.file)?;
            } else {
                // Tabs are kept before the mark so that it stands under what it means in any terminal.
                let indent: String =
                    source.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
                write!(f, "{}:{line}:{column}: {what}", self.file)?;
                write!(f, "\n    {source}\n    {indent}{}", "^".repeat(*width))?;
            }
            write!(f, "\n    help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// The problem that the TOML reader found, in this project's words and with a suggestion for a mistyped key.
pub(super) fn from_toml(text: &str, error: &toml::de::Error) -> Problem {
    let message = error.message().trim();
    let span = error.span().unwrap_or(0..0);
    let (what, help) = if let Some((key, known)) = unknown_field(message) {
        let help = match closest(key, known.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("the keys here are {}", known.join(", ")),
        };
        (format!("unknown key {key:?}"), help)
    } else if let Some(rest) = message.strip_prefix("invalid type: ") {
        let (found, expected) = rest.split_once(", expected ").unwrap_or((rest, "something else"));
        let (found, expected) = (plain_type(found), plain_type(expected));
        (format!("this is {found}, but {expected} belongs here"), format!("write {expected}"))
    } else {
        (
            format!("not valid TOML: {}", message.replace('\n', "; ")),
            "mend the line; https://toml.io shows how TOML is written".to_owned(),
        )
    };
    Problem::at(text, span, what, help)
}

/// Takes serde's "unknown field" message apart: the field, and the fields that there are.
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (key, rest) = rest.split_once('`')?;
    Some((key, rest.split('`').skip(1).step_by(2).collect()))
}

/// serde's names of types in an operator's words.
fn plain_type(name: &str) -> String {
    match name {
        "a sequence" | "sequence" => "a list ([\"…\", \"…\"])".to_owned(),
        "map" | "a map" => "a table".to_owned(),
        "i64" | "u64" => "a whole number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" => "a text in quotation marks".to_owned(),
        name if name.starts_with("struct ") => "a table ({ key = value } or a [section])".to_owned(),
        name => {
            let name = name.replace('`', "");
            match name.split_once(' ') {
                Some(("string" | "integer" | "boolean" | "float", _)) => {
                    let article = if name.starts_with('i') { "an" } else { "a" };
                    format!("{article} {}", name.replacen("string", "text", 1))
                }
                _ => name,
            }
        }
    }
}

/// The one of `known` that `word` was probably meant to be.
pub(super) fn closest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    known
        .map(|candidate| (distance(&word, &candidate.to_lowercase().replace('-', "_")), candidate))
        .filter(|(edits, candidate)| *edits <= 1.max(candidate.chars().count() / 3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap of neighbours) that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
