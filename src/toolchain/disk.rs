//! The closure's view of this machine: its files, and the directories of its dynamic linker.

use std::fs::{self, File, symlink_metadata};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use object::ReadCache;

use crate::id::{AbsPath, Bytes};

use super::closure::{Files, Look};
use super::elf::{self, Elf};

/// The most directories of `/etc/ld.so.conf`, and the most files that it may include.
const CONFIGURED_MAX: usize = 256;

/// The longest `ld.so.conf`, in bytes.
const CONFIGURATION_BYTES_MAX: u64 = 64 << 10;

/// This machine's files.
#[derive(Debug, Default)]
pub struct Disk;

impl Files for Disk {
    fn look(&mut self, path: &AbsPath) -> Look {
        let Ok(metadata) = symlink_metadata(path.as_path()) else {
            return Look::Absent;
        };
        let kind = metadata.file_type();
        if kind.is_symlink() {
            let target = fs::read_link(path.as_path());
            target.map_or(Look::Absent, |target| {
                Look::Symlink(Bytes::from(target.as_path()))
            })
        } else if kind.is_dir() {
            Look::Directory
        } else if kind.is_file() {
            Look::File
        } else {
            Look::Other
        }
    }

    fn elf(&mut self, path: &AbsPath) -> Option<Elf> {
        // Reads a few pages, not the hundred megabytes of a compiler's library.
        let cache = ReadCache::new(File::open(path.as_path()).ok()?);
        elf::parse(&cache)
    }
}

/// The directories that `/etc/ld.so.conf` names, in their order.
pub fn linker_directories() -> Vec<Bytes> {
    let mut directories = Vec::new();
    let mut files = vec![PathBuf::from("/etc/ld.so.conf")];
    let mut read = 0;
    while let Some(path) = files.pop() {
        read += 1;
        if read > CONFIGURED_MAX || directories.len() > CONFIGURED_MAX {
            break;
        }
        let is_short = fs::metadata(&path).is_ok_and(|m| m.len() <= CONFIGURATION_BYTES_MAX);
        let Some(text) = is_short.then(|| fs::read(&path).ok()).flatten() else {
            continue;
        };
        // Directories behind an `include` come after those of the included files: the rest of
        // this file would have to wait. Nobody mixes them, and the order matters only for a library
        // that is there twice.
        let mut included = Vec::new();
        for line in lines(&text) {
            match line {
                Line::Directory(directory) => directories.push(directory),
                Line::Include(pattern) => included.extend(matching(&path, &pattern)),
            }
        }
        files.extend(included.into_iter().rev());
    }
    directories
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Directory(Bytes),
    Include(Bytes),
}

fn lines(text: &[u8]) -> Vec<Line> {
    let mut found = Vec::new();
    for line in text.split(|&byte| byte == b'\n') {
        let line = line.split(|&byte| byte == b'#').next().unwrap_or_default();
        let mut words = line
            .split(|byte| byte.is_ascii_whitespace())
            .filter(|word| !word.is_empty());
        match words.next() {
            Some(b"include") => found.extend(words.map(|word| Line::Include(word.into()))),
            Some(b"hwcap") | None => {}
            Some(word) if word.starts_with(b"/") => found.push(Line::Directory(word.into())),
            Some(_) => {}
        }
    }
    found
}

/// The files that an include line means: a `*` in the last component is all that is in use.
fn matching(from: &Path, pattern: &Bytes) -> Vec<PathBuf> {
    let whole = from.parent().unwrap_or(from).join(pattern.as_path());
    let (Some(directory), Some(name)) = (whole.parent(), whole.file_name()) else {
        return Vec::new();
    };
    let name = name.as_bytes();
    let Some(star) = name.iter().position(|&byte| byte == b'*') else {
        return vec![whole];
    };
    let (start, end) = (&name[..star], &name[star + 1..]);
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.as_bytes();
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        })
        .take(CONFIGURED_MAX)
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read_line_by_line() {
        let text = b"include /etc/ld.so.conf.d/*.conf other.conf\n# none\n /opt/lib # mine\nhwcap 0 x\nrelative\n\n/last";
        assert_eq!(
            lines(text),
            [
                Line::Include("/etc/ld.so.conf.d/*.conf".into()),
                Line::Include("other.conf".into()),
                Line::Directory("/opt/lib".into()),
                Line::Directory("/last".into()),
            ]
        );
    }
}
