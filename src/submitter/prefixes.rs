//! `-B`: whether the driver would find programs there that are not the toolchain's.
//!
//! Builds say `-B` for a linker's sake, and then nothing else is there: such a compile is the same
//! elsewhere. Otherwise it runs a program that no worker has, and stays here.
//!
//! A driver looks for NAME, MACHINE-NAME, MACHINE/NAME and MACHINE/VERSION/NAME, where MACHINE is
//! what it calls its target. That name is not known here, so every name of that form counts.

use std::fs;
use std::path::{Path, PathBuf};

use crate::id::{AbsPath, Bytes};

/// What drivers run to make an object, and what they read of themselves.
const PROGRAMS: [&str; 12] = [
    "as",
    "cc1",
    "cc1obj",
    "cc1objplus",
    "cc1plus",
    "clang",
    "collect2",
    "lto-wrapper",
    "lto1",
    "mkoffload",
    "objcopy",
    "specs",
];

/// Names that are looked at below one prefix; with more, it is as if there were a program.
const NAMES_MAX: usize = 1024;

/// Directories below each other that a program's name may have.
const DEPTH_MAX: u32 = 2;

/// A program, or what may hide one, that a driver finds by one of these prefixes.
pub fn program_of_its_own(cwd: &AbsPath, prefixes: &[Bytes]) -> Option<PathBuf> {
    prefixes.iter().find_map(|prefix| {
        let place = cwd.as_path().join(prefix.as_path());
        if place.is_dir() {
            return within(&place, 0, &mut NAMES_MAX.clone());
        }
        // Then it is what names begin with.
        let beginning = place.file_name()?;
        let names = fs::read_dir(place.parent()?).ok()?;
        let begins = |name: &[u8]| name.starts_with(beginning.as_encoded_bytes());
        names
            .flatten()
            .find(|entry| begins(entry.file_name().as_encoded_bytes()))
            .map(|entry| entry.path())
    })
}

/// A program in a directory, or below it, that is `depth` below the prefix.
fn within(directory: &Path, depth: u32, names: &mut usize) -> Option<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        // What may not be listed may still be entered.
        return directory.exists().then(|| directory.to_owned());
    };
    for entry in entries.flatten() {
        let path = entry.path();
        *names = names.saturating_sub(1);
        if *names == 0 || is_program(entry.file_name().as_encoded_bytes()) {
            return Some(path);
        }
        if depth < DEPTH_MAX && path.is_dir() {
            let found = within(&path, depth + 1, names);
            if found.is_some() {
                return found;
            }
        }
    }
    None
}

fn is_program(name: &[u8]) -> bool {
    PROGRAMS.iter().any(|program| {
        let machine = name.strip_suffix(program.as_bytes());
        machine.is_some_and(|machine| matches!(machine.last(), None | Some(b'-')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_where_a_driver_finds_it() {
        for (made, prefix, found) in [
            ("t/ld", "t", None),
            ("t/ld", "t/", None),
            ("t/as", "t", Some("t/as")),
            ("t/as", "t/", Some("t/as")),
            ("t/arm-none-as", "t", Some("t/arm-none-as")),
            ("t/x/12/cc1plus", "t", Some("t/x/12/cc1plus")),
            ("t/x/12/deep/as", "t", None),
            ("t/x/as", "t", Some("t/x/as")),
            ("t/bias", "t", None),
            ("pre-as", "pre-", Some("pre-as")),
            ("pre-ld", "pre-", Some("pre-ld")),
            ("other", "pre-", None),
            ("other", "none/", None),
            ("other", "none/pre-", None),
        ] {
            let here = tempfile::tempdir().unwrap();
            let root = fs::canonicalize(here.path()).unwrap();
            fs::create_dir_all(root.join(made).parent().unwrap()).unwrap();
            fs::write(root.join(made), "").unwrap();
            let cwd = AbsPath::parse(root.as_os_str().as_encoded_bytes()).unwrap();
            let prefixes = [Bytes::from(prefix)];
            let expect = found.map(|found| root.join(found));
            assert_eq!(
                program_of_its_own(&cwd, &prefixes),
                expect,
                "{made} {prefix}"
            );
        }
    }

    #[test]
    fn too_many_names_are_no_answer() {
        let here = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(here.path()).unwrap();
        for number in 0..NAMES_MAX {
            fs::write(root.join(number.to_string()), "").unwrap();
        }
        let cwd = AbsPath::parse(root.as_os_str().as_encoded_bytes()).unwrap();
        assert!(program_of_its_own(&cwd, &[Bytes::from(".")]).is_some());
    }
}
