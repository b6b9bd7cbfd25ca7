//! The toolchains that this process has looked at: each compiler once, until it changes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::id::{AbsPath, Bytes};
use crate::threads;

use super::archive::{self, ArchiveError, Spool};
use super::probe::{Located, ProbeError, probe};
use super::stamp::{Digests, Stamp, Stamps};

/// The most compilers and archives that are remembered; the one unused for longest goes.
const KNOWN_MAX: usize = 64;

/// How long a compiler that can't be shipped is not asked again, unless its file changes.
const FAILURE_KEPT: Duration = Duration::from_secs(30);

/// Why there is no toolchain.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ToolchainError {
    /// The compiler can't be shipped.
    #[error(transparent)]
    Probe(#[from] Arc<ProbeError>),
    /// The archive is none.
    #[error(transparent)]
    Archive(#[from] Arc<ArchiveError>),
    /// The compiler is not in the archive.
    #[error("the archive has no program for {0}")]
    NoProgram(Bytes),
}

/// What is known of compilers and archives. Shared by all jobs of a submitter.
#[derive(Debug)]
pub struct Toolchains {
    spool: PathBuf,
    digests: Arc<Digests>,
    slots: Mutex<BTreeMap<Key, Slot>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Compiler(PathBuf, Bytes),
    Archive(PathBuf),
}

#[derive(Clone, Debug)]
struct Slot {
    used: Instant,
    /// Held while the compiler is asked: the second caller waits for the first one's answer,
    /// without a thread.
    known: Arc<smol::lock::Mutex<Option<Known>>>,
}

#[derive(Debug)]
struct Known {
    result: Result<Located, ToolchainError>,
    /// For a failure: what was looked at, and when.
    failed: Option<(Stamps, Instant)>,
}

impl Known {
    fn is_current(&self) -> bool {
        match (&self.result, &self.failed) {
            (Ok(located), _) => located.toolchain.is_current(),
            (Err(_), Some((stamps, at))) => at.elapsed() < FAILURE_KEPT && stamps.is_current(),
            (Err(_), None) => false,
        }
    }
}

impl Toolchains {
    /// Nothing is known yet. `spool` is a directory of this process alone: the files of archives
    /// are unpacked into it, and what an earlier process left there is removed.
    pub fn new(spool: PathBuf) -> io::Result<Self> {
        Spool::clear(&spool)?;
        Ok(Self {
            spool,
            digests: Arc::default(),
            slots: Mutex::default(),
        })
    }

    /// The toolchain of `compiler`, an absolute path, as called under this `PATH`. The first call
    /// takes as long as reading the compiler; the next ones check that it is the same.
    pub async fn locate(
        &self,
        compiler: &Path,
        search_path: &[u8],
    ) -> Result<Located, ToolchainError> {
        let key = Key::Compiler(compiler.to_owned(), search_path.into());
        let slot = self.slot(key);
        let mut known = slot.lock().await;
        if let Some(known) = known.as_ref().filter(|known| known.is_current()) {
            return known.result.clone();
        }
        let digests = self.digests.clone();
        let compiler = compiler.to_owned();
        let search_path = search_path.to_vec();
        let found = threads::unblock(move || {
            let stamps = stamps_of(&compiler);
            let result = probe(&compiler, &search_path, &digests);
            known_of(result.map_err(|error| Arc::new(error).into()), stamps)
        });
        known.insert(found.await).result.clone()
    }

    /// The toolchain in the archive `file` (`ICECC_VERSION`), for a call of `compiler`.
    pub async fn unpack(&self, file: &Path, compiler: &Path) -> Result<Located, ToolchainError> {
        let slot = self.slot(Key::Archive(file.to_owned()));
        let mut known = slot.lock().await;
        if !known.as_ref().is_some_and(Known::is_current) {
            let file = file.to_owned();
            let spool = self.spool.clone();
            let found = threads::unblock(move || {
                let stamps = stamps_of(&file);
                let result = archive::open(&file, &spool, stamps.clone());
                let result = result.map(|toolchain| Located {
                    toolchain: Arc::new(toolchain),
                    program: AbsPath::parse("/").expect("the root is a path"),
                });
                known_of(result.map_err(|error| Arc::new(error).into()), stamps)
            });
            *known = Some(found.await);
        }
        let known = known.as_ref().expect("it was just found");
        let located = known.result.clone()?;
        let program = archive::program(&located.toolchain.manifest, compiler);
        let program = program.ok_or_else(|| ToolchainError::NoProgram(compiler.into()))?;
        Ok(Located { program, ..located })
    }

    fn slot(&self, key: Key) -> Arc<smol::lock::Mutex<Option<Known>>> {
        let mut slots = self.slots.lock().expect("no panic under this lock");
        let now = Instant::now();
        if slots.len() >= KNOWN_MAX && !slots.contains_key(&key) {
            let oldest = slots.iter().min_by_key(|(_, slot)| slot.used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                slots.remove(&oldest);
            }
        }
        let slot = slots.entry(key).or_insert_with(|| Slot {
            used: now,
            known: Arc::default(),
        });
        slot.used = now;
        slot.known.clone()
    }
}

fn known_of(result: Result<Located, ToolchainError>, stamps: Stamps) -> Known {
    Known {
        failed: result.is_err().then(|| (stamps, Instant::now())),
        result,
    }
}

/// The file as it is named, and the one that it leads to.
fn stamps_of(path: &Path) -> Stamps {
    let mut stamps = Stamps::default();
    stamps.add(path, Stamp::at(path));
    if let Ok(real) = path.canonicalize() {
        let stamp = Stamp::at(&real);
        stamps.add(&real, stamp);
    }
    stamps
}
