//! Reads one declaration: what stands where, and whether that makes sense.
//!
//! Knows the toolchain, which is in every job, and no tree. Entries are canonical: an entry below a
//! file or below a symlink is a mistake of the submitter's, since a path through a symlink would
//! land elsewhere in the tree; and the toolchain's places are its own.

use super::{Catalogue, ItemId, ItemSet, PlaceId};
use crate::id::AbsPath;
use crate::message::{Entry, EntryKind};

/// At most so many directories may a job write into.
pub const WRITABLE_MAX: usize = 64;

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

/// The toolchain, and what stands at each place in the job that is being read.
#[derive(Debug, Default)]
pub struct Ground {
    toolchain: ItemSet,
    /// The toolchain's files and symlinks, sorted.
    occupied: Vec<AbsPath>,
    /// Counts declarations.
    turn: u64,
    /// By place: what stands there, and in which turn.
    standing: Vec<(u64, ItemId)>,
}

/// The turn of what the toolchain has: it stands in every job.
const ALWAYS: u64 = u64::MAX;

impl Ground {
    /// The ground of jobs with this toolchain.
    pub fn new(catalogue: &mut Catalogue, toolchain: &[Entry]) -> Result<Self, Refusal> {
        let mut ground = Self::default();
        let items = ground.stand_all(catalogue, toolchain, &mut std::iter::empty())?;
        for &id in &items {
            ground.standing[catalogue.place(id).0 as usize].0 = ALWAYS;
            if !catalogue.is_directory(id) {
                ground.occupied.push(catalogue.path(id).clone());
            }
        }
        ground.occupied.sort();
        ground.toolchain = items.into_iter().collect();
        Ok(ground)
    }

    /// What the toolchain has.
    pub fn toolchain(&self) -> &ItemSet {
        &self.toolchain
    }

    /// The items of one declaration with all directories above them, without what the toolchain
    /// has anyway.
    pub fn stand_all(
        &mut self,
        catalogue: &mut Catalogue,
        entries: &[Entry],
        directories: &mut dyn Iterator<Item = &AbsPath>,
    ) -> Result<Vec<ItemId>, Refusal> {
        self.turn += 1;
        let mut standing = Vec::with_capacity(entries.len() + 64);
        for entry in entries {
            self.stand(catalogue, entry, &mut standing)?;
        }
        for path in directories {
            let entry = Entry {
                path: path.clone(),
                kind: EntryKind::Directory,
            };
            self.stand(catalogue, &entry, &mut standing)?;
        }
        let mut next = 0;
        while let Some(&id) = standing.get(next) {
            self.stand_parents(catalogue, id, &mut standing)?;
            next += 1;
        }
        Ok(standing)
    }

    fn stand(
        &mut self,
        catalogue: &mut Catalogue,
        entry: &Entry,
        standing: &mut Vec<ItemId>,
    ) -> Result<(), Refusal> {
        if entry.path.as_bytes() == b"/" {
            return match entry.kind {
                EntryKind::Directory => Ok(()),
                _ => Err(at_root(&entry.path)),
            };
        }
        let id = catalogue.intern(entry).map_err(|_| Refusal::Full)?;
        match self.standing(catalogue.place(id)) {
            None => {
                self.set_standing(catalogue, id);
                standing.push(id);
                Ok(())
            }
            Some(other) if other == id => Ok(()),
            Some(other) if self.toolchain.contains(other) => {
                if same(catalogue.kind(other), &entry.kind) {
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

    fn stand_parents(
        &mut self,
        catalogue: &mut Catalogue,
        id: ItemId,
        standing: &mut Vec<ItemId>,
    ) -> Result<(), Refusal> {
        let mut place = catalogue.parent(catalogue.place(id));
        while place != PlaceId::ROOT {
            match self.standing(place) {
                // Those above it are its own business.
                Some(other) if catalogue.is_directory(other) => break,
                Some(_) => {
                    return Err(Refusal::Invalid {
                        path: catalogue.path(id).clone(),
                        why: "lies below a file or symlink",
                    });
                }
                None => {
                    let directory = catalogue.intern_directory(place);
                    let directory = directory.map_err(|_| Refusal::Full)?;
                    self.set_standing(catalogue, directory);
                    standing.push(directory);
                }
            }
            place = catalogue.parent(place);
        }
        Ok(())
    }

    fn standing(&self, place: PlaceId) -> Option<ItemId> {
        let &(turn, id) = self.standing.get(place.0 as usize)?;
        (turn == self.turn || turn == ALWAYS).then_some(id)
    }

    fn set_standing(&mut self, catalogue: &Catalogue, id: ItemId) {
        let at = catalogue.place(id).0 as usize;
        if at >= self.standing.len() {
            let bound = catalogue.place_bound();
            self.standing.resize(bound, (0, ItemId(0)));
        }
        self.standing[at] = (self.turn, id);
    }

    /// The outermost of the writable directories; refuses what can't be written.
    pub fn roots(&self, writable: &[AbsPath]) -> Result<Vec<AbsPath>, Refusal> {
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
            let after = self.occupied.partition_point(|base| base < path);
            // `/a.b` sorts between `/a` and `/a/b`: the first that is not below may not be the end.
            let below = |base: &&AbsPath| base.as_bytes().starts_with(path.as_bytes());
            let mut candidates = self.occupied[after..].iter().take_while(below);
            if candidates.any(|base| base.is_within(path)) {
                return Err(Refusal::Conflict(path.clone()));
            }
            if !roots.iter().any(|root| path.is_within(root)) {
                roots.push(path.clone());
            }
        }
        Ok(roots)
    }
}

/// Whether a job's entry is what the toolchain has there: a toolchain's times are zero.
pub(super) fn same(ours: &EntryKind, declared: &EntryKind) -> bool {
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

/// The root is the tree itself.
pub(super) fn at_root(path: &AbsPath) -> Refusal {
    Refusal::Invalid {
        path: path.clone(),
        why: "can only be a directory",
    }
}
