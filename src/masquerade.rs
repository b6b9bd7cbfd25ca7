//! Names of compilers, and the search along `PATH` for the one that is really meant.
//!
//! ice is called under a compiler's name, and so may be others: icecream, distcc, ccache, a
//! second copy of ice. Which file in `PATH` is the compiler, and which only pretends to be, is
//! decided here from facts that the caller gathers: this file knows no file system, so every
//! arrangement of links is a line in a table of its tests.

use crate::id::Bytes;

/// The name that ice's own executable has, wherever it is installed.
const OWN_NAME: &[u8] = b"ice";

/// Programs that stand in `PATH` under the names of compilers and call the next such program.
const OTHER_MASQUERADES: &[&[u8]] = &[
    b"icecc",
    b"icerun",
    b"distcc",
    b"ccache",
    b"sccache",
    b"colorgcc",
    b"tbcompiler",
    b"buildcache",
    b"cachepot",
    b"gomacc",
    b"rewrapper",
];

/// The bare names of compilers, and what each compiles unless it is told otherwise.
const COMPILERS: &[(&[u8], Language)] = &[
    (b"gcc", Language::C),
    (b"cc", Language::C),
    (b"clang", Language::C),
    (b"g++", Language::Cxx),
    (b"c++", Language::Cxx),
    (b"clang++", Language::Cxx),
];

/// The language that a compiler's name promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// `gcc`, `cc`, `clang`.
    C,
    /// `g++`, `c++`, `clang++`.
    Cxx,
}

/// Whether the last component of `path` is a compiler's name: one of the bare names, perhaps with
/// a target before it (`x86_64-linux-gnu-gcc`) and a version behind it (`clang++-14`, `gcc-4.9.2`).
pub fn language(path: &[u8]) -> Option<Language> {
    let name = without_version(file_name(path));
    COMPILERS.iter().find_map(|&(bare, language)| {
        let target = name.strip_suffix(bare)?;
        (target.is_empty() || is_target(target)).then_some(language)
    })
}

/// The last component of a path.
pub fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&b| b == b'/').next().unwrap_or_default()
}

/// A file, whatever its name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// The device's number.
    pub device: u64,
    /// The inode's number.
    pub inode: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// What stands at a path that can be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The file that the path leads to in the end.
    pub identity: FileIdentity,
    /// The last components of the targets along the chain of symlinks; empty where the path is
    /// no symlink.
    pub links: Vec<Bytes>,
    /// Whether the file is a copy of our own executable, byte for byte. It can only be when the
    /// sizes are the same, so the caller hardly ever has to look.
    pub copy_of_us: bool,
}

/// What a program in `PATH` is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// This executable, a copy of it, or another ice.
    Ourselves,
    /// Another program that pretends to be a compiler.
    Another,
    /// Nothing known, so it is meant itself.
    Genuine,
}

/// What the program with these facts is to the executable `us`.
pub fn standing(facts: &Facts, us: FileIdentity) -> Standing {
    let is_us = (facts.identity.device, facts.identity.inode) == (us.device, us.inode);
    if is_us || facts.copy_of_us || facts.links.last().is_some_and(|last| last.0 == OWN_NAME) {
        Standing::Ourselves
    } else if facts.links.iter().any(|link| is_other_masquerade(link)) {
        Standing::Another
    } else {
        Standing::Genuine
    }
}

/// What came of the search along `PATH`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The program that is really meant; none when there is no such program.
    pub program: Option<Bytes>,
    /// `PATH` without the directories in which the name is a masquerade.
    pub path: Bytes,
    /// The masquerades that were stepped over, as paths.
    pub stepped_over: Vec<Bytes>,
}

/// Looks for `name` in the directories of `path`, beyond every masquerade.
///
/// `us` is our own executable; `look` tells what stands at a path, or none where nothing can be
/// executed. A program that stands behind us is preferred to one before us: the order of
/// directories is the order in which wrappers call each other. A directory in which `name` is no
/// masquerade stays in the resulting `PATH`: the compiler looks there for its `as` and `ld`.
pub fn find(
    name: &[u8],
    path: &[u8],
    us: FileIdentity,
    mut look: impl FnMut(&[u8]) -> Option<Facts>,
) -> Found {
    let mut found = Found::default();
    let mut seen_us = false;
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut directories = path.split(|&b| b == b':');
    for directory in directories.by_ref() {
        let candidate = candidate(directory, name);
        match look(&candidate).map(|facts| standing(&facts, us)) {
            Some(standing @ (Standing::Ourselves | Standing::Another)) => {
                seen_us |= standing == Standing::Ourselves;
                found.stepped_over.push(Bytes(candidate));
                continue;
            }
            // The first one behind us is final; the first one at all serves until then.
            Some(Standing::Genuine) if seen_us => {
                found.program = Some(Bytes(candidate));
                kept.push(directory);
                break;
            }
            Some(Standing::Genuine) if found.program.is_none() => {
                found.program = Some(Bytes(candidate));
            }
            Some(Standing::Genuine) | None => {}
        }
        kept.push(directory);
    }
    // What lies behind the program can't be taken for it any more.
    kept.extend(directories);
    found.path = match kept.is_empty() {
        // An empty PATH would mean the current directory.
        true => path.into(),
        false => Bytes(kept.join(&b':')),
    };
    found
}

/// The path of `name` in a directory of `PATH`, where an empty one means the current directory.
fn candidate(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let directory = if directory.is_empty() {
        b"."
    } else {
        directory
    };
    let mut candidate = Vec::with_capacity(directory.len() + 1 + name.len());
    candidate.extend_from_slice(directory);
    if !directory.ends_with(b"/") {
        candidate.push(b'/');
    }
    candidate.extend_from_slice(name);
    candidate
}

/// `gcc-4.9.2` without `-4.9.2`; a name without a version as it is.
fn without_version(name: &[u8]) -> &[u8] {
    let Some(dash) = name.iter().rposition(|&b| b == b'-') else {
        return name;
    };
    let version = &name[dash + 1..];
    let is_version = version.first().is_some_and(u8::is_ascii_digit)
        && version.iter().all(|&b| b.is_ascii_digit() || b == b'.');
    if is_version { &name[..dash] } else { name }
}

/// Whether `prefix` is a target with its dash: at least two parts (`aarch64-linux-`), so that a
/// program of somebody's own (`my-gcc`, `color-gcc`) is not taken for a cross compiler.
fn is_target(prefix: &[u8]) -> bool {
    let Some(target) = prefix.strip_suffix(b"-") else {
        return false;
    };
    let parts = target.split(|&b| b == b'-').collect::<Vec<_>>();
    parts.len() >= 2
        && parts.iter().all(|part| {
            !part.is_empty()
                && part
                    .iter()
                    .all(|&b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.')
        })
}

/// `ccache`, and also `ccache-4.8` or `colorgcc.pl`.
fn is_other_masquerade(link: &[u8]) -> bool {
    OTHER_MASQUERADES.iter().any(|name| {
        link.strip_prefix(*name)
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'-' | b'.')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: FileIdentity = FileIdentity {
        device: 1,
        inode: 7,
        size: 4_000_000,
    };

    #[test]
    fn compilers_are_known_by_name() {
        for (name, expect) in [
            ("gcc", Some(Language::C)),
            ("cc", Some(Language::C)),
            ("clang", Some(Language::C)),
            ("g++", Some(Language::Cxx)),
            ("c++", Some(Language::Cxx)),
            ("clang++", Some(Language::Cxx)),
            ("/usr/bin/gcc-12", Some(Language::C)),
            ("gcc-4.9.2", Some(Language::C)),
            ("./clang++-14", Some(Language::Cxx)),
            ("x86_64-linux-gnu-gcc", Some(Language::C)),
            ("x86_64-linux-gnu-g++-12", Some(Language::Cxx)),
            ("arm-none-eabi-gcc", Some(Language::C)),
            ("aarch64-linux-gnu-clang-17", Some(Language::C)),
            ("x86_64-pc-linux-gnu-c++", Some(Language::Cxx)),
            ("gcc-ar", None),
            ("gcc-ar-12", None),
            ("gcc-nm", None),
            ("gcov", None),
            ("cpp", None),
            ("clang-tidy", None),
            ("clang-format-14", None),
            ("clang-cpp-14", None),
            ("clang-cl", None),
            ("colorgcc", None),
            ("my-gcc", None),
            ("gcc-", None),
            ("-gcc", None),
            ("--gcc", None),
            ("c++filt", None),
            ("distcc", None),
            ("icecc", None),
            ("ccache", None),
            ("gcc/", None),
            ("", None),
        ] {
            assert_eq!(language(name.as_bytes()), expect, "{name:?}");
        }
    }

    /// Facts by path: a row is a path, an inode and the chain of links.
    type World<'a> = &'a [(&'a str, u64, &'a [&'a str])];

    fn search(path: &str, world: World<'_>) -> (Option<String>, String, Vec<String>) {
        let found = find(b"gcc", path.as_bytes(), US, |candidate| {
            let (_, inode, links) = world
                .iter()
                .find(|(path, ..)| path.as_bytes() == candidate)?;
            Some(Facts {
                identity: FileIdentity {
                    device: 1,
                    inode: *inode,
                    size: 0,
                },
                links: links.iter().map(|&link| link.into()).collect(),
                copy_of_us: *inode == 8,
            })
        });
        (
            found.program.map(|program| program.to_string()),
            found.path.to_string(),
            found.stepped_over.iter().map(Bytes::to_string).collect(),
        )
    }

    #[test]
    fn the_search_steps_over_every_masquerade() {
        const REAL: (&str, u64, &[&str]) = ("/usr/bin/gcc", 20, &["gcc-12", "x86_64-gcc-12"]);
        let rows: &[(&str, World<'_>, Option<&str>, &str)] = &[
            // Nothing special, and nothing at all.
            ("/bin:/usr/bin", &[REAL], Some(REAL.0), "/bin:/usr/bin"),
            ("/bin", &[REAL], None, "/bin"),
            // Ourselves: by inode (a hard link, or a link of any name), by the name `ice` at the
            // end of the chain (another installation), as a copy.
            (
                "/ice:/usr/bin",
                &[("/ice/gcc", 7, &[]), REAL],
                Some(REAL.0),
                "/usr/bin",
            ),
            (
                "/ice:/usr/bin",
                &[("/ice/gcc", 9, &["icecc", "ice"]), REAL],
                Some(REAL.0),
                "/usr/bin",
            ),
            (
                "/ice:/copy:/usr/bin",
                &[("/ice/gcc", 7, &["ice"]), ("/copy/gcc", 8, &[]), REAL],
                Some(REAL.0),
                "/usr/bin",
            ),
            // Others, behind us and before us.
            (
                "/ice:/cc:/d:/usr/bin",
                &[
                    ("/ice/gcc", 7, &["ice"]),
                    ("/cc/gcc", 9, &["ccache"]),
                    ("/d/gcc", 10, &["distcc"]),
                    REAL,
                ],
                Some(REAL.0),
                "/usr/bin",
            ),
            (
                "/cc:/ice:/bin:/usr/bin",
                &[
                    ("/cc/gcc", 9, &["ccache-4.8"]),
                    ("/ice/gcc", 7, &["ice"]),
                    REAL,
                ],
                Some(REAL.0),
                "/bin:/usr/bin",
            ),
            (
                "/i:/usr/bin",
                &[("/i/gcc", 9, &["x", "icecc"]), REAL],
                Some(REAL.0),
                "/usr/bin",
            ),
            // Behind us is better than before us; before us is better than nothing.
            (
                "/opt:/ice:/usr/bin",
                &[("/opt/gcc", 11, &[]), ("/ice/gcc", 7, &["ice"]), REAL],
                Some(REAL.0),
                "/opt:/usr/bin",
            ),
            (
                "/opt:/ice",
                &[("/opt/gcc", 11, &[]), ("/ice/gcc", 7, &["ice"])],
                Some("/opt/gcc"),
                "/opt",
            ),
            // The first one behind us, not the last; an empty directory is the current one.
            (
                "/ice:/usr/bin/::/opt",
                &[
                    ("/ice/gcc", 7, &["ice"]),
                    ("/usr/bin/gcc", 20, &[]),
                    ("./gcc", 12, &[]),
                    ("/opt/gcc", 11, &[]),
                ],
                Some("/usr/bin/gcc"),
                "/usr/bin/::/opt",
            ),
            (":/x", &[("./gcc", 12, &[])], Some("./gcc"), ":/x"),
            // Only masquerades: an empty PATH would mean the current directory.
            ("/ice", &[("/ice/gcc", 7, &["ice"])], None, "/ice"),
        ];
        for (path, world, program, cleaned) in rows {
            let (found, left, stepped_over) = search(path, world);
            assert_eq!(
                (found.as_deref(), left.as_str()),
                (*program, *cleaned),
                "{path}"
            );
            let hidden = world
                .iter()
                .filter(|(_, inode, _)| (7..=10).contains(inode));
            assert_eq!(stepped_over.len(), hidden.count(), "{path}");
        }
    }
}
