//! `ICECC_VERSION`: which archive is for which compiler on which platform.
//!
//! Decides by names alone; whether the files are there is found out when they are opened.

use crate::id::Bytes;

/// The suffixes of archives that can be read; a file with another one is not an archive.
pub const SUFFIXES: [&str; 7] = [
    ".tar.gz",
    ".tgz",
    ".tar.bz2",
    ".tar.xz",
    ".tar.zst",
    ".tar.zstd",
    ".tar",
];

/// An archive for a platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// The platform whose nodes can run it, as it was spelled, or the own one.
    pub platform: Bytes,
    /// The archive, as it was spelled.
    pub file: Bytes,
}

/// The archives of `version` (`[platform:]file[=prefix],…`) that are for the compiler called
/// `name`, one for each platform, the own `platform` first. Once one entry has a prefix, all are chosen by it:
/// an entry is for the compilers of its prefix, and one without for those that have none.
pub fn select(version: &[u8], platform: &[u8], name: &[u8]) -> Vec<Selected> {
    let entries = version.split(|&byte| byte == b',');
    let entries: Vec<Listed<'_>> = entries
        .filter(|entry| !entry.is_empty())
        .map(|entry| Listed::parse(entry, platform))
        .collect();
    let by_prefix = entries.iter().any(|entry| entry.prefix.is_some());
    let mut selected: Vec<Selected> = Vec::new();
    for entry in entries {
        let is_meant = !by_prefix || entry.prefix.unwrap_or_default() == prefix(name);
        let is_archive = SUFFIXES
            .iter()
            .any(|suffix| entry.file.ends_with(suffix.as_bytes()));
        let is_first = selected
            .iter()
            .all(|other| other.platform[..] != *entry.platform);
        if is_meant && is_archive && is_first {
            selected.push(Selected {
                platform: entry.platform.into(),
                file: entry.file.into(),
            });
        }
    }
    // Stable: the others stay in the order in which they are listed.
    selected.sort_by_key(|one| one.platform[..] != *platform);
    selected
}

/// The part of a compiler's name before its last `-`: its target, as icecream has it. (By the same
/// rule `gcc-12` has the prefix `gcc`.)
fn prefix(name: &[u8]) -> &[u8] {
    let dash = name.iter().rposition(|&byte| byte == b'-');
    &name[..dash.unwrap_or(0)]
}

struct Listed<'a> {
    platform: &'a [u8],
    file: &'a [u8],
    prefix: Option<&'a [u8]>,
}

impl<'a> Listed<'a> {
    fn parse(entry: &'a [u8], own: &'a [u8]) -> Self {
        let (platform, rest) = match entry.iter().position(|&byte| byte == b':') {
            Some(colon) => (&entry[..colon], &entry[colon + 1..]),
            None => (own, entry),
        };
        let (file, prefix) = match rest.iter().position(|&byte| byte == b'=') {
            Some(equals) => (&rest[..equals], Some(&rest[equals + 1..])),
            None => (rest, None),
        };
        Self {
            platform,
            file,
            prefix,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_chosen_as_icecream_does() {
        for (version, name, expect) in [
            ("", "gcc", &[][..]),
            ("/a.tar.gz", "gcc", &[("x86_64", "/a.tar.gz")][..]),
            ("/a.tar.gz", "arm-gcc", &[("x86_64", "/a.tar.gz")]),
            ("/a.tar.gz,/b.tar.xz", "gcc", &[("x86_64", "/a.tar.gz")]),
            (
                "ia64:/a.tar.bz2,/b.tgz",
                "gcc",
                &[("x86_64", "/b.tgz"), ("ia64", "/a.tar.bz2")],
            ),
            ("/n.tar,/a.tar=arm-linux", "gcc", &[("x86_64", "/n.tar")]),
            (
                "/n.tar,/a.tar=arm-linux",
                "arm-linux-gcc",
                &[("x86_64", "/a.tar")],
            ),
            ("/n.tar,/a.tar=arm-linux", "mips-gcc", &[]),
            ("/n.tar,/a.tar=arm-linux", "gcc-12", &[]),
            ("/n.tar,/a.tar=gcc", "gcc-12", &[("x86_64", "/a.tar")]),
            ("/a.zip,/b.tar.zst", "gcc", &[("x86_64", "/b.tar.zst")]),
            (
                "native.tar.gz,ia64:/path/cross.tar.bz2,arm.tar.gz=arm-linux-gnueabihf",
                "arm-linux-gnueabihf-gcc",
                &[("x86_64", "arm.tar.gz")],
            ),
            (
                "native.tar.gz,ia64:/path/cross.tar.bz2,arm.tar.gz=arm-linux-gnueabihf",
                "gcc",
                &[("x86_64", "native.tar.gz"), ("ia64", "/path/cross.tar.bz2")],
            ),
        ] {
            let found = select(version.as_bytes(), b"x86_64", name.as_bytes());
            let expect: Vec<_> = expect
                .iter()
                .map(|(platform, file)| Selected {
                    platform: Bytes::from(*platform),
                    file: Bytes::from(*file),
                })
                .collect();
            assert_eq!(found, expect, "{version} {name}");
        }
    }
}
