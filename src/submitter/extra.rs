//! `ICECC_EXTRAFILES`: files that a job needs and that no command line names, such as what a
//! plugin reads.
//!
//! They are shown to the job at their own places. A source job lists them with the others; a
//! preprocessed job, whose text is all that it needs of headers, gets them here.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::spelling;
use crate::id::{AbsPath, Bytes, Digest};
use crate::masquerade::file_name;
use crate::message::{Call, Entry, EntryKind, Mtime};

/// The largest file that travels.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The files that the variable names, separated by colons, as they are spelled.
pub fn named(call: &Call) -> Vec<Bytes> {
    let value = call.variable("ICECC_EXTRAFILES");
    let value = value.map(|value| &value[..]).unwrap_or_default();
    let names = value.split(|&byte| byte == b':');
    names
        .filter(|name| !name.is_empty())
        .map(Bytes::from)
        .collect()
}

/// The entries of these files: each at its canonical place, and the symlinks on the way to it. Blocks
/// until they are read.
///
/// # Errors
/// When one is not there, no regular file, too large, or can't be read.
pub fn entries(cwd: &AbsPath, files: &[Bytes]) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for file in files {
        let entry = entry(cwd, file, &mut entries);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{file}: {error}"));
        entries.push(entry.map_err(named)?);
    }
    entries.retain(|entry| entry.kind != EntryKind::Directory);
    entries.sort();
    entries.dedup();
    Ok(entries)
}

fn entry(cwd: &AbsPath, file: &Bytes, on_the_way: &mut Vec<Entry>) -> io::Result<Entry> {
    let mut spelled = file.clone();
    // A symlink leads to another directory and name, so often as the kernel would follow it.
    for _ in 0..spelling::SYMLINKS_MAX {
        let name = file_name(&spelled).to_vec();
        let directory = &spelled[..spelled.len() - name.len()];
        let directory = spelling::resolve(cwd, directory, on_the_way)?;
        let path = directory.join(&name).map_err(io::Error::other)?;
        let metadata = std::fs::symlink_metadata(path.as_path())?;
        if metadata.is_symlink() {
            let target = Bytes::from(std::fs::read_link(path.as_path())?.as_path());
            spelled = match target.first() {
                Some(b'/') => target.clone(),
                _ => Bytes([directory.as_bytes(), b"/", &target[..]].concat()),
            };
            let kind = EntryKind::Symlink(target);
            on_the_way.push(Entry { path, kind });
            continue;
        }
        return read(path);
    }
    Err(io::Error::from_raw_os_error(nix::libc::ELOOP))
}

fn read(path: AbsPath) -> io::Result<Entry> {
    let mut file = File::open(path.as_path())?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("over {FILE_BYTES_MAX} bytes")));
    }
    let mut hasher = blake3::Hasher::new();
    let size = io::copy(&mut file, &mut hasher)?;
    let mtime = Mtime {
        seconds: metadata.mtime(),
        nanoseconds: metadata.mtime_nsec() as u32,
    };
    let kind = EntryKind::File {
        digest: Digest(*hasher.finalize().as_bytes()),
        size,
        executable: metadata.permissions().mode() & 0o111 != 0,
        mtime,
    };
    Ok(Entry { path, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_through_the_symlinks_that_lead_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(directory.path()).unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        std::fs::write(root.join("real/data"), "words").unwrap();
        std::os::unix::fs::symlink("real", root.join("way")).unwrap();
        std::os::unix::fs::symlink("way/data", root.join("name")).unwrap();
        let cwd = AbsPath::parse(Bytes::from(&*root).0).unwrap();
        let found = entries(&cwd, &["name".into(), "real/data".into()]).unwrap();
        let places: Vec<_> = found
            .iter()
            .map(|entry| {
                let kind = match &entry.kind {
                    EntryKind::Symlink(target) => target.to_string(),
                    EntryKind::File { size, .. } => size.to_string(),
                    EntryKind::Directory => "directory".to_owned(),
                };
                let place = entry.path.as_path().strip_prefix(&root).unwrap();
                (place.to_str().unwrap().to_owned(), kind)
            })
            .collect();
        let expect = [("name", "way/data"), ("real/data", "5"), ("way", "real")];
        assert_eq!(places, expect.map(|(a, b)| (a.to_owned(), b.to_owned())));
        for wrong in ["real", "nothing"] {
            assert!(entries(&cwd, &[wrong.into()]).is_err(), "{wrong}");
        }
    }
}
