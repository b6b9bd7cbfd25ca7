//! What the scanner asks of a disk: what stands where, and what has changed.
//!
//! [`watch`](super::watch) answers it for the real one; tests have disks of their own.

use crate::id::{AbsPath, Bytes, Digest};
use crate::message::Mtime;

/// What an inode looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The file system's number.
    pub device: u64,
    /// The inode's number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Type and permissions.
    pub mode: u32,
    /// Names that the inode has.
    pub links: u64,
    /// Last change of the content.
    pub mtime: Mtime,
    /// Last change of the inode; nobody can set it back.
    pub ctime: Mtime,
}

/// What stands at a path, the path's last component not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Absent,
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symlink with this target.
    Symlink(Bytes),
    /// A device, socket, pipe, or a file of a file system that makes them up (`/proc`).
    Special,
    /// It can't be told: permission denied, or an error of the disk.
    Denied,
}

/// The number of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchNumber(pub u64);

/// What happened in watched directories.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Something happened to this name; true when it may be another inode than before.
    pub touched: Vec<(WatchNumber, Bytes, bool)>,
    /// The watch itself ended: its directory was moved, removed or unmounted.
    pub ended: Vec<WatchNumber>,
    /// Reports were lost: nothing that was watched is certain.
    pub lost: bool,
}

/// A file that was read.
#[derive(Clone, Debug)]
pub struct Content {
    /// The inode, before and after reading.
    pub stamp: Stamp,
    /// Whether the stamp will tell if the file changes: its times were old when it was read.
    pub settled: bool,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// BLAKE3 of the bytes.
    pub digest: Digest,
}

/// The world as this module sees it. Paths are canonical.
pub trait Disk {
    /// Everything that was reported since the last call.
    fn changes(&mut self) -> Changes;
    /// Watches a directory's names, and its files' contents too if told so. None when changes there
    /// would not be reported reliably.
    fn watch(&mut self, directory: &AbsPath, contents: bool) -> Option<WatchNumber>;
    /// Ends a watch.
    fn unwatch(&mut self, watch: WatchNumber);
    /// What stands at a path.
    fn kind(&mut self, path: &AbsPath) -> Kind;
    /// All names in a directory; none if it can't be read or has too many.
    fn names(&mut self, directory: &AbsPath) -> Option<Vec<Bytes>>;
    /// The inode at a path and whether its times are old enough to be trusted.
    fn stamp(&mut self, path: &AbsPath) -> Option<(Stamp, bool)>;
    /// Reads a regular file; the kind that was found instead where there is none.
    fn read(&mut self, path: &AbsPath) -> Result<Content, Kind>;
}
