//! The file in which a scheduler keeps what it learned of nodes and jobs, for the next one.
//!
//! It is a help and no more: a file that can't be read, or says nonsense, is as good as none. It is
//! written beside its place and put there by renaming, so that it is whole or not there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::scheduler::speed::{Recollection, Speeds};

/// Between two writes.
const EVERY: Duration = Duration::from_secs(60);
/// A file that is larger was not written here.
const BYTES_MAX: u64 = 64 << 20;
/// Changes with the format.
const HEADER: &[u8] = b"ice scheduler memory 4\n";

/// Keeps such a file up to date.
#[derive(Debug)]
pub struct Keeper {
    /// None when nothing is to be kept.
    path: Option<PathBuf>,
    /// How many jobs had been learned from when it was written last.
    jobs: u64,
    due: Instant,
    /// Held by whoever writes: the last time may come while the time before is under way.
    turn: Arc<Mutex<()>>,
}

impl Keeper {
    /// For the file at `path`; without one everything is forgotten in the end.
    pub fn new(path: Option<PathBuf>) -> Self {
        let due = Instant::now() + EVERY;
        Self {
            path,
            jobs: 0,
            due,
            turn: Arc::default(),
        }
    }

    /// What the file tells now.
    pub fn recall(&self) -> Speeds {
        self.path.as_deref().map(read).unwrap_or_default()
    }

    /// Whether it is time to write, which is then not so again for a while.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.due <= now;
        if is_due {
            self.due = now + EVERY;
        }
        is_due
    }

    /// What writes down all that was learned, if there is anything new and a place for it. It may block.
    pub fn keep(&mut self, speeds: &Speeds) -> Option<impl FnOnce() + Send + use<>> {
        let path = self.path.clone()?;
        if std::mem::replace(&mut self.jobs, speeds.jobs()) == speeds.jobs() {
            return None;
        }
        let recollection = speeds.recollection();
        let turn = self.turn.clone();
        Some(move || {
            let _turn = turn.lock();
            if let Err(error) = write(&path, &recollection) {
                log::warn!("write {}: {error}", path.display());
            }
        })
    }
}

/// What the file at `path` tells; nothing when there is none.
pub fn read(path: &Path) -> Speeds {
    match parse(path) {
        Ok(speeds) => speeds,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Speeds::default(),
        Err(error) => {
            log::warn!(
                "{} is not used: {error}; speeds are learned anew",
                path.display()
            );
            Speeds::default()
        }
    }
}

fn parse(path: &Path) -> io::Result<Speeds> {
    if fs::metadata(path)?.len() > BYTES_MAX {
        return Err(io::Error::other("it is too large"));
    }
    let bytes = fs::read(path)?;
    let content = bytes
        .strip_prefix(HEADER)
        .ok_or_else(|| io::Error::other("it was not written by this version"))?;
    let recollection: Recollection = postcard::from_bytes(content).map_err(io::Error::other)?;
    Ok(Speeds::recalling(recollection))
}

/// Writes the file.
pub fn write(path: &Path, recollection: &Recollection) -> io::Result<()> {
    let mut bytes = HEADER.to_vec();
    bytes.extend(postcard::to_allocvec(recollection).map_err(io::Error::other)?);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let beside = beside(path);
    fs::write(&beside, bytes)?;
    fs::rename(&beside, path)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Bytes, Digest};
    use crate::scheduler::speed::{Consumed, Work};

    fn work() -> Work {
        Work {
            toolchain: Digest([1; 32]),
            file: Bytes::from("x.c"),
            variant: 7,
        }
    }

    #[test]
    fn what_one_scheduler_learned_the_next_one_knows() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below/memory");
        let mut speeds = read(&path);
        assert!(!speeds.knows("slow"));
        for _ in 0..20 {
            for (node, cpu_us) in [("slow", 400_000), ("fast", 100_000)] {
                let job = Consumed {
                    cpu_us,
                    memory_mib: 300,
                    output_bytes: 1000,
                };
                speeds.learn(node, &work(), job);
            }
        }
        write(&path, &speeds.recollection()).unwrap();
        let again = read(&path);
        assert_eq!(again.size(&work()), speeds.size(&work()));
        assert_eq!(again.slowness("slow"), speeds.slowness("slow"));
        assert!(again.knows("fast"));
        assert_eq!(again.mean_cost_us(), speeds.mean_cost_us());
    }

    #[test]
    fn a_file_of_nonsense_is_as_good_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("memory");
        let cut = [HEADER, &[1, 2, 3]].concat();
        for content in [&b""[..], b"hello", HEADER, &cut] {
            fs::write(&path, content).unwrap();
            assert!(!read(&path).knows("a"), "{content:?}");
        }
    }
}
