//! The scanner on the real file system: inotify where it can be relied upon, `stat` elsewhere.
//!
//! inotify's queue is drained before each scan, and the kernel puts an event there before the system
//! call that causes it returns: so a header written by the make rule before is seen. Network and
//! user-space file systems change behind the kernel's back and overlays change inodes under a watch,
//! so there, and when watches run out, every file and directory of a scan is looked at again. A file
//! whose times are as young as its reading isn't trusted by its times.
//!
//! Not seen: a write through a shared mapping whose descriptor was closed before, a change through
//! another hard link made after the file was read, and a file system mounted over a known directory.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::sys::statfs::fstatfs;

use crate::account::{self, Phase};
use crate::id::{AbsPath, Bytes, Digest};
use crate::include::disk::{Changes, Content, Disk, Kind, Stamp, WatchNumber};
use crate::include::graph::Graph;
use crate::include::request::{Decline, Scan, ScanRequest};
use crate::message::Mtime;
use crate::sys::{self, FileSystem};

/// A directory with more names is asked name by name.
const NAMES_MAX: usize = 20_000;
/// A file as young as this when it was read may change again without a change of its times.
const SETTLED_NANOSECONDS: i128 = 2_000_000_000;
/// A larger file is not read as a header.
const FILE_BYTES_MAX: u64 = 512 << 20;
/// How often a file is read again that changes under the reading.
const READ_ATTEMPTS: usize = 3;

/// What a scanner may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of directives in memory.
    pub content_bytes: usize,
    /// Paths, nodes and names in memory, some 300 bytes each.
    pub places: usize,
    /// inotify watches; the system's own limit holds as well.
    pub watches: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            content_bytes: 32 << 20,
            places: 200_000,
            watches: 32_768,
        }
    }
}

/// The include scanner of one submitter.
#[derive(Debug)]
pub struct Scanner {
    graph: Graph,
    disk: RealDisk,
}

impl Scanner {
    /// A scanner that knows nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            graph: Graph::new(limits.content_bytes, limits.places),
            disk: RealDisk::new(limits.watches),
        }
    }

    /// Every file, symlink and directory that the compile could open, as it is at this moment. It
    /// blocks on the disk.
    pub fn scan(&mut self, request: &ScanRequest<'_>) -> Result<Scan, Decline> {
        self.graph.scan(&mut self.disk, request)
    }

    /// Remembers that `includer` opens `name`, from a compile that failed for want of it.
    pub fn learn(&mut self, includer: &AbsPath, name: &[u8]) {
        self.graph.learn(includer, name);
    }

    /// Where the bytes with this digest were last seen; verify the digest while sending.
    pub fn source(&self, digest: &Digest) -> Option<&AbsPath> {
        self.graph.source(digest)
    }

    /// Whether all that is known was looked at where changes are reported: then a scan of it looks at no file.
    pub fn is_watched(&self) -> bool {
        self.graph.is_watched()
    }

    /// The graph, to look at its size.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }
}

/// [`Disk`] by system calls.
#[derive(Debug)]
struct RealDisk {
    /// None where the kernel gives none.
    inotify: Option<Inotify>,
    numbers: BTreeMap<WatchDescriptor, WatchNumber>,
    descriptors: BTreeMap<WatchNumber, WatchDescriptor>,
    next: u64,
    watches_max: usize,
    /// Devices that were asked about, and whether their files are made up by the kernel.
    made_up: BTreeMap<u64, bool>,
}

impl RealDisk {
    fn new(watches_max: usize) -> Self {
        let flags = InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC;
        let inotify = Inotify::init(flags).inspect_err(|errno| {
            log::info!("start inotify: {errno}; every header will be checked by stat");
        });
        Self {
            inotify: inotify.ok(),
            numbers: BTreeMap::new(),
            descriptors: BTreeMap::new(),
            next: 0,
            watches_max,
            made_up: BTreeMap::new(),
        }
    }

    fn try_read(&mut self, path: &AbsPath) -> Result<Option<Content>, Kind> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let options = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits())
            .open(path.as_path());
        let mut file = options.map_err(|error| kind_of_error(&error))?;
        let before = file.metadata().map_err(|error| kind_of_error(&error))?;
        if before.is_dir() {
            return Err(Kind::Directory);
        }
        if !before.is_file() || self.is_made_up(&file, before.dev()) {
            return Err(Kind::Special);
        }
        if before.len() > FILE_BYTES_MAX {
            return Err(Kind::Denied);
        }
        let settled = settled(&before);
        let mut bytes = Vec::with_capacity(before.len() as usize + 1);
        let read = Read::by_ref(&mut file)
            .take(FILE_BYTES_MAX)
            .read_to_end(&mut bytes);
        read.map_err(|error| kind_of_error(&error))?;
        let after = file.metadata().map_err(|error| kind_of_error(&error))?;
        let stamp = stamp(&before);
        if stamp != self::stamp(&after) || stamp.size != bytes.len() as u64 {
            return Ok(None);
        }
        Ok(Some(Content {
            stamp,
            settled,
            digest: account::during(Phase::Hashing, || Digest(*blake3::hash(&bytes).as_bytes())),
            bytes,
        }))
    }

    fn is_made_up(&mut self, file: &File, device: u64) -> bool {
        *self.made_up.entry(device).or_insert_with(|| {
            let magic = fstatfs(file).map(|fs| i128::from(fs.filesystem_type().0));
            // proc, sysfs, cgroup, cgroup2, debugfs, tracefs, securityfs, bpf, configfs
            let made_up = [
                0x9fa0,
                0x6265_6572,
                0x27_e0eb,
                0x6367_7270,
                0x6462_6720,
                0x7472_6163,
                0x7363_6673,
                0xcafe_4a11,
                0x6265_6570,
            ];
            magic.is_ok_and(|magic| made_up.contains(&(magic & 0xffff_ffff)))
        })
    }
}

impl Disk for RealDisk {
    fn changes(&mut self) -> Changes {
        let mut changes = Changes::default();
        let Some(inotify) = &self.inotify else {
            return changes;
        };
        let replaced = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO;
        loop {
            let events = match inotify.read_events() {
                Ok(events) if events.is_empty() => return changes,
                Ok(events) => events,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return changes,
                Err(errno) => {
                    log::warn!("read inotify: {errno}");
                    changes.lost = true;
                    return changes;
                }
            };
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    changes.lost = true;
                    continue;
                }
                let Some(&number) = self.numbers.get(&event.wd) else {
                    continue;
                };
                if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                    self.numbers.remove(&event.wd);
                    self.descriptors.remove(&number);
                }
                match event.name {
                    Some(name) => {
                        let name = Bytes(name.into_vec());
                        let touched = (number, name, event.mask.intersects(replaced));
                        if changes.touched.last() != Some(&touched) {
                            changes.touched.push(touched);
                        }
                    }
                    None => changes.ended.push(number),
                }
            }
        }
    }

    fn watch(&mut self, directory: &AbsPath, contents: bool) -> Option<WatchNumber> {
        let inotify = self.inotify.as_ref()?;
        if self.numbers.len() >= self.watches_max {
            return None;
        }
        if sys::file_system(directory.as_path()) != FileSystem::Local {
            return None;
        }
        let mut flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR
            | AddWatchFlags::IN_DONT_FOLLOW
            // IN_MASK_ADD, which nix has no name for: a second watch must not take from the first.
            | AddWatchFlags::from_bits_retain(0x2000_0000);
        if contents {
            flags |= AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CLOSE_WRITE;
        }
        let descriptor = inotify.add_watch(directory.as_path(), flags).ok()?;
        if let Some(&number) = self.numbers.get(&descriptor) {
            return Some(number);
        }
        self.next += 1;
        let number = WatchNumber(self.next);
        self.numbers.insert(descriptor, number);
        self.descriptors.insert(number, descriptor);
        Some(number)
    }

    fn unwatch(&mut self, watch: WatchNumber) {
        if let (Some(inotify), Some(descriptor)) = (&self.inotify, self.descriptors.remove(&watch))
        {
            self.numbers.remove(&descriptor);
            // It fails when the directory is gone, and the watch with it.
            let _ = inotify.rm_watch(descriptor);
        }
    }

    fn kind(&mut self, path: &AbsPath) -> Kind {
        match fs::symlink_metadata(path.as_path()) {
            Ok(metadata) if metadata.is_file() => Kind::File,
            Ok(metadata) if metadata.is_dir() => Kind::Directory,
            Ok(metadata) if metadata.is_symlink() => match fs::read_link(path.as_path()) {
                Ok(target) => Kind::Symlink(target.into_os_string().into()),
                Err(error) => kind_of_error(&error),
            },
            Ok(_) => Kind::Special,
            Err(error) => kind_of_error(&error),
        }
    }

    fn names(&mut self, directory: &AbsPath) -> Option<Vec<Bytes>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory.as_path()).ok()? {
            if names.len() >= NAMES_MAX {
                return None;
            }
            names.push(entry.ok()?.file_name().into());
        }
        Some(names)
    }

    fn stamp(&mut self, path: &AbsPath) -> Option<(Stamp, bool)> {
        let metadata = fs::symlink_metadata(path.as_path()).ok()?;
        Some((stamp(&metadata), settled(&metadata)))
    }

    fn read(&mut self, path: &AbsPath) -> Result<Content, Kind> {
        for _ in 0..READ_ATTEMPTS {
            if let Some(content) = self.try_read(path)? {
                return Ok(content);
            }
        }
        Err(Kind::File)
    }
}

fn kind_of_error(error: &std::io::Error) -> Kind {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename => Kind::Absent,
        _ => Kind::Denied,
    }
}

fn stamp(metadata: &Metadata) -> Stamp {
    Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.len(),
        mode: metadata.mode(),
        links: metadata.nlink(),
        mtime: Mtime {
            seconds: metadata.mtime(),
            nanoseconds: metadata.mtime_nsec() as u32,
        },
        ctime: Mtime {
            seconds: metadata.ctime(),
            nanoseconds: metadata.ctime_nsec() as u32,
        },
    }
}

/// Whether a later change can't leave the times as they are now.
fn settled(metadata: &Metadata) -> bool {
    let nanoseconds =
        |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    let changed = nanoseconds(metadata.ctime(), metadata.ctime_nsec())
        .max(nanoseconds(metadata.mtime(), metadata.mtime_nsec()));
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_nanos() as i128);
    now - changed > SETTLED_NANOSECONDS
}
