//! Whether two processes of one machine see the same files at the same paths.
//!
//! A container shares with its host what it likes: distrobox and toolbox share the home and the directory of the
//! sockets, but neither `/usr` nor the compiler. A client there reaches the host's daemon, whose headers and
//! compiler are others under the same names, and what it had compiled would be another program. Namespaces don't
//! tell: a service has a mount namespace of its own and yet the same files. So client and daemon compare what
//! the paths that a call begins with lead to.
//!
//! It can't prove that all files are the same; a container that has the host's root, compiler and directory and
//! something else over a directory of headers is not noticed.

use std::path::Path;

use nix::sys::stat::stat;

use crate::message::{FileNumber, Sight};

/// What a call begins with, as this process sees it; relative paths are its own.
pub fn look(directory: &Path, compiler: &Path) -> Sight {
    Sight {
        root: number(Path::new("/")),
        directory: number(directory),
        compiler: number(compiler),
    }
}

/// What both see differently, if anything: a path.
pub fn difference<'a>(theirs: &Sight, directory: &'a Path, compiler: &'a Path) -> Option<&'a Path> {
    let ours = look(directory, compiler);
    [
        (theirs.root, ours.root, Path::new("/")),
        (theirs.directory, ours.directory, directory),
        (theirs.compiler, ours.compiler, compiler),
    ]
    .into_iter()
    .find_map(|(theirs, ours, path)| (theirs != ours).then_some(path))
}

fn number(path: &Path) -> Option<FileNumber> {
    let found = stat(path).ok()?;
    Some(FileNumber {
        device: found.st_dev,
        inode: found.st_ino,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_path_that_leads_elsewhere_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let (here, compiler) = (directory.path(), Path::new("/bin/sh"));
        let sight = look(here, compiler);
        let other = number(here).map(|number| FileNumber {
            inode: number.inode + 1,
            ..number
        });
        for (theirs, expect) in [
            (sight, None),
            (
                Sight {
                    root: other,
                    ..sight
                },
                Some(Path::new("/")),
            ),
            (
                Sight {
                    directory: other,
                    ..sight
                },
                Some(here),
            ),
            (
                Sight {
                    compiler: None,
                    ..sight
                },
                Some(compiler),
            ),
        ] {
            assert_eq!(difference(&theirs, here, compiler), expect, "{theirs:?}");
        }
    }
}
