//! Blobs: taken in, held, read.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::id::Digest;

use super::index::{Index, room};
use super::{Store, StoreError, at, remove_all};

/// Where a blob lies.
pub(super) fn place(directory: &Path, digest: &Digest) -> PathBuf {
    let name = digest.to_string();
    directory.join("blobs").join(&name[..2]).join(name)
}

/// Takes in what an earlier process left, by name and size; removes what is no blob.
pub(super) fn scan(
    directory: &Path,
    used: &HashMap<Digest, SystemTime>,
    index: &mut Index,
) -> Result<(), StoreError> {
    let blobs = directory.join("blobs");
    for shelf in fs::read_dir(&blobs).map_err(at(&blobs))? {
        let shelf = shelf.map_err(at(&blobs))?;
        let shelf_path = shelf.path();
        if !shelf.file_type().map_err(at(&shelf_path))?.is_dir() {
            remove_all(&shelf_path).map_err(at(&shelf_path))?;
            continue;
        }
        for entry in fs::read_dir(&shelf_path).map_err(at(&shelf_path))? {
            let entry = entry.map_err(at(&shelf_path))?;
            let path = entry.path();
            let metadata = entry.metadata().map_err(at(&path))?;
            let name = entry.file_name();
            let digest = name.to_str().and_then(Digest::parse);
            match digest.filter(|digest| metadata.is_file() && place(directory, digest) == path) {
                Some(digest) => {
                    let written = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    let last_use = used.get(&digest).copied().unwrap_or(written);
                    index.add_blob(digest, metadata.size(), last_use);
                }
                None => remove_all(&path).map_err(at(&path))?,
            }
        }
    }
    Ok(())
}

impl Store {
    /// Whether a blob is there and good. It may go at any time; [`Store::pin`] says so and holds it.
    pub fn has(self: &Arc<Self>, digest: &Digest) -> bool {
        self.pin(std::slice::from_ref(digest)).1.is_empty()
    }

    /// Holds those of `digests` that are there, until the pins are dropped, and names those that are
    /// not, each once and in their order.
    pub fn pin(self: &Arc<Self>, digests: &[Digest]) -> (Pins, Vec<Digest>) {
        let mut pins = Pins {
            store: self.clone(),
            held: Vec::with_capacity(digests.len()),
        };
        let mut missing = Vec::new();
        let mut doubtful = Vec::new();
        let mut index = self.index();
        for digest in digests {
            match index.pin(digest) {
                Some(generation) => {
                    pins.held.push((*digest, generation));
                    if !index.blobs[digest].is_verified {
                        doubtful.push(*digest);
                    }
                }
                None => missing.push(*digest),
            }
        }
        drop(index);
        doubtful.sort();
        doubtful.dedup();
        for digest in doubtful {
            if !self.verify(&digest) {
                missing.push(digest);
            }
        }
        let mut seen = HashSet::new();
        missing.retain(|digest| seen.insert(*digest));
        (pins, missing)
    }

    /// The file that has this content, for as long as it is pinned.
    pub fn path(self: &Arc<Self>, digest: &Digest) -> Option<PathBuf> {
        self.has(digest).then(|| self.blob(digest))
    }

    /// A blob's content; none when it is not there.
    pub fn read(self: &Arc<Self>, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let (_pins, missing) = self.pin(std::slice::from_ref(digest));
        if !missing.is_empty() {
            return Ok(None);
        }
        let path = self.blob(digest);
        fs::read(&path).map(Some).map_err(at(&path))
    }

    /// Begins to take in a blob of `size` bytes. Room is made for it at once, or it is refused.
    pub fn ingest(self: &Arc<Self>, digest: Digest, size: u64) -> Result<Ingest, StoreError> {
        self.make_room(room(size))?;
        let temporary = self.temporary();
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary);
        let file = file.inspect_err(|_| self.index().release(size));
        Ok(Ingest {
            file: file.map_err(at(&temporary))?,
            temporary,
            digest,
            size,
            left: size,
            hasher: Box::default(),
            store: self.clone(),
            is_reserved: true,
        })
    }

    /// Takes in a blob that is there as a whole.
    pub fn insert(self: &Arc<Self>, digest: Digest, content: &[u8]) -> Result<Pins, StoreError> {
        let mut ingest = self.ingest(digest, content.len() as u64)?;
        ingest.write(content)?;
        ingest.finish()
    }

    /// Reads a blob and compares. A spoiled one is removed: it never was.
    pub(super) fn verify(&self, digest: &Digest) -> bool {
        let path = self.blob(digest);
        let (size, generation) = match self.index().blobs.get(digest) {
            Some(blob) => (blob.size, blob.generation),
            None => return false,
        };
        let found = digest_of(&path);
        let is_good = found.as_ref().is_ok_and(|found| *found == (*digest, size));
        let mut index = self.index();
        let blob = index.blobs.get_mut(digest);
        if let Some(blob) = blob.filter(|blob| blob.generation == generation) {
            blob.is_verified = is_good;
            if !is_good {
                log::warn!("blob {} was spoiled, and is removed", digest.short());
                index.remove_blob(digest);
                self.remove_blob(digest);
            }
        }
        is_good
    }

    pub(super) fn remove_blob(&self, digest: &Digest) {
        let path = self.blob(digest);
        if let Err(error) = fs::remove_file(&path) {
            log::warn!("remove {}: {error}", path.display());
        }
    }
}

/// A blob on its way in. Dropped before [`Ingest::finish`], it leaves nothing.
#[derive(Debug)]
pub struct Ingest {
    store: Arc<Store>,
    file: File,
    temporary: PathBuf,
    digest: Digest,
    size: u64,
    left: u64,
    hasher: Box<blake3::Hasher>,
    is_reserved: bool,
}

impl Ingest {
    /// Appends a piece.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        let left = self.left.checked_sub(piece.len() as u64);
        self.left = left.ok_or(StoreError::TooLong(self.digest))?;
        self.hasher.update(piece);
        self.file.write_all(piece).map_err(at(&self.temporary))
    }

    /// Verifies what was written and gives it its name. It is pinned, so that it is there for whom it
    /// was fetched.
    pub fn finish(mut self) -> Result<Pins, StoreError> {
        let digest = self.digest;
        if self.left != 0 || *self.hasher.finalize().as_bytes() != digest.0 {
            return Err(StoreError::Corrupt(digest));
        }
        let readable = fs::Permissions::from_mode(0o444);
        self.file
            .set_permissions(readable)
            .map_err(at(&self.temporary))?;
        let path = self.store.blob(&digest);
        let known = self
            .store
            .index()
            .blobs
            .get(&digest)
            .map(|blob| blob.is_verified);
        if known == Some(false) {
            // An earlier process left one; if it is spoiled, it makes room for this one.
            self.store.verify(&digest);
        }
        let mut index = self.store.index();
        // Somebody else may have been faster; his has links, so it stays.
        if !index.blobs.contains_key(&digest) {
            if let Some(shelf) = path.parent() {
                make_shelf(shelf).map_err(at(shelf))?;
            }
            fs::rename(&self.temporary, &path).map_err(at(&path))?;
            index.take_reserved(digest, self.size, true, SystemTime::now());
            self.is_reserved = false;
        }
        let held = index.pin(&digest).map(|generation| (digest, generation));
        drop(index);
        Ok(Pins {
            store: self.store.clone(),
            held: held.into_iter().collect(),
        })
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if self.is_reserved {
            self.store.index().release(self.size);
            if let Err(error) = fs::remove_file(&self.temporary) {
                log::warn!("remove {}: {error}", self.temporary.display());
            }
        }
    }
}

/// Blobs that don't go as long as this lives.
#[derive(Debug)]
pub struct Pins {
    store: Arc<Store>,
    held: Vec<(Digest, u64)>,
}

impl Pins {
    /// Holds what the other one holds, too.
    pub fn merge(&mut self, mut other: Self) {
        debug_assert!(
            Arc::ptr_eq(&self.store, &other.store),
            "pins are of one store"
        );
        self.held.append(&mut other.held);
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut index = self.store.index();
        for (digest, generation) in &self.held {
            index.unpin(digest, *generation);
        }
    }
}

fn make_shelf(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The digest and the size of a file that is no symlink.
pub(super) fn digest_of(path: &Path) -> io::Result<(Digest, u64)> {
    let mut file = File::options()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 128 << 10];
    let mut size = 0;
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        size += length as u64;
        hasher.update(&buffer[..length]);
    }
    Ok((Digest(*hasher.finalize().as_bytes()), size))
}
