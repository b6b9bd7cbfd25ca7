//! From a directory as a command spells it to its canonical place, and the symlinks on the way.
//!
//! A worker shows files at their canonical places and the symlinks as symlinks, so that every
//! spelling leads there as it does here.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;

use crate::id::{AbsPath, Bytes};
use crate::message::{Entry, EntryKind};

/// Symlinks that are followed at most, as in the kernel.
pub(super) const SYMLINKS_MAX: u32 = 40;

/// Resolves `spelled`, which is relative to the canonical directory `base` or absolute. Adds each
/// symlink and each directory that the way leads through to `entries`.
///
/// # Errors
/// When a component does not exist, is no directory, or the symlinks run in a circle.
pub fn resolve(base: &AbsPath, spelled: &[u8], entries: &mut Vec<Entry>) -> io::Result<AbsPath> {
    let mut place = if spelled.first() == Some(&b'/') {
        root()
    } else {
        base.clone()
    };
    // The components that are still to be walked, the next one last.
    let mut ahead: Vec<Vec<u8>> = components(spelled);
    let mut followed = 0;
    while let Some(name) = ahead.pop() {
        match &name[..] {
            b"." => continue,
            b".." => {
                place = place.parent().unwrap_or_else(root);
                continue;
            }
            _ => {}
        }
        let next = place.join(&name).map_err(io::Error::other)?;
        if fs::symlink_metadata(next.as_path())?.is_symlink() {
            followed += 1;
            if followed > SYMLINKS_MAX {
                return Err(io::Error::from_raw_os_error(nix::libc::ELOOP));
            }
            let target = fs::read_link(next.as_path())?;
            let target = Bytes::from(target.as_os_str().as_bytes());
            if target.first() == Some(&b'/') {
                place = root();
            }
            ahead.extend(components(&target));
            entries.push(Entry {
                path: next,
                kind: EntryKind::Symlink(target),
            });
        } else {
            place = next;
            entries.push(Entry {
                path: place.clone(),
                kind: EntryKind::Directory,
            });
        }
    }
    if !fs::metadata(place.as_path())?.is_dir() {
        return Err(io::Error::from_raw_os_error(nix::libc::ENOTDIR));
    }
    Ok(place)
}

fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&byte| byte == b'/')
        .filter(|part| !part.is_empty())
        .rev()
        .map(<[u8]>::to_vec)
        .collect()
}

fn root() -> AbsPath {
    AbsPath::parse("/").expect("the root is a plain path")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symlinks_on_the_way_are_told_and_dots_are_physical() {
        let directory = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(directory.path()).unwrap();
        fs::create_dir_all(base.join("real/deep")).unwrap();
        std::os::unix::fs::symlink("real/deep", base.join("link")).unwrap();
        let base = AbsPath::parse(Bytes::from(base.as_path()).0).unwrap();
        let mut entries = Vec::new();
        let place = resolve(&base, b"link/../deep/.//", &mut entries).unwrap();
        assert_eq!(place, base.join(b"real").unwrap().join(b"deep").unwrap());
        let links: Vec<&Entry> = entries
            .iter()
            .filter(|entry| entry.kind != EntryKind::Directory)
            .collect();
        assert_eq!(links.len(), 1);
        assert_eq!(links[0].kind, EntryKind::Symlink(Bytes::from("real/deep")));
    }

    #[test]
    fn circles_and_absent_directories_are_errors() {
        let directory = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(directory.path()).unwrap();
        std::os::unix::fs::symlink("loop", base.join("loop")).unwrap();
        fs::write(base.join("file"), "").unwrap();
        let base = AbsPath::parse(Bytes::from(base.as_path()).0).unwrap();
        for spelled in ["loop", "absent", "file"] {
            assert!(
                resolve(&base, spelled.as_bytes(), &mut Vec::new()).is_err(),
                "{spelled}"
            );
        }
    }
}
