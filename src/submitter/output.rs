//! Puts what a job wrote where the compiler would have put it.
//!
//! Each file is written beside its place under a temporary name and renamed when the whole job is
//! known to be good, so that a build that is interrupted never finds half an object. A place where
//! a rename is not what a compiler does (a symlink, a device, a pipe, a hard link) is told before
//! the job is sent; such a job is compiled locally.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::id::{AbsPath, Bytes};
use crate::sys::{self, FileSystem};

/// A file of the job on its way to its place; removed when dropped before [`Pending::commit`].
pub struct Pending {
    file: File,
    temporary: PathBuf,
    place: PathBuf,
    mode: u32,
    missing: u64,
    is_prompt: bool,
    is_placed: bool,
}

impl Pending {
    /// Begins the file `place` of `size` bytes, to have the permission bits `mode`.
    ///
    /// # Errors
    /// Unless the worker knew what `stood` there, what is there now must not make a difference: it
    /// would be written through, could not be written, or would keep another mode.
    pub fn create(place: &AbsPath, mode: u32, size: u64, stood: bool) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let place = place.as_path().to_owned();
        if !stood && let Some(obstacle) = obstacle(&place).or_else(|| other_mode(&place, mode)) {
            let place = place.display();
            return Err(io::Error::other(format!("{place}: {obstacle}")));
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!(".ice-{}-{count}.tmp", std::process::id());
        let temporary = place.with_file_name(name);
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        Ok(Self {
            file,
            temporary,
            mode: mode & 0o7777,
            missing: size,
            is_prompt: is_prompt(&place),
            is_placed: false,
            place,
        })
    }

    /// Adds the next piece.
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.missing = self
            .missing
            .checked_sub(piece.len() as u64)
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "more bytes than announced")
            })?;
        self.file.write_all(piece)
    }

    /// How many bytes are still to come.
    pub fn missing_bytes(&self) -> u64 {
        self.missing
    }

    /// Whether [`Pending::commit`] is done sooner here than by another thread.
    pub fn is_prompt(&self) -> bool {
        self.is_prompt
    }

    /// Where it is to be.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Where it lies until then.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Puts the file in its place.
    pub fn commit(self) -> io::Result<()> {
        let place = self.place.clone();
        self.commit_as(&place)
    }

    /// Puts the file at another place in the same directory.
    pub fn commit_as(mut self, place: &Path) -> io::Result<()> {
        if self.missing != 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "fewer bytes than announced",
            ));
        }
        self.file
            .set_permissions(fs::Permissions::from_mode(self.mode))?;
        fs::rename(&self.temporary, place)?;
        self.is_placed = true;
        Ok(())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.is_placed {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Whether a file beside `place` is made and renamed within microseconds, since no other machine has
/// to be asked: then handing that to another thread costs more than doing it.
pub fn is_prompt(place: &Path) -> bool {
    place
        .parent()
        .is_some_and(|directory| sys::file_system(directory) != FileSystem::Other)
}

/// Removes a file that the job removed.
pub fn remove(place: &AbsPath) -> io::Result<()> {
    match fs::remove_file(place.as_path()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes a directory (no target) or a symlink that the job made.
pub fn make(place: &AbsPath, target: Option<&Bytes>, umask: u32) -> io::Result<()> {
    let result = match target {
        None => fs::DirBuilder::new()
            .mode(0o777 & !umask)
            .create(place.as_path()),
        Some(target) => std::os::unix::fs::symlink(target.as_os_str(), place.as_path()),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match target {
            None if place.as_path().is_dir() => Ok(()),
            _ => Err(error),
        },
        other => other,
    }
}

/// Why a result can't be put at a place as the compiler itself would do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The directory does not exist or can't be written: the compiler's own message is wanted.
    Directory,
    /// Something that is not a regular file is there: it would be written through.
    NotRegular,
    /// The file has other names or another owner, or may not be written.
    Shared,
    /// The file has another mode, which it may keep.
    Mode,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "its directory is absent or can't be written",
            Self::NotRegular => "it is there and no regular file",
            Self::Shared => "it has other names or another owner, or may not be written",
            Self::Mode => "it is there, with another mode",
        })
    }
}

/// A file that is written in place keeps its mode, and nobody here knows which files a compiler
/// writes in place.
fn other_mode(place: &Path, mode: u32) -> Option<Obstacle> {
    let found = fs::symlink_metadata(place).ok()?;
    (found.mode() & 0o7777 != mode & 0o7777).then_some(Obstacle::Mode)
}

/// Whether `place` can take a file by renaming. A missing file is fine.
pub fn obstacle(place: &Path) -> Option<Obstacle> {
    match fs::symlink_metadata(place) {
        Ok(found) if !found.is_file() => return Some(Obstacle::NotRegular),
        Ok(found)
            if found.nlink() > 1
                || found.mode() & 0o200 == 0
                || found.uid() != nix::unistd::geteuid().as_raw() =>
        {
            return Some(Obstacle::Shared);
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => return Some(Obstacle::Directory),
    }
    let directory = place
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    nix::unistd::access(
        directory,
        nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK,
    )
    .err()
    .map(|_| Obstacle::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(directory: &Path, name: &str) -> AbsPath {
        AbsPath::parse(Bytes::from(directory.join(name).as_path()).0).unwrap()
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = place(directory.path(), "a.o");
        let mut pending = Pending::create(&path, 0o640, 4, true).unwrap();
        pending.write(b"ab").unwrap();
        assert!(!path.as_path().exists());
        drop(pending);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);

        let mut pending = Pending::create(&path, 0o640, 4, true).unwrap();
        pending.write(b"abcd").unwrap();
        assert!(pending.write(b"e").is_err(), "more than announced");
        drop(pending);
        let short = Pending::create(&path, 0o640, 4, true).unwrap();
        assert!(short.commit().is_err(), "fewer than announced");

        let mut pending = Pending::create(&path, 0o640, 4, true).unwrap();
        pending.write(b"abcd").unwrap();
        pending.commit().unwrap();
        assert_eq!(fs::read(path.as_path()).unwrap(), b"abcd");
        assert_eq!(fs::metadata(path.as_path()).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_stood_there_unknown_to_the_worker_must_not_matter() {
        let directory = tempfile::tempdir().unwrap();
        let path = place(directory.path(), "a");
        for (old, stood, expect) in [
            (None, false, Some(0o644)),
            (Some(0o644), false, Some(0o644)),
            (Some(0o600), false, None),
            (Some(0o600), true, Some(0o644)),
            (Some(0o444), false, None),
        ] {
            if let Some(mode) = old {
                fs::write(path.as_path(), "old").unwrap();
                fs::set_permissions(path.as_path(), PermissionsExt::from_mode(mode)).unwrap();
            }
            let made = Pending::create(&path, 0o644, 0, stood).and_then(Pending::commit);
            assert_eq!(made.is_ok(), expect.is_some(), "{old:?} {stood}");
            let mode = fs::metadata(path.as_path()).unwrap().mode() & 0o7777;
            assert_eq!(mode, expect.or(old).unwrap(), "{old:?} {stood}");
            fs::remove_file(path.as_path()).unwrap();
        }
    }

    #[test]
    fn places_that_a_rename_would_change_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        assert_eq!(obstacle(&at("new.o")), None);
        fs::write(at("old.o"), "").unwrap();
        assert_eq!(obstacle(&at("old.o")), None);
        fs::hard_link(at("old.o"), at("twin.o")).unwrap();
        assert_eq!(obstacle(&at("old.o")), Some(Obstacle::Shared));
        std::os::unix::fs::symlink("old.o", at("link.o")).unwrap();
        assert_eq!(obstacle(&at("link.o")), Some(Obstacle::NotRegular));
        assert_eq!(obstacle(Path::new("/dev/null")), Some(Obstacle::NotRegular));
        assert_eq!(obstacle(&at("no/such.o")), Some(Obstacle::Directory));
    }
}
