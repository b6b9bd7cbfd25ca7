//! What is known of places is kept true: what a disk reports, and what is looked at again because it
//! can't report.

use super::{Disk, Kind, PlaceId, Places, ROOT, What, is_precompiled};

impl Places {
    /// Learns what changed. Call it before each scan.
    pub fn refresh(&mut self, disk: &mut dyn Disk) {
        let changes = disk.changes();
        if changes.lost {
            for id in (0..self.places.len() as u32).map(PlaceId) {
                match &mut self.places[id.0 as usize].what {
                    What::File(file) => file.dirty = true,
                    What::Directory(directory) if directory.opened => {
                        self.look_again(disk, id, true);
                    }
                    _ => {}
                }
            }
            self.bump();
            return;
        }
        for (watch, name, replaced) in changes.touched {
            for id in self.watches.get(&watch).cloned().unwrap_or_default() {
                self.touched(disk, id, &name, replaced);
            }
        }
        for watch in changes.ended {
            for id in self.watches.get(&watch).cloned().unwrap_or_default() {
                self.forget_below(disk, id);
                self.bump();
            }
        }
        for id in self.unwatched.clone() {
            self.look_again(disk, id, false);
        }
    }

    pub(super) fn bump(&mut self) {
        self.epoch += 1;
        self.changes += 1;
    }

    /// Something happened to a name in a watched directory.
    fn touched(&mut self, disk: &mut dyn Disk, parent: PlaceId, name: &[u8], replaced: bool) {
        let Ok(path) = self.get(parent).path.join(name) else {
            return;
        };
        // The directory may be one precompiled header in several variants.
        let precompiled = is_precompiled(name) || is_precompiled(self.get(parent).path.file_name());
        let place = self.get(parent);
        let What::Directory(directory) = &place.what else {
            return;
        };
        let child = place.children.get(name).copied();
        let asked = self.asked.contains(name);
        if child.is_none() && !asked && !precompiled && directory.listing.is_none() {
            return;
        }
        if !replaced
            && let Some(child) = child
            && let What::File(file) = &mut self.places[child.0 as usize].what
        {
            file.dirty = true;
            self.changes += 1;
            return;
        }
        let kind = disk.kind(&path);
        let What::Directory(directory) = &mut self.places[parent.0 as usize].what else {
            return;
        };
        if let Some(listing) = &mut directory.listing {
            if kind == Kind::Absent {
                listing.remove(name);
            } else if !listing.contains(name) {
                listing.insert(name.into());
            }
        }
        if precompiled {
            self.precompiled = true;
            self.bump();
        }
        match child {
            Some(child) => self.compare(disk, child, kind),
            None if asked && kind != Kind::Absent => self.bump(),
            None => {}
        }
    }

    /// A place may hold something else now.
    pub(super) fn compare(&mut self, disk: &mut dyn Disk, id: PlaceId, kind: Kind) {
        match (&mut self.places[id.0 as usize].what, kind) {
            (What::File(file), Kind::File) => {
                file.dirty = true;
                self.changes += 1;
            }
            // Absent when it was last asked for, through the listing.
            (What::Unknown, _) => self.bump(),
            (What::Other(known), kind) if *known == kind => {}
            (What::Directory(_), kind) => {
                self.forget_below(disk, id);
                self.set(id, kind);
                self.bump();
            }
            (_, kind) => {
                self.set(id, kind);
                self.bump();
            }
        }
    }

    /// Looks at a directory again that nobody watches, or at any one after reports were lost.
    fn look_again(&mut self, disk: &mut dyn Disk, id: PlaceId, always: bool) {
        let path = self.get(id).path.clone();
        let stamp = disk.stamp(&path);
        let What::Directory(directory) = &mut self.places[id.0 as usize].what else {
            return;
        };
        let settled = stamp.is_some_and(|stamp| stamp.1) && directory.stamp.is_some_and(|s| s.1);
        let same = stamp.map(|stamp| stamp.0) == directory.stamp.map(|stamp| stamp.0);
        let replaced = stamp.map(|stamp| (stamp.0.device, stamp.0.inode))
            != directory.stamp.map(|stamp| (stamp.0.device, stamp.0.inode));
        directory.stamp = stamp;
        if same && settled && !always {
            return;
        }
        if replaced && !always {
            self.forget_below(disk, id);
            self.bump();
            return;
        }
        match directory.listing.take() {
            Some(old) => {
                self.list(disk, id);
                let What::Directory(directory) = &self.places[id.0 as usize].what else {
                    return;
                };
                let changed = match &directory.listing {
                    Some(new) => old
                        .symmetric_difference(new)
                        .any(|name| self.asked.contains(name) || is_precompiled(name)),
                    None => true,
                };
                if changed {
                    self.bump();
                }
            }
            None if !same => self.bump(),
            None => {}
        }
        let children: Vec<PlaceId> = self.get(id).children.values().copied().collect();
        for child in children {
            let path = self.get(child).path.clone();
            match (&self.get(child).what, disk.kind(&path)) {
                (What::File(_), Kind::File) | (What::Directory(_), Kind::Directory) => {}
                (_, kind) => self.compare(disk, child, kind),
            }
        }
    }

    /// Forgets all that was known at and below a place.
    fn forget_below(&mut self, disk: &mut dyn Disk, id: PlaceId) {
        let top = self.get(id).path.clone();
        let below: Vec<PlaceId> = self
            .order
            .range(top.clone()..)
            .take_while(|(path, _)| path.as_bytes().starts_with(top.as_bytes()))
            .filter(|(path, _)| path.is_within(&top))
            .map(|(_, &id)| id)
            .collect();
        for id in below {
            let place = &mut self.places[id.0 as usize];
            place.entry = None;
            let what = std::mem::replace(&mut place.what, What::Unknown);
            self.unwatched.remove(&id);
            if let What::Directory(directory) = what
                && let Some(watch) = directory.watch
            {
                let last = self.watches.get_mut(&watch).is_none_or(|users| {
                    users.remove(&id);
                    users.is_empty()
                });
                if last {
                    self.watches.remove(&watch);
                    disk.unwatch(watch);
                }
            }
        }
        if id == ROOT {
            self.set(ROOT, Kind::Directory);
        }
    }
}
