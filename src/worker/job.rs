//! One job, top to bottom: room, the toolchain, the files, a slot, the sandbox, what was written.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smol::io::AsyncReadExt;

use super::conversation::{Conversation, Failed};
use super::fetching::Fetching;
use super::inventory::WRITABLE_MAX;
use super::store::{Pins, Placed, Store, StoreError};
use super::tenancy::{Occupied, Tenancies, Tenancy};
use super::tree::{TreeError, WrittenKind};
use crate::account::{self, Phase};
use crate::compress;
use crate::dictionary::Decoder;
use crate::id::{AbsPath, Digest, LeaseId, Term};
use crate::message::{
    CHUNK_BYTES_MAX, Entry, EntryKind, Failure, FromWorker, JobSpec, Terminal, ToWorker, Usage,
};
use crate::reactor::Async;
use crate::sandbox::spec::{Ended, Launch, Limits};
use crate::sys;
use crate::threads;
use crate::toolchain::manifest as toolchain;

/// Arguments and variables of a job, at most.
const WORDS_MAX: usize = 100_000;

/// Something that will come; none when it never will.
pub type Promise<'a, T> = Pin<Box<dyn Future<Output = Option<T>> + Send + 'a>>;

/// Whatever lends slots to remote jobs.
pub trait Admission: Send + Sync {
    /// Room for a job under this lease, beside those that run and those that wait; none at once where there is none.
    fn room(&self, lease: LeaseId) -> Promise<'_, Box<dyn Room>>;

    /// Whether a lease of this term is worth nothing any more.
    fn is_outdated(&self, term: Term) -> bool;

    /// These toolchains are in the store now, and these no longer.
    fn toolchains(&self, added: Vec<Digest>, removed: Vec<Digest>);
}

/// Room for a job that may be made ready here, and is not yet to be run. It goes when it is dropped.
pub trait Room: Send {
    /// A slot, when it is this job's turn among those that are ready. It is held as long as this
    /// lives. None when this daemon is about to end.
    fn slot(&mut self) -> Promise<'_, ()>;
}

/// What all jobs of this machine share.
pub struct Worker {
    /// Blobs and toolchains.
    pub store: Arc<Store>,
    /// Sandboxes and trees; none when no rung of the ladder holds, with the reason.
    pub tenancies: Result<Tenancies, String>,
    /// The node's slots.
    pub admission: Box<dyn Admission>,
    /// What a job may use.
    pub limits: Limits,
    /// Who fetches which toolchain.
    pub fetching: Fetching,
}

/// A job that was done.
#[derive(Debug)]
pub struct Done {
    /// The compiler's exit status.
    pub status: u8,
    /// What it consumed.
    pub usage: Usage,
    files: usize,
    bytes: u64,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Usage {
            cpu_us, setup_us, ..
        } = self.usage;
        write!(
            f,
            "status {}, {} files, {} bytes, {} ms of CPU, {setup_us} us of set-up",
            self.status,
            self.files,
            self.bytes,
            cpu_us / 1000
        )
    }
}

/// Runs a job and sends all that came of it but the last word.
pub async fn run(
    worker: &Arc<Worker>,
    spec: JobSpec,
    dictionary: &mut Decoder,
    conversation: &mut Conversation<'_>,
) -> Result<Done, Failed> {
    // The dictionary must hear of the new entries even when the job is refused.
    let JobSpec { fresh, entries, .. } = spec.clone();
    let entries = dictionary
        .decode(fresh, &entries)
        .map_err(|error| Failed::new(Failure::Invalid, error.to_string()))?;
    check(&spec)?;
    let tenancies = worker
        .tenancies
        .as_ref()
        .map_err(|why| Failed::new(Failure::NoRemote, why.clone()))?;
    if worker.admission.is_outdated(spec.term) {
        let why = format!(
            "another scheduler has followed on that of term {}",
            spec.term
        );
        return Err(Failed::new(Failure::Outdated, why));
    }
    let busy = |what| move || Failed::new(Failure::Busy, what);
    let room = conversation
        .unless_cancelled(worker.admission.room(spec.lease))
        .await?;
    let mut room = room.ok_or_else(busy("all slots and the queue are full"))?;
    // What is missing travels before the job asks for its turn, so that no slot is idle for the
    // length of a transfer. Until it has a slot, a job has neither a tree nor a process.
    let placed = toolchain(worker, spec.toolchain, conversation).await?;
    let tenancy = tenancies.enter(spec.tenant, placed).await?;
    materialise(worker, &tenancy, &entries, conversation).await?;
    let turn = conversation.unless_cancelled(room.slot()).await?;
    turn.ok_or_else(busy("the daemon is about to end"))?;
    let began = Instant::now();
    let occupied = occupy(worker, &tenancy, &spec, &entries, conversation).await?;
    compile(
        worker,
        &tenancy,
        spec,
        &occupied,
        conversation,
        (room, began),
    )
    .await
}

/// How often a job's files are fetched again when others push them out of the tenancy's trees.
const OCCUPY_TRIES: usize = 3;

/// A tree with the job's files, which were materialised before.
async fn occupy(
    worker: &Arc<Worker>,
    tenancy: &Arc<Tenancy>,
    spec: &JobSpec,
    entries: &[Entry],
    conversation: &mut Conversation<'_>,
) -> Result<Occupied, Failed> {
    for _ in 0..OCCUPY_TRIES {
        match tenancy
            .occupy(
                entries.to_vec(),
                spec.writable.clone(),
                spec.standing.clone(),
                spec.cwd.clone(),
            )
            .await
        {
            Err(TreeError::Missing(_)) => {}
            other => return other.map_err(from_tree),
        }
        materialise(worker, tenancy, entries, conversation).await?;
    }
    Err(Failed::new(
        Failure::Full,
        "the trees are too small for what is being compiled",
    ))
}

/// What can be seen to be wrong before anything is spent on it.
fn check(spec: &JobSpec) -> Result<(), Failed> {
    let invalid = |what: &str| Err(Failed::new(Failure::Invalid, what));
    if spec.writable.len() > WRITABLE_MAX {
        return invalid("too many writable directories");
    }
    if spec.argv.is_empty() || spec.argv.len() + spec.env.len() > WORDS_MAX {
        return invalid("no arguments, or too many");
    }
    let words = spec
        .argv
        .iter()
        .chain(spec.env.iter().flat_map(|(name, value)| [name, value]));
    if words.into_iter().any(|word| word.contains(&0)) {
        return invalid("an argument with a NUL");
    }
    if spec
        .env
        .iter()
        .any(|(name, _)| name.is_empty() || name.contains(&b'='))
    {
        return invalid("a variable without a proper name");
    }
    if spec.umask > 0o777 {
        return invalid("an impossible umask");
    }
    Ok(())
}

fn from_store(error: StoreError) -> Failed {
    let failure = if matches!(error, StoreError::Full) {
        Failure::Full
    } else {
        Failure::Internal
    };
    Failed::new(failure, format!("the worker's store: {error}"))
}

fn from_tree(error: TreeError) -> Failed {
    let failure = match error {
        TreeError::Full => Failure::Full,
        TreeError::Invalid { .. } | TreeError::Conflict(_) | TreeError::TooMuch => Failure::Invalid,
        _ => Failure::Internal,
    };
    Failed::new(failure, format!("the job's tree: {error}"))
}

/// The toolchain, after its files were fetched if need be.
async fn toolchain(
    worker: &Arc<Worker>,
    digest: Digest,
    conversation: &mut Conversation<'_>,
) -> Result<Placed, Failed> {
    if let Some(placed) = standing(worker, digest).await {
        return Ok(placed);
    }
    let _turn = conversation
        .unless_cancelled(worker.fetching.turn(digest))
        .await?;
    if let Some(placed) = standing(worker, digest).await {
        return Ok(placed);
    }
    conversation.say(FromWorker::NeedManifest(digest)).await;
    let ToWorker::Manifest(manifest) = conversation.hear().await? else {
        return Err(Failed::new(
            Failure::Invalid,
            "a toolchain was asked for, something else came",
        ));
    };
    if toolchain::name(&manifest) != digest {
        return Err(Failed::new(
            Failure::Invalid,
            "the toolchain is not the one that was asked for",
        ));
    }
    log::info!(
        "toolchain {} is new here: {} files",
        digest.short(),
        manifest.entries.len()
    );
    let pins = fetch(worker, &manifest.entries, conversation).await?;
    let store = worker.store.clone();
    let placed = threads::unblock(move || store.materialise(&manifest))
        .await
        .map_err(|error| match error {
            StoreError::Manifest(_) => Failed::new(Failure::Invalid, error.to_string()),
            error => from_store(error),
        })?;
    drop(pins);
    tell_toolchains(worker);
    Ok(placed)
}

/// Tells the node which toolchains have come and gone. They go when room is made for anything else.
fn tell_toolchains(worker: &Worker) {
    let (store, admission) = (&worker.store, &worker.admission);
    worker.fetching.tell(
        || store.toolchains(),
        |added, removed| admission.toolchains(added, removed),
    );
}

/// The toolchain, if it is in the store. One that an earlier process left there is hashed whole when it
/// is first asked for.
async fn standing(worker: &Arc<Worker>, digest: Digest) -> Option<Placed> {
    let store = worker.store.clone();
    threads::unblock(move || store.toolchain(&digest)).await
}

/// Gets the blobs of `entries` that the store lacks. They can't leave it while the result lives.
async fn fetch(
    worker: &Arc<Worker>,
    entries: &[Entry],
    conversation: &mut Conversation<'_>,
) -> Result<Pins, Failed> {
    let mut sizes: BTreeMap<Digest, u64> = BTreeMap::new();
    for entry in entries {
        if let EntryKind::File { digest, size, .. } = &entry.kind {
            sizes.insert(*digest, *size);
        }
    }
    let digests: Vec<Digest> = sizes.keys().copied().collect();
    // What an earlier process left in the store is hashed before it is used: that takes time.
    let store = worker.store.clone();
    let (mut pins, lacking) = threads::unblock(move || store.pin(&digests)).await;
    if lacking.is_empty() {
        return Ok(pins);
    }
    conversation
        .say(FromWorker::NeedBlobs(lacking.clone()))
        .await;
    for digest in lacking {
        let size = sizes[&digest];
        conversation.hear_blob(digest, size).await?;
        let mut ingest = worker.store.ingest(digest, size).map_err(from_store)?;
        let mut left = size;
        while left > 0 {
            let piece = conversation.hear_piece(left).await?;
            left -= piece.len() as u64;
            ingest.write(&piece).map_err(from_store)?;
            // On a fast network the next piece is always there. Without a pause the transfer of a
            // compiler would silence this node, heartbeats included, until it is done.
            smol::future::yield_now().await;
        }
        // A file that changed while it was sent is not what its digest says; the submitter reads
        // it anew and tries again.
        pins.merge(ingest.finish().map_err(|error| match error {
            StoreError::Corrupt { .. } => Failed::new(Failure::Cancelled, error.to_string()),
            error => from_store(error),
        })?);
    }
    tell_toolchains(worker);
    Ok(pins)
}

/// Sees to it that every file of the job has its inode in the tenancy's trees.
async fn materialise(
    worker: &Arc<Worker>,
    tenancy: &Arc<Tenancy>,
    entries: &[Entry],
    conversation: &mut Conversation<'_>,
) -> Result<(), Failed> {
    let missing: Vec<Entry> = tenancy
        .trees()
        .missing(entries)
        .into_iter()
        .cloned()
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let _pins = fetch(worker, &missing, conversation).await?;
    let (store, tenancy) = (worker.store.clone(), tenancy.clone());
    let gone = || Failed::new(Failure::Internal, "a pinned blob left the store");
    threads::unblock(move || {
        for entry in &missing {
            let EntryKind::File { digest, .. } = &entry.kind else {
                continue;
            };
            let mut content =
                File::open(store.path(digest).ok_or_else(gone)?).map_err(|_| gone())?;
            tenancy
                .trees()
                .add(entry, &mut content)
                .map_err(from_tree)?;
        }
        Ok(())
    })
    .await
}

/// Runs the compiler in a tree and sends what it prints and writes.
async fn compile(
    worker: &Arc<Worker>,
    tenancy: &Arc<Tenancy>,
    spec: JobSpec,
    occupied: &Occupied,
    conversation: &mut Conversation<'_>,
    (room, began): (Box<dyn Room>, Instant),
) -> Result<Done, Failed> {
    let launch = Launch {
        tree: occupied.number(),
        program: spec.program,
        argv: spec.argv,
        env: spec.env,
        cwd: spec.cwd,
        umask: spec.umask,
        writable: spec.writable,
        limits: worker.limits,
    };
    let internal =
        |error: &dyn fmt::Display| Failed::new(Failure::Internal, format!("the sandbox: {error}"));
    let (stdout, to_stdout) = pipe().map_err(|error| internal(&error))?;
    let (stderr, to_stderr) = match spec.terminal {
        None => pipe(),
        Some(size) => terminal(size),
    }
    .map_err(|error| internal(&error))?;
    let launching = tenancy.zygote().launch(&launch, to_stdout, to_stderr);
    let mut running = account::during_turns(Phase::Sandbox, launching)
        .await
        .map_err(|error| internal(&error))?;
    let setup_us = began.elapsed().as_micros() as u64;
    let started = Instant::now();
    conversation.say(FromWorker::Started).await;
    let outgoing = conversation.outgoing();
    let work = async {
        let printed =
            smol::future::zip(forward(&outgoing, stdout, 1), forward(&outgoing, stderr, 2));
        let (ended, _) = smol::future::zip(running.wait(), printed).await;
        ended
    };
    let ended = conversation.unless_cancelled(work).await;
    if ended.is_err() {
        // The tree must not be given back while something of the job is alive in it.
        running.kill();
        let _ = running.wait().await;
    }
    // What follows is the network's time: the next job may have the processor.
    drop(room);
    let (ended, consumed) = ended?.map_err(|error| internal(&error))?;
    account::add(Phase::Compile, Duration::from_micros(consumed.cpu_us));
    account::add(Phase::Sandbox, Duration::from_micros(consumed.sandbox_us));
    let status = match ended {
        Ended::Exited(status) => status,
        Ended::Signalled(signal) => {
            return Err(Failed::new(
                Failure::Signal,
                format!("the compiler was killed by signal {signal}"),
            ));
        }
        Ended::OutOfMemory => {
            return Err(Failed::new(
                Failure::Memory,
                "the job used more memory than it may",
            ));
        }
        Ended::Killed => return Err(Failed::new(Failure::Cancelled, "the job was killed")),
        Ended::TimedOut => {
            return Err(Failed::new(
                Failure::Time,
                "the job used more time than it may",
            ));
        }
    };
    let written = occupied.collect().map_err(from_tree)?;
    let wall_us = started.elapsed().as_micros() as u64;
    let usage = Usage {
        cpu_us: consumed.cpu_us,
        wall_us,
        rss_kib: consumed.rss_kib,
        setup_us,
    };
    let (mut files, mut bytes) = (0, 0);
    for written in written {
        let path = written.path;
        match written.kind {
            WrittenKind::File { mode, size } => {
                files += 1;
                bytes += size;
                let content = occupied.open(&path).map_err(from_tree)?;
                send_file(conversation, path, mode, size, content).await?;
            }
            WrittenKind::Removed => conversation.say(FromWorker::Removed(path)).await,
            WrittenKind::Directory => {
                conversation
                    .say(FromWorker::Made { path, target: None })
                    .await
            }
            WrittenKind::Symlink(target) => {
                conversation
                    .say(FromWorker::Made {
                        path,
                        target: Some(target),
                    })
                    .await;
            }
        }
    }
    Ok(Done {
        status,
        usage,
        files,
        bytes,
    })
}

/// The end of what a job prints that is read here, and the job's end.
type Printing = (Async<File>, OwnedFd);

fn pipe() -> io::Result<Printing> {
    let (reader, writer) = io::pipe()?;
    Ok((
        Async::new(File::from(OwnedFd::from(reader)))?,
        writer.into(),
    ))
}

/// A terminal for those who look at one: a compiler colours and breaks its lines by what it finds.
fn terminal(size: Terminal) -> io::Result<Printing> {
    let (ours, theirs) = sys::open_terminal(size)?;
    Ok((Async::new(File::from(ours))?, theirs))
}

/// Sends what the compiler prints, as it comes.
async fn forward(
    outgoing: &smol::channel::Sender<FromWorker>,
    mut printing: Async<File>,
    stream: u8,
) {
    let mut buffer = vec![0; 16 << 10];
    // A terminal whose other end is closed answers with an error, a pipe with nothing.
    while let Ok(count @ 1..) = printing.read(&mut buffer).await {
        let chunk = compress::pack(&buffer[..count]);
        if outgoing
            .send(FromWorker::Output { stream, chunk })
            .await
            .is_err()
        {
            return;
        }
    }
}

async fn send_file(
    conversation: &Conversation<'_>,
    path: AbsPath,
    mode: u32,
    size: u64,
    content: File,
) -> Result<(), Failed> {
    conversation
        .say(FromWorker::File { path, mode, size })
        .await;
    let mut content = content.take(size);
    let mut left = size;
    while left > 0 {
        let want = left.min(CHUNK_BYTES_MAX as u64) as usize;
        let mut piece = vec![0; want];
        // The tree is in memory: reading it does not block.
        let pack = || {
            content
                .read_exact(&mut piece)
                .map(|()| compress::pack(&piece))
        };
        let chunk = account::during(Phase::Collect, pack)
            .map_err(|error| Failed::new(Failure::Internal, format!("read a result: {error}")))?;
        left -= want as u64;
        conversation.say(FromWorker::Chunk(chunk)).await;
    }
    Ok(())
}
