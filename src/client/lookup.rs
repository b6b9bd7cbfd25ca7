//! Which program a call means, found in the file system.
//!
//! The rules are in [`crate::masquerade`]; here are the facts: `stat`, `readlink`, and the
//! variables by which a user names a compiler.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::variables::Variables;
use crate::id::Bytes;
use crate::masquerade::{self, Facts, FileIdentity, Language, Standing};

/// Where the running executable can be read, whatever became of its path.
pub const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// Where programs are looked for when `PATH` is not set, as the C library does.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// Longer chains of symlinks are a loop to the kernel.
const LINKS_MAX: usize = 40;

/// The identity of no file at all.
const NO_FILE: FileIdentity = FileIdentity {
    device: 0,
    inode: 0,
    size: 0,
};

/// The program that a call means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its absolute path.
    pub path: Bytes,
    /// What it is told as its own name.
    pub name: Bytes,
    /// `PATH` without masquerades, where it differs.
    pub search_path: Option<Bytes>,
    /// The masquerades that were stepped over.
    pub stepped_over: Vec<Bytes>,
}

/// Finds the compiler that `command` (a name or a path, perhaps a masquerade's) means.
pub fn compiler(
    command: &Bytes,
    language: Language,
    variables: &Variables,
    cwd: &Path,
) -> Option<Program> {
    let chosen = match language {
        Language::C => variables.non_empty("ICECC_CC"),
        Language::Cxx => variables.non_empty("ICECC_CXX"),
    };
    // A second masquerade in the variable is stepped over like one in PATH.
    [chosen, Some(command)]
        .into_iter()
        .flatten()
        .find_map(|command| beyond_masquerades(command, variables, cwd))
}

/// Whether the name that this process was called by is a symlink whose immediate target is called
/// `icerun`: then it is to run the program of that name under a local slot.
pub fn is_icerun(name: &Bytes) -> bool {
    if name.contains(&b'/') {
        return is_link_to_icerun(name);
    }
    let us = own_identity();
    let variables = Variables::of_this_process();
    let path = search_path(&variables);
    // The first program of that name is the one that was started.
    let found = masquerade::find(name, path, NO_FILE, |path| {
        let mut facts = facts(path, us)?;
        facts.links.clear();
        Some(facts)
    });
    found.program.is_some_and(|path| is_link_to_icerun(&path))
}

fn is_link_to_icerun(path: &[u8]) -> bool {
    let target = fs::read_link(Bytes::from(path).as_path());
    target.is_ok_and(|target| target.file_name().is_some_and(|name| name == "icerun"))
}

/// Finds the program of `command` as a shell would, masquerades of compilers included, but not the
/// links to icerun: what they stand for is behind them.
pub fn command(command: &Bytes, variables: &Variables, cwd: &Path) -> Option<Program> {
    let path = if command.contains(&b'/') {
        command.clone()
    } else {
        let search_path = search_path(variables);
        masquerade::find(command, search_path, NO_FILE, |path| {
            let mut facts = facts(path, NO_FILE)?;
            facts.links.clear();
            (!is_link_to_icerun(path)).then_some(facts)
        })
        .program?
    };
    Some(Program {
        path: absolute(&path, cwd),
        name: command.clone(),
        search_path: None,
        stepped_over: Vec::new(),
    })
}

/// Every compiler's name in the directories of `search_path` behind which a real compiler stands.
pub fn compilers_in(search_path: &[u8]) -> Vec<Bytes> {
    let us = own_identity();
    let mut names = std::collections::BTreeSet::new();
    for directory in search_path.split(|&b| b == b':').filter(|d| !d.is_empty()) {
        let directory = Bytes::from(directory);
        let Ok(entries) = fs::read_dir(directory.as_path()) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = Bytes::from(entry.file_name());
            if masquerade::language(&name).is_none() {
                continue;
            }
            let path = Bytes::from(&*entry.path());
            if facts(&path, us).is_some_and(|f| masquerade::standing(&f, us) == Standing::Genuine) {
                names.insert(name);
            }
        }
    }
    names.into_iter().collect()
}

/// Whether `path` is a symlink to an ice, be it one that has been removed since.
pub fn leads_to_ice(path: &Path) -> bool {
    let chain = links(path);
    let facts = Facts {
        identity: fs::metadata(path).map_or(NO_FILE, |metadata| identity(&metadata)),
        links: chain,
        copy_of_us: false,
    };
    !facts.links.is_empty() && masquerade::standing(&facts, own_identity()) == Standing::Ourselves
}

/// The value of `PATH`, or what stands for it when it is not set.
pub fn search_path(variables: &Variables) -> &[u8] {
    variables.value("PATH").map_or(DEFAULT_PATH, |path| path)
}

/// The file that this process runs.
pub fn own_identity() -> FileIdentity {
    fs::metadata(OWN_EXECUTABLE).map_or(NO_FILE, |metadata| identity(&metadata))
}

fn beyond_masquerades(command: &Bytes, variables: &Variables, cwd: &Path) -> Option<Program> {
    let us = own_identity();
    let is_path = command.contains(&b'/');
    let mut stepped_over = Vec::new();
    let mut explicit = None;
    if is_path {
        match facts(command, us) {
            Some(facts) if masquerade::standing(&facts, us) != Standing::Genuine => {
                stepped_over.push(command.clone());
            }
            // What is not there is reported by the attempt to run it.
            _ => explicit = Some(absolute(command, cwd)),
        }
    }
    let name = masquerade::file_name(command);
    let path = search_path(variables);
    let found = masquerade::find(name, path, us, |path| facts(path, us));
    stepped_over.extend(found.stepped_over);
    let program = match explicit {
        Some(program) => program,
        None => absolute(&found.program?, cwd),
    };
    Some(Program {
        // A compiler looks for its own files from where its name says that it is: a masquerade's
        // path would lead it astray, a bare name leads it along PATH.
        name: if is_path {
            program.clone()
        } else {
            command.clone()
        },
        path: program,
        search_path: (found.path.0 != path).then_some(found.path),
        stepped_over,
    })
}

/// What stands at `path`, unless it can't be executed.
fn facts(path: &[u8], us: FileIdentity) -> Option<Facts> {
    let path = Bytes::from(path);
    let metadata = fs::metadata(path.as_path()).ok()?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return None;
    }
    let identity = identity(&metadata);
    let is_us = (identity.device, identity.inode) == (us.device, us.inode);
    Some(Facts {
        identity,
        links: links(path.as_path()),
        copy_of_us: !is_us && identity.size == us.size && same_content(path.as_path()),
    })
}

fn identity(metadata: &fs::Metadata) -> FileIdentity {
    FileIdentity {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
    }
}

/// The last components of the targets of the symlinks that `path` leads along.
fn links(path: &Path) -> Vec<Bytes> {
    let mut links = Vec::new();
    let mut at = PathBuf::from(path);
    while links.len() < LINKS_MAX
        && let Ok(target) = fs::read_link(&at)
    {
        links.push(Bytes::from(masquerade::file_name(&Bytes::from(&*target))));
        at = match at.parent() {
            Some(directory) => directory.join(target),
            None => target,
        };
    }
    links
}

/// Whether the file is a copy of this executable; only asked about files of the same size. Never
/// inlined: its buffers would be eight pages of every call's stack.
#[inline(never)]
fn same_content(path: &Path) -> bool {
    let compare = || -> std::io::Result<bool> {
        let ours = fs::File::open(OWN_EXECUTABLE)?;
        let mut theirs = fs::File::open(path)?;
        let (mut their_piece, mut our_piece) = ([0; 16 << 10], [0; 16 << 10]);
        let mut offset = 0;
        loop {
            let count = theirs.read(&mut their_piece)?;
            if count == 0 {
                return Ok(true);
            }
            ours.read_exact_at(&mut our_piece[..count], offset)?;
            if their_piece[..count] != our_piece[..count] {
                return Ok(false);
            }
            offset += count as u64;
        }
    };
    compare().unwrap_or(false)
}

/// The path below the working directory, as it is spelled.
fn absolute(path: &Bytes, cwd: &Path) -> Bytes {
    if path.first() == Some(&b'/') {
        path.clone()
    } else {
        Bytes::from(&*cwd.join(path.as_path()))
    }
}
