//! Looks at this machine: sandbox, compilers, what runs out.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::statvfs;
use smol::future::FutureExt;

use super::facts::{ArchiveFacts, ArchiveState, CompilerFacts, DirectoryFacts, LimitFacts};
use crate::client::Variables;
use crate::client::lookup::{self, search_path};
use crate::config::DaemonConfig;
use crate::daemon::process::platform;
use crate::id::{Bytes, Digest};
use crate::masquerade::{Language, file_name};
use crate::message::{EntryKind, Manifest};
use crate::reactor::Timer;
use crate::sandbox::ladder;
use crate::sandbox::spec::Rung;
use crate::sandbox::zygote::Starter;
use crate::toolchain::{Toolchains, selection};

/// The compilers that are looked for.
const COMPILERS: [(&str, Language); 4] = [
    ("gcc", Language::C),
    ("g++", Language::Cxx),
    ("clang", Language::C),
    ("clang++", Language::Cxx),
];

/// Bytes that are written to see whether they can be.
const SAMPLE_BYTES: usize = 1 << 20;

/// The rung of the sandbox that an ordinary user can build here, or why there is none.
pub(super) async fn sandbox() -> Result<String, String> {
    let program = ladder::own_program();
    let rungs = [(Rung::UserNamespaces, Starter::Here(program.clone()))];
    match ladder::probe(&program, &rungs).await {
        Ok((rung, _)) => Ok(rung.to_string()),
        Err(failures) => {
            let sentence = |(rung, why): (Rung, String)| format!("{rung}: {why}");
            let sentences: Vec<String> = failures.into_iter().map(sentence).collect();
            Err(sentences.join("; "))
        }
    }
}

/// The compilers in `PATH`, and the archive that is to be used instead; each look within `bound`.
pub(super) async fn compilers(
    variables: &Variables,
    cwd: &Path,
    bound: Duration,
) -> (Vec<CompilerFacts>, Option<ArchiveFacts>) {
    let spool = std::env::temp_dir().join(format!("ice-doctor-spool-{}", std::process::id()));
    let toolchains = match Toolchains::new(spool.clone()) {
        Ok(toolchains) => toolchains,
        Err(error) => {
            let why = format!("make {}: {error}", spool.display());
            return (vec![], archive_of(variables, Err(why)));
        }
    };
    let mut facts = Vec::new();
    let mut installed: Option<(Bytes, Manifest)> = None;
    for (name, language) in COMPILERS {
        let found = lookup::compiler(&name.into(), language, variables, cwd);
        let Some(program) = found else {
            facts.push(CompilerFacts {
                name: name.to_owned(),
                program: None,
                closure: Ok((0, 0)),
            });
            continue;
        };
        let path = program.search_path.as_deref();
        let search_path = path.unwrap_or_else(|| search_path(variables)).to_vec();
        let looking = async {
            let located = toolchains
                .locate(program.path.as_path(), &search_path)
                .await;
            located.map_err(|error| error.to_string())
        };
        let located = looking.or(late(bound)).await;
        let closure = match located {
            Ok(located) => {
                let manifest = &located.toolchain.manifest;
                let sizes: Vec<u64> = files(manifest).map(|(_, _, size)| size).collect();
                let closure = (sizes.len(), sizes.iter().sum());
                installed.get_or_insert_with(|| (program.path.clone(), manifest.clone()));
                Ok(closure)
            }
            Err(why) => Err(why),
        };
        facts.push(CompilerFacts {
            name: name.to_owned(),
            program: Some(program.path.to_string()),
            closure,
        });
    }
    let state = archive(&toolchains, variables, installed.as_ref(), bound).await;
    let archive = archive_of(variables, state);
    drop(toolchains);
    let _ = fs::remove_dir_all(spool);
    (facts, archive)
}

/// The archive that is chosen for the compiler `gcc`, or another of this machine.
fn archive_of(variables: &Variables, state: Result<ArchiveState, String>) -> Option<ArchiveFacts> {
    let value = variables.non_empty("ICECC_VERSION")?;
    let selected = selection::select(value, platform().as_bytes(), b"gcc");
    Some(ArchiveFacts {
        value: value.to_string(),
        file: selected.first().map(|selected| selected.file.to_string()),
        state,
    })
}

async fn archive(
    toolchains: &Toolchains,
    variables: &Variables,
    installed: Option<&(Bytes, Manifest)>,
    bound: Duration,
) -> Result<ArchiveState, String> {
    let nothing = "there is no compiler to compare it with";
    let (compiler, manifest) = installed.ok_or(nothing)?;
    let value = variables
        .non_empty("ICECC_VERSION")
        .ok_or("it is not set")?;
    let selected = selection::select(value, platform().as_bytes(), b"gcc");
    let selected = selected
        .first()
        .ok_or("no archive of it is for this machine")?;
    let looking = async {
        let located = toolchains
            .unpack(selected.file.as_path(), compiler.as_path())
            .await;
        located.map_err(|error| error.to_string())
    };
    let located = looking.or(late(bound)).await?;
    let held: BTreeSet<Digest> = files(&located.toolchain.manifest)
        .map(|(_, digest, _)| digest)
        .collect();
    // Paths and names may differ in an archive; what makes the objects may not.
    let differs = files(manifest).find(|(path, digest, _)| {
        let name = file_name(path.as_bytes());
        let is_compiler = matches!(name, b"cc1" | b"cc1plus" | b"as") || name.starts_with(b"clang");
        is_compiler && !held.contains(digest)
    });
    Ok(match differs {
        None => ArchiveState::Same,
        Some((path, ..)) => ArchiveState::Differs(path.to_string()),
    })
}

/// The regular files of a toolchain.
fn files(manifest: &Manifest) -> impl Iterator<Item = (&crate::id::AbsPath, Digest, u64)> {
    manifest
        .entries
        .iter()
        .filter_map(|entry| match entry.kind {
            EntryKind::File { digest, size, .. } => Some((&entry.path, digest, size)),
            EntryKind::Symlink(_) | EntryKind::Directory => None,
        })
}

async fn late<T>(bound: Duration) -> Result<T, String> {
    Timer::after(bound).await;
    Err(format!(
        "reading it did not come to an end within {bound:?}"
    ))
}

/// What runs out. `is_ours` says whether the daemon would run as this user, and write where he may.
pub(super) fn limits(config: &DaemonConfig, is_ours: bool) -> LimitFacts {
    let most = |name: &str| -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).ok()?;
        text.trim().parse().ok()
    };
    let temporary = std::env::temp_dir();
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK);
    let watch = |inotify: &Inotify| {
        let watched = inotify.add_watch(&temporary, AddWatchFlags::IN_CREATE);
        !watched.is_err_and(|errno| errno == nix::errno::Errno::ENOSPC)
    };
    LimitFacts {
        instances: most("max_user_instances").map(|most| (most, inotify.is_ok())),
        // Without an instance nothing can be said of its watches.
        watches: most("max_user_watches").map(|most| (most, inotify.as_ref().map_or(true, watch))),
        descriptors: getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard),
        directories: [
            ("cache", &config.cache_dir, is_ours),
            ("temporary", &temporary, true),
        ]
        .into_iter()
        .filter_map(|(purpose, path, is_ours)| directory(purpose, path, is_ours))
        .collect(),
    }
}

/// What there is of a directory, or of the one that it would be made in.
fn directory(purpose: &'static str, path: &Path, is_ours: bool) -> Option<DirectoryFacts> {
    let there = path.ancestors().find(|path| path.is_dir())?;
    let stat = statvfs(there).ok()?;
    Some(DirectoryFacts {
        purpose,
        path: path.to_owned(),
        free: (
            stat.blocks_available() as u64 * stat.fragment_size() as u64,
            // Some file systems have as many as there is room for, and say zero.
            (stat.files() > 0).then(|| stat.files_available() as u64),
        ),
        refusal: match is_ours {
            true => sample(there).err().map(|error| error.to_string()),
            false => None,
        },
    })
}

/// Writes something and removes it.
fn sample(directory: &Path) -> std::io::Result<()> {
    let path: PathBuf = directory.join(format!(".ice-doctor-{}", std::process::id()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    let written = file.write_all(&vec![1; SAMPLE_BYTES]);
    let removed = fs::remove_file(&path);
    written.and(removed)
}
