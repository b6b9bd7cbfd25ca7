//! What a job left where it may write: what is new, what is changed, what is gone.
//!
//! Repairs nothing but the modes of directories, without which it could not look. Runs only when
//! every process of the job is dead.
//!
//! A declared file below a writable directory is a private copy ([`crate::worker::inventory`]), and
//! so can be changed by jobs of this tree alone. It counts as unchanged when inode and ctime are
//! what they were when the copy was made: a job can set every time but that one, and can't write
//! into a file of mode 0444 without a `chmod` that moves it. The kernel's clock may tick as rarely
//! as every ten milliseconds, so a copy that is not older than the job's start proves nothing by its
//! ctime. Such a copy, and one whose ctime has moved, is unchanged when mode, size, mtime and digest
//! are those declared: this costs a hash per copy once after it was made, and afterwards one `stat`.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

use nix::dir::Dir;
use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{FileStat, SFlag};
use nix::time::{ClockId, clock_gettime};

use super::TreeError;
use super::beneath::{kind, open_directory, open_file, permissions, set_mode, stat};
use crate::id::{AbsPath, Bytes};
use crate::message::EntryKind;
use crate::worker::inventory::{Holdings, ItemId, ItemSet, TreeId, Wanted};

/// At most so many files, directories and symlinks may a job leave behind.
pub const WRITTEN_MAX: usize = 4096;

/// At most so many bytes may the files have together that a job leaves behind.
pub const WRITTEN_BYTES_MAX: u64 = 2 << 30;

/// Something that a job wrote.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Written {
    /// Where.
    pub path: AbsPath,
    /// What.
    pub kind: WrittenKind,
}

/// What a job wrote.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WrittenKind {
    /// A regular file; [`super::Tree::open`] reads it.
    File {
        /// Its permission bits.
        mode: u32,
        /// Its size in bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symlink with this target.
    Symlink(Bytes),
    /// Nothing, where a file [stood](super::Trees::stand) before.
    Removed,
}

/// A point of the clock that stamps inodes, in seconds and nanoseconds.
pub(super) type Instant = (i64, i64);

/// The clock as an inode that changes now would be stamped, at the least.
pub(super) fn now() -> nix::Result<Instant> {
    let now = clock_gettime(ClockId::CLOCK_REALTIME_COARSE)?;
    Ok((now.tv_sec(), now.tv_nsec()))
}

/// By what a private copy is known to be still the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    inode: u64,
    changed: Instant,
}

impl Stamp {
    pub(super) fn of(stat: &FileStat) -> Self {
        Self {
            inode: stat.st_ino,
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// A job's view of its tree.
#[derive(Debug)]
pub(super) struct Exposure {
    pub(super) wanted: Wanted,
    /// The clock when the tree was ready and the job had not begun.
    pub(super) started: Instant,
}

/// What was found where a job may write.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Names that are not what the tree holds there. None lies below another.
    pub(super) strange: Vec<Strange>,
    /// What the tree held and no longer holds.
    pub(super) damaged: Vec<ItemId>,
}

/// A name that the job made, or made anew.
#[derive(Debug)]
pub(super) struct Strange {
    pub(super) path: AbsPath,
    kind: SFlag,
    mode: u32,
    size: u64,
    inode: u64,
    modified: i64,
}

impl Strange {
    fn new(path: AbsPath, stat: &FileStat) -> Self {
        Self {
            path,
            kind: kind(stat),
            mode: permissions(stat),
            size: stat.st_size as u64,
            inode: stat.st_ino,
            modified: stat.st_mtime,
        }
    }
}

/// What is in a [`Stub`] that stands for a file that is not empty. No compiler writes it.
pub(super) const STUB_CONTENT: &[u8] = b"\0\xffice: what stood here is elsewhere\n";

/// A file that was put where a job would find one of its own, and by what it is known to be untouched:
/// a write, or a truncation, gives it a time later than 1970.
#[derive(Debug)]
pub(super) struct Stub {
    pub(super) path: AbsPath,
    pub(super) inode: u64,
    pub(super) mode: u32,
}

impl Stub {
    fn is_untouched(&self, found: &Strange) -> bool {
        found.inode == self.inode && found.modified == 0 && found.mode == self.mode
    }

    /// Whether the job kept what it took for the content of its own file, which is not here.
    fn is_kept(&self, tree: BorrowedFd<'_>, found: &Strange) -> nix::Result<bool> {
        if found.inode != self.inode || found.kind != SFlag::S_IFREG {
            return Ok(false);
        }
        let parent = self.path.parent().expect("nothing stands at `/`");
        let parent = open_directory(tree, &parent, OFlag::O_PATH)?;
        let file = open_file(parent.as_fd(), self.path.file_name())?;
        let mut start = Vec::new();
        let length = STUB_CONTENT.len() as u64;
        let read = file.take(length).read_to_end(&mut start);
        read.map_err(|error| errno(&error))?;
        Ok(found.modified == 0 || start == STUB_CONTENT)
    }
}

/// A tree with a job that has ended.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    pub(super) directory: BorrowedFd<'a>,
    pub(super) holdings: &'a Holdings,
    pub(super) tree: TreeId,
    pub(super) exposure: &'a Exposure,
    pub(super) stamps: &'a mut BTreeMap<ItemId, Stamp>,
}

impl Scanner<'_> {
    /// Compares what is there with what the tree held.
    pub(super) fn scan(mut self) -> Result<Scan, TreeError> {
        let mut scan = Scan::default();
        let mut seen = ItemSet::default();
        let mut pending = Vec::new();
        for root in self.exposure.wanted.roots() {
            let parent = root.parent().expect("`/` is never writable");
            let parent = open_directory(self.directory, &parent, OFlag::O_PATH)
                .map_err(io("open the directory of", root))?;
            self.visit(
                parent.as_fd(),
                root.clone(),
                &mut seen,
                &mut pending,
                &mut scan,
            )?;
        }
        while let Some(path) = pending.pop() {
            let mut entries = self.entries(&path)?;
            let place =
                open_directory(self.directory, &path, OFlag::O_PATH).map_err(io("open", &path))?;
            for entry in entries.iter() {
                let entry = entry.map_err(io("read", &path))?;
                let name = entry.file_name().to_bytes();
                if matches!(name, b"." | b"..") {
                    continue;
                }
                let child = path.join(name).map_err(|_| TreeError::TooMuch)?;
                self.visit(place.as_fd(), child, &mut seen, &mut pending, &mut scan)?;
            }
        }
        scan.damaged = self.exposure.wanted.exposed().without(&seen).collect();
        Ok(scan)
    }

    fn visit(
        &mut self,
        parent: BorrowedFd<'_>,
        path: AbsPath,
        seen: &mut ItemSet,
        pending: &mut Vec<AbsPath>,
        scan: &mut Scan,
    ) -> Result<(), TreeError> {
        let found = stat(parent, path.file_name()).map_err(io("look at", &path))?;
        if let Some(id) = self.holdings.item_at(self.tree, &path)
            && self.is_intact(parent, &path, id, &found)?
        {
            seen.insert(id);
            if kind(&found) == SFlag::S_IFDIR {
                pending.push(path);
            }
            return Ok(());
        }
        if scan.strange.len() == WRITTEN_MAX {
            return Err(TreeError::TooMuch);
        }
        scan.strange.push(Strange::new(path, &found));
        Ok(())
    }

    fn is_intact(
        &mut self,
        parent: BorrowedFd<'_>,
        path: &AbsPath,
        id: ItemId,
        found: &FileStat,
    ) -> Result<bool, TreeError> {
        let name = path.file_name();
        match (self.holdings.catalogue().kind(id), kind(found)) {
            (EntryKind::Directory, SFlag::S_IFDIR) => {
                if permissions(found) != 0o755 {
                    set_mode(parent, name, 0o755).map_err(io("set the mode of", path))?;
                }
                Ok(true)
            }
            (EntryKind::Symlink(target), SFlag::S_IFLNK) => {
                let found = readlinkat(parent, name).map_err(io("read", path))?;
                Ok(found == target.as_os_str())
            }
            (EntryKind::File { .. }, SFlag::S_IFREG) => self.is_same_file(parent, path, id, found),
            _ => Ok(false),
        }
    }

    fn is_same_file(
        &mut self,
        parent: BorrowedFd<'_>,
        path: &AbsPath,
        id: ItemId,
        found: &FileStat,
    ) -> Result<bool, TreeError> {
        let now = Stamp::of(found);
        let Some(then) = self.stamps.get_mut(&id) else {
            return Ok(false);
        };
        if then.inode != now.inode {
            return Ok(false);
        }
        if then.changed == now.changed && now.changed < self.exposure.started {
            return Ok(true);
        }
        let EntryKind::File {
            digest,
            size,
            executable,
            mtime,
        } = self.holdings.catalogue().kind(id)
        else {
            return Ok(false);
        };
        let same = permissions(found) == file_mode(*executable)
            && found.st_size as u64 == *size
            && found.st_mtime == mtime.seconds
            && found.st_mtime_nsec == i64::from(mtime.nanoseconds);
        if !same {
            return Ok(false);
        }
        let file = open_file(parent, path.file_name()).map_err(io("open", path))?;
        let mut hasher = blake3::Hasher::new();
        hasher
            .update_reader(&file)
            .map_err(|error| io("read", path)(errno(&error)))?;
        *then = now;
        Ok(*hasher.finalize().as_bytes() == digest.0)
    }

    fn entries(&self, path: &AbsPath) -> Result<Dir, TreeError> {
        read_directory(self.directory, path)
    }
}

/// The mode of a declared file.
pub(super) fn file_mode(executable: bool) -> u32 {
    if executable { 0o555 } else { 0o444 }
}

/// All that the job wrote, by path. What is neither file nor directory nor symlink is left out.
pub(super) fn describe(
    directory: BorrowedFd<'_>,
    scan: &Scan,
    stubs: &[Stub],
) -> Result<Vec<Written>, TreeError> {
    let mut written = Vec::new();
    let mut pending = Vec::new();
    let mut bytes = 0;
    let mut count = 0;
    let mut note = |found: &Strange, pending: &mut Vec<AbsPath>| {
        count += 1;
        if count > WRITTEN_MAX {
            return Err(TreeError::TooMuch);
        }
        let path = found.path.clone();
        let parent = || {
            let parent = path.parent().expect("nothing is written at `/`");
            open_directory(directory, &parent, OFlag::O_PATH)
                .map_err(io("open the directory of", &path))
        };
        let kind = match found.kind {
            SFlag::S_IFREG => {
                bytes += found.size.min(WRITTEN_BYTES_MAX);
                if bytes > WRITTEN_BYTES_MAX || found.size > WRITTEN_BYTES_MAX {
                    return Err(TreeError::TooMuch);
                }
                let (mode, size) = (found.mode, found.size);
                WrittenKind::File { mode, size }
            }
            SFlag::S_IFDIR => {
                if found.mode & 0o700 != 0o700 {
                    set_mode(parent()?.as_fd(), path.file_name(), 0o700)
                        .map_err(io("set the mode of", &path))?;
                }
                pending.push(path.clone());
                WrittenKind::Directory
            }
            SFlag::S_IFLNK => {
                let target = readlinkat(parent()?, path.file_name()).map_err(io("read", &path))?;
                WrittenKind::Symlink(target.into())
            }
            _ => return Ok(()),
        };
        written.push(Written { path, kind });
        Ok(())
    };
    for found in &scan.strange {
        let stub = stubs.iter().find(|stub| stub.path == found.path);
        if let Some(stub) = stub {
            if stub.is_untouched(found) {
                continue;
            }
            let path = &found.path;
            if stub.is_kept(directory, found).map_err(io("read", path))? {
                return Err(TreeError::Invalid {
                    path: path.clone(),
                    why: "was changed without being written anew",
                });
            }
        }
        note(found, &mut pending)?;
    }
    while let Some(path) = pending.pop() {
        let mut entries = read_directory(directory, &path)?;
        let place = open_directory(directory, &path, OFlag::O_PATH).map_err(io("open", &path))?;
        for entry in entries.iter() {
            let entry = entry.map_err(io("read", &path))?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let child = path.join(name).map_err(|_| TreeError::TooMuch)?;
            let found = stat(place.as_fd(), name).map_err(io("look at", &child))?;
            note(&Strange::new(child, &found), &mut pending)?;
        }
    }
    for stub in stubs {
        if !scan.strange.iter().any(|found| found.path == stub.path) {
            written.push(Written {
                path: stub.path.clone(),
                kind: WrittenKind::Removed,
            });
        }
    }
    written.sort();
    Ok(written)
}

pub(super) fn read_directory(root: BorrowedFd<'_>, path: &AbsPath) -> Result<Dir, TreeError> {
    open_directory(root, path, OFlag::O_RDONLY)
        .and_then(Dir::from_fd)
        .map_err(io("open", path))
}

/// Makes a [`TreeError`] of what was tried and where.
pub(super) fn io(what: &'static str, path: &AbsPath) -> impl FnOnce(nix::Error) -> TreeError {
    move |source| match source {
        nix::Error::ENOSPC => TreeError::Full,
        source => TreeError::Io {
            what,
            path: path.clone(),
            source: source.into(),
        },
    }
}

/// The error number of the standard library's error.
pub(super) fn errno(error: &std::io::Error) -> nix::Error {
    nix::Error::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO))
}
