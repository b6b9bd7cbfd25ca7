//! Looks at what a build finds in `PATH` when it calls a compiler.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::facts::{CallFacts, Called, CalledKind};
use crate::client::Variables;
use crate::client::lookup::{leads_to_ice, own_identity, search_path};
use crate::id::Bytes;

/// The names by which builds call compilers.
const NAMES: [&str; 6] = ["cc", "gcc", "c++", "g++", "clang", "clang++"];
/// Variables that lead to ice, or past it.
const VARIABLES: [&str; 4] = ["ICECC", "CC", "CXX", "CCACHE_PREFIX"];

/// What stands at each name, and the variables.
pub(super) fn calls(variables: &Variables) -> CallFacts {
    let path = search_path(variables);
    let by_name = NAMES.map(|name| (name.to_owned(), called(name, path)));
    let of = |name: &str| {
        let value = variables.non_empty(name)?;
        Some((name.to_owned(), value.to_string()))
    };
    CallFacts {
        by_name: BTreeMap::from(by_name),
        variables: VARIABLES.into_iter().filter_map(of).collect(),
    }
}

fn called(name: &str, search_path: &[u8]) -> Vec<Called> {
    let directories = search_path.split(|&byte| byte == b':');
    let mut found = Vec::new();
    for directory in directories.filter(|directory| !directory.is_empty()) {
        let path = Bytes::from(directory).as_path().join(name);
        if let Some(kind) = kind(&path) {
            found.push(Called {
                path: path.display().to_string(),
                kind,
            });
        }
    }
    found
}

/// What stands at a path; none for nothing that would be called.
fn kind(path: &Path) -> Option<CalledKind> {
    let Ok(metadata) = fs::metadata(path) else {
        // A shell passes over it, and so do we over links that are not ours.
        return leads_to_ice(path).then_some(CalledKind::Dangling);
    };
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return None;
    }
    let us = own_identity();
    if (metadata.dev(), metadata.ino()) == (us.device, us.inode) {
        return Some(CalledKind::ThisIce);
    }
    let program = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    Some(match program.file_name().and_then(|name| name.to_str()) {
        Some("ccache") => CalledKind::Ccache,
        _ if leads_to_ice(path) => CalledKind::OtherIce,
        _ => CalledKind::Compiler,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_stands_at_a_name_is_told_by_where_it_leads() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let program = |name: &str| {
            fs::write(at(name), "#!/bin/sh\n").unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).unwrap();
        };
        program("ccache");
        program("real");
        program("ice");
        fs::write(at("text"), "").unwrap();
        let us = std::env::current_exe().unwrap();
        for (link, target, expect) in [
            ("a", us.as_path(), Some(CalledKind::ThisIce)),
            ("b", Path::new("ice"), Some(CalledKind::OtherIce)),
            ("c", Path::new("/nowhere/ice"), Some(CalledKind::Dangling)),
            ("d", Path::new("/nowhere/else"), None),
            ("e", Path::new("ccache"), Some(CalledKind::Ccache)),
            ("f", Path::new("real"), Some(CalledKind::Compiler)),
            ("g", Path::new("text"), None),
        ] {
            symlink(target, at(link)).unwrap();
            assert_eq!(kind(&at(link)), expect, "{link}");
        }
        assert_eq!(kind(&at("missing")), None);
    }
}
