//! The list of a toolchain's files: its name, and the limits that a foreign one must meet.
//!
//! Knows no file system. What passes [`check`] can be built below an empty directory, entry by
//! entry, without ever following a symlink of the list.

use std::collections::BTreeSet;

use crate::id::{AbsPath, Digest, PATH_BYTES_MAX};
use crate::message::{Entry, EntryKind, Manifest, Mtime};

/// The most entries; gcc has about 40, clang 40, and a distribution's `gconv` some 250 more.
pub const ENTRIES_MAX: usize = 4096;

/// The most bytes of all files together; a clang with its debug information has one gigabyte.
pub const TOTAL_BYTES_MAX: u64 = 2 << 30;

/// The deepest path, in components: what bounds the work of building one entry.
pub const DEPTH_MAX: usize = 64;

/// The longest platform, in bytes; the longest of `uname -m` has eleven.
pub const PLATFORM_BYTES_MAX: usize = 32;

/// Why a list is not a toolchain.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ManifestError {
    /// Too many entries.
    #[error("a toolchain of {0} entries; at most {ENTRIES_MAX} are accepted")]
    TooMany(usize),
    /// Its files are too large.
    #[error("a toolchain of more than {TOTAL_BYTES_MAX} bytes")]
    TooLarge,
    /// The platform is empty, too long, or no word.
    #[error("a toolchain for no platform that could be one")]
    Platform,
    /// The order is wrong, or a path comes twice.
    #[error("a toolchain's list is out of order at {0}")]
    Order(AbsPath),
    /// A path that can't be: the root, or too deep a one.
    #[error("a toolchain can't have an entry at {0}")]
    Path(AbsPath),
    /// A symlink whose target is empty, too long, or has a NUL.
    #[error("the symlink {0} has an impossible target")]
    Target(AbsPath),
    /// A time that is not zero: it would be part of the name.
    #[error("the file {0} has a time")]
    Time(AbsPath),
    /// The entry lies below a file or a symlink of the list.
    #[error("{0} lies below something that is not a directory")]
    BelowFile(AbsPath),
    /// There is nothing to execute.
    #[error("a toolchain without a program")]
    NoProgram,
}

/// The name of a toolchain: BLAKE3 over its platform and its entries, each with its length, in
/// their order. Times don't count.
pub fn name(manifest: &Manifest) -> Digest {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(b"ice toolchain 1");
    part(manifest.platform.as_bytes());
    for Entry { path, kind } in &manifest.entries {
        part(path.as_bytes());
        match kind {
            EntryKind::File {
                digest,
                size,
                executable,
                mtime: _,
            } => {
                part(if *executable { b"program" } else { b"file" });
                part(&digest.0);
                part(&size.to_le_bytes());
            }
            EntryKind::Symlink(target) => {
                part(b"symlink");
                part(target);
            }
            EntryKind::Directory => part(b"directory"),
        }
    }
    Digest(*hasher.finalize().as_bytes())
}

/// Whether a list that came from outside can be a toolchain. Its digests are not looked at.
pub fn check(manifest: &Manifest) -> Result<(), ManifestError> {
    let entries = &manifest.entries;
    if entries.len() > ENTRIES_MAX {
        return Err(ManifestError::TooMany(entries.len()));
    }
    let platform = manifest.platform.as_bytes();
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if platform.is_empty() || platform.len() > PLATFORM_BYTES_MAX || !platform.iter().all(is_word) {
        return Err(ManifestError::Platform);
    }
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].path >= pair[1].path) {
        return Err(ManifestError::Order(pair[1].path.clone()));
    }
    let mut total: u64 = 0;
    let mut has_program = false;
    let mut leaves: BTreeSet<&[u8]> = BTreeSet::new();
    for Entry { path, kind } in entries {
        let depth = path.components().count();
        if depth == 0 || depth > DEPTH_MAX {
            return Err(ManifestError::Path(path.clone()));
        }
        match kind {
            EntryKind::File {
                size,
                executable,
                mtime,
                ..
            } => {
                if *mtime != Mtime::default() {
                    return Err(ManifestError::Time(path.clone()));
                }
                total = total.saturating_add(*size);
                has_program |= executable;
            }
            EntryKind::Symlink(target) => {
                if target.is_empty() || target.len() > PATH_BYTES_MAX || target.contains(&0) {
                    return Err(ManifestError::Target(path.clone()));
                }
            }
            EntryKind::Directory => continue,
        }
        leaves.insert(path.as_bytes());
    }
    if total > TOTAL_BYTES_MAX {
        return Err(ManifestError::TooLarge);
    }
    if !has_program {
        return Err(ManifestError::NoProgram);
    }
    for Entry { path, .. } in entries {
        let bytes = path.as_bytes();
        let slashes = (1..bytes.len()).filter(|&at| bytes[at] == b'/');
        if slashes.into_iter().any(|at| leaves.contains(&bytes[..at])) {
            return Err(ManifestError::BelowFile(path.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Bytes;

    fn entry(path: &str, kind: EntryKind) -> Entry {
        let path = AbsPath::parse(path).unwrap();
        Entry { path, kind }
    }

    fn file(path: &str, size: u64) -> Entry {
        let kind = EntryKind::File {
            digest: Digest([1; 32]),
            size,
            executable: true,
            mtime: Mtime::default(),
        };
        entry(path, kind)
    }

    fn link(path: &str, target: &str) -> Entry {
        entry(path, EntryKind::Symlink(Bytes::from(target)))
    }

    fn list(entries: Vec<Entry>) -> Manifest {
        Manifest {
            platform: "x86_64".into(),
            entries,
        }
    }

    #[test]
    fn what_a_foreign_list_may_be() {
        use ManifestError::*;
        let path = |text: &str| AbsPath::parse(text).unwrap();
        let deep = "/d".repeat(DEPTH_MAX + 1);
        for (entries, expect) in [
            (vec![file("/a", 1)], Ok(())),
            (
                vec![
                    entry("/d", EntryKind::Directory),
                    file("/d/a", 1),
                    link("/e", "d"),
                ],
                Ok(()),
            ),
            (vec![], Err(NoProgram)),
            (vec![link("/a", "b")], Err(NoProgram)),
            (vec![file("/b", 1), file("/a", 1)], Err(Order(path("/a")))),
            (vec![file("/a", 1), link("/a", "b")], Err(Order(path("/a")))),
            (
                // "-" sorts before "/": the parent is not the entry before.
                vec![link("/a", "b"), file("/a-", 1), file("/a/c", 1)],
                Err(BelowFile(path("/a/c"))),
            ),
            (
                vec![file("/a", 1), file("/a/b/c", 1)],
                Err(BelowFile(path("/a/b/c"))),
            ),
            (vec![file("/", 1)], Err(Path(path("/")))),
            (vec![file(&deep, 1)], Err(Path(path(&deep)))),
            (vec![file("/a", 1), link("/b", "")], Err(Target(path("/b")))),
            (
                vec![file("/a", 1), link("/b", "c\0d")],
                Err(Target(path("/b"))),
            ),
            (
                vec![file("/a", TOTAL_BYTES_MAX), file("/b", 1)],
                Err(TooLarge),
            ),
            (
                vec![file("/a", u64::MAX), file("/b", u64::MAX)],
                Err(TooLarge),
            ),
            (
                (0..=ENTRIES_MAX)
                    .map(|i| file(&format!("/{i:05}"), 0))
                    .collect(),
                Err(TooMany(ENTRIES_MAX + 1)),
            ),
        ] {
            let entries = list(entries);
            assert_eq!(check(&entries), expect, "{:?}", entries.entries.first());
        }
        for platform in ["", "x86 64", "x/y", &"x".repeat(PLATFORM_BYTES_MAX + 1)] {
            let mut manifest = list(vec![file("/a", 1)]);
            manifest.platform = platform.into();
            assert_eq!(check(&manifest), Err(Platform), "{platform}");
        }
    }

    #[test]
    fn every_part_but_the_time_is_in_the_name() {
        let base = list(vec![file("/a", 1), link("/b", "c")]);
        let change = |change: fn(&mut Manifest)| {
            let mut other = base.clone();
            change(&mut other);
            other
        };
        let others = [
            change(|m| m.platform = "x86_65".into()),
            change(|m| m.entries[0] = file("/a", 2)),
            change(|m| m.entries[0] = file("/aa", 1)),
            change(|m| m.entries[0] = link("/a", "b")),
            change(|m| m.entries[1] = link("/b", "d")),
            change(|m| m.entries[1] = link("/bc", "")),
            change(|m| m.entries[1] = entry("/b", EntryKind::Directory)),
            change(|m| drop(m.entries.pop())),
            change(|m| {
                if let EntryKind::File { executable, .. } = &mut m.entries[0].kind {
                    *executable = false;
                }
            }),
            change(|m| {
                if let EntryKind::File { digest, .. } = &mut m.entries[0].kind {
                    digest.0[31] = 0;
                }
            }),
        ];
        let mut names: BTreeSet<Digest> = others.iter().map(name).collect();
        names.insert(name(&base));
        assert_eq!(names.len(), others.len() + 1);

        let dated = change(|m| {
            if let EntryKind::File { mtime, .. } = &mut m.entries[0].kind {
                mtime.seconds = 7;
            }
        });
        assert_eq!(name(&dated), name(&base));
        assert_eq!(
            check(&dated),
            Err(ManifestError::Time(base.entries[0].path.clone()))
        );
    }
}
