//! What a zygote may be asked for that root started on a node's behalf. Pure.
//!
//! The node has no rights of its own, and its wishes are not trusted with root's: jobs run as the
//! node's own user whatever it asks for, and nothing is shown to them that does not lie in its cache.

use std::ffi::OsString;
use std::path::Path;

use super::spec::{Rung, ZygoteSpec};
use crate::id::{AbsPath, Bytes};

/// What a zygote that root starts on another's behalf may be asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Bounds {
    /// Anything: it has no more rights than whoever asks.
    None,
    /// Jobs of this user, with toolchains from this directory.
    Root {
        /// As whom jobs run.
        rung: Rung,
        /// Where toolchains may lie.
        below: AbsPath,
    },
}

impl Bounds {
    /// No arguments, or a user, a group and a directory.
    pub fn parse(arguments: &[OsString]) -> Option<Self> {
        let [uid, gid, below] = arguments else {
            return arguments.is_empty().then_some(Self::None);
        };
        let number = |text: &OsString| text.to_str()?.parse().ok();
        let rung = Rung::Root {
            uid: number(uid)?,
            gid: number(gid)?,
        };
        let below = AbsPath::parse(Bytes::from(below.clone()).0).ok()?;
        Some(Self::Root { rung, below })
    }

    /// Whether the spec keeps to them. `program` is this program's file.
    pub fn allow(&self, spec: &ZygoteSpec, program: &Path) -> bool {
        match self {
            Self::None => true,
            Self::Root { rung, below } => {
                // The probe's toolchain is this program.
                spec.rung == *rung
                    && AbsPath::parse(spec.toolchain_root.0.clone()).is_ok_and(|root| {
                        root.is_within(below) || Some(root.as_path()) == program.parent()
                    })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(root: &str, rung: Rung) -> ZygoteSpec {
        ZygoteSpec {
            toolchain_root: Bytes::from(root),
            toolchain: Vec::new(),
            tree_bytes: 1,
            tree_inodes: 1,
            rung,
        }
    }

    #[test]
    fn what_root_starts_keeps_to_its_user_and_its_directory() {
        let words = ["990", "991", "/var/cache/ice"].map(OsString::from);
        let bounds = Bounds::parse(&words).unwrap();
        let program = Path::new("/usr/bin/ice");
        let own = Rung::Root { uid: 990, gid: 991 };
        let other = Rung::Root {
            uid: 1000,
            gid: 991,
        };
        for (root, rung, expect) in [
            ("/var/cache/ice/toolchains/a/root", own, true),
            ("/usr/bin", own, true),
            ("/var/cache/ice/../../../root", own, false),
            ("/root", own, false),
            ("/", own, false),
            ("/var/cache/ice/toolchains/a/root", other, false),
            (
                "/var/cache/ice/toolchains/a/root",
                Rung::UserNamespaces,
                false,
            ),
        ] {
            assert_eq!(
                bounds.allow(&spec(root, rung), program),
                expect,
                "{root} {rung}"
            );
        }
    }

    #[test]
    fn without_arguments_there_are_no_bounds_and_half_of_them_is_an_error() {
        assert_eq!(Bounds::parse(&[]), Some(Bounds::None));
        for words in [
            &["990"][..],
            &["990", "991"],
            &["x", "991", "/c"],
            &["990", "991", "c"],
        ] {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            assert_eq!(Bounds::parse(&words), None, "{words:?}");
        }
    }
}
