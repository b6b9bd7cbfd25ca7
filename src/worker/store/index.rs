//! What is in the store, who holds it, and what goes first.
//!
//! Touches no blob: it says what to remove, and counts. Times are those of the wall clock, since they
//! are compared with those of an earlier process.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::id::Digest;
use crate::message::{EntryKind, Manifest};

/// What a file takes on the disk: whole pages, and one for its name.
const BLOCK: u64 = 4096;

/// The most files that go at once beyond what is needed: they go under the store's lock.
const REMOVED_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct Index {
    limit: u64,
    /// Of blobs, with what is announced of those that are being written.
    used: u64,
    pub(super) blobs: HashMap<Digest, Blob>,
    pub(super) toolchains: HashMap<Digest, Toolchain>,
    next_generation: u64,
}

#[derive(Debug)]
pub(super) struct Blob {
    pub(super) size: u64,
    /// Whether this process knows that the content is what the name says.
    pub(super) is_verified: bool,
    /// Tells a blob from one of the same name that was removed before, and its pins with it.
    pub(super) generation: u64,
    pins: u32,
    last_use: SystemTime,
}

#[derive(Debug)]
pub(super) struct Toolchain {
    pub(super) manifest: Arc<Manifest>,
    /// Whether this process knows that its files are those of the list.
    pub(super) is_verified: bool,
    pins: u32,
    last_use: SystemTime,
}

/// What is no longer in the index and has to go from the disk.
#[derive(Debug, Default)]
pub(super) struct Removal {
    pub(super) toolchains: Vec<Digest>,
    pub(super) blobs: Vec<Digest>,
}

impl Index {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: 0,
            blobs: HashMap::new(),
            toolchains: HashMap::new(),
            next_generation: 0,
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// Takes in a blob that is not there yet, and whose room is not reserved.
    pub(super) fn add_blob(&mut self, digest: Digest, size: u64, last_use: SystemTime) {
        self.used += room(size);
        self.take_reserved(digest, size, false, last_use);
    }

    /// Takes in a blob that is not there yet, in place of its reservation.
    pub(super) fn take_reserved(
        &mut self,
        digest: Digest,
        size: u64,
        is_verified: bool,
        last_use: SystemTime,
    ) {
        self.next_generation += 1;
        let blob = Blob {
            size,
            is_verified,
            generation: self.next_generation,
            pins: 0,
            last_use,
        };
        self.blobs.insert(digest, blob);
    }

    /// Gives back the reservation for a blob of `size`.
    pub(super) fn release(&mut self, size: u64) {
        self.used = self.used.saturating_sub(room(size));
    }

    pub(super) fn remove_blob(&mut self, digest: &Digest) {
        if let Some(blob) = self.blobs.remove(digest) {
            self.release(blob.size);
        }
    }

    /// Pins a blob that is there; returns its generation.
    pub(super) fn pin(&mut self, digest: &Digest) -> Option<u64> {
        let blob = self.blobs.get_mut(digest)?;
        blob.pins += 1;
        touch(&mut blob.last_use);
        Some(blob.generation)
    }

    pub(super) fn unpin(&mut self, digest: &Digest, generation: u64) {
        let blob = self.blobs.get_mut(digest);
        if let Some(blob) = blob.filter(|blob| blob.generation == generation) {
            blob.pins -= 1;
        }
    }

    /// Takes in a toolchain, whose blobs are held by it from now on (those that are there).
    pub(super) fn add_toolchain(
        &mut self,
        digest: Digest,
        manifest: Arc<Manifest>,
        is_verified: bool,
        last_use: SystemTime,
    ) {
        let placed = Toolchain {
            manifest,
            is_verified,
            pins: 0,
            last_use,
        };
        self.toolchains.insert(digest, placed);
    }

    pub(super) fn pin_toolchain(&mut self, digest: &Digest) -> Option<Arc<Manifest>> {
        let placed = self.toolchains.get_mut(digest)?;
        placed.pins += 1;
        touch(&mut placed.last_use);
        Some(placed.manifest.clone())
    }

    pub(super) fn unpin_toolchain(&mut self, digest: &Digest) {
        if let Some(placed) = self.toolchains.get_mut(digest) {
            placed.pins = placed.pins.saturating_sub(1);
        }
    }

    /// Reserves `bytes`, as [`room`] counts them; false when even what has to go for it would not
    /// do. What has to go is no longer here.
    pub(super) fn reserve(&mut self, bytes: u64) -> (Removal, bool) {
        let mut removal = Removal::default();
        let fits = |used: u64| used.saturating_add(bytes) <= self.limit;
        if fits(0) && !fits(self.used) {
            self.evict(bytes, &mut removal);
        }
        let is_reserved = self.used.saturating_add(bytes) <= self.limit;
        if is_reserved {
            self.used += bytes;
        }
        (removal, is_reserved)
    }

    fn evict(&mut self, bytes: u64, removal: &mut Removal) {
        #[derive(PartialEq, Eq, PartialOrd, Ord)]
        enum Candidate {
            /// Of the same age as its blobs: it goes before them.
            Toolchain(Digest),
            Blob(Digest),
        }
        // How many toolchains hold a blob, and the last use of any. As long as one stands, the blob
        // takes room whatever is done to its name.
        let mut held: HashMap<Digest, (u32, SystemTime)> = HashMap::new();
        for placed in self.toolchains.values() {
            for digest in files(&placed.manifest) {
                let held = held.entry(digest).or_insert((0, placed.last_use));
                *held = (held.0 + 1, held.1.max(placed.last_use));
            }
        }
        let mut order = Vec::new();
        for (digest, placed) in &self.toolchains {
            if placed.pins == 0 {
                order.push((placed.last_use, Candidate::Toolchain(*digest)));
            }
        }
        for (digest, blob) in &self.blobs {
            if blob.pins == 0 {
                let holder = held.get(digest).map_or(blob.last_use, |held| held.1);
                order.push((blob.last_use.max(holder), Candidate::Blob(*digest)));
            }
        }
        order.sort_unstable();
        let goal = (self.limit / 10 * 9).saturating_sub(bytes);
        for (_, candidate) in order {
            let is_enough = self.used.saturating_add(bytes) <= self.limit;
            if self.used <= goal || (is_enough && removal.blobs.len() >= REMOVED_MAX) {
                break;
            }
            match candidate {
                Candidate::Toolchain(digest) => {
                    if let Some(placed) = self.toolchains.remove(&digest) {
                        for digest in files(&placed.manifest) {
                            held.entry(digest).and_modify(|held| held.0 -= 1);
                        }
                        removal.toolchains.push(digest);
                    }
                }
                Candidate::Blob(digest) => {
                    if held.get(&digest).is_none_or(|held| held.0 == 0) {
                        self.remove_blob(&digest);
                        removal.blobs.push(digest);
                    }
                }
            }
        }
    }

    /// What [`load`] reads.
    pub(super) fn encode(&self) -> Vec<u8> {
        let blobs = self
            .blobs
            .iter()
            .map(|(digest, blob)| (digest, blob.last_use));
        let toolchains = self.toolchains.iter();
        let toolchains = toolchains.map(|(digest, placed)| (digest, placed.last_use));
        let mut bytes = Vec::new();
        for (digest, last_use) in blobs.chain(toolchains) {
            let since = last_use.duration_since(SystemTime::UNIX_EPOCH);
            let nanoseconds = since.unwrap_or_default().as_nanos() as u64;
            bytes.extend(digest.0);
            bytes.extend(nanoseconds.to_le_bytes());
        }
        bytes
    }
}

/// When what was last used, as an earlier process wrote it; empty when it could not.
pub(super) fn load(path: &Path) -> HashMap<Digest, SystemTime> {
    const RECORD: usize = 40;
    let bytes = std::fs::read(path).unwrap_or_default();
    let records = bytes.chunks_exact(RECORD);
    let times = records.filter_map(|record| {
        let (digest, nanoseconds) = record.split_first_chunk::<32>()?;
        let nanoseconds = u64::from_le_bytes(nanoseconds.try_into().ok()?);
        let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(nanoseconds))?;
        // A clock that went back must not make anything young for ever.
        Some((Digest(*digest), time.min(SystemTime::now())))
    });
    times.collect()
}

/// The digests of a list's files; one that comes twice comes twice.
pub(super) fn files(manifest: &Manifest) -> impl Iterator<Item = Digest> {
    manifest
        .entries
        .iter()
        .filter_map(|entry| match entry.kind {
            EntryKind::File { digest, .. } => Some(digest),
            _ => None,
        })
}

fn touch(last_use: &mut SystemTime) {
    *last_use = SystemTime::now().max(*last_use);
}

/// The room that a file of `size` bytes takes.
pub(super) fn room(size: u64) -> u64 {
    size.div_ceil(BLOCK).saturating_add(1).saturating_mul(BLOCK)
}
