//! Scripts that are known to fail, with the reason: `KNOWN.md` beside them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;

/// The list of a directory: file name to reason. An absent file is an empty list.
///
/// # Errors
/// When the file cannot be read, or an entry has no reason.
pub fn known_failures(directory: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let path = directory.join("KNOWN.md");
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| path.display().to_string())
}

/// Every line `` - `name.pkt`: reason ``; lines that go on are indented, anything else is prose.
fn parse(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut last: Option<String> = None;
    for (index, line) in text.lines().enumerate() {
        if let Some(rest) = line.strip_prefix("- `") {
            let entry = rest.split_once("`:").map(|(name, reason)| (name.to_owned(), reason.trim().to_owned()));
            let (name, reason) = entry.filter(|(_, reason)| !reason.is_empty()).with_context(|| {
                format!("line {}: an entry reads: - `name.pkt`: what is wrong with the engine", index + 1)
            })?;
            last = Some(name.clone());
            known.insert(name, reason);
        } else if let Some(more) = line.strip_prefix("  ")
            && let Some(reason) = last.as_ref().and_then(|name| known.get_mut(name))
        {
            reason.push(' ');
            reason.push_str(more.trim());
        } else {
            last = None;
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests;
