//! Whether a tree is what its job declared: nothing more, nothing less, nothing else.
//!
//! Knows nothing of the pool that built the tree: what has to be there is worked out from the
//! declaration alone, and what is there is read from the file system. So a mistake in the pool's
//! books is found and not repeated. It reads every file, which costs more than many a compile; it
//! is for tests, and for whoever doubts.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{FileStat, SFlag};

use super::beneath::{kind, open_directory, open_file, permissions, stat};
use super::scan::{errno, file_mode, read_directory};
use crate::id::AbsPath;
use crate::message::{Entry, EntryKind, Mtime};

/// How a tree differs from its declaration.
#[derive(Debug, thiserror::Error)]
pub enum Inexact {
    /// Something that nobody declared is there.
    #[error("{0} is there and was not declared")]
    Extra(AbsPath),
    /// Something that was declared is not there.
    #[error("{0} was declared and is not there")]
    Lacking(AbsPath),
    /// Something is not what was declared.
    #[error("{path}: its {what} is not the declared one")]
    Other {
        /// Where.
        path: AbsPath,
        /// What differs.
        what: &'static str,
    },
    /// It could not be looked at.
    #[error("look at {path}: {source}")]
    Io {
        /// Where.
        path: AbsPath,
        /// What came of it.
        source: nix::Error,
    },
}

/// What has to stand at a path.
enum Expected<'a> {
    Directory,
    /// An empty file, over which one of the toolchain's is bound.
    Placeholder,
    Declared(&'a EntryKind),
}

/// Compares the tree in `directory` with what its job declared. No process may use it meanwhile.
pub fn verify(
    directory: BorrowedFd<'_>,
    toolchain: &[Entry],
    entries: &[Entry],
    writable: &[AbsPath],
    cwd: &AbsPath,
) -> Result<(), Inexact> {
    let mut expected = expected(toolchain, entries, writable, cwd);
    let root = AbsPath::parse("/").expect("`/` is a path");
    let mut pending = vec![root];
    while let Some(path) = pending.pop() {
        let at = |source| Inexact::Io {
            path: path.clone(),
            source,
        };
        let mut names = read_directory(directory, &path).map_err(|_| at(nix::Error::EIO))?;
        let place = open_directory(directory, &path, OFlag::O_PATH).map_err(at)?;
        for name in names.iter() {
            let name = name.map_err(at)?;
            let name = name.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let child = path.join(name).map_err(|_| at(nix::Error::EINVAL))?;
            let Some(expected) = expected.remove(&child) else {
                return Err(Inexact::Extra(child));
            };
            let found = stat(place.as_fd(), name).map_err(at)?;
            let differs = differs(place.as_fd(), name, &found, &expected).map_err(at)?;
            if let Some(what) = differs {
                return Err(Inexact::Other { path: child, what });
            }
            if kind(&found) == SFlag::S_IFDIR {
                pending.push(child);
            }
        }
    }
    match expected.into_keys().next() {
        None => Ok(()),
        Some(path) => Err(Inexact::Lacking(path)),
    }
}

fn expected<'a>(
    toolchain: &'a [Entry],
    entries: &'a [Entry],
    writable: &'a [AbsPath],
    cwd: &'a AbsPath,
) -> BTreeMap<AbsPath, Expected<'a>> {
    let directories = writable.iter().chain([cwd]);
    let directories = directories.map(|path| (path, Expected::Directory));
    let declared = entries
        .iter()
        .map(|entry| (&entry.path, Expected::Declared(&entry.kind)));
    let tools = toolchain.iter().map(|entry| match entry.kind {
        EntryKind::File { .. } => (&entry.path, Expected::Placeholder),
        _ => (&entry.path, Expected::Declared(&entry.kind)),
    });
    let mut expected = BTreeMap::new();
    // What the toolchain has, it has: a job may declare the same once more.
    for (path, what) in directories.chain(declared).chain(tools) {
        let mut above = path.parent();
        while let Some(parent) = above {
            above = parent.parent();
            expected.entry(parent).or_insert(Expected::Directory);
        }
        expected.insert(path.clone(), what);
    }
    expected.retain(|path, _| path.as_bytes() != b"/");
    expected
}

/// What differs, if anything does.
fn differs(
    parent: BorrowedFd<'_>,
    name: &[u8],
    found: &FileStat,
    expected: &Expected<'_>,
) -> nix::Result<Option<&'static str>> {
    let (size, digest, executable, mtime) = match expected {
        Expected::Directory | Expected::Declared(EntryKind::Directory) => {
            return Ok(match (kind(found), permissions(found)) {
                (SFlag::S_IFDIR, 0o755) => None,
                (SFlag::S_IFDIR, _) => Some("mode"),
                _ => Some("kind"),
            });
        }
        Expected::Declared(EntryKind::Symlink(target)) => {
            if kind(found) != SFlag::S_IFLNK {
                return Ok(Some("kind"));
            }
            let is_same = readlinkat(parent, name)? == target.as_os_str();
            return Ok((!is_same).then_some("target"));
        }
        Expected::Placeholder => (0, *blake3::hash(b"").as_bytes(), false, Mtime::default()),
        Expected::Declared(EntryKind::File {
            digest,
            size,
            executable,
            mtime,
        }) => (*size, digest.0, *executable, *mtime),
    };
    if kind(found) != SFlag::S_IFREG {
        return Ok(Some("kind"));
    }
    if permissions(found) != file_mode(executable) {
        return Ok(Some("mode"));
    }
    if (found.st_mtime, found.st_mtime_nsec) != (mtime.seconds, mtime.nanoseconds.into()) {
        return Ok(Some("time"));
    }
    if found.st_size as u64 != size {
        return Ok(Some("size"));
    }
    let mut hasher = blake3::Hasher::new();
    let read = hasher.update_reader(open_file(parent, name)?);
    read.map_err(|error| errno(&error))?;
    Ok((*hasher.finalize().as_bytes() != digest).then_some("content"))
}
