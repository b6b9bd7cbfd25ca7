//! The worker's files by their content: a directory of blobs, and the toolchains built of them.
//!
//! ```text
//! <directory>/lock                    held as long as a daemon uses the directory
//!             index                   when what was last used
//!             blobs/ab/abcd…          mode 0444, or 0555 once a toolchain wants to execute it
//!             toolchains/abcd…/root   hard links to blobs, symlinks, directories
//!                             /manifest
//!             tmp/                    what is being written; emptied at the start
//! ```
//!
//! **Trust.** What this process has received was verified before it got its name. What an earlier
//! one left is only counted at the start (nothing is synced to the disk, so a power cut may have
//! spoiled it) and is verified when it is first asked for; a spoiled blob is then gone, and is
//! asked of the submitter again. A toolchain is verified whole before a process first uses it.
//!
//! **Room.** Blobs and toolchains that nobody has pinned go in the order of their last use, down to nine
//! tenths of the limit at once, so that the cost of choosing is shared by many. A toolchain goes as
//! a whole, and its blobs with it.
//!
//! All functions block.

mod blobs;
mod index;
mod toolchains;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

use crate::id::Digest;
use crate::toolchain::manifest::ManifestError;

use index::Index;

pub use blobs::{Ingest, Pins};
pub use toolchains::Placed;

/// Why the store doesn't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another daemon uses the directory.
    #[error("{0} is in use by another daemon; give each its own --cache-dir")]
    InUse(PathBuf),
    /// The directory is not ours alone: what is in it can't be trusted.
    #[error("{path} can't be a cache: {why}")]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is no room, even after everything unused went, or the disk is full.
    #[error("the cache is full")]
    Full,
    /// A blob is larger than was announced.
    #[error("blob {0} is longer than was announced")]
    TooLong(Digest),
    /// A blob's content is not what its name says, or it is shorter than was announced.
    #[error("blob {0} is not what it was announced to be")]
    Corrupt(Digest),
    /// Blobs of a toolchain are not there (any longer).
    #[error("{} blobs of the toolchain are missing", .0.len())]
    Missing(Vec<Digest>),
    /// The list is no toolchain's.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The file system says no.
    #[error("{path}: {error}")]
    File {
        /// Where.
        path: PathBuf,
        /// What it says.
        error: io::Error,
    },
}

/// The store. Shared by all jobs of a worker.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    index: Mutex<Index>,
    /// Held while a toolchain is built or verified: the second who wants it waits for the first.
    building: Mutex<()>,
    next_temporary: AtomicU64,
    _lock: Flock<File>,
}

impl Store {
    /// Opens or creates the store in `directory`, for at most `limit` bytes. Reads the names that are
    /// there: some 30 ms for 20,000 blobs.
    pub fn open(directory: &Path, limit: u64) -> Result<Arc<Self>, StoreError> {
        create_private(directory)?;
        let lock = lock(directory)?;
        for part in ["blobs", "toolchains", "tmp"] {
            create_private(&directory.join(part))?;
        }
        let temporary = directory.join("tmp");
        for entry in fs::read_dir(&temporary).map_err(at(&temporary))? {
            let path = entry.map_err(at(&temporary))?.path();
            remove_all(&path).map_err(at(&path))?;
        }
        let mut index = Index::new(limit);
        let used = index::load(&directory.join("index"));
        blobs::scan(directory, &used, &mut index)?;
        toolchains::scan(directory, &used, &mut index)?;
        let store = Self {
            directory: directory.to_owned(),
            index: Mutex::new(index),
            building: Mutex::default(),
            next_temporary: AtomicU64::new(0),
            _lock: lock,
        };
        // The limit may be lower than last time.
        store.make_room(0)?;
        Ok(Arc::new(store))
    }

    /// Bytes that are in use, in whole pages, with those that are reserved for blobs on their way. At
    /// most the limit.
    pub fn used_bytes(&self) -> u64 {
        self.index().used()
    }

    /// Writes down what was last used when, for the next process. Also done when the store is dropped;
    /// where neither was, the next process goes by when things were written.
    pub fn save(&self) -> Result<(), StoreError> {
        let text = self.index().encode();
        let temporary = self.temporary();
        let path = self.directory.join("index");
        let saved = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, &path));
        saved.map_err(at(&path))
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("no panic under this lock")
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        blobs::place(&self.directory, digest)
    }

    fn temporary(&self) -> PathBuf {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        self.directory.join("tmp").join(number.to_string())
    }

    /// Reserves `bytes`, after removing what is unused for longest where that is needed.
    fn make_room(&self, bytes: u64) -> Result<(), StoreError> {
        let mut index = self.index();
        let (removal, is_reserved) = index.reserve(bytes);
        // Under the lock: nobody shall give a file a name that is about to be removed.
        for digest in &removal.toolchains {
            self.remove_toolchain(digest);
        }
        for digest in &removal.blobs {
            self.remove_blob(digest);
        }
        drop(index);
        match is_reserved {
            true => Ok(()),
            false => Err(StoreError::Full),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.save() {
            log::warn!("{error}");
        }
    }
}

/// Creates a directory that is ours alone, or makes sure that an existing one is.
fn create_private(path: &Path) -> Result<(), StoreError> {
    let refuse = |why| StoreError::Unsafe {
        path: path.to_owned(),
        why,
    };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(at(parent))?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(at(path)(error)),
    }
    let metadata = fs::symlink_metadata(path).map_err(at(path))?;
    if !metadata.is_dir() {
        return Err(refuse("not a directory"));
    }
    if metadata.uid() != geteuid().as_raw() {
        return Err(refuse("it belongs to somebody else"));
    }
    if metadata.mode() & 0o022 != 0 {
        // Others could have put anything into it.
        return Err(refuse("others may write into it"));
    }
    let private = fs::Permissions::from_mode(0o700);
    fs::set_permissions(path, private).map_err(at(path))
}

/// The kernel lets go of the lock when the last copy of the descriptor is closed: a process that is
/// forked off and lives on without `exec` must have been forked before the store was opened.
fn lock(directory: &Path) -> Result<Flock<File>, StoreError> {
    let path = directory.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(&path)
        .map_err(at(&path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => StoreError::InUse(directory.to_owned()),
        errno => at(&path)(errno.into()),
    })
}

/// An error of the file system as the store's; a full disk is a full store.
fn at(path: &Path) -> impl Fn(io::Error) -> StoreError {
    move |error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full,
        _ => StoreError::File {
            path: path.to_owned(),
            error,
        },
    }
}

/// Removes a file, a symlink, or a directory with all that is in it. Follows no symlink.
fn remove_all(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path)?.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_a_full_store() {
        for (errno, is_full) in [
            (Errno::ENOSPC, true),
            (Errno::EDQUOT, true),
            (Errno::EACCES, false),
        ] {
            let error = at(Path::new("/x"))(errno.into());
            assert_eq!(matches!(error, StoreError::Full), is_full, "{error}");
        }
    }
}
