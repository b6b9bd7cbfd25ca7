//! Toolchains: directories made of blobs, at the paths of their list.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::id::Digest;
use crate::message::{Entry, EntryKind, Manifest};
use crate::toolchain::manifest;

use super::blobs::digest_of;
use super::index::{Index, files};
use super::{Store, StoreError, at, remove_all};

/// The longest list that is read back: its entries, each with a path and a target.
const MANIFEST_BYTES_MAX: u64 = 40 << 20;

/// Where a toolchain lies.
pub(super) fn place(directory: &Path, digest: &Digest) -> PathBuf {
    directory.join("toolchains").join(digest.to_string())
}

/// Takes in what an earlier process left, by its lists; removes what has none.
pub(super) fn scan(
    directory: &Path,
    used: &HashMap<Digest, SystemTime>,
    index: &mut Index,
) -> Result<(), StoreError> {
    let toolchains = directory.join("toolchains");
    for entry in fs::read_dir(&toolchains).map_err(at(&toolchains))? {
        let entry = entry.map_err(at(&toolchains))?;
        let path = entry.path();
        let digest = entry.file_name().to_str().and_then(Digest::parse);
        let known = digest.and_then(|digest| Some((digest, read_manifest(&path, &digest)?)));
        match known {
            Some((digest, manifest)) => {
                let written = entry.metadata().and_then(|metadata| metadata.modified());
                let last_use = used.get(&digest).copied();
                let last_use = last_use.unwrap_or(written.unwrap_or(SystemTime::UNIX_EPOCH));
                index.add_toolchain(digest, Arc::new(manifest), false, last_use);
            }
            None => remove_all(&path).map_err(at(&path))?,
        }
    }
    Ok(())
}

fn read_manifest(place: &Path, digest: &Digest) -> Option<Manifest> {
    let path = place.join("manifest");
    let metadata = fs::symlink_metadata(&path).ok()?;
    if !metadata.is_file() || metadata.len() > MANIFEST_BYTES_MAX {
        return None;
    }
    let manifest: Manifest = postcard::from_bytes(&fs::read(&path).ok()?).ok()?;
    manifest::check(&manifest).ok()?;
    (manifest::name(&manifest) == *digest).then_some(manifest)
}

/// A toolchain that stands, and does so as long as this lives.
#[derive(Debug)]
pub struct Placed {
    store: Arc<Store>,
    digest: Digest,
    root: PathBuf,
    manifest: Arc<Manifest>,
}

impl Placed {
    /// The directory that is its `/`. Its files are read-only and shared with others: nothing may
    /// be written into it.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its name.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its list.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        self.store.index().unpin_toolchain(&self.digest);
    }
}

impl Store {
    /// The toolchains that stand, the ones in use included.
    pub fn toolchains(&self) -> Vec<Digest> {
        let mut digests: Vec<Digest> = self.index().toolchains.keys().copied().collect();
        digests.sort();
        digests
    }

    /// A toolchain, if it stands. Reads all of it when it is asked for the first time in this process,
    /// and removes a spoiled one.
    pub fn toolchain(self: &Arc<Self>, digest: &Digest) -> Option<Placed> {
        // One that is good stays so; one that is in doubt is only pinned under the lock.
        if self.is_verified(digest)? {
            return self.hold(digest);
        }
        let _building = self.building.lock().expect("no panic under this lock");
        self.verified(digest)
    }

    /// Builds a toolchain of its blobs, or finds it built. The blobs that are not there are in
    /// [`StoreError::Missing`]; each is read and verified here, whatever was known of it.
    pub fn materialise(self: &Arc<Self>, manifest: &Manifest) -> Result<Placed, StoreError> {
        manifest::check(manifest)?;
        let digest = manifest::name(manifest);
        let _building = self.building.lock().expect("no panic under this lock");
        if let Some(placed) = self.verified(&digest) {
            return Ok(placed);
        }
        let mut wanted: Vec<Digest> = files(manifest).collect();
        wanted.sort();
        wanted.dedup();
        let (_pins, mut missing) = self.pin(&wanted);
        if missing.is_empty() {
            missing.extend(wanted.iter().filter(|digest| !self.verify(digest)));
        }
        if !missing.is_empty() {
            return Err(StoreError::Missing(missing));
        }
        let temporary = self.temporary();
        let place = place(&self.directory, &digest);
        let built = self
            .build(manifest, &temporary)
            .and_then(|()| fs::rename(&temporary, &place).map_err(at(&place)));
        if let Err(error) = built {
            if let Err(error) = remove_all(&temporary) {
                log::warn!("remove {}: {error}", temporary.display());
            }
            return Err(error);
        }
        let manifest = Arc::new(manifest.clone());
        let mut index = self.index();
        index.add_toolchain(digest, manifest.clone(), true, SystemTime::now());
        index.pin_toolchain(&digest);
        drop(index);
        Ok(self.placed(digest, manifest))
    }

    pub(super) fn remove_toolchain(&self, digest: &Digest) {
        let path = place(&self.directory, digest);
        let aside = self.temporary();
        // Aside first: a half removed toolchain must not be found by the next process.
        let removed = fs::rename(&path, &aside).and_then(|()| remove_all(&aside));
        if let Err(error) = removed {
            log::warn!("remove {}: {error}", path.display());
        }
    }

    fn is_verified(&self, digest: &Digest) -> Option<bool> {
        let index = self.index();
        index.toolchains.get(digest).map(|found| found.is_verified)
    }

    fn hold(self: &Arc<Self>, digest: &Digest) -> Option<Placed> {
        let manifest = self.index().pin_toolchain(digest)?;
        Some(self.placed(*digest, manifest))
    }

    fn placed(self: &Arc<Self>, digest: Digest, manifest: Arc<Manifest>) -> Placed {
        Placed {
            store: self.clone(),
            digest,
            root: place(&self.directory, &digest).join("root"),
            manifest,
        }
    }

    /// A toolchain that is known to be good, or is found to be. Wants `building` held.
    fn verified(self: &Arc<Self>, digest: &Digest) -> Option<Placed> {
        let placed = self.hold(digest)?;
        let is_good = self.is_verified(digest)?
            || placed
                .manifest
                .entries
                .iter()
                .all(|entry| stands(&placed.root, entry));
        let mut index = self.index();
        if is_good {
            if let Some(toolchain) = index.toolchains.get_mut(digest) {
                toolchain.is_verified = true;
            }
            drop(index);
            return Some(placed);
        }
        log::warn!("toolchain {} was spoiled, and is removed", digest.short());
        index.toolchains.remove(digest);
        self.remove_toolchain(digest);
        drop(index);
        None
    }

    fn build(&self, manifest: &Manifest, temporary: &Path) -> Result<(), StoreError> {
        let root = temporary.join("root");
        let mut made = BTreeSet::new();
        make_directories(temporary, &root, &mut made)?;
        for Entry { path, kind } in &manifest.entries {
            let target = root.join(path.relative());
            match kind {
                EntryKind::Directory => make_directories(&root, &target, &mut made)?,
                EntryKind::Symlink(link) => {
                    make_parents(&root, &target, &mut made)?;
                    symlink(link.as_path(), &target).map_err(at(&target))?;
                }
                EntryKind::File {
                    digest,
                    size,
                    executable,
                    ..
                } => {
                    make_parents(&root, &target, &mut made)?;
                    let announced = self.index().blobs.get(digest).map(|blob| blob.size);
                    if announced != Some(*size) {
                        return Err(StoreError::Corrupt(*digest));
                    }
                    link(&self.blob(digest), &target, *executable).map_err(at(&target))?;
                }
            }
        }
        let path = temporary.join("manifest");
        let text = postcard::to_stdvec(manifest).map_err(io::Error::other);
        let written = text.and_then(|text| fs::write(&path, text));
        written.map_err(at(&path))
    }
}

/// Links a blob to its place. It becomes executable for all its names: what it can do is decided by its
/// content and the sandbox, not by this bit.
fn link(blob: &Path, target: &Path, executable: bool) -> io::Result<()> {
    if executable {
        fs::set_permissions(blob, fs::Permissions::from_mode(0o555))?;
    }
    match fs::hard_link(blob, target) {
        // A file system without links, or with too many of them.
        Err(error) if !matches!(error.kind(), io::ErrorKind::AlreadyExists) => {
            fs::copy(blob, target).map(drop)
        }
        result => result,
    }
}

fn make_parents(root: &Path, path: &Path, made: &mut BTreeSet<PathBuf>) -> Result<(), StoreError> {
    match path.parent() {
        Some(parent) => make_directories(root, parent, made),
        None => Ok(()),
    }
}

/// Makes `path` and what is missing above it, up to `root`, and opens them to readers whatever the
/// umask is: a sandbox runs as somebody else.
fn make_directories(
    root: &Path,
    path: &Path,
    made: &mut BTreeSet<PathBuf>,
) -> Result<(), StoreError> {
    if made.contains(path) {
        return Ok(());
    }
    if path != root
        && let Some(parent) = path.parent()
    {
        make_directories(root, parent, made)?;
    }
    fs::create_dir(path).map_err(at(path))?;
    let readable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(path, readable).map_err(at(path))?;
    made.insert(path.to_owned());
    Ok(())
}

/// Whether an entry of the list is what stands below `root`.
fn stands(root: &Path, entry: &Entry) -> bool {
    let path = root.join(entry.path.relative());
    match &entry.kind {
        EntryKind::Directory => fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()),
        EntryKind::Symlink(target) => {
            fs::read_link(&path).is_ok_and(|found| found == target.as_path())
        }
        EntryKind::File {
            digest,
            size,
            executable,
            ..
        } => {
            let mode = fs::symlink_metadata(&path).map(|found| found.permissions().mode());
            mode.is_ok_and(|mode| !executable || mode & 0o111 != 0)
                && digest_of(&path).is_ok_and(|found| found == (*digest, *size))
        }
    }
}
