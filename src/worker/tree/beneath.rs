//! System calls that stay beneath a directory descriptor and follow no symlink, and the trash.
//!
//! Knows no job. A path is resolved by `openat2` with `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`,
//! or, on kernels before 5.6, component by component; the last component is always a single name
//! below a directory that is open. Nothing else changes the tmpfs at the same time: a tree is
//! touched only while no job runs in it, so what `fstatat` says of a name holds for the next call.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, renameat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::id::AbsPath;

/// Opens the directory `path` beneath `root`: to be read, or (`O_PATH`) as a place to work in.
pub fn open_directory(root: BorrowedFd<'_>, path: &AbsPath, access: OFlag) -> nix::Result<OwnedFd> {
    let flags = access | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let relative = match path.as_bytes() {
        b"/" => &b"."[..],
        path => &path[1..],
    };
    let how = OpenHow::new()
        .flags(flags)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(root, relative, how) {
        // An old kernel, or a container's filter that does not know the call.
        Err(Errno::ENOSYS | Errno::EPERM) => open_by_component(root, path, flags),
        result => result,
    }
}

fn open_by_component(root: BorrowedFd<'_>, path: &AbsPath, flags: OFlag) -> nix::Result<OwnedFd> {
    let step = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut directory = openat(root, ".", step, Mode::empty())?;
    for name in path.components() {
        directory = openat(&directory, name, step, Mode::empty())?;
    }
    openat(&directory, ".", flags, Mode::empty())
}

/// Opens the regular file `name` in `directory` to be read; makes it readable for us first when
/// its mode forbids it.
pub fn open_file(directory: BorrowedFd<'_>, name: &[u8]) -> nix::Result<File> {
    // Not blocking, should it be a FIFO after all.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let opened = match openat(directory, name, flags, Mode::empty()) {
        Err(Errno::EACCES) => {
            let stat = stat(directory, name)?;
            if kind(&stat) != SFlag::S_IFREG {
                return Err(Errno::EACCES);
            }
            let mode = permissions(&stat) | 0o400;
            set_mode(directory, name, mode)?;
            openat(directory, name, flags, Mode::empty())
        }
        result => result,
    };
    opened.map(File::from)
}

/// What `name` in `directory` is; of a symlink, the symlink.
pub fn stat(directory: BorrowedFd<'_>, name: &[u8]) -> nix::Result<FileStat> {
    fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// What kind of file it is.
pub fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// The permission bits.
pub fn permissions(stat: &FileStat) -> u32 {
    stat.st_mode & 0o7777
}

/// Sets the mode of a file or directory that [`stat`] has shown to be no symlink.
pub fn set_mode(directory: BorrowedFd<'_>, name: &[u8], mode: u32) -> nix::Result<()> {
    // The flag against following is not understood by older kernels and C libraries.
    let mode = Mode::from_bits_truncate(mode);
    fchmodat(directory, name, mode, FchmodatFlags::FollowSymlink)
}

/// Makes a directory of mode 0755, whatever the umask.
pub fn make_directory(directory: BorrowedFd<'_>, name: &[u8]) -> nix::Result<()> {
    mkdirat(directory, name, Mode::from_bits_truncate(0o755))?;
    set_mode(directory, name, 0o755)
}

/// Removes what is no directory.
pub fn unlink(directory: BorrowedFd<'_>, name: &[u8]) -> nix::Result<()> {
    unlinkat(directory, name, UnlinkatFlags::NoRemoveDir)
}

/// Removes an empty directory.
pub fn remove_directory(directory: BorrowedFd<'_>, name: &[u8]) -> nix::Result<()> {
    unlinkat(directory, name, UnlinkatFlags::RemoveDir)
}

/// Where whole directories go at once, to be taken apart afterwards.
///
/// A job can nest directories deeper than any path is long and than descriptors are many. So a
/// directory that is found in another one is moved up into the trash rather than entered: one
/// rename per directory, one open directory at a time, at any depth.
#[derive(Debug)]
pub struct Trash {
    directory: OwnedFd,
    next: u64,
    pending: Vec<u64>,
}

/// How often a directory of the trash is read until it must be empty.
const PASSES_MAX: u32 = 8;

impl Trash {
    /// Uses `directory`, which is empty.
    pub fn new(directory: OwnedFd) -> Self {
        Self {
            directory,
            next: 0,
            pending: Vec::new(),
        }
    }

    /// Removes `name` from `directory`, whatever it is. A directory still takes its room until
    /// [`Self::empty`].
    pub fn take(&mut self, directory: BorrowedFd<'_>, name: &[u8]) -> nix::Result<()> {
        let stat = stat(directory, name)?;
        if kind(&stat) == SFlag::S_IFDIR {
            self.take_directory(directory, name)
        } else {
            unlink(directory, name)
        }
    }

    /// Takes apart all that is in the trash. After an error the rest stays for the next time.
    pub fn empty(&mut self) -> nix::Result<()> {
        while let Some(number) = self.pending.pop() {
            if let Err(error) = self.take_apart(number.to_string().as_bytes()) {
                self.pending.push(number);
                return Err(error);
            }
        }
        Ok(())
    }

    fn take_apart(&mut self, name: &[u8]) -> nix::Result<()> {
        let mut passes = 1;
        loop {
            self.take_content(name)?;
            match remove_directory(self.directory.as_fd(), name) {
                // A directory that changes while it is read may skip names.
                Err(Errno::ENOTEMPTY) if passes < PASSES_MAX => passes += 1,
                result => return result,
            }
        }
    }

    fn take_content(&mut self, name: &[u8]) -> nix::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = openat(&self.directory, name, flags, Mode::empty())?;
        let place = directory.try_clone().map_err(|_| Errno::EMFILE)?;
        for entry in Dir::from_fd(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            match (name, entry.file_type()) {
                (b"." | b"..", _) => {}
                (name, Some(Type::Directory)) => self.take_directory(place.as_fd(), name)?,
                (name, Some(_)) => unlink(place.as_fd(), name)?,
                (name, None) => self.take(place.as_fd(), name)?,
            }
        }
        Ok(())
    }

    fn take_directory(&mut self, directory: BorrowedFd<'_>, name: &[u8]) -> nix::Result<()> {
        match remove_directory(directory, name) {
            Err(Errno::ENOTEMPTY) => {}
            result => return result,
        }
        // To move a directory is to write its `..`, and then it is to be read.
        set_mode(directory, name, 0o700)?;
        let number = self.next;
        self.next += 1;
        renameat(
            directory,
            name,
            &self.directory,
            number.to_string().as_bytes(),
        )?;
        self.pending.push(number);
        Ok(())
    }
}
