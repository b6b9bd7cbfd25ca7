//! Which tree holds what, which tree is nearest to a job, what must change in it, what must leave.
//!
//! Touches no file: the caller does what [`Change`] says and reports each step back, so that what
//! is written here is what stands on the file system even when a step fails.
//!
//! A file that lies where the job may write is placed as a private copy, everywhere else as a hard
//! link to the store's inode. A link there would let a job change the inode under other jobs that
//! are running, which no check afterwards undoes; a copy costs its bytes once per tree, since it
//! stays as long as jobs leave it alone.

use super::{Catalogue, ItemId, ItemSet, PlaceId};
use crate::id::AbsPath;
use crate::message::{Entry, EntryKind};

/// At most so many directories may a job write into.
pub const WRITABLE_MAX: usize = 64;

/// What the trees of one submitter may take up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Trees.
    pub trees: usize,
    /// Bytes of file content, in whole pages, in the store and in private copies. What jobs write
    /// comes on top of it.
    pub bytes: u64,
    /// Inodes as tmpfs counts them: every name is one, hard links too. What jobs write comes on
    /// top of it.
    pub inodes: u64,
}

/// A tree, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TreeId(pub usize);

/// Why a job can't have its tree.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It declares another thing than the toolchain has there, or writes where the toolchain is.
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
    /// A file is not in the store, or no longer: ask again what is missing.
    #[error("{0} is not in the store of the tree")]
    Missing(AbsPath),
    /// The limits do not allow it.
    #[error("no room for the job's files")]
    Full,
}

/// What a job's tree has to be.
#[derive(Debug)]
pub struct Wanted {
    items: ItemSet,
    /// The wanted items that lie where the job may write.
    exposed: ItemSet,
    /// The outermost directories that the job may write into.
    roots: Vec<AbsPath>,
}

impl Wanted {
    /// The wanted items that lie where the job may write, those directories included.
    pub fn exposed(&self) -> &ItemSet {
        &self.exposed
    }

    /// The outermost directories that the job may write into; none lies within another.
    pub fn roots(&self) -> &[AbsPath] {
        &self.roots
    }
}

/// How an item is put in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placing {
    /// A link to the empty file that the toolchain's files are bound over.
    Placeholder,
    /// A link to the item's inode in the store.
    Link,
    /// A copy of its own.
    Copy,
    /// A symlink.
    Symlink,
}

/// What must be done to a tree, in this order: what becomes another kind of thing leaves first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Files and symlinks that leave; by place, so that neighbours follow each other.
    pub unlink: Vec<ItemId>,
    /// Directories that leave, the deepest first.
    pub rmdir: Vec<ItemId>,
    /// Directories that come, the shallowest first.
    pub mkdir: Vec<ItemId>,
    /// Files and symlinks that come.
    pub place: Vec<(ItemId, Placing)>,
}

/// An amount of room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// In bytes.
    pub bytes: u64,
    /// In inodes.
    pub inodes: u64,
}

/// All trees of one submitter and their store.
#[derive(Debug)]
pub struct Holdings {
    catalogue: Catalogue,
    limits: Limits,
    /// What is in every tree: the toolchain.
    base: ItemSet,
    /// The toolchain's files and symlinks, sorted.
    base_paths: Vec<AbsPath>,
    stored: ItemSet,
    stored_bytes: u64,
    trees: Vec<Held>,
    /// Counts jobs; a higher number is a later use.
    clock: u64,
    /// By item.
    last_used: Vec<u64>,
    /// By place: what stands there in the job of this clock, or always.
    standing: Vec<(u64, ItemId)>,
}

#[derive(Debug, Default)]
struct Held {
    busy: bool,
    items: ItemSet,
    private: ItemSet,
    private_bytes: u64,
}

/// The clock of what the toolchain has: it stands in every job.
const ALWAYS: u64 = u64::MAX;

/// Names that are always there: the store, the trash, the placeholder and the root itself.
const FIXED_INODES: u64 = 4;

impl Holdings {
    /// No tree holds anything yet. `toolchain` will be in every tree.
    pub fn new(limits: Limits, toolchain: &[Entry]) -> Result<Self, Refusal> {
        // Twice the inodes, since what is neither stored nor held is forgotten only when the
        // catalogue is nearly full.
        let capacity = limits.inodes.saturating_mul(2).min(1 << 30) as usize;
        let mut holdings = Self {
            catalogue: Catalogue::new(capacity),
            limits,
            base: ItemSet::default(),
            base_paths: Vec::new(),
            stored: ItemSet::default(),
            stored_bytes: 0,
            trees: (0..limits.trees).map(|_| Held::default()).collect(),
            clock: 0,
            last_used: Vec::new(),
            standing: Vec::new(),
        };
        let base = holdings.stand_all(toolchain, &mut std::iter::empty())?;
        for &id in &base {
            let place = holdings.catalogue.place(id);
            holdings.standing[place.0 as usize].0 = ALWAYS;
            if !holdings.catalogue.is_directory(id) {
                holdings
                    .base_paths
                    .push(holdings.catalogue.path(id).clone());
            }
        }
        holdings.base_paths.sort();
        holdings.base = base.into_iter().collect();
        Ok(holdings)
    }

    /// What the job's tree has to be: its entries, the toolchain, `cwd` and the writable
    /// directories, and all directories above these.
    pub fn want(
        &mut self,
        entries: &[Entry],
        writable: &[AbsPath],
        cwd: &AbsPath,
    ) -> Result<Wanted, Refusal> {
        let roots = self.roots(writable)?;
        let mut directories = writable.iter().chain([cwd]);
        let standing = self.stand_all(entries, &mut directories)?;
        let mut items = self.base.clone();
        for id in standing {
            if self.catalogue.is_file(id) && !self.stored.contains(id) {
                return Err(Refusal::Missing(self.catalogue.path(id).clone()));
            }
            items.insert(id);
            let at = id.0 as usize;
            if at >= self.last_used.len() {
                self.last_used.resize(at + 1, 0);
            }
            self.last_used[at] = self.clock;
        }
        let is_exposed = |&id: &ItemId| {
            let path = self.catalogue.path(id);
            roots.iter().any(|root| path.is_within(root))
        };
        let exposed = items.iter().filter(is_exposed).collect();
        Ok(Wanted {
            items,
            exposed,
            roots,
        })
    }

    /// The idle tree with the least to change; the one with the lowest number of several.
    pub fn nearest(&self, wanted: &Wanted) -> Option<TreeId> {
        (0..self.trees.len())
            .filter(|&tree| !self.trees[tree].busy)
            .min_by_key(|&tree| self.trees[tree].items.distance(&wanted.items))
            .map(TreeId)
    }

    /// What must be done to `tree` to make it what is wanted.
    pub fn change(&self, tree: TreeId, wanted: &Wanted) -> Change {
        let held = &self.trees[tree.0];
        let mut change = Change::default();
        for id in held.items.without(&wanted.items) {
            if self.catalogue.is_directory(id) {
                change.rmdir.push(id);
            } else {
                change.unlink.push(id);
            }
        }
        for id in wanted.items.without(&held.items) {
            if self.catalogue.is_directory(id) {
                change.mkdir.push(id);
            } else {
                change.place.push((id, self.placing(id, wanted)));
            }
        }
        for id in wanted.exposed.without(&held.private) {
            if self.catalogue.is_file(id) && held.items.contains(id) {
                change.unlink.push(id);
                change.place.push((id, Placing::Copy));
            }
        }
        let parent = |id: ItemId| self.catalogue.parent(self.catalogue.place(id));
        change.unlink.sort_by_key(|&id| parent(id));
        change.place.sort_by_key(|&(id, _)| parent(id));
        let depth = |id: ItemId| self.catalogue.depth(id);
        change.rmdir.sort_by_key(|&id| std::cmp::Reverse(depth(id)));
        change.mkdir.sort_by_key(|&id| depth(id));
        change
    }

    /// What lacks to do `change`: evict as much, and the change is to be worked out anew.
    pub fn lacking(&self, change: &Change) -> Option<Room> {
        let copies = change.place.iter().filter(|p| p.1 == Placing::Copy);
        let bytes: u64 = copies.map(|&(id, _)| pages(self.catalogue.size(id))).sum();
        let more = change.mkdir.len() + change.place.len();
        let less = change.rmdir.len() + change.unlink.len();
        self.lacking_for(Room {
            bytes,
            inodes: more.saturating_sub(less) as u64,
        })
    }

    /// What lacks to store a file of this size.
    pub fn lacking_to_store(&self, size: u64) -> Option<Room> {
        self.lacking_for(Room {
            bytes: pages(size),
            inodes: 1,
        })
    }

    /// The stored items to evict to get at least `room`, the longest unused first; less when there
    /// are no more. Never what `keep` wants, a busy tree holds, or was stored or reserved for a job
    /// that has yet to come. An eighth of the limits comes on top, so that looking for victims stays rare.
    pub fn victims(&self, room: Room, keep: Option<&Wanted>) -> Vec<ItemId> {
        let mut pinned = ItemSet::default();
        for held in self.trees.iter().filter(|held| held.busy) {
            pinned.insert_all(&held.items);
        }
        if let Some(wanted) = keep {
            pinned.insert_all(&wanted.items);
        }
        let last_used = |id: ItemId| self.last_used[id.0 as usize];
        let candidates = self.stored.without(&pinned);
        let mut candidates: Vec<ItemId> = candidates
            .filter(|&id| last_used(id) <= self.clock)
            .collect();
        candidates.sort_by_key(|&id| last_used(id));
        let target = |need: u64, limit: u64| {
            if need > 0 {
                need.saturating_add(limit / 8)
            } else {
                0
            }
        };
        let bytes = target(room.bytes, self.limits.bytes);
        let inodes = target(room.inodes, self.limits.inodes);
        let mut freed = Room::default();
        candidates
            .into_iter()
            .take_while(|&id| {
                let go_on = freed.bytes < bytes || freed.inodes < inodes;
                let size = pages(self.catalogue.size(id));
                freed.bytes += size;
                freed.inodes += 1;
                for held in &self.trees {
                    freed.inodes += u64::from(held.items.contains(id));
                    freed.bytes += if held.private.contains(id) { size } else { 0 };
                }
                go_on
            })
            .collect()
    }

    /// Whether the file needs no [`Self::admit`]: it is stored, or the toolchain has it. What is no
    /// file needs none either.
    pub fn is_present(&self, entry: &Entry) -> bool {
        let EntryKind::File { .. } = entry.kind else {
            return true;
        };
        if self
            .catalogue
            .find(entry)
            .is_some_and(|id| self.stored.contains(id))
        {
            return true;
        }
        let Some(place) = self.catalogue.find_place(&entry.path) else {
            return false;
        };
        let mut items = self.catalogue.items_at(place).iter();
        items.any(|&id| self.base.contains(id) && same(self.catalogue.kind(id), &entry.kind))
    }

    /// [`Self::is_present`], and if so, it stays until the next job has its tree.
    pub fn reserve(&mut self, entry: &Entry) -> bool {
        match self.catalogue.find(entry) {
            Some(id) if self.stored.contains(id) => {
                self.last_used[id.0 as usize] = self.clock + 1;
                true
            }
            _ => self.is_present(entry),
        }
    }

    /// The number of a file that is about to be stored.
    pub fn admit(&mut self, entry: &Entry) -> Result<ItemId, Refusal> {
        self.forget_unused();
        if entry.path.as_bytes() == b"/" {
            return Err(at_root(&entry.path));
        }
        self.catalogue.intern(entry).map_err(|_| Refusal::Full)
    }

    /// The file is in the store now.
    pub fn stored(&mut self, id: ItemId) {
        if self.stored.insert(id) {
            self.stored_bytes += pages(self.catalogue.size(id));
        }
        let at = id.0 as usize;
        if at >= self.last_used.len() {
            self.last_used.resize(at + 1, 0);
        }
        // Newer than every job: it was sent for one that has not begun.
        self.last_used[at] = self.clock + 1;
    }

    /// A job gave up before it had a tree: what was stored for it is as old as the last job.
    pub fn given_up(&mut self) {
        self.clock += 1;
    }

    /// The file is in the store no more.
    pub fn evicted(&mut self, id: ItemId) {
        if self.stored.remove(id) {
            self.stored_bytes -= pages(self.catalogue.size(id));
        }
    }

    /// The item is in the tree now; `private` when it is a copy.
    pub fn placed(&mut self, tree: TreeId, id: ItemId, private: bool) {
        let held = &mut self.trees[tree.0];
        held.items.insert(id);
        if private && held.private.insert(id) {
            held.private_bytes += pages(self.catalogue.size(id));
        }
    }

    /// The item is in the tree no more.
    pub fn removed(&mut self, tree: TreeId, id: ItemId) {
        let held = &mut self.trees[tree.0];
        held.items.remove(id);
        if held.private.remove(id) {
            held.private_bytes -= pages(self.catalogue.size(id));
        }
    }

    /// The tree was thrown away: it holds nothing, and is idle.
    pub fn emptied(&mut self, tree: TreeId) {
        self.trees[tree.0] = Held::default();
    }

    /// A job has the tree from now on, or no longer.
    pub fn set_busy(&mut self, tree: TreeId, busy: bool) {
        self.trees[tree.0].busy = busy;
    }

    /// The idle trees that hold anything, without `except`.
    pub fn idle_trees(&self, except: Option<TreeId>) -> Vec<TreeId> {
        (0..self.trees.len())
            .map(TreeId)
            .filter(|&tree| Some(tree) != except)
            .filter(|&TreeId(at)| !self.trees[at].busy && !self.trees[at].items.is_empty())
            .collect()
    }

    /// What the tree holds.
    pub fn items(&self, tree: TreeId) -> &ItemSet {
        &self.trees[tree.0].items
    }

    /// What the tree holds at this path.
    pub fn item_at(&self, tree: TreeId, path: &AbsPath) -> Option<ItemId> {
        let place = self.catalogue.find_place(path)?;
        let mut items = self.catalogue.items_at(place).iter().copied();
        items.find(|&id| self.trees[tree.0].items.contains(id))
    }

    /// The numbers' meaning.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// What the store and the trees take up, as the limits count it.
    pub fn used(&self) -> Room {
        let private: u64 = self.trees.iter().map(|held| held.private_bytes).sum();
        let held: usize = self.trees.iter().map(|held| held.items.len() + 1).sum();
        Room {
            bytes: self.stored_bytes + private,
            inodes: FIXED_INODES + (self.stored.len() + held) as u64,
        }
    }

    /// The items of one declaration with all directories above them, without what the toolchain
    /// has anyway.
    fn stand_all(
        &mut self,
        entries: &[Entry],
        directories: &mut dyn Iterator<Item = &AbsPath>,
    ) -> Result<Vec<ItemId>, Refusal> {
        self.forget_unused();
        self.clock += 1;
        let mut standing = Vec::with_capacity(entries.len() + 64);
        for entry in entries {
            self.stand(entry, &mut standing)?;
        }
        for path in directories {
            let entry = Entry {
                path: path.clone(),
                kind: EntryKind::Directory,
            };
            self.stand(&entry, &mut standing)?;
        }
        let mut next = 0;
        while let Some(&id) = standing.get(next) {
            self.stand_parents(id, &mut standing)?;
            next += 1;
        }
        Ok(standing)
    }

    fn stand(&mut self, entry: &Entry, standing: &mut Vec<ItemId>) -> Result<(), Refusal> {
        if entry.path.as_bytes() == b"/" {
            return match entry.kind {
                EntryKind::Directory => Ok(()),
                _ => Err(at_root(&entry.path)),
            };
        }
        let id = self.catalogue.intern(entry).map_err(|_| Refusal::Full)?;
        match self.standing(self.catalogue.place(id)) {
            None => {
                self.set_standing(id);
                standing.push(id);
                Ok(())
            }
            Some(other) if other == id => Ok(()),
            Some(other) if self.base.contains(other) => {
                if same(self.catalogue.kind(other), &entry.kind) {
                    Ok(())
                } else {
                    Err(Refusal::Conflict(entry.path.clone()))
                }
            }
            Some(_) => Err(Refusal::Invalid {
                path: entry.path.clone(),
                why: "is declared twice, differently",
            }),
        }
    }

    fn stand_parents(&mut self, id: ItemId, standing: &mut Vec<ItemId>) -> Result<(), Refusal> {
        let mut place = self.catalogue.parent(self.catalogue.place(id));
        while place != PlaceId::ROOT {
            match self.standing(place) {
                // Those above it are its own business.
                Some(other) if self.catalogue.is_directory(other) => break,
                Some(_) => {
                    return Err(Refusal::Invalid {
                        path: self.catalogue.path(id).clone(),
                        why: "lies below a file or symlink",
                    });
                }
                None => {
                    let directory = self.catalogue.intern_directory(place);
                    let directory = directory.map_err(|_| Refusal::Full)?;
                    self.set_standing(directory);
                    standing.push(directory);
                }
            }
            place = self.catalogue.parent(place);
        }
        Ok(())
    }

    fn standing(&self, place: PlaceId) -> Option<ItemId> {
        let &(clock, id) = self.standing.get(place.0 as usize)?;
        (clock == self.clock || clock == ALWAYS).then_some(id)
    }

    fn set_standing(&mut self, id: ItemId) {
        let at = self.catalogue.place(id).0 as usize;
        if at >= self.standing.len() {
            let bound = self.catalogue.place_bound();
            self.standing.resize(bound, (0, ItemId(0)));
        }
        self.standing[at] = (self.clock, id);
    }

    fn roots(&self, writable: &[AbsPath]) -> Result<Vec<AbsPath>, Refusal> {
        let mut sorted: Vec<&AbsPath> = writable.iter().collect();
        sorted.sort();
        let mut roots: Vec<AbsPath> = Vec::new();
        for path in sorted {
            // A job that may write the root, or many places, is a mistake; one that may write
            // where the toolchain's placeholders are would change them for everybody.
            if path.as_bytes() == b"/" || roots.len() == WRITABLE_MAX {
                return Err(Refusal::Invalid {
                    path: path.clone(),
                    why: "can't be writable",
                });
            }
            let after = self.base_paths.partition_point(|base| base < path);
            // `/a.b` sorts between `/a` and `/a/b`: the first that is not below may not be the end.
            let below = |base: &&AbsPath| base.as_bytes().starts_with(path.as_bytes());
            let mut candidates = self.base_paths[after..].iter().take_while(below);
            if candidates.any(|base| base.is_within(path)) {
                return Err(Refusal::Conflict(path.clone()));
            }
            if !roots.iter().any(|root| path.is_within(root)) {
                roots.push(path.clone());
            }
        }
        Ok(roots)
    }

    fn placing(&self, id: ItemId, wanted: &Wanted) -> Placing {
        if !self.catalogue.is_file(id) {
            Placing::Symlink
        } else if self.base.contains(id) {
            Placing::Placeholder
        } else if wanted.exposed.contains(id) {
            Placing::Copy
        } else {
            Placing::Link
        }
    }

    fn lacking_for(&self, more: Room) -> Option<Room> {
        let used = self.used();
        let lacking = Room {
            bytes: used
                .bytes
                .saturating_add(more.bytes)
                .saturating_sub(self.limits.bytes),
            inodes: used
                .inodes
                .saturating_add(more.inodes)
                .saturating_sub(self.limits.inodes),
        };
        (lacking != Room::default()).then_some(lacking)
    }

    fn forget_unused(&mut self) {
        let limit = self.limits.inodes.saturating_mul(3) / 2;
        if (self.catalogue.len() as u64) < limit {
            return;
        }
        let mut used = self.base.clone();
        used.insert_all(&self.stored);
        for held in &self.trees {
            used.insert_all(&held.items);
        }
        self.catalogue.retain(&used);
    }
}

/// Whether a job's entry is what the toolchain has there: a toolchain's times are zero.
fn same(ours: &EntryKind, declared: &EntryKind) -> bool {
    match (ours, declared) {
        (
            EntryKind::File { digest, size, .. },
            EntryKind::File {
                digest: d, size: s, ..
            },
        ) => (digest, size) == (d, s),
        _ => ours == declared,
    }
}

fn at_root(path: &AbsPath) -> Refusal {
    Refusal::Invalid {
        path: path.clone(),
        why: "can only be a directory",
    }
}

/// What a file of this size takes up on tmpfs.
fn pages(size: u64) -> u64 {
    size.saturating_add(4095) & !4095
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Digest;

    const ROOM: Limits = Limits {
        trees: 2,
        bytes: 1 << 20,
        inodes: 1000,
    };

    fn path(text: &str) -> AbsPath {
        AbsPath::parse(text).unwrap()
    }

    /// `/p` is a directory, `/p=x` a file of that content, `/p->t` a symlink.
    fn entry(text: &str) -> Entry {
        if let Some((at, target)) = text.split_once("->") {
            let kind = EntryKind::Symlink(target.into());
            return Entry {
                path: path(at),
                kind,
            };
        }
        let Some((at, content)) = text.split_once('=') else {
            let kind = EntryKind::Directory;
            return Entry {
                path: path(text),
                kind,
            };
        };
        let kind = EntryKind::File {
            digest: Digest([content.as_bytes()[0]; 32]),
            size: 5000,
            executable: false,
            mtime: Default::default(),
        };
        Entry {
            path: path(at),
            kind,
        }
    }

    fn entries(text: &[&str]) -> Vec<Entry> {
        text.iter().map(|text| entry(text)).collect()
    }

    fn store(holdings: &mut Holdings, files: &[&str]) {
        for file in entries(files) {
            if !holdings.is_present(&file) {
                let id = holdings.admit(&file).unwrap();
                holdings.stored(id);
            }
        }
    }

    /// Stores the files, takes the nearest tree and changes it; says what was done.
    fn take(holdings: &mut Holdings, files: &[&str], writable: &[&str]) -> (TreeId, Vec<String>) {
        store(holdings, files);
        let writable: Vec<AbsPath> = writable.iter().map(|w| path(w)).collect();
        let wanted = holdings
            .want(&entries(files), &writable, &path("/cwd"))
            .unwrap();
        let tree = holdings.nearest(&wanted).unwrap();
        let change = holdings.change(tree, &wanted);
        let mut told = Vec::new();
        for (what, ids) in [("unlink", &change.unlink), ("rmdir", &change.rmdir)] {
            for &id in ids {
                told.push(format!("{what} {}", holdings.catalogue.path(id)));
                holdings.removed(tree, id);
            }
        }
        for &id in &change.mkdir {
            told.push(format!("mkdir {}", holdings.catalogue.path(id)));
            holdings.placed(tree, id, false);
        }
        for &(id, placing) in &change.place {
            told.push(format!("{placing:?} {}", holdings.catalogue.path(id)));
            holdings.placed(tree, id, placing == Placing::Copy);
        }
        assert_eq!(holdings.items(tree), &wanted.items);
        holdings.set_busy(tree, true);
        (tree, told)
    }

    #[test]
    fn a_change_removes_before_it_makes_and_makes_parents_first() {
        let mut holdings = Holdings::new(ROOM, &entries(&["/bin/cc=c", "/lib->usr/lib"])).unwrap();
        let steps: [(&[&str], &[&str], &[&str]); 5] = [
            (
                &["/a/b/x.h=1", "/a/s->b"],
                &["/out"],
                &[
                    "mkdir /bin",
                    "mkdir /a",
                    "mkdir /out",
                    "mkdir /cwd",
                    "mkdir /a/b",
                    "Symlink /lib",
                    "Placeholder /bin/cc",
                    "Symlink /a/s",
                    "Link /a/b/x.h",
                ],
            ),
            (&["/a/b/x.h=1", "/a/s->b"], &["/out"], &[]),
            (
                &["/a/b=2", "/a/s/y.h=3"],
                &["/out"],
                &[
                    "unlink /a/s",
                    "unlink /a/b/x.h",
                    "rmdir /a/b",
                    "mkdir /a/s",
                    "Link /a/b",
                    "Link /a/s/y.h",
                ],
            ),
            (
                &["/a/b=2", "/a/s/y.h=3"],
                &["/a", "/a/s"],
                &[
                    "unlink /a/b",
                    "unlink /a/s/y.h",
                    "rmdir /out",
                    "Copy /a/b",
                    "Copy /a/s/y.h",
                ],
            ),
            // What is private may stay so.
            (&["/a/b=2", "/a/s/y.h=3"], &["/out"], &["mkdir /out"]),
        ];
        for (files, writable, expect) in steps {
            let (tree, told) = take(&mut holdings, files, writable);
            assert_eq!(tree, TreeId(0));
            let sorted = |mut told: Vec<String>| {
                told.sort();
                told
            };
            let expect: Vec<String> = expect.iter().map(|&e| e.to_owned()).collect();
            assert_eq!(sorted(told.clone()), sorted(expect), "{files:?}");
            let at = |what: &str| told.iter().position(|t| t == what);
            for (first, then) in [
                ("unlink /a/b/x.h", "rmdir /a/b"),
                ("rmdir /a/b", "Link /a/b"),
                ("unlink /a/s", "mkdir /a/s"),
                ("mkdir /a/s", "Link /a/s/y.h"),
                ("mkdir /a", "mkdir /a/b"),
                ("unlink /a/b", "Copy /a/b"),
            ] {
                if let (Some(first), Some(then)) = (at(first), at(then)) {
                    assert!(first < then, "{told:?}");
                }
            }
            holdings.set_busy(tree, false);
        }
    }

    #[test]
    fn the_nearest_idle_tree_is_taken() {
        let mut holdings = Holdings::new(ROOM, &[]).unwrap();
        let (first, second) = (&["/a=1", "/b=1", "/c=1"], &["/x=1", "/y=1", "/z=1"]);
        assert_eq!(take(&mut holdings, first, &[]).0, TreeId(0));
        assert_eq!(take(&mut holdings, second, &[]).0, TreeId(1));
        let wanted = holdings.want(&entries(first), &[], &path("/cwd")).unwrap();
        assert_eq!(holdings.nearest(&wanted), None);
        holdings.set_busy(TreeId(0), false);
        holdings.set_busy(TreeId(1), false);
        for (files, expect) in [
            (&["/x=1", "/y=1", "/c=1"], TreeId(1)),
            (&["/a=1", "/b=1", "/z=1"], TreeId(0)),
        ] {
            let wanted = holdings.want(&entries(files), &[], &path("/cwd"));
            assert_eq!(holdings.nearest(&wanted.unwrap()), Some(expect));
        }
    }

    #[test]
    fn senseless_declarations_are_refused() {
        let toolchain = entries(&["/usr/bin/cc=c", "/lib->usr/lib", "/usr/lib"]);
        let mut holdings = Holdings::new(ROOM, &toolchain).unwrap();
        store(
            &mut holdings,
            &[
                "/a=1",
                "/a=2",
                "/a/b=1",
                "/usr/bin/cc=2",
                "/lib/x=1",
                "/lib=1",
            ],
        );
        let conflict = |at: &str| Some(Refusal::Conflict(path(at)));
        let invalid = |at: &str, why| {
            Some(Refusal::Invalid {
                path: path(at),
                why,
            })
        };
        let (below, twice) = (
            "lies below a file or symlink",
            "is declared twice, differently",
        );
        let cases: [(&[&str], &str, &str, Option<Refusal>); 18] = [
            (
                &[
                    "/a=1",
                    "/a=1",
                    "/usr/bin/cc=c",
                    "/lib->usr/lib",
                    "/usr",
                    "/",
                ],
                "/w",
                "/",
                None,
            ),
            (&["/usr/bin/cc=2"], "/w", "/", conflict("/usr/bin/cc")),
            (&["/usr/bin/cc"], "/w", "/", conflict("/usr/bin/cc")),
            (&["/usr/bin->x"], "/w", "/", conflict("/usr/bin")),
            (&["/lib->lib64"], "/w", "/", conflict("/lib")),
            (&["/lib=1"], "/w", "/", conflict("/lib")),
            (&["/lib/x=1"], "/w", "/", invalid("/lib/x", below)),
            (&["/a=1", "/a/b=1"], "/w", "/", invalid("/a/b", below)),
            (&["/a/b=1", "/a->c"], "/w", "/", invalid("/a/b", below)),
            (&["/a=1", "/a=2"], "/w", "/", invalid("/a", twice)),
            (&["/a=1", "/a"], "/w", "/", invalid("/a", twice)),
            (&["/=1"], "/w", "/", invalid("/", "can only be a directory")),
            (&["/new=1"], "/w", "/", Some(Refusal::Missing(path("/new")))),
            (&["/a=1"], "/a", "/", invalid("/a", twice)),
            (&["/a=1"], "/w", "/a/b", invalid("/a/b", below)),
            (&[], "/", "/", invalid("/", "can't be writable")),
            (&[], "/usr", "/", conflict("/usr")),
            (&[], "/usr/lib", "/usr/lib", None),
        ];
        for (files, writable, cwd, expect) in cases {
            let wanted = holdings.want(&entries(files), &[path(writable)], &path(cwd));
            assert_eq!(wanted.err(), expect, "{files:?} {writable} {cwd}");
        }
        let many: Vec<AbsPath> = (0..=WRITABLE_MAX).map(|n| path(&format!("/{n}"))).collect();
        assert!(holdings.want(&[], &many, &path("/")).is_err());
        assert!(holdings.want(&[], &many[1..], &path("/")).is_ok());
    }

    #[test]
    fn the_longest_unused_is_evicted_and_never_what_is_in_use() {
        let mut holdings = Holdings::new(ROOM, &[]).unwrap();
        for (files, busy) in [
            (&["/old=1", "/both=1"], false),
            (&["/new=1", "/both=1"], false),
            (&["/busy=1", "/both=1"], true),
        ] {
            let (tree, _) = take(&mut holdings, files, &[]);
            holdings.set_busy(tree, busy);
        }
        store(&mut holdings, &["/fresh=1"]);
        let names = |ids: Vec<ItemId>| -> Vec<String> {
            let name = |&id: &ItemId| holdings.catalogue.path(id).to_string();
            ids.iter().map(name).collect()
        };
        let need = |bytes, inodes| Room { bytes, inodes };
        let all = need(u64::MAX, 0);
        assert_eq!(names(holdings.victims(all, None)), ["/old", "/new"]);
        assert_eq!(holdings.victims(need(0, 0), None), []);
        let wanted = holdings.want(&entries(&["/old=1"]), &[], &path("/cwd"));
        let wanted = wanted.unwrap();
        let names = |ids: Vec<ItemId>| -> Vec<String> {
            let name = |&id: &ItemId| holdings.catalogue.path(id).to_string();
            ids.iter().map(name).collect()
        };
        assert_eq!(
            names(holdings.victims(all, Some(&wanted))),
            ["/new", "/fresh"]
        );
    }

    #[test]
    fn room_is_counted_in_pages_and_names() {
        let limits = Limits {
            trees: 2,
            bytes: 5 * 8192,
            inodes: 20,
        };
        let mut holdings = Holdings::new(limits, &[]).unwrap();
        let empty = holdings.used();
        let (tree, _) = take(&mut holdings, &["/w/a=1", "/w/b=1", "/c=1"], &["/w"]);
        let used = holdings.used();
        assert_eq!(used.bytes - empty.bytes, (3 + 2) * 8192);
        // Three in the store, three in the tree, /w and /cwd.
        assert_eq!(used.inodes - empty.inodes, 3 + 3 + 2);
        assert_eq!(
            holdings.lacking_to_store(1),
            Some(Room {
                bytes: 4096,
                inodes: 0
            })
        );
        holdings.emptied(tree);
        assert_eq!(holdings.lacking_to_store(8192), None);
        assert_eq!(holdings.used().bytes, 3 * 8192);
    }

    #[test]
    fn what_is_nowhere_is_forgotten() {
        let limits = Limits {
            trees: 1,
            bytes: 1 << 30,
            inodes: 30,
        };
        let mut holdings = Holdings::new(limits, &entries(&["/bin/cc=c"])).unwrap();
        for job in 0..1000 {
            let name = format!("/{job}/x=1");
            let (tree, _) = take(&mut holdings, &[&name], &[]);
            holdings.set_busy(tree, false);
            let id = holdings.catalogue.find(&entry(&name)).unwrap();
            holdings.removed(tree, id);
            holdings.evicted(id);
        }
        assert!(holdings.catalogue.len() <= 60);
        let many: Vec<String> = (0..100).map(|n| format!("/d{n}")).collect();
        let many: Vec<Entry> = many.iter().map(|text| entry(text)).collect();
        let refused = holdings.want(&many, &[], &path("/cwd"));
        assert_eq!(refused.err(), Some(Refusal::Full));
    }
}
