//! What a directory holds: every name with its kind, mode and content, and which names are one
//! file.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Names, relative to the directory, and what they are.
pub type Snapshot = BTreeMap<Vec<u8>, Entry>;

/// What a name is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `file`, `directory` and so on.
    pub kind: &'static str,
    /// Its permissions.
    pub mode: u32,
    /// A file's content or a link's target; none where reading is not allowed.
    pub content: Option<Vec<u8>>,
    /// The first of the names that this file has, when it has another one.
    pub same_as: Option<Vec<u8>>,
}

/// Takes a snapshot of what is below `directory`.
pub fn take(directory: &Path) -> Snapshot {
    let mut snapshot = Snapshot::new();
    let mut first_names = BTreeMap::new();
    look(directory, b"", &mut snapshot, &mut first_names);
    snapshot
}

fn look(
    directory: &Path,
    prefix: &[u8],
    snapshot: &mut Snapshot,
    first_names: &mut BTreeMap<(u64, u64), Vec<u8>>,
) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("list").file_name())
        .collect();
    names.sort();
    for file_name in names {
        let path = directory.join(&file_name);
        let name = [prefix, file_name.as_bytes()].concat();
        let Ok(metadata) = path.symlink_metadata() else {
            continue;
        };
        let mut entry = entry(&path, &metadata);
        if !metadata.is_dir() && metadata.nlink() > 1 {
            let first = first_names
                .entry((metadata.dev(), metadata.ino()))
                .or_insert_with(|| name.clone());
            entry.same_as = Some(first.clone());
        }
        snapshot.insert(name.clone(), entry);
        if metadata.is_dir() {
            let prefix = [&name[..], b"/"].concat();
            look(&path, &prefix, snapshot, first_names);
        }
    }
}

fn entry(path: &Path, metadata: &Metadata) -> Entry {
    let file_type = metadata.file_type();
    let (kind, content) = if file_type.is_file() {
        ("file", fs::read(path).ok())
    } else if file_type.is_symlink() {
        let target = fs::read_link(path).ok();
        (
            "link",
            target.map(|target| target.as_os_str().as_bytes().to_vec()),
        )
    } else if file_type.is_dir() {
        ("directory", None)
    } else if file_type.is_fifo() {
        ("fifo", None)
    } else {
        ("special file", None)
    };
    Entry {
        kind,
        mode: metadata.mode() & 0o7777,
        content,
        same_as: None,
    }
}
