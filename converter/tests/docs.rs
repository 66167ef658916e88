//! Pages that are lists of something are whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names under every table of dependencies of a `Cargo.toml`, this project's own crates left out.
fn dependencies(manifest: &str) -> Vec<String> {
    let table: toml::Table = manifest.parse().expect("a Cargo.toml is TOML");
    ["dependencies", "dev-dependencies", "build-dependencies"]
        .iter()
        .filter_map(|key| table.get(*key)?.as_table())
        .flat_map(|dependencies| dependencies.keys().cloned())
        .filter(|name| !name.starts_with("mimbox-"))
        .collect()
}

#[test]
fn every_dependency_has_its_line_and_every_line_its_dependency() {
    let members = ["stack", "mptcp", "dataplane", "converter", "tools", "tests"];
    let used: BTreeSet<String> =
        members.iter().flat_map(|member| dependencies(&read(&top().join(member).join("Cargo.toml")))).collect();
    let page = read(&top().join("docs/dependencies.md"));
    let listed: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect();
    assert_eq!(used, listed, "docs/dependencies.md and the Cargo.toml files differ");
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut pages = vec![top().join("README.md")];
    let docs = std::fs::read_dir(top().join("docs")).expect("there is a directory of pages");
    pages.extend(
        docs.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.extension().is_some_and(|e| e == "md")),
    );
    for page in pages {
        let text = read(&page);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let target = page.parent().expect("a directory").join(file);
            assert!(target.exists(), "{} links to {file}, which is not there", page.display());
        }
    }
}
