//! What a submitter has on this worker: a sandbox zygote with one toolchain, and its trees.
//!
//! Never shared between two submitters: what one may have done to a file in its trees can't reach
//! the other. A tenancy begins with a submitter's first job and ends when it has been idle for a
//! while or others need its place.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use smol::lock::{Semaphore, SemaphoreGuardArc};

use super::conversation::Failed;
use super::store::Placed;
use super::tree::{Tree, TreeError, TreeLimits, Trees, Written, verify};
use crate::account::{self, Phase};
use crate::id::{AbsPath, Digest};
use crate::message::{Entry, EntryKind, Failure, Standing};
use crate::sandbox::OWN_DIRECTORIES;
use crate::sandbox::spec::{Rung, ZygoteSpec};
use crate::sandbox::zygote::{Starter, Zygote};
use crate::threads;

/// Tenancies that exist at a time, idle ones included.
const TENANCIES_MAX: usize = 32;
/// How long a tenancy lives without a job.
const IDLE_TIME_MAX: Duration = Duration::from_secs(600);

type Name = ([u8; 16], Digest);

/// All tenancies of a worker.
pub struct Tenancies {
    rung: Rung,
    starter: Starter,
    limits: TreeLimits,
    verifies: bool,
    tenancies: smol::lock::Mutex<BTreeMap<Name, (Instant, Arc<Tenancy>)>>,
}

/// A submitter's sandbox and trees for one toolchain.
pub struct Tenancy {
    zygote: Zygote,
    trees: Mutex<Trees>,
    /// As many turns as there are trees, so that nobody finds all of them in use.
    turns: Arc<Semaphore>,
    verifies: bool,
    /// What is in every tree.
    ground: Vec<Entry>,
    /// The toolchain's files stay in the store as long as they are bound into the sandbox.
    _placed: Placed,
}

impl Tenancies {
    /// None yet; each will use `rung` and at most `limits`. With `verifies`, each tree is compared
    /// with what its job declared, and a job whose tree is wrong fails.
    pub fn new(rung: Rung, starter: Starter, limits: TreeLimits, verifies: bool) -> Self {
        Self {
            rung,
            starter,
            limits,
            verifies,
            tenancies: smol::lock::Mutex::default(),
        }
    }

    /// The tenancy of `tenant` with the toolchain `placed`.
    pub async fn enter(&self, tenant: [u8; 16], placed: Placed) -> Result<Arc<Tenancy>, Failed> {
        let mut tenancies = self.tenancies.lock().await;
        let now = Instant::now();
        let name = (tenant, placed.digest());
        // One that is in use has another owner beside this map.
        tenancies.retain(|other, (used, tenancy)| {
            *other == name
                || Arc::strong_count(tenancy) > 1
                || now.duration_since(*used) < IDLE_TIME_MAX
        });
        if let Some((used, tenancy)) = tenancies.get_mut(&name) {
            if tenancy.zygote.is_alive() {
                *used = now;
                return Ok(tenancy.clone());
            }
            tenancies.remove(&name);
        }
        if tenancies.len() >= TENANCIES_MAX {
            let idle = tenancies
                .iter()
                .filter(|(_, (_, tenancy))| Arc::strong_count(tenancy) == 1);
            let Some(oldest) = idle
                .min_by_key(|(_, (used, _))| *used)
                .map(|(name, _)| *name)
            else {
                return Err(Failed::new(
                    Failure::Busy,
                    format!("{TENANCIES_MAX} submitters are being served"),
                ));
            };
            tenancies.remove(&oldest);
        }
        let tenancy = Arc::new(self.begin(placed).await?);
        tenancies.insert(name, (now, tenancy.clone()));
        Ok(tenancy)
    }

    async fn begin(&self, placed: Placed) -> Result<Tenancy, Failed> {
        let failed = |error: String| Failed::new(Failure::Toolchain, error);
        let entries = &placed.manifest().entries;
        let spec = ZygoteSpec {
            toolchain_root: placed.root().into(),
            toolchain: entries.clone(),
            // What jobs write comes on top of what they are given.
            tree_bytes: 2 * self.limits.bytes,
            tree_inodes: 2 * self.limits.inodes,
            rung: self.rung,
        };
        let zygote = Zygote::start(&self.starter, &spec)
            .await
            .map_err(|error| failed(format!("start the sandbox: {error}")))?;
        let root = zygote
            .tree_root()
            .try_clone_to_owned()
            .map_err(|error| failed(error.to_string()))?;
        let ground = ground(entries);
        let trees = Trees::new(root, &ground, self.limits)
            .map_err(|error| failed(format!("lay out the toolchain: {error}")))?;
        let turns = Arc::new(Semaphore::new(self.limits.trees));
        Ok(Tenancy {
            zygote,
            trees: Mutex::new(trees),
            turns,
            verifies: self.verifies,
            ground,
            _placed: placed,
        })
    }
}

/// What every tree has: the toolchain, and the directories that the sandbox covers.
fn ground(toolchain: &[Entry]) -> Vec<Entry> {
    let own = OWN_DIRECTORIES.map(|path| Entry {
        path: AbsPath::parse(path).expect("it is plain"),
        kind: EntryKind::Directory,
    });
    let has = |path: &AbsPath| toolchain.iter().any(|entry| entry.path == *path);
    let own = own.into_iter().filter(|entry| !has(&entry.path));
    toolchain.iter().cloned().chain(own).collect()
}

impl Tenancy {
    /// The sandbox.
    pub fn zygote(&self) -> &Zygote {
        &self.zygote
    }

    /// The trees. The lock is for short, blocking steps and is never held across an await.
    pub fn trees(&self) -> MutexGuard<'_, Trees> {
        self.trees.lock().expect("no holder of this lock panics")
    }

    /// A tree that holds exactly `entries`, and what stands where its job writes, for that job.
    pub async fn occupy(
        self: &Arc<Self>,
        entries: Vec<Entry>,
        writable: Vec<AbsPath>,
        standing: Vec<Standing>,
        cwd: AbsPath,
    ) -> Result<Occupied, TreeError> {
        let turn = self.turns.acquire_arc().await;
        let tenancy = self.clone();
        threads::unblock(move || {
            let take = || tenancy.trees().take(&entries, &writable, &cwd);
            let tree = account::during(Phase::Tree, take)?;
            let occupied = Occupied {
                tenancy,
                tree: Some((tree, turn)),
            };
            if occupied.tenancy.verifies {
                let (ground, directory) = (&occupied.tenancy.ground, occupied.tree().as_fd());
                verify(directory, ground, &entries, &writable, &cwd)?;
            }
            let mut trees = occupied.tenancy.trees();
            account::during(Phase::Tree, || trees.stand(occupied.tree(), &standing))?;
            drop(trees);
            Ok(occupied)
        })
        .await
    }
}

/// A tree in use; given back, and made exact again, when dropped.
pub struct Occupied {
    tenancy: Arc<Tenancy>,
    tree: Option<(Tree, SemaphoreGuardArc)>,
}

impl Occupied {
    fn tree(&self) -> &Tree {
        &self
            .tree
            .as_ref()
            .expect("the tree is taken only by drop")
            .0
    }

    /// The tree's number in its tmpfs.
    pub fn number(&self) -> u32 {
        self.tree().number()
    }

    /// What the job wrote. Blocks for some system calls in memory.
    pub fn collect(&self) -> Result<Vec<Written>, TreeError> {
        account::during(Phase::Collect, || self.tenancy.trees().collect(self.tree()))
    }

    /// Opens a file that the job wrote.
    pub fn open(&self, path: &AbsPath) -> Result<File, TreeError> {
        self.tree().open(path)
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        // Repairing a tree is file system work: it is done on the side, after the result is out.
        if let Some((tree, turn)) = self.tree.take() {
            let tenancy = self.tenancy.clone();
            threads::detached(move || {
                account::during(Phase::Tree, || tenancy.trees().give_back(tree));
                drop(turn);
            });
        }
    }
}
