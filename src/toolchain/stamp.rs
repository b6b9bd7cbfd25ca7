//! Whether a file is still the one that was looked at, and the digests of files that are.
//!
//! A stamp has the time of change (`ctime`) too, which nobody can set back: `cp -p` and `touch -r`
//! don't deceive it.

use std::collections::BTreeMap;
use std::fs::{File, Metadata, symlink_metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::id::Digest;

/// The most digests that are remembered; all are forgotten when there are more.
const DIGESTS_MAX: usize = 16 << 10;

/// What tells a file, a symlink or a directory from any that took its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// What stands at `path` now, symlinks not followed; none when there is nothing.
    pub fn at(path: &Path) -> Option<Self> {
        symlink_metadata(path).ok().as_ref().map(Self::of)
    }
}

/// Paths with what stood there; nothing is a state too, since a file that appears earlier in a
/// search path changes what is found.
#[derive(Clone, Debug, Default)]
pub struct Stamps(BTreeMap<PathBuf, Option<Stamp>>);

impl Stamps {
    /// Remembers that `stamp` was at `path`.
    pub fn add(&mut self, path: &Path, stamp: Option<Stamp>) {
        self.0.insert(path.to_owned(), stamp);
    }

    /// Adds what another one has.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether everything stands as it stood: one `lstat` for each path, about 1 µs each.
    pub fn is_current(&self) -> bool {
        self.0.iter().all(|(path, stamp)| Stamp::at(path) == *stamp)
    }
}

/// A file whose content was read as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Hashed {
    /// BLAKE3 of its content.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Whether anyone may execute it.
    pub executable: bool,
    /// The file that was read.
    pub stamp: Stamp,
}

/// Digests of files by their stamps, so that a compiler that is looked at again is not read again.
#[derive(Debug, Default)]
pub struct Digests(Mutex<BTreeMap<Stamp, Digest>>);

impl Digests {
    /// The digest of the regular file at `path`. Fails when it changes while it is read.
    pub fn digest(&self, path: &Path) -> io::Result<Hashed> {
        let mut file = File::open(path)?;
        let before = file.metadata()?;
        if !before.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let stamp = Stamp::of(&before);
        let hashed = |digest| Hashed {
            digest,
            size: stamp.size,
            executable: before.mode() & 0o111 != 0,
            stamp,
        };
        let known = |map: &BTreeMap<Stamp, Digest>| map.get(&stamp).copied();
        if let Some(digest) = known(&self.0.lock().expect("no panic under this lock")) {
            return Ok(hashed(digest));
        }
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 128 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                length => hasher.update(&buffer[..length]),
            };
        }
        if Stamp::of(&file.metadata()?) != stamp {
            return Err(io::Error::other("it changed while it was read"));
        }
        let digest = Digest(*hasher.finalize().as_bytes());
        let mut map = self.0.lock().expect("no panic under this lock");
        if map.len() >= DIGESTS_MAX {
            map.clear();
        }
        map.insert(stamp, digest);
        Ok(hashed(digest))
    }
}
