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
    /// are no more. Never what `keep` wants or a busy tree holds. An eighth of the limits comes on
    /// top, so that looking for victims stays rare.
    pub fn victims(&self, room: Room, keep: Option<&Wanted>) -> Vec<ItemId> {
        let mut pinned = ItemSet::default();
        for held in self.trees.iter().filter(|held| held.busy) {
            pinned.insert_all(&held.items);
        }
        if let Some(wanted) = keep {
            pinned.insert_all(&wanted.items);
        }
        let mut candidates: Vec<ItemId> = self.stored.without(&pinned).collect();
        let last_used = |id: ItemId| self.last_used.get(id.0 as usize).copied();
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
