//! The pool of trees of one submitter and one toolchain: a tree for a job, and back.
//!
//! Does what [`crate::worker::inventory`] decides, one call after the other, and writes each down
//! as it succeeds; knows neither sandbox nor wire. All functions block, for less than a millisecond
//! in the usual case. A pool is never shared by two submitters: that is what keeps them apart.
//!
//! When the daemon is root and the tmpfs belongs to the user that jobs run as, directories that a
//! job may write into are given to that user; everything else stays the daemon's.

use std::collections::{BTreeMap, btree_map as map};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fchmod, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, geteuid, linkat, symlinkat};

use super::beneath::{Trash, make_directory, open_directory, open_file, remove_directory, unlink};
use super::scan::{
    self, Exposure, STUB_CONTENT, Scan, Scanner, Stamp, Stub, Written, errno, file_mode,
};
use super::verify::Inexact;
use crate::id::AbsPath;
use crate::message::{Entry, EntryKind, Mtime, Standing};
use crate::worker::inventory::{
    Catalogue, Change, Holdings, ItemId, Limits, PlaceId, Placing, Refusal, Room, TreeId, Wanted,
};

/// Why there is no tree, or no result from one.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The job declares another thing than the toolchain has there, or writes where it is.
    #[error("{0} belongs to the toolchain")]
    Conflict(AbsPath),
    /// The declaration makes no sense.
    #[error("{path} {why}")]
    Invalid {
        /// Where.
        path: AbsPath,
        /// What is wrong there.
        why: &'static str,
    },
    /// A file is not in the store, or was evicted meanwhile: ask [`Trees::missing`] again.
    #[error("{0} is not in the store of the tree")]
    Missing(AbsPath),
    /// The content is not as long as declared.
    #[error("{0} is not as long as declared")]
    Length(AbsPath),
    /// The limits, or the tmpfs, do not allow it.
    #[error("no room for the job's files")]
    Full,
    /// All trees are in use.
    #[error("all trees are in use")]
    Busy,
    /// A tree is not what was declared: a mistake of ours.
    #[error("the tree is wrong: {0}")]
    Inexact(#[from] Inexact),
    /// The job left more behind than is collected: too many files, bytes, or too deep.
    #[error("the job wrote too much")]
    TooMuch,
    /// A system call failed.
    #[error("{what} {path} in a job's tree: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what, as the job would name it.
        path: AbsPath,
        /// What came of it.
        source: io::Error,
    },
}

impl From<Refusal> for TreeError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Conflict(path) => Self::Conflict(path),
            Refusal::Invalid { path, why } => Self::Invalid { path, why },
            Refusal::Missing(path) => Self::Missing(path),
            Refusal::Full => Self::Full,
        }
    }
}

/// A job's tree. It must be given back, or it stays in use for ever.
#[derive(Debug)]
#[must_use = "a tree that is not given back stays in use"]
pub struct Tree {
    id: TreeId,
    directory: Arc<OwnedFd>,
}

impl Tree {
    /// The number in the name of its directory.
    pub fn number(&self) -> u32 {
        u32::try_from(self.id.0).expect("a worker has a few trees")
    }

    /// The name of its directory below the root of the tmpfs.
    pub fn name(&self) -> String {
        directory_name(self.id)
    }

    /// Opens a file that the job wrote, to be read; meant for what [`Trees::collect`] reported.
    pub fn open(&self, path: &AbsPath) -> Result<File, TreeError> {
        let at_root = AbsPath::parse("/").expect("`/` is a path");
        let parent = path.parent().unwrap_or(at_root);
        open_directory(self.directory.as_fd(), &parent, OFlag::O_PATH)
            .and_then(|parent| open_file(parent.as_fd(), path.file_name()))
            .map_err(scan::io("open", path))
    }
}

impl AsFd for Tree {
    /// Its directory, as a place to work in (`O_PATH`).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// The trees of one submitter and one toolchain, and the inodes that they share.
#[derive(Debug)]
pub struct Trees {
    root: OwnedFd,
    store: OwnedFd,
    trash: Trash,
    holdings: Holdings,
    views: Vec<View>,
    /// To whom a job's writable directories are given, when it is not the daemon itself.
    owner: Option<(Uid, Gid)>,
}

/// What is known of a tree's directory beside what it holds.
#[derive(Debug, Default)]
struct View {
    directory: Option<Arc<OwnedFd>>,
    stamps: BTreeMap<ItemId, Stamp>,
    job: Option<Exposure>,
    scan: Option<Scan>,
    stubs: Vec<Stub>,
}

/// At most so many files may stand where a job writes.
const STANDING_MAX: usize = 1024;

/// The name in the store of the empty file that stands where the toolchain's files are bound.
const PLACEHOLDER: &[u8] = b"placeholder";

impl Trees {
    /// An empty pool in `root`, an empty tmpfs. Every tree will hold `toolchain`: its directories
    /// and symlinks as they are, and an empty file in the place of each file.
    pub fn new(root: OwnedFd, toolchain: &[Entry], limits: Limits) -> Result<Self, TreeError> {
        let holdings = Holdings::new(limits, toolchain)?;
        let at_root = AbsPath::parse("/").expect("`/` is a path");
        let fail = |error| scan::io("set up", &at_root)(error);
        let open = |name: &[u8]| {
            make_directory(root.as_fd(), name)?;
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            openat(&root, name, flags | OFlag::O_NOFOLLOW, Mode::empty())
        };
        let store = open(b"store").map_err(fail)?;
        let trash = Trash::new(open(b"trash").map_err(fail)?);
        let placeholder = create(store.as_fd(), PLACEHOLDER).map_err(fail)?;
        finish(&placeholder, Mtime::default(), false).map_err(fail)?;
        let stat = fstat(&root).map_err(fail)?;
        let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        Ok(Self {
            root,
            store,
            trash,
            holdings,
            views: (0..limits.trees).map(|_| View::default()).collect(),
            owner: (owner.0 != geteuid()).then_some(owner),
        })
    }

    /// Those of a job's files that must be [added](Self::add) first. The others stay at least until
    /// the next [`Self::take`]: where that is another job's, [`TreeError::Missing`] may follow.
    pub fn missing<'a>(&mut self, entries: &'a [Entry]) -> Vec<&'a Entry> {
        let is_missing = |entry: &&Entry| !self.holdings.reserve(entry);
        entries.iter().filter(is_missing).collect()
    }

    /// Stores a file for the jobs to come. That `content` has the declared digest is the caller's
    /// word; its length is checked.
    pub fn add(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), TreeError> {
        if self.holdings.is_present(entry) {
            return Ok(());
        }
        let &EntryKind::File {
            size,
            executable,
            mtime,
            ..
        } = &entry.kind
        else {
            return Ok(());
        };
        // Beyond, `utimensat` has numbers of special meaning.
        if mtime.nanoseconds > 999_999_999 {
            return Err(TreeError::Invalid {
                path: entry.path.clone(),
                why: "has a time that is none",
            });
        }
        if let Err(error) = self.make_room(None, |holdings| holdings.lacking_to_store(size)) {
            self.holdings.given_up();
            return Err(error);
        }
        let id = self.holdings.admit(entry)?;
        let name = store_name(id);
        let mut file = create(self.store.as_fd(), &name).map_err(scan::io("store", &entry.path))?;
        let stored = fill(&mut file, content, size, &entry.path).and_then(|()| {
            finish(&file, mtime, executable).map_err(scan::io("store", &entry.path))
        });
        match stored {
            Ok(()) => self.holdings.stored(id),
            Err(_) => unlink(self.store.as_fd(), &name).map_err(scan::io("remove", &entry.path))?,
        }
        stored
    }

    /// A tree that holds exactly these entries, the toolchain, `cwd`, the writable directories, and
    /// the directories above these. No writable directory may hold a file of the toolchain.
    pub fn take(
        &mut self,
        entries: &[Entry],
        writable: &[AbsPath],
        cwd: &AbsPath,
    ) -> Result<Tree, TreeError> {
        let wanted = self.holdings.want(entries, writable, cwd)?;
        let id = self.holdings.nearest(&wanted).ok_or(TreeError::Busy)?;
        self.make_room(Some((id, &wanted)), |holdings| {
            holdings.lacking(&holdings.change(id, &wanted))
        })?;
        let ready = self.adapt(id, &wanted).or_else(|error| {
            // A tree that is not what it should be is not worth an inquiry: a new one is.
            log::warn!("{} is thrown away: {error}", directory_name(id));
            self.throw_away(id)?;
            self.adapt(id, &wanted)
        });
        let (directory, started) = match ready {
            Ok(ready) => ready,
            Err(error) => {
                self.throw_away(id)?;
                return Err(error);
            }
        };
        self.holdings.set_busy(id, true);
        self.views[id.0].job = Some(Exposure { wanted, started });
        Ok(Tree { id, directory })
    }

    /// Puts files where the job would find some of its own, in a tree that no process uses yet. They
    /// have a content that means nothing, and are gone after the job.
    pub fn stand(&mut self, tree: &Tree, standing: &[Standing]) -> Result<(), TreeError> {
        let view = &mut self.views[tree.id.0];
        let job = view.job.as_ref().expect("a tree in use has a job");
        for Standing {
            path,
            mode,
            is_empty,
        } in standing
        {
            let is_writable = |root: &AbsPath| path != root && path.is_within(root);
            if !job.wanted.roots().iter().any(is_writable) || view.stubs.len() == STANDING_MAX {
                return Err(TreeError::Invalid {
                    path: path.clone(),
                    why: "stands where the job may not write, or there are too many",
                });
            }
            if self.holdings.item_at(tree.id, path).is_some() {
                continue;
            }
            let parent = path.parent().expect("nothing stands at `/`");
            let mode = mode & 0o777;
            let inode = open_directory(tree.as_fd(), &parent, OFlag::O_PATH)
                .and_then(|parent| {
                    stub(
                        parent.as_fd(),
                        path.file_name(),
                        mode,
                        *is_empty,
                        self.owner,
                    )
                })
                .map_err(scan::io("make", path))?;
            view.stubs.push(Stub {
                path: path.clone(),
                inode,
                mode,
            });
        }
        Ok(())
    }

    /// What the job wrote into its writable directories, by path: what is new and what is not as it
    /// was declared; of what is only gone, what [stood](Self::stand) there is told. Every process of the job must be dead.
    pub fn collect(&mut self, tree: &Tree) -> Result<Vec<Written>, TreeError> {
        let scan = self.scan(tree.id)?;
        let written = scan::describe(tree.as_fd(), &scan, &self.views[tree.id.0].stubs);
        self.views[tree.id.0].scan = Some(scan);
        written
    }

    /// Takes the tree back: what the job wrote is removed, and what it changed counts as not there.
    /// Every process of the job must be dead.
    pub fn give_back(&mut self, tree: Tree) {
        let id = tree.id;
        let scan = match self.views[id.0].scan.take() {
            Some(scan) => Ok(scan),
            None => self.scan(id),
        };
        self.views[id.0].job = None;
        self.views[id.0].stubs.clear();
        let clean = scan.and_then(|scan| self.clean(id, tree.as_fd(), scan));
        self.holdings.set_busy(id, false);
        if let Err(error) = clean {
            log::info!("{} is thrown away: {error}", directory_name(id));
            if let Err(error) = self.throw_away(id) {
                log::warn!("{} is lost: {error}", directory_name(id));
            }
        }
    }

    /// What the store and the trees take up, as the limits count it.
    pub fn used(&self) -> Room {
        self.holdings.used()
    }

    fn scan(&mut self, id: TreeId) -> Result<Scan, TreeError> {
        let View {
            directory,
            stamps,
            job,
            ..
        } = &mut self.views[id.0];
        let scanner = Scanner {
            directory: directory.as_ref().expect("a job's tree is there").as_fd(),
            holdings: &self.holdings,
            tree: id,
            exposure: job.as_ref().expect("a tree in use has a job"),
            stamps,
        };
        scanner.scan()
    }

    fn clean(&mut self, id: TreeId, tree: BorrowedFd<'_>, scan: Scan) -> Result<(), TreeError> {
        for strange in &scan.strange {
            let path = &strange.path;
            let parent = path.parent().expect("nothing is written at `/`");
            open_directory(tree, &parent, OFlag::O_PATH)
                .and_then(|parent| self.trash.take(parent.as_fd(), path.file_name()))
                .map_err(scan::io("remove", path))?;
        }
        self.sweep(id, tree)?;
        for item in scan.damaged {
            self.removed(id, item);
        }
        self.empty_trash();
        Ok(())
    }

    /// Removes what is in `/tmp` and is not the tree's. A job that has files there has the tree's own
    /// `/tmp` for its temporary files, and one that was killed leaves them; they are no result.
    fn sweep(&mut self, id: TreeId, tree: BorrowedFd<'_>) -> Result<(), TreeError> {
        let path = AbsPath::parse("/tmp").expect("it is plain");
        let failed = |error| scan::io("sweep", &path)(error);
        // Every tree has it, unless the ground is less than a toolchain's, as in tests.
        let Ok(place) = open_directory(tree, &path, OFlag::O_RDONLY) else {
            return Ok(());
        };
        let mut entries = Dir::from_fd(place).map_err(failed)?;
        let mut left = Vec::new();
        for entry in entries.iter() {
            let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
            if matches!(&name[..], b"." | b"..") {
                continue;
            }
            let child = path.join(&name).map_err(|_| TreeError::TooMuch)?;
            if self.holdings.item_at(id, &child).is_none() {
                left.push(name);
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        let directory = open_directory(tree, &path, OFlag::O_PATH).map_err(failed)?;
        for name in left {
            self.trash.take(directory.as_fd(), &name).map_err(failed)?;
        }
        Ok(())
    }

    /// Makes the idle tree what is wanted. After an error it may be anything.
    fn adapt(
        &mut self,
        id: TreeId,
        wanted: &Wanted,
    ) -> Result<(Arc<OwnedFd>, scan::Instant), TreeError> {
        let directory = self.directory(id)?;
        let change = self.holdings.change(id, wanted);
        self.apply(id, directory.as_fd(), &change)?;
        if let Some((user, group)) = self.owner {
            let mut parents = Parents::new(directory.as_fd());
            for item in wanted.exposed().iter() {
                let catalogue = self.holdings.catalogue();
                let path = catalogue.path(item);
                if catalogue.is_directory(item) {
                    let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
                    parents
                        .of(catalogue, item)
                        .and_then(|parent| {
                            fchownat(parent, path.file_name(), Some(user), Some(group), flags)
                        })
                        .map_err(scan::io("give away", path))?;
                }
            }
        }
        let at_root = AbsPath::parse("/").expect("`/` is a path");
        let started = scan::now().map_err(scan::io("read the clock for", &at_root))?;
        Ok((directory, started))
    }

    fn apply(
        &mut self,
        id: TreeId,
        tree: BorrowedFd<'_>,
        change: &Change,
    ) -> Result<(), TreeError> {
        let mut parents = Parents::new(tree);
        for &item in &change.unlink {
            self.step("unlink", &mut parents, item, |_, parent, name| {
                unlink(parent, name)
            })?;
            self.removed(id, item);
        }
        for &item in &change.rmdir {
            parents.forget(self.holdings.catalogue().place(item));
            self.step("remove", &mut parents, item, |_, parent, name| {
                remove_directory(parent, name)
            })?;
            self.removed(id, item);
        }
        for &item in &change.mkdir {
            self.step("make", &mut parents, item, |_, parent, name| {
                make_directory(parent, name)
            })?;
            self.holdings.placed(id, item, false);
        }
        for &(item, placing) in &change.place {
            let stamp = self.step("place", &mut parents, item, |trees, parent, name| {
                trees.place(item, placing, parent, name)
            })?;
            self.holdings.placed(id, item, stamp.is_some());
            if let Some(stamp) = stamp {
                self.views[id.0].stamps.insert(item, stamp);
            }
        }
        Ok(())
    }

    fn step<T>(
        &self,
        what: &'static str,
        parents: &mut Parents<'_>,
        item: ItemId,
        call: impl FnOnce(&Self, BorrowedFd<'_>, &[u8]) -> nix::Result<T>,
    ) -> Result<T, TreeError> {
        let catalogue = self.holdings.catalogue();
        let path = catalogue.path(item);
        parents
            .of(catalogue, item)
            .and_then(|parent| call(self, parent, path.file_name()))
            .map_err(scan::io(what, path))
    }

    fn place(
        &self,
        item: ItemId,
        placing: Placing,
        parent: BorrowedFd<'_>,
        name: &[u8],
    ) -> nix::Result<Option<Stamp>> {
        let link = |source: &[u8]| linkat(&self.store, source, parent, name, AtFlags::empty());
        match (placing, self.holdings.catalogue().kind(item)) {
            (Placing::Placeholder, _) => link(PLACEHOLDER)?,
            (Placing::Symlink, EntryKind::Symlink(target)) => {
                symlinkat(target.as_os_str(), parent, name)?;
            }
            (
                Placing::Copy,
                &EntryKind::File {
                    executable, mtime, ..
                },
            ) => {
                let mut source = open_file(self.store.as_fd(), &store_name(item))?;
                let mut copy = create(parent, name)?;
                io::copy(&mut source, &mut copy).map_err(|error| errno(&error))?;
                finish(&copy, mtime, executable)?;
                return Ok(Some(Stamp::of(&fstat(&copy)?)));
            }
            _ => link(&store_name(item))?,
        }
        Ok(None)
    }

    fn directory(&mut self, id: TreeId) -> Result<Arc<OwnedFd>, TreeError> {
        if let Some(directory) = &self.views[id.0].directory {
            return Ok(directory.clone());
        }
        let name = directory_name(id);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let at_root = AbsPath::parse("/").expect("`/` is a path");
        let directory = make_directory(self.root.as_fd(), name.as_bytes())
            .and_then(|()| openat(&self.root, name.as_bytes(), flags, Mode::empty()))
            .map_err(scan::io("make", &at_root))?;
        let directory = Arc::new(directory);
        self.views[id.0].directory = Some(directory.clone());
        Ok(directory)
    }

    /// Evicts until nothing lacks: from the store what was not used for long, then idle trees as a
    /// whole. `goal` is the tree that is about to be changed, and into what.
    fn make_room(
        &mut self,
        goal: Option<(TreeId, &Wanted)>,
        lacking: impl Fn(&Holdings) -> Option<Room>,
    ) -> Result<(), TreeError> {
        let Some(room) = lacking(&self.holdings) else {
            return Ok(());
        };
        let wanted = goal.map(|(_, wanted)| wanted);
        for item in self.holdings.victims(room, wanted) {
            self.evict(item)?;
        }
        for id in self.holdings.idle_trees(goal.map(|(id, _)| id)) {
            if lacking(&self.holdings).is_none() {
                break;
            }
            self.throw_away(id)?;
        }
        // What the goal holds and does not want is given up last.
        if let (Some((id, _)), Some(_)) = (goal, lacking(&self.holdings)) {
            self.throw_away(id)?;
        }
        match lacking(&self.holdings) {
            None => Ok(()),
            Some(_) => Err(TreeError::Full),
        }
    }

    fn evict(&mut self, item: ItemId) -> Result<(), TreeError> {
        for id in self.holdings.idle_trees(None) {
            if !self.holdings.items(id).contains(item) {
                continue;
            }
            let directory = self.directory(id)?;
            let mut parents = Parents::new(directory.as_fd());
            let gone = self.step("evict", &mut parents, item, |_, parent, name| {
                unlink(parent, name)
            });
            match gone {
                Ok(()) => self.removed(id, item),
                Err(_) => self.throw_away(id)?,
            }
        }
        let path = self.holdings.catalogue().path(item);
        unlink(self.store.as_fd(), &store_name(item)).map_err(scan::io("evict", path))?;
        self.holdings.evicted(item);
        Ok(())
    }

    fn removed(&mut self, id: TreeId, item: ItemId) {
        self.holdings.removed(id, item);
        self.views[id.0].stamps.remove(&item);
    }

    /// Removes the idle tree as a whole; the next job that gets it has it built from nothing. If
    /// even that fails, it stays in use for ever.
    fn throw_away(&mut self, id: TreeId) -> Result<(), TreeError> {
        if self.views[id.0].directory.is_some() {
            let name = directory_name(id);
            let at_root = AbsPath::parse("/").expect("`/` is a path");
            if let Err(error) = self.trash.take(self.root.as_fd(), name.as_bytes()) {
                self.holdings.set_busy(id, true);
                return Err(scan::io("throw away", &at_root)(error));
            }
        }
        self.views[id.0] = View::default();
        self.holdings.emptied(id);
        self.empty_trash();
        Ok(())
    }

    fn empty_trash(&mut self) {
        if let Err(error) = self.trash.empty() {
            log::warn!("the trash of a job's tree can't be emptied: {error}");
        }
    }
}

/// The directories that hold items, kept open for a while: what leaves one place of a directory
/// and what comes to another are two passes.
struct Parents<'a> {
    tree: BorrowedFd<'a>,
    open: BTreeMap<PlaceId, OwnedFd>,
}

/// At most so many directories are kept open.
const OPEN_MAX: usize = 64;

impl<'a> Parents<'a> {
    fn new(tree: BorrowedFd<'a>) -> Self {
        let open = BTreeMap::new();
        Self { tree, open }
    }

    fn of(&mut self, catalogue: &Catalogue, item: ItemId) -> nix::Result<BorrowedFd<'_>> {
        let place = catalogue.parent(catalogue.place(item));
        if place == PlaceId::ROOT {
            return Ok(self.tree);
        }
        if !self.open.contains_key(&place) && self.open.len() == OPEN_MAX {
            self.open.clear();
        }
        let directory: &OwnedFd = match self.open.entry(place) {
            map::Entry::Occupied(entry) => entry.into_mut(),
            map::Entry::Vacant(entry) => {
                let path = catalogue.place_path(place);
                entry.insert(open_directory(self.tree, path, OFlag::O_PATH)?)
            }
        };
        Ok(directory.as_fd())
    }

    /// A directory that goes must not stand for one that comes to the same place.
    fn forget(&mut self, place: PlaceId) {
        self.open.remove(&place);
    }
}

fn directory_name(id: TreeId) -> String {
    format!("tree{}", id.0)
}

fn store_name(item: ItemId) -> Vec<u8> {
    item.0.to_string().into_bytes()
}

fn create(directory: BorrowedFd<'_>, name: &[u8]) -> nix::Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mode = Mode::from_bits_truncate(0o600);
    openat(directory, name, flags, mode).map(File::from)
}

/// Makes a file that looks like one that has stood here since 1970; says its inode.
fn stub(
    directory: BorrowedFd<'_>,
    name: &[u8],
    mode: u32,
    is_empty: bool,
    owner: Option<(Uid, Gid)>,
) -> nix::Result<u64> {
    let mut file = create(directory, name)?;
    if !is_empty {
        file.write_all(STUB_CONTENT)
            .map_err(|error| errno(&error))?;
    }
    if let Some((user, group)) = owner {
        fchown(&file, Some(user), Some(group))?;
    }
    let time = TimeSpec::new(0, 0);
    futimens(&file, &time, &time)?;
    fchmod(&file, Mode::from_bits_truncate(mode))?;
    Ok(fstat(&file)?.st_ino)
}

/// Copies exactly `size` bytes.
fn fill(
    file: &mut File,
    content: &mut dyn Read,
    size: u64,
    path: &AbsPath,
) -> Result<(), TreeError> {
    let fail = |error: io::Error| scan::io("fill", path)(errno(&error));
    let mut buffer = [0; 32 << 10];
    let mut left = size;
    loop {
        let count = match content.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result.map_err(fail)?,
        };
        if count == 0 && left == 0 {
            return Ok(());
        }
        if count == 0 || count as u64 > left {
            return Err(TreeError::Length(path.clone()));
        }
        file.write_all(&buffer[..count]).map_err(fail)?;
        left -= count as u64;
    }
}

/// Gives a file its time and its mode, after its content.
fn finish(file: &File, mtime: Mtime, executable: bool) -> nix::Result<()> {
    let time = TimeSpec::new(mtime.seconds, mtime.nanoseconds.into());
    futimens(file, &time, &time)?;
    fchmod(file, Mode::from_bits_truncate(file_mode(executable)))
}
