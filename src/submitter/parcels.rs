//! The contents of files, packed for the wire once for all workers that ask for them.
//!
//! A build begins with many workers that lack the same headers at the same time. Each file is read,
//! checked against its digest and compressed by whoever needs it first; the others find it packed,
//! or wait for the moment that it takes. What is large (a compiler) is streamed and not kept.
//!
//! Bounded in bytes, the longest unused leaves first; and what nobody has asked for in a while leaves
//! as well, since a daemon without a build should be small.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::account::{self, Phase};
use crate::compress;
use crate::executor;
use crate::id::Digest;
use crate::message::{CHUNK_BYTES_MAX, Chunk};
use crate::threads;

/// A file of this size is read at once, checked before it is sent, and kept.
const KEPT_BYTES_MAX: u64 = 4 << 20;
/// All that is kept, packed. The headers of a large project are some 5 MB of it.
const SHELF_BYTES_MAX: usize = 16 << 20;
/// For how long something is kept that nobody asks for.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);

/// Where the bytes of a blob are.
#[derive(Clone, Debug)]
pub enum Content {
    /// Here.
    Memory(Arc<Vec<u8>>),
    /// In this file, unless it has changed since.
    File(PathBuf),
}

/// A blob, ready to be sent.
#[derive(Debug)]
pub enum Parcel {
    /// As a whole.
    Packed(Arc<Packed>),
    /// A file of this many bytes that is too large to be kept. Nobody has checked what is in it.
    Large(File, u64),
    /// It can't be read, or is not what it was.
    Gone,
}

/// A packed blob.
#[derive(Debug)]
pub struct Packed {
    /// Its size before.
    pub size: u64,
    /// Its pieces, in order.
    pub chunks: Vec<Chunk>,
}

impl Packed {
    fn new(bytes: &[u8]) -> Self {
        Self {
            size: bytes.len() as u64,
            chunks: bytes.chunks(CHUNK_BYTES_MAX).map(compress::pack).collect(),
        }
    }

    fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.data.len()).sum()
    }
}

/// All that is packed.
#[derive(Debug, Default)]
pub struct Parcels {
    shelf: Arc<Mutex<Shelf>>,
    /// Whoever packs: the next one finds the result.
    packing: smol::lock::Mutex<()>,
}

impl Parcels {
    /// Packs these blobs, in their order.
    pub async fn pack(&self, wanted: Vec<(Digest, Content)>) -> Vec<(Digest, Parcel)> {
        let on_shelf = |shelf: &mut Shelf| {
            let now = Instant::now();
            let find = |(digest, _): &(Digest, Content)| shelf.find(digest, now);
            wanted.iter().map(find).collect::<Option<Vec<_>>>()
        };
        let mut found = on_shelf(&mut lock(&self.shelf));
        let mut turn = None;
        if found.is_none() {
            turn = Some(self.packing.lock().await);
            found = on_shelf(&mut lock(&self.shelf));
        }
        if let Some(found) = found {
            let digests = wanted.iter().map(|(digest, _)| *digest);
            return digests.zip(found.into_iter().map(Parcel::Packed)).collect();
        }
        let shelf = self.shelf.clone();
        let parcels = threads::unblock(move || {
            let pack = |(digest, content): (Digest, Content)| {
                let now = Instant::now();
                let known = lock(&shelf).find(&digest, now);
                let parcel = known.map_or_else(|| pack(&shelf, &digest, content), Parcel::Packed);
                (digest, parcel)
            };
            account::during(Phase::Hashing, || wanted.into_iter().map(pack).collect())
        })
        .await;
        drop(turn);
        self.tidy_later();
        parcels
    }

    /// Sees to it that the shelf is cleared when nobody comes any more.
    fn tidy_later(&self) {
        if std::mem::replace(&mut lock(&self.shelf).is_tidied, true) {
            return;
        }
        let shelf = self.shelf.clone();
        executor::repeat(IDLE_TIME_MAX, move || {
            let mut shelf = lock(&shelf);
            shelf.forget_idle(Instant::now());
            shelf.is_tidied = !shelf.parcels.is_empty();
            shelf.is_tidied
        });
    }
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().expect("no holder of this lock panics")
}

fn pack(shelf: &Mutex<Shelf>, digest: &Digest, content: Content) -> Parcel {
    let path = match content {
        // Text that was preprocessed for one job goes to one worker.
        Content::Memory(bytes) => return Parcel::Packed(Arc::new(Packed::new(&bytes))),
        Content::File(path) => path,
    };
    match open(&path) {
        Ok((file, size, None)) => Parcel::Large(file, size),
        Ok((_, _, Some(bytes))) if blake3::hash(&bytes).as_bytes() == &digest.0 => {
            let packed = Arc::new(Packed::new(&bytes));
            lock(shelf).put(*digest, packed.clone(), Instant::now());
            Parcel::Packed(packed)
        }
        _ => Parcel::Gone,
    }
}

/// Opens a file; what is small is read at once.
fn open(path: &Path) -> io::Result<(File, u64, Option<Vec<u8>>)> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    if size > KEPT_BYTES_MAX {
        return Ok((file, size, None));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    // One byte more than there should be: a file that grows is not what it was.
    let mut reader = Read::by_ref(&mut file).take(KEPT_BYTES_MAX + 1);
    reader.read_to_end(&mut bytes)?;
    Ok((file, size, Some(bytes)))
}

/// What is kept, by digest. Knows no clock and no file.
#[derive(Debug, Default)]
struct Shelf {
    parcels: BTreeMap<Digest, (Instant, Arc<Packed>)>,
    bytes: usize,
    /// Whether somebody comes by to tidy it.
    is_tidied: bool,
}

impl Shelf {
    fn find(&mut self, digest: &Digest, now: Instant) -> Option<Arc<Packed>> {
        let (used, packed) = self.parcels.get_mut(digest)?;
        *used = now;
        Some(packed.clone())
    }

    fn put(&mut self, digest: Digest, packed: Arc<Packed>, now: Instant) {
        self.bytes += packed.bytes();
        if let Some((_, old)) = self.parcels.insert(digest, (now, packed)) {
            self.bytes -= old.bytes();
        }
        if self.bytes <= SHELF_BYTES_MAX {
            return;
        }
        // A quarter at once, so that looking for the oldest is rare.
        let mut by_age: Vec<(Instant, Digest)> = self
            .parcels
            .iter()
            .map(|(digest, (used, _))| (*used, *digest))
            .collect();
        by_age.sort_unstable();
        for (_, digest) in by_age {
            if self.bytes <= SHELF_BYTES_MAX / 4 * 3 {
                break;
            }
            self.remove(&digest);
        }
    }

    fn forget_idle(&mut self, now: Instant) {
        let idle = |used: &Instant| now.saturating_duration_since(*used) >= IDLE_TIME_MAX;
        let old: Vec<Digest> = self
            .parcels
            .iter()
            .filter(|(_, (used, _))| idle(used))
            .map(|(digest, _)| *digest)
            .collect();
        for digest in old {
            self.remove(&digest);
        }
    }

    fn remove(&mut self, digest: &Digest) {
        if let Some((_, packed)) = self.parcels.remove(digest) {
            self.bytes -= packed.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(bytes: &[u8]) -> Digest {
        Digest(*blake3::hash(bytes).as_bytes())
    }

    fn unpacked(parcel: &Parcel) -> Vec<u8> {
        let Parcel::Packed(packed) = parcel else {
            panic!("{parcel:?}");
        };
        let pieces = packed.chunks.iter().cloned();
        pieces
            .flat_map(|chunk| compress::unpack(chunk).unwrap())
            .collect()
    }

    #[test]
    fn what_was_packed_once_is_not_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.h");
        let text = b"int a;\n".repeat(100_000);
        std::fs::write(&path, &text).unwrap();
        let parcels = Parcels::default();
        let pack = |digest: Digest| {
            let wanted = vec![(digest, Content::File(path.clone()))];
            executor::block_on(parcels.pack(wanted)).remove(0).1
        };
        let first = pack(digest(&text));
        assert_eq!(unpacked(&first), text);
        // The content that was asked for is still what it was, whatever has become of the file.
        std::fs::write(&path, "changed").unwrap();
        let (Parcel::Packed(first), Parcel::Packed(second)) = (first, pack(digest(&text))) else {
            panic!("it is not kept");
        };
        assert!(Arc::ptr_eq(&first, &second));
        assert!(matches!(pack(digest(b"other")), Parcel::Gone));
        assert_eq!(unpacked(&pack(digest(b"changed"))), b"changed");
    }

    #[test]
    fn what_is_too_large_or_not_there_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("large");
        let file = File::create(&path).unwrap();
        file.set_len(KEPT_BYTES_MAX + 1).unwrap();
        let absent = directory.path().join("absent");
        let memory = Arc::new(b"text".to_vec());
        let wanted = vec![
            (Digest([1; 32]), Content::File(path)),
            (Digest([2; 32]), Content::File(absent)),
            (Digest([3; 32]), Content::Memory(memory)),
        ];
        let parcels = executor::block_on(Parcels::default().pack(wanted));
        let [(first, large), (_, gone), (last, memory)] = <[_; 3]>::try_from(parcels).unwrap();
        assert_eq!((first, last), (Digest([1; 32]), Digest([3; 32])));
        assert!(matches!(large, Parcel::Large(_, size) if size == KEPT_BYTES_MAX + 1));
        assert!(matches!(gone, Parcel::Gone));
        assert_eq!(unpacked(&memory), b"text");
    }

    #[test]
    fn the_shelf_is_bounded_and_the_longest_unused_leaves_first() {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let name = |n: u8| Digest([n; 32]);
        let mebibyte = || {
            let data = vec![0; 1 << 20].into();
            let chunks = vec![Chunk { size: 0, data }];
            Arc::new(Packed { size: 0, chunks })
        };
        let mut shelf = Shelf::default();
        let full = (SHELF_BYTES_MAX >> 20) as u8;
        for n in 0..full {
            shelf.put(name(n), mebibyte(), at(1));
        }
        assert_eq!(shelf.bytes, SHELF_BYTES_MAX);
        assert!(shelf.find(&name(0), at(2)).is_some());
        shelf.put(name(full), mebibyte(), at(3));
        assert!(shelf.bytes <= SHELF_BYTES_MAX / 4 * 3);
        assert!(shelf.find(&name(1), at(3)).is_none());
        shelf.forget_idle(at(2) + IDLE_TIME_MAX);
        assert!(shelf.find(&name(0), at(4)).is_none());
        assert!(shelf.find(&name(full), at(4)).is_some());
        assert_eq!(shelf.bytes, 1 << 20);
        shelf.put(name(full), mebibyte(), at(5));
        assert_eq!(shelf.bytes, 1 << 20, "the same thing twice counts once");
    }
}
