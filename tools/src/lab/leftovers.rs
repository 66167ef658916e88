//! What labs leave in the filesystem, and how to find labs whose process is gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::dst_opt::{cgroup2_mount, remove_group};
use super::namespace::{Namespace, run};
use super::topology::PREFIX;

const ROOT: &str = "/run/mimbox-lab";
const ROLES: [&str; 4] = ["client", "link", "box", "server"];

/// The directory of one lab; its file `owner` names the process that will remove it.
#[derive(Debug)]
pub(crate) struct RunDirectory {
    path: PathBuf,
    keep: bool,
}

impl RunDirectory {
    pub(crate) fn create(id: &str) -> Result<Self> {
        let path = Path::new(ROOT).join(id);
        fs::create_dir_all(ROOT).with_context(|| format!("cannot make {ROOT}"))?;
        fs::create_dir(&path).with_context(|| {
            format!("cannot make {}: if a lab of this name exists, `mimbox-lab down {id}` removes it", path.display())
        })?;
        fs::write(path.join("owner"), std::process::id().to_string())?;
        Ok(Self { path, keep: false })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Nobody owns it any more: it stays until it is removed by name.
    pub(crate) fn keep(&mut self) -> Result<()> {
        self.keep = true;
        fs::remove_file(self.path.join("owner")).context("cannot give the lab's directory up")
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        if !self.keep {
            remove_directory(&self.path);
        }
    }
}

fn remove_directory(path: &Path) {
    let bpf = path.join("bpf");
    if bpf.exists() {
        // Unmounting lets go of the links that were pinned there. It may not be mounted.
        let _ = run(Command::new("umount").arg(&bpf));
    }
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        eprintln!("cannot remove {}: {error}", path.display());
    }
}

/// Removes the lab of this name, or all labs whose process is gone; returns the names of those removed.
pub fn remove_leftovers(name: Option<&str>) -> Result<Vec<String>> {
    let ids = match name {
        Some(name) => vec![name.to_owned()],
        None => all_labs()?.into_iter().filter(|id| is_orphan(id)).collect(),
    };
    let mut removed = Vec::new();
    for id in ids {
        if remove(&id)? {
            removed.push(id);
        }
    }
    Ok(removed)
}

/// Every lab there is a trace of.
fn all_labs() -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for (directory, prefix) in [(Path::new(ROOT), ""), (Path::new("/run/netns"), PREFIX)] {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let Some(id) = name.strip_prefix(prefix) else { continue };
            let id = match id.rsplit_once('-') {
                Some((id, role)) if ROLES.contains(&role) => id,
                _ => id,
            };
            if !ids.iter().any(|known| known == id) {
                ids.push(id.to_owned());
            }
        }
    }
    Ok(ids)
}

/// Made for the lifetime of a process that is no longer there.
fn is_orphan(id: &str) -> bool {
    let directory = Path::new(ROOT).join(id);
    if !directory.exists() {
        return true;
    }
    match fs::read_to_string(directory.join("owner")) {
        Ok(owner) => !Path::new("/proc").join(owner.trim()).exists(),
        // Given up by its process on purpose.
        Err(_) => false,
    }
}

fn remove(id: &str) -> Result<bool> {
    let mut found = false;
    for role in ROLES {
        let name = format!("{PREFIX}{id}-{role}");
        if Path::new("/run/netns").join(&name).exists() {
            found = true;
            drop(Namespace::leftover(name));
        }
    }
    let group = cgroup2_mount().map(|mount| mount.join(format!("{PREFIX}{id}")));
    if let Ok(group) = group
        && group.exists()
    {
        found = true;
        remove_group(&group);
    }
    let directory = Path::new(ROOT).join(id);
    if directory.exists() {
        found = true;
        remove_directory(&directory);
    }
    Ok(found)
}
