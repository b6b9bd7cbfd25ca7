//! Numbers everything that jobs declare: an item is a path with what stands there, a place is a path.
//!
//! Knows no tree and no job. Numbers let a job's hundreds of entries be compared as bits, and they
//! name the inodes of the tree's file system, one per item: two paths with equal content, or one
//! path at two times, must be two inodes, since compilers tell once-only files apart by these.
//!
//! A file is found by the first bytes of its digest, not by its path: the paths of one project's
//! headers differ in their last bytes only, and 600 look-ups happen per job.

use std::collections::BTreeMap;

use super::ItemSet;
use crate::id::{AbsPath, Digest};
use crate::message::{Entry, EntryKind};

/// An item: a path with what stands there. A number is used again once its item is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ItemId(pub u32);

/// A place: a path. [`PlaceId::ROOT`] is `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlaceId(pub u32);

impl PlaceId {
    /// The place of `/`, where no item ever is: every tree has its root.
    pub const ROOT: Self = Self(0);
}

/// The catalogue has no room for more items.
#[derive(Debug, PartialEq, Eq)]
pub struct CatalogueFull;

/// The items and places that have numbers.
#[derive(Debug)]
pub struct Catalogue {
    items: Vec<Item>,
    places: Vec<Place>,
    live: ItemSet,
    free_items: Vec<ItemId>,
    free_places: Vec<PlaceId>,
    /// Files, by the beginning of their digest; each list is sorted by path and kind.
    by_digest: BTreeMap<u64, Vec<ItemId>>,
    by_path: BTreeMap<AbsPath, PlaceId>,
    capacity: usize,
}

#[derive(Debug)]
struct Item {
    kind: EntryKind,
    place: PlaceId,
}

#[derive(Debug)]
struct Place {
    path: AbsPath,
    parent: PlaceId,
    depth: u32,
    /// The items that were declared here, at whatever time.
    items: Vec<ItemId>,
    /// Places right below it.
    children: u32,
}

impl Catalogue {
    /// A catalogue that gives at most `capacity` numbers at a time.
    pub fn new(capacity: usize) -> Self {
        let root = AbsPath::parse("/").expect("`/` is a path");
        Self {
            items: Vec::new(),
            places: vec![Place {
                path: root.clone(),
                parent: PlaceId::ROOT,
                depth: 0,
                items: Vec::new(),
                children: 0,
            }],
            live: ItemSet::default(),
            free_items: Vec::new(),
            free_places: Vec::new(),
            by_digest: BTreeMap::new(),
            by_path: BTreeMap::from([(root, PlaceId::ROOT)]),
            capacity,
        }
    }

    /// The number of `entry`, newly given if need be. `entry` is not at `/`.
    pub fn intern(&mut self, entry: &Entry) -> Result<ItemId, CatalogueFull> {
        if let Some(id) = self.find(entry) {
            return Ok(id);
        }
        let place = self.intern_place(&entry.path)?;
        self.give(place, &entry.kind)
    }

    /// The number of the directory at `place`, newly given if need be. `place` is not the root.
    pub fn intern_directory(&mut self, place: PlaceId) -> Result<ItemId, CatalogueFull> {
        match self.item_at(place, &EntryKind::Directory) {
            Some(id) => Ok(id),
            None => self.give(place, &EntryKind::Directory),
        }
    }

    /// Forgets every item that is not in `used`, and every place that has become empty.
    pub fn retain(&mut self, used: &ItemSet) {
        let unused: Vec<ItemId> = self.live.without(used).collect();
        for id in unused {
            self.live.remove(id);
            self.free_items.push(id);
            let place = self.items[id.0 as usize].place;
            if let EntryKind::File { digest, .. } = self.items[id.0 as usize].kind {
                let same = self.by_digest.get_mut(&beginning(&digest));
                let same = same.expect("a file is listed by its digest");
                same.retain(|&other| other != id);
                if same.is_empty() {
                    self.by_digest.remove(&beginning(&digest));
                }
            }
            self.places[place.0 as usize].items.retain(|&o| o != id);
            self.forget_if_empty(place);
        }
    }

    /// The number of `entry`, if it has one.
    pub fn find(&self, entry: &Entry) -> Option<ItemId> {
        match &entry.kind {
            EntryKind::File { digest, .. } => {
                let same = self.by_digest.get(&beginning(digest))?;
                let at = self.search(same, &entry.path, &entry.kind).ok()?;
                Some(same[at])
            }
            kind => self.item_at(self.find_place(&entry.path)?, kind),
        }
    }

    /// The number of the place at `path`, if it has one.
    pub fn find_place(&self, path: &AbsPath) -> Option<PlaceId> {
        self.by_path.get(path).copied()
    }

    /// Where the item is.
    pub fn path(&self, id: ItemId) -> &AbsPath {
        &self.places[self.place(id).0 as usize].path
    }

    /// What the item is.
    pub fn kind(&self, id: ItemId) -> &EntryKind {
        &self.items[id.0 as usize].kind
    }

    /// The item's size when it is a file, else 0.
    pub fn size(&self, id: ItemId) -> u64 {
        self.kind(id).size().unwrap_or(0)
    }

    /// Whether the item is a regular file.
    pub fn is_file(&self, id: ItemId) -> bool {
        matches!(self.kind(id), EntryKind::File { .. })
    }

    /// Whether the item is a directory.
    pub fn is_directory(&self, id: ItemId) -> bool {
        *self.kind(id) == EntryKind::Directory
    }

    /// The item's place.
    pub fn place(&self, id: ItemId) -> PlaceId {
        self.items[id.0 as usize].place
    }

    /// The path of a place.
    pub fn place_path(&self, place: PlaceId) -> &AbsPath {
        &self.places[place.0 as usize].path
    }

    /// The place that holds this one; the root holds itself.
    pub fn parent(&self, place: PlaceId) -> PlaceId {
        self.places[place.0 as usize].parent
    }

    /// How many components the item's path has.
    pub fn depth(&self, id: ItemId) -> u32 {
        self.places[self.place(id).0 as usize].depth
    }

    /// All items at a place.
    pub fn items_at(&self, place: PlaceId) -> &[ItemId] {
        &self.places[place.0 as usize].items
    }

    /// How many numbers are given.
    pub fn len(&self) -> usize {
        self.items.len() - self.free_items.len()
    }

    /// Whether no number is given.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Above every number of a place that was ever given.
    pub fn place_bound(&self) -> usize {
        self.places.len()
    }

    fn give(&mut self, place: PlaceId, kind: &EntryKind) -> Result<ItemId, CatalogueFull> {
        let item = Item {
            kind: kind.clone(),
            place,
        };
        let id = match self.free_items.pop() {
            Some(id) => {
                self.items[id.0 as usize] = item;
                id
            }
            None if self.items.len() < self.capacity => {
                self.items.push(item);
                ItemId(self.items.len() as u32 - 1)
            }
            None => {
                self.forget_if_empty(place);
                return Err(CatalogueFull);
            }
        };
        self.live.insert(id);
        self.places[place.0 as usize].items.push(id);
        if let EntryKind::File { digest, .. } = kind {
            let digest = beginning(digest);
            let mut same = self.by_digest.remove(&digest).unwrap_or_default();
            let path = &self.places[place.0 as usize].path;
            let at = self.search(&same, path, kind);
            same.insert(at.expect_err("the item is new"), id);
            self.by_digest.insert(digest, same);
        }
        Ok(id)
    }

    fn intern_place(&mut self, path: &AbsPath) -> Result<PlaceId, CatalogueFull> {
        // Ancestors first, and not by recursion: a path may have two thousand components.
        let mut missing = Vec::new();
        let mut path = path.clone();
        let mut place = loop {
            if let Some(place) = self.find_place(&path) {
                break place;
            }
            let parent = path.parent().expect("the root has a place");
            missing.push(std::mem::replace(&mut path, parent));
        };
        for path in missing.into_iter().rev() {
            // Every place has an item sooner or later, so that one bound suits both.
            if self.places.len() - self.free_places.len() > self.capacity {
                self.forget_if_empty(place);
                return Err(CatalogueFull);
            }
            let child = Place {
                path: path.clone(),
                parent: place,
                depth: self.places[place.0 as usize].depth + 1,
                items: Vec::new(),
                children: 0,
            };
            self.places[place.0 as usize].children += 1;
            place = match self.free_places.pop() {
                Some(id) => {
                    self.places[id.0 as usize] = child;
                    id
                }
                None => {
                    self.places.push(child);
                    PlaceId(self.places.len() as u32 - 1)
                }
            };
            self.by_path.insert(path, place);
        }
        Ok(place)
    }

    fn forget_if_empty(&mut self, mut place: PlaceId) {
        while place != PlaceId::ROOT {
            let Place {
                items,
                children,
                path,
                parent,
                ..
            } = &self.places[place.0 as usize];
            if !items.is_empty() || *children > 0 {
                return;
            }
            self.by_path.remove(path);
            self.free_places.push(place);
            place = *parent;
            self.places[place.0 as usize].children -= 1;
        }
    }

    fn item_at(&self, place: PlaceId, kind: &EntryKind) -> Option<ItemId> {
        let items = self.items_at(place);
        items.iter().copied().find(|&id| self.kind(id) == kind)
    }

    fn search(&self, same: &[ItemId], path: &AbsPath, kind: &EntryKind) -> Result<usize, usize> {
        same.binary_search_by(|&id| (self.path(id), self.kind(id)).cmp(&(path, kind)))
    }
}

fn beginning(digest: &Digest) -> u64 {
    let bytes = digest.0.first_chunk().expect("a digest has 32 bytes");
    u64::from_be_bytes(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Mtime;

    fn file(path: &str, digest: u8, seconds: i64) -> Entry {
        let kind = EntryKind::File {
            digest: Digest([digest; 32]),
            size: 1,
            executable: false,
            mtime: Mtime {
                seconds,
                nanoseconds: 0,
            },
        };
        entry(path, kind)
    }

    fn entry(path: &str, kind: EntryKind) -> Entry {
        let path = AbsPath::parse(path).unwrap();
        Entry { path, kind }
    }

    #[test]
    fn every_path_content_and_time_is_an_item_of_its_own() {
        let mut catalogue = Catalogue::new(100);
        let entries = [
            file("/a/x.h", 1, 0),
            file("/a/x.h", 1, 5),
            file("/a/x.h", 2, 0),
            file("/b/x.h", 1, 0),
            entry("/a/x.h", EntryKind::Directory),
            entry("/a/x.h", EntryKind::Symlink("y".into())),
            entry("/a/x.h", EntryKind::Symlink("z".into())),
        ];
        let ids: ItemSet = entries
            .iter()
            .map(|e| catalogue.intern(e).unwrap())
            .collect();
        assert_eq!(ids.len(), entries.len());
        for entry in &entries {
            let id = catalogue.intern(entry).unwrap();
            assert!(ids.contains(id), "given once");
            assert_eq!(
                (catalogue.path(id), catalogue.kind(id)),
                (&entry.path, &entry.kind)
            );
        }
    }

    #[test]
    fn the_forgotten_leave_nothing_behind() {
        let mut catalogue = Catalogue::new(100);
        let kept = catalogue.intern(&file("/a/b/kept.h", 1, 0)).unwrap();
        let gone = file("/a/b/c/d/gone.h", 1, 0);
        let directory = entry("/a/b/c", EntryKind::Directory);
        for round in 0..1000 {
            catalogue.intern(&gone).unwrap();
            catalogue.intern(&directory).unwrap();
            catalogue.retain(&[kept].into_iter().collect());
            assert_eq!(catalogue.find(&gone), None, "round {round}");
            assert_eq!(catalogue.find_place(&directory.path), None);
        }
        assert_eq!(catalogue.len(), 1);
        assert!(catalogue.place_bound() < 10);
        assert_eq!(catalogue.find(&file("/a/b/kept.h", 1, 0)), Some(kept));
    }

    #[test]
    fn numbers_and_places_have_a_bound() {
        let mut catalogue = Catalogue::new(3);
        for name in ["/a", "/b", "/c"] {
            catalogue.intern(&file(name, 1, 0)).unwrap();
        }
        assert_eq!(catalogue.intern(&file("/d", 1, 0)), Err(CatalogueFull));
        let deep = "/e".repeat(1000);
        assert_eq!(catalogue.intern(&file(&deep, 1, 0)), Err(CatalogueFull));
        catalogue.retain(&ItemSet::default());
        assert_eq!(catalogue.intern(&file("/d", 1, 0)).map(|_| ()), Ok(()));
        assert_eq!(catalogue.place_bound() - catalogue.free_places.len(), 2);
    }
}
