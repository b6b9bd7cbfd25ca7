//! What stands at every path that was ever asked about, kept in memory and kept true.
//!
//! A place is a canonical path: no symlink on the way to it. Paths as a compiler spells them are
//! walked here as the kernel walks them, symlinks and `..` included. What a place holds comes from
//! a [`Disk`]; directories that it can watch are trusted until it reports a change, the others are
//! looked at again in every scan.
//!
//! Names that don't exist are not remembered one by one: a directory's listing answers for them,
//! and a name that appears somewhere matters only if that name was ever asked for.

mod changes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::id::{AbsPath, Digest};
use crate::include::disk::{Disk, Kind, Stamp, WatchNumber};
use crate::include::request::{Decline, EntryNumber, Listed};
use crate::message::{Entry, EntryKind};

/// Symlinks on one path, at most; as Linux.
const LINKS_MAX: usize = 40;

/// The index of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlaceId(pub u32);

/// A place.
#[derive(Debug)]
pub struct Place {
    /// Its canonical path.
    pub path: AbsPath,
    /// The directory that holds it; the root holds itself.
    pub parent: PlaceId,
    /// What stands there.
    pub what: What,
    /// Places in it that were ever looked at. They keep their index whatever becomes of them.
    children: BTreeMap<Box<[u8]>, PlaceId>,
    entry: Option<Arc<Entry>>,
    number: EntryNumber,
}

/// What is known of a place.
#[derive(Debug)]
pub enum What {
    /// Not looked at, or not any more.
    Unknown,
    /// A directory.
    Directory(Box<Directory>),
    /// A regular file.
    File(Box<File>),
    /// Anything else.
    Other(Kind),
}

/// A directory.
#[derive(Debug, Default)]
pub struct Directory {
    listing: Option<BTreeSet<Box<[u8]>>>,
    /// Listing was tried and is not possible.
    unlistable: bool,
    watch: Option<WatchNumber>,
    /// The watch reports contents.
    contents: bool,
    /// Whether something was asked here, so that a watch was tried and a stamp taken.
    opened: bool,
    stamp: Option<(Stamp, bool)>,
}

/// A regular file.
#[derive(Debug, Default)]
pub struct File {
    /// What is known of its content; none until it is read.
    pub known: Option<Known>,
    /// Goes up when the content or the inode changes.
    pub version: u32,
    dirty: bool,
    validated: u64,
}

/// What is known of a file that was read.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its inode then.
    pub stamp: Stamp,
    /// Whether the stamp tells if it changes.
    pub settled: bool,
    /// Its digest.
    pub digest: Digest,
    /// No change can escape notice: the directory is watched and the inode has no other name.
    pub watched: bool,
}

/// A file or directory found by walking a spelled path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// What the path leads to, all symlinks followed.
    pub place: PlaceId,
    /// The directory in which the path's last component stands.
    pub beside: PlaceId,
}

/// All places.
#[derive(Debug)]
pub struct Places {
    places: Vec<Place>,
    order: BTreeMap<AbsPath, PlaceId>,
    watches: BTreeMap<WatchNumber, BTreeSet<PlaceId>>,
    /// Directories that were opened and can't be watched.
    unwatched: BTreeSet<PlaceId>,
    asked: BTreeSet<Box<[u8]>>,
    blobs: BTreeMap<Digest, PlaceId>,
    entries: u64,
    /// Goes up when the outcome of any walk may have changed.
    pub epoch: u64,
    /// Goes up with `epoch`, and when any file changed.
    pub changes: u64,
    /// Whether some directory may hold a precompiled header.
    pub precompiled: bool,
}

/// The root of the file system.
pub const ROOT: PlaceId = PlaceId(0);

impl Default for Places {
    fn default() -> Self {
        let mut places = Self {
            places: Vec::new(),
            order: BTreeMap::new(),
            watches: BTreeMap::new(),
            unwatched: BTreeSet::new(),
            asked: BTreeSet::new(),
            blobs: BTreeMap::new(),
            entries: 0,
            epoch: 1,
            changes: 1,
            precompiled: false,
        };
        let root = AbsPath::parse("/").expect("the root is a path");
        let id = places.intern(ROOT, root);
        places.places[id.0 as usize].what = What::Directory(Box::default());
        places
    }
}

impl Places {
    /// The place with this index.
    pub fn get(&self, id: PlaceId) -> &Place {
        &self.places[id.0 as usize]
    }

    /// Whether all directories that were opened report their changes.
    pub fn are_watched(&self) -> bool {
        self.unwatched.is_empty()
    }

    /// How many places there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none; there is always the root.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// All places by path.
    pub fn in_order(&self) -> impl Iterator<Item = PlaceId> {
        self.order.values().copied()
    }

    /// Where a file with this digest stands.
    pub fn blob(&self, digest: &Digest) -> Option<&AbsPath> {
        let place = self.get(*self.blobs.get(digest)?);
        match &place.what {
            What::File(file) => (file.known?.digest == *digest).then_some(&place.path),
            _ => None,
        }
    }

    /// Walks a path from a directory, as the kernel does. `passed` takes every symlink followed and
    /// every directory left by `..`: they must exist for the path to lead to the same place.
    pub fn walk(
        &mut self,
        disk: &mut dyn Disk,
        from: PlaceId,
        path: &[u8],
        passed: &mut Vec<PlaceId>,
    ) -> Result<Option<Found>, Decline> {
        self.walk_links(disk, from, path, passed, &mut 0)
    }

    fn walk_links(
        &mut self,
        disk: &mut dyn Disk,
        from: PlaceId,
        path: &[u8],
        passed: &mut Vec<PlaceId>,
        links: &mut usize,
    ) -> Result<Option<Found>, Decline> {
        let mut place = if path.first() == Some(&b'/') {
            ROOT
        } else {
            from
        };
        let mut beside = place;
        let mut parts = path
            .split(|&b| b == b'/')
            .filter(|part| !matches!(*part, b"" | b"."))
            .peekable();
        while let Some(part) = parts.next() {
            if !matches!(self.get(place).what, What::Directory(_)) {
                return Ok(None);
            }
            if part == b".." {
                passed.push(place);
                place = self.get(place).parent;
                beside = place;
                continue;
            }
            beside = place;
            let Some(child) = self.child(disk, place, part, parts.peek().is_none()) else {
                return Ok(None);
            };
            place = child;
            match &self.get(child).what {
                What::File(_) | What::Directory(_) => {}
                What::Unknown | What::Other(Kind::Absent) => return Ok(None),
                What::Other(Kind::Symlink(target)) => {
                    *links += 1;
                    if *links > LINKS_MAX {
                        return Err(Decline::Unreadable(self.get(child).path.to_string()));
                    }
                    passed.push(child);
                    let target = target.clone();
                    match self.walk_links(disk, beside, &target, passed, links)? {
                        Some(found) => place = found.place,
                        None => return Ok(None),
                    }
                }
                What::Other(Kind::Denied) => {
                    return Err(Decline::Unreadable(self.get(child).path.to_string()));
                }
                What::Other(_) if parts.peek().is_some() => return Ok(None),
                What::Other(_) => {
                    return Err(Decline::Special(self.get(child).path.to_string()));
                }
            }
        }
        Ok(Some(Found { place, beside }))
    }

    /// The place of a name in a directory, if something stands there.
    fn child(
        &mut self,
        disk: &mut dyn Disk,
        parent: PlaceId,
        name: &[u8],
        last: bool,
    ) -> Option<PlaceId> {
        self.open(disk, parent);
        if !self.asked.contains(name) {
            self.asked.insert(name.into());
        }
        let list = last && name.len() < 256;
        if list {
            self.list(disk, parent);
        }
        let place = self.get(parent);
        let What::Directory(directory) = &place.what else {
            return None;
        };
        let known = place.children.get(name).copied();
        if let Some(child) = known
            && !matches!(self.get(child).what, What::Unknown)
        {
            return Some(child);
        }
        if let Some(listing) = &directory.listing
            && !listing.contains(name)
        {
            return None;
        }
        let path = match known {
            Some(child) => self.get(child).path.clone(),
            None => self.get(parent).path.join(name).ok()?,
        };
        let kind = disk.kind(&path);
        if kind == Kind::Absent {
            return None;
        }
        let child = known.unwrap_or_else(|| self.intern(parent, path));
        self.set(child, kind);
        Some(child)
    }

    fn intern(&mut self, parent: PlaceId, path: AbsPath) -> PlaceId {
        let id = PlaceId(self.places.len() as u32);
        if let Some(place) = self.places.get_mut(parent.0 as usize) {
            place.children.insert(path.file_name().into(), id);
        }
        self.order.insert(path.clone(), id);
        self.places.push(Place {
            path,
            parent,
            what: What::Unknown,
            children: BTreeMap::new(),
            entry: None,
            number: EntryNumber(0),
        });
        id
    }

    fn set(&mut self, id: PlaceId, kind: Kind) {
        let place = &mut self.places[id.0 as usize];
        place.entry = None;
        place.what = match kind {
            Kind::File => What::File(Box::default()),
            Kind::Directory => What::Directory(Box::default()),
            other => What::Other(other),
        };
    }

    /// Sees to it that changes of a directory's names will be noticed.
    fn open(&mut self, disk: &mut dyn Disk, id: PlaceId) {
        let place = &mut self.places[id.0 as usize];
        let What::Directory(directory) = &mut place.what else {
            return;
        };
        if directory.opened {
            return;
        }
        directory.opened = true;
        directory.watch = disk.watch(&place.path, false);
        match directory.watch {
            Some(watch) => {
                self.watches.entry(watch).or_default().insert(id);
            }
            None => {
                directory.stamp = disk.stamp(&place.path);
                self.unwatched.insert(id);
            }
        }
    }

    fn list(&mut self, disk: &mut dyn Disk, id: PlaceId) {
        let place = &mut self.places[id.0 as usize];
        let What::Directory(directory) = &mut place.what else {
            return;
        };
        if directory.listing.is_some() || directory.unlistable {
            return;
        }
        match disk.names(&place.path) {
            Some(names) => {
                self.precompiled |= names.iter().any(|name| is_precompiled(name));
                directory.listing = Some(names.into_iter().map(|n| n.0.into()).collect());
            }
            None => {
                directory.unlistable = true;
                self.precompiled = true;
            }
        }
    }

    /// The names in a directory; none when it is no directory.
    pub fn names_in(&mut self, disk: &mut dyn Disk, id: PlaceId) -> Vec<Vec<u8>> {
        self.open(disk, id);
        self.list(disk, id);
        match &self.get(id).what {
            What::Directory(directory) => {
                let names = directory.listing.iter().flatten();
                names.map(|name| name.to_vec()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Makes sure that what is known of a file is true in this scan, and reads it if need be. The
    /// bytes are returned when it was read. `false` in the error: it is no file any more.
    pub fn current(
        &mut self,
        disk: &mut dyn Disk,
        id: PlaceId,
        scan: u64,
    ) -> Result<Option<Vec<u8>>, Decline> {
        let place = &mut self.places[id.0 as usize];
        let What::File(file) = &mut place.what else {
            return Err(Decline::Changing(place.path.to_string()));
        };
        if let Some(known) = file.known
            && !file.dirty
            && (known.watched || file.validated == scan)
        {
            return Ok(None);
        }
        file.validated = scan;
        if let Some(known) = &mut file.known
            && known.settled
            && let Some((stamp, _)) = disk.stamp(&place.path)
            && stamp == known.stamp
        {
            file.dirty = false;
            return Ok(None);
        }
        self.read(disk, id).map(Some)
    }

    /// Reads a file anew.
    pub fn read(&mut self, disk: &mut dyn Disk, id: PlaceId) -> Result<Vec<u8>, Decline> {
        let parent = self.get(id).parent;
        let watched = self.watch_contents(disk, parent);
        let place = &mut self.places[id.0 as usize];
        let content = match disk.read(&place.path) {
            Ok(content) => content,
            Err(Kind::Denied) => return Err(Decline::Unreadable(place.path.to_string())),
            Err(Kind::Special) => return Err(Decline::Special(place.path.to_string())),
            Err(kind) => {
                let words = place.path.to_string();
                self.compare(disk, id, kind);
                self.bump();
                return Err(Decline::Changing(words));
            }
        };
        let What::File(file) = &mut place.what else {
            return Err(Decline::Changing(place.path.to_string()));
        };
        file.dirty = false;
        let known = Known {
            stamp: content.stamp,
            settled: content.settled,
            digest: content.digest,
            watched: watched && content.stamp.links == 1,
        };
        let new = file.known.is_none_or(|old| {
            old.digest != known.digest
                || old.stamp.mtime != known.stamp.mtime
                || old.stamp.mode != known.stamp.mode
        });
        file.known = Some(known);
        if new {
            file.version += 1;
            place.entry = None;
            self.changes += 1;
        }
        self.blobs.insert(known.digest, id);
        if self.blobs.len() > 2 * self.places.len() + 1024 {
            let places = &self.places;
            self.blobs
                .retain(|digest, id| match &places[id.0 as usize].what {
                    What::File(file) => file.known.is_some_and(|known| known.digest == *digest),
                    _ => false,
                });
        }
        Ok(content.bytes)
    }

    fn watch_contents(&mut self, disk: &mut dyn Disk, id: PlaceId) -> bool {
        self.open(disk, id);
        let place = &mut self.places[id.0 as usize];
        let What::Directory(directory) = &mut place.what else {
            return false;
        };
        if directory.watch.is_some() && !directory.contents {
            match disk.watch(&place.path, true) {
                Some(watch) if Some(watch) == directory.watch => directory.contents = true,
                Some(watch) => {
                    // Another directory took this one's place since it was opened.
                    disk.unwatch(watch);
                    return false;
                }
                None => return false,
            }
        }
        directory.contents
    }

    /// The entry that makes this place exist elsewhere; none for what can't travel.
    pub fn entry(&mut self, id: PlaceId) -> Option<Listed> {
        let place = &mut self.places[id.0 as usize];
        if place.entry.is_none() {
            let kind = match &place.what {
                What::Directory(_) => EntryKind::Directory,
                What::Other(Kind::Symlink(target)) => EntryKind::Symlink(target.clone()),
                What::File(file) => {
                    let known = file.known?;
                    EntryKind::File {
                        digest: known.digest,
                        size: known.stamp.size,
                        executable: known.stamp.mode & 0o100 != 0,
                        mtime: known.stamp.mtime,
                    }
                }
                _ => return None,
            };
            self.entries += 1;
            place.number = EntryNumber(self.entries);
            place.entry = Some(Arc::new(Entry {
                path: place.path.clone(),
                kind,
            }));
        }
        Some(Listed {
            number: place.number,
            entry: place.entry.clone()?,
        })
    }

    /// Lets go of places: those stay of which `kept` says so, and the directories that hold them. The
    /// others' indices have no meaning any more, those of what stays are other ones: what it
    /// returns tells them.
    pub fn retain(&mut self, disk: &mut dyn Disk, kept: &[bool]) -> Vec<Option<PlaceId>> {
        let mut stays = kept.to_vec();
        stays.resize(self.places.len(), false);
        stays[ROOT.0 as usize] = true;
        for at in 0..stays.len() {
            let mut at = at;
            while stays[at] && !stays[self.places[at].parent.0 as usize] {
                at = self.places[at].parent.0 as usize;
                stays[at] = true;
            }
        }
        let mut next = 0;
        let new: Vec<Option<PlaceId>> = (stays.iter())
            .map(|&stays| {
                let id = PlaceId(next);
                next += u32::from(stays);
                stays.then_some(id)
            })
            .collect();
        let moved = |id: PlaceId| new[id.0 as usize];
        let old = std::mem::take(&mut self.places);
        for (at, mut place) in old.into_iter().enumerate() {
            if !stays[at] {
                continue;
            }
            place.parent = moved(place.parent).unwrap_or(ROOT);
            let children = std::mem::take(&mut place.children).into_iter();
            let children = children.filter_map(|(name, child)| Some((name, moved(child)?)));
            place.children = children.collect();
            self.places.push(place);
        }
        let places = self.places.iter().zip(0..);
        self.order = places
            .map(|(place, id)| (place.path.clone(), PlaceId(id)))
            .collect();
        self.unwatched = self.unwatched.iter().copied().filter_map(moved).collect();
        self.blobs = std::mem::take(&mut self.blobs)
            .into_iter()
            .filter_map(|(digest, id)| Some((digest, moved(id)?)))
            .collect();
        for (watch, users) in std::mem::take(&mut self.watches) {
            let users: BTreeSet<PlaceId> = users.into_iter().filter_map(moved).collect();
            if users.is_empty() {
                disk.unwatch(watch);
            } else {
                self.watches.insert(watch, users);
            }
        }
        // Whoever relied on their absence has to ask again.
        self.asked.clear();
        self.bump();
        new
    }
}

fn is_precompiled(name: &[u8]) -> bool {
    name.ends_with(b".gch") || name.ends_with(b".pch")
}
