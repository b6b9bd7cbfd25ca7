//! One job on one worker: sends what the worker asks for, takes what the job printed and wrote.
//!
//! Knows nothing of why this worker was chosen or what happens when it fails; it tells its caller
//! whether the worker was dead, unwilling or wrong, and that is all. Nothing is put in place here:
//! the files wait under temporary names until the caller commits them.

use std::fs::File;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use smol::future::FutureExt;

use crate::account::{self, Phase};
use crate::compress::{self, CompressError, Unpacker};
use crate::connection::ConnectionError;
use crate::dictionary::Named;
use crate::executor;
use crate::id::{AbsPath, Bytes, Digest, PATH_BYTES_MAX};
use crate::message::{
    CHUNK_BYTES_MAX, Failure, FromWorker, JobSpec, Manifest, SILENCE_MS, ToWorker, Usage,
};
use crate::threads;

use super::output::{self, Pending};
use super::parcels::{Content, Packed, Parcel, Parcels};
use super::placement::Progress;
use super::pool::Warm;
use super::ways::{Measured, Meter};

/// What a compiler may print before the job is compiled locally instead: it waits in memory, and so does
/// what each change between its two streams costs.
const OUTPUT_BYTES_MAX: usize = 32 << 20;
/// Files and directories that a job may write.
const WRITTEN_MAX: usize = 10_000;
/// So many files are renamed by the thread that serves everybody; more are left to another one.
const PROMPT_FILES_MAX: usize = 8;
/// Blobs that are read and packed in one go.
const BATCH_MAX: usize = 64;

/// Finds the bytes of what a job consists of.
pub trait Contents: Sync {
    /// The content with this digest, as far as it is known. A file may have changed since.
    fn content(&self, digest: &Digest) -> Option<Content>;
}

/// A job, ready to be sent.
pub struct Prepared<'a> {
    /// The job; its lists of entries are filled in per connection.
    pub spec: JobSpec,
    /// Its files.
    pub entries: &'a [Named],
    /// Where their bytes are.
    pub contents: &'a dyn Contents,
    /// What of them is packed already.
    pub parcels: &'a Parcels,
    /// The toolchain, should the worker lack it.
    pub manifest: &'a Manifest,
    /// Whom to tell that the worker has started the compiler.
    pub progress: &'a Progress,
}

/// What a worker delivered.
pub struct Delivered {
    /// The compiler's exit status.
    pub status: u8,
    /// What it consumed there.
    pub usage: Usage,
    /// What it printed, in order: the stream (1 or 2) and the bytes.
    pub printed: Vec<(u8, Vec<u8>)>,
    files: Vec<Pending>,
    made: Vec<(AbsPath, Option<Bytes>)>,
    removed: Vec<AbsPath>,
    /// The size of all files together.
    pub file_bytes: u64,
    /// When the attempt began.
    pub began: Instant,
    /// When its compiler was heard to start.
    pub started: Option<Instant>,
}

/// Why a worker delivered nothing.
#[derive(Debug, thiserror::Error)]
pub enum Undelivered {
    /// It said so.
    #[error("{detail} ({failure:?})")]
    Refused {
        /// The kind of reason.
        failure: Failure,
        /// Its sentence.
        detail: String,
    },
    /// It did not answer, or the connection broke.
    #[error("{0}")]
    Dead(String),
    /// It said something that no honest worker says.
    #[error("the worker misbehaves: {0}")]
    Misbehaves(String),
    /// A source file changed while it was sent.
    #[error("{0} changed while it was read")]
    Changed(Digest),
    /// A result could not be written here.
    #[error("write the result: {0}")]
    Write(#[from] io::Error),
}

impl From<ConnectionError> for Undelivered {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::Frame(error) => Self::Misbehaves(error.to_string()),
            error => Self::Dead(error.to_string()),
        }
    }
}

impl Delivered {
    /// Its files, which wait under temporary names.
    pub fn files(&self) -> &[Pending] {
        &self.files
    }

    /// The same, without the rest.
    pub fn into_files(self) -> Vec<Pending> {
        self.files
    }

    /// Whether the other one has files at the same places and did the same besides, whatever is in
    /// the files.
    pub fn is_like(&self, other: &Self) -> bool {
        let places = |delivered: &Self| -> Vec<_> {
            let files = delivered.files.iter();
            files.map(|file| file.place().to_owned()).collect()
        };
        places(self) == places(other) && self.made == other.made && self.removed == other.removed
    }

    /// Puts every file in its place.
    pub async fn commit(self, umask: u32) -> io::Result<()> {
        let Self {
            files,
            made,
            removed,
            ..
        } = self;
        let is_prompt = made.is_empty()
            && removed.is_empty()
            && files.len() <= PROMPT_FILES_MAX
            && files.iter().all(Pending::is_prompt);
        let commit = move || {
            for (place, target) in &made {
                output::make(place, target.as_ref(), umask)?;
            }
            removed.iter().try_for_each(output::remove)?;
            files.into_iter().try_for_each(Pending::commit)
        };
        let commit = move || account::during(Phase::Commit, commit);
        match is_prompt {
            true => commit(),
            false => threads::unblock(commit).await,
        }
    }
}

/// Runs the job on the worker behind `warm`. Says by `spoke` whether the worker answered at all.
pub async fn run(
    warm: &mut Warm,
    prepared: &Prepared<'_>,
    spoke: &mut bool,
) -> Result<Delivered, Undelivered> {
    let began = Instant::now();
    let mut started = None;
    let (fresh, entries) = warm
        .dictionary
        .encode(prepared.entries)
        .ok_or_else(|| Undelivered::Dead("this connection's dictionary is full".to_owned()))?;
    let spec = JobSpec {
        fresh,
        entries,
        ..prepared.spec.clone()
    };
    send(warm, &ToWorker::Job(Box::new(spec))).await?;
    let mut delivery = Delivery::default();
    let mut sent = Meter::behind_buffers();
    let mut delivered_since: Option<Instant> = None;
    loop {
        let message = receive(warm).await?;
        *spoke = true;
        match message {
            FromWorker::Alive => {}
            FromWorker::Started => {
                started = Some(Instant::now());
                prepared.progress.started();
            }
            FromWorker::NeedManifest(digest) if digest == prepared.spec.toolchain => {
                send(warm, &ToWorker::Manifest(prepared.manifest.clone())).await?;
            }
            FromWorker::NeedManifest(digest) => {
                return Err(Undelivered::Misbehaves(format!(
                    "it asks for the foreign toolchain {digest}"
                )));
            }
            FromWorker::NeedBlobs(digests) => {
                send_blobs(warm, prepared, digests, &mut sent).await?;
                if let Some((bytes, time)) = sent.read() {
                    sent = Meter::behind_buffers();
                    prepared.progress.measured(Measured::Sent(bytes, time));
                }
            }
            FromWorker::Done { status, usage } => {
                if let Some(since) = delivered_since {
                    let mut received = Meter::default();
                    received.add(delivery.file_bytes, since.elapsed());
                    if let Some((bytes, time)) = received.read() {
                        prepared.progress.measured(Measured::Received(bytes, time));
                    }
                }
                let delivered = delivery.finish(status, usage)?;
                return Ok(Delivered {
                    began,
                    started,
                    ..delivered
                });
            }
            FromWorker::Failed { failure, detail } => {
                return Err(Undelivered::Refused { failure, detail });
            }
            written => {
                if matches!(written, FromWorker::File { .. }) {
                    delivered_since.get_or_insert_with(Instant::now);
                }
                delivery.take(written, &prepared.spec).await?;
            }
        }
    }
}

/// What has come so far.
#[derive(Default)]
struct Delivery {
    printed: Vec<(u8, Vec<u8>)>,
    printed_bytes: usize,
    files: Vec<Pending>,
    made: Vec<(AbsPath, Option<Bytes>)>,
    removed: Vec<AbsPath>,
    file_bytes: u64,
    /// For the pieces of files, of which a large object has dozens.
    unpacker: Unpacker,
}

impl Delivery {
    async fn take(&mut self, message: FromWorker, spec: &JobSpec) -> Result<(), Undelivered> {
        let misbehaves = |what: String| Err(Undelivered::Misbehaves(what));
        match message {
            FromWorker::Output {
                stream: stream @ (1 | 2),
                chunk,
            } => {
                let data = compress::unpack(chunk).map_err(damaged)?;
                self.printed_bytes += data.len();
                match self.printed.last_mut() {
                    Some((last, bytes)) if *last == stream => bytes.extend_from_slice(&data),
                    _ => {
                        self.printed_bytes += size_of::<(u8, Vec<u8>)>();
                        self.printed.push((stream, data));
                    }
                }
                if self.printed_bytes > OUTPUT_BYTES_MAX {
                    return misbehaves(format!(
                        "the compiler printed more than {OUTPUT_BYTES_MAX} bytes"
                    ));
                }
            }
            FromWorker::File { path, mode, size } => {
                self.announce(&path, spec)?;
                self.file_bytes = self.file_bytes.saturating_add(size);
                let stood = spec.standing.iter().any(|standing| standing.path == path);
                let is_prompt = output::is_prompt(path.as_path());
                let create = move || Pending::create(&path, mode, size, stood);
                let create = move || account::during(Phase::Commit, create);
                self.files.push(match is_prompt {
                    true => create()?,
                    false => threads::unblock(create).await?,
                });
            }
            FromWorker::Chunk(chunk) => {
                let data = (self.unpacker.unpack(&chunk)).map_err(damaged)?;
                let Some(pending) = self.files.last_mut() else {
                    return misbehaves("a chunk of no file".to_owned());
                };
                // A write of a chunk to the page cache takes less than the way to another thread.
                account::during(Phase::Commit, || pending.write(data))?;
            }
            FromWorker::Made { path, target } => {
                self.announce(&path, spec)?;
                // What no kernel takes for a symlink's target is none.
                if target
                    .as_ref()
                    .is_some_and(|target| target.len() > PATH_BYTES_MAX)
                {
                    return misbehaves(format!("it made {path}, a symlink to too long a path"));
                }
                self.made.push((path, target));
            }
            FromWorker::Removed(path) => {
                if !spec.standing.iter().any(|standing| standing.path == path) {
                    return misbehaves(format!("it removed {path}, which nobody told it of"));
                }
                if self.removed.contains(&path) {
                    return misbehaves(format!("it removed {path} twice"));
                }
                self.removed.push(path);
            }
            other => {
                return misbehaves(
                    format!("an unexpected message: {other:?}")
                        .chars()
                        .take(200)
                        .collect(),
                );
            }
        }
        Ok(())
    }

    /// A worker may only write where the command may.
    fn announce(&self, path: &AbsPath, spec: &JobSpec) -> Result<(), Undelivered> {
        if self
            .files
            .last()
            .is_some_and(|file| file.missing_bytes() > 0)
        {
            return Err(Undelivered::Misbehaves(
                "a file begins before the last one ended".to_owned(),
            ));
        }
        if self.files.len() + self.made.len() >= WRITTEN_MAX {
            return Err(Undelivered::Misbehaves(format!(
                "more than {WRITTEN_MAX} files"
            )));
        }
        let below = |directory: &AbsPath| path != directory && path.is_within(directory);
        if !spec.writable.iter().any(below) {
            return Err(Undelivered::Misbehaves(format!(
                "it wrote {path}, where the command may not write"
            )));
        }
        Ok(())
    }

    fn finish(self, status: u8, usage: Usage) -> Result<Delivered, Undelivered> {
        if self.files.iter().any(|file| file.missing_bytes() > 0) {
            return Err(Undelivered::Misbehaves(
                "a file is shorter than announced".to_owned(),
            ));
        }
        let Self {
            printed,
            files,
            made,
            removed,
            file_bytes,
            ..
        } = self;
        Ok(Delivered {
            status,
            usage,
            printed,
            files,
            made,
            removed,
            file_bytes,
            began: Instant::now(),
            started: None,
        })
    }
}

fn damaged(error: CompressError) -> Undelivered {
    Undelivered::Misbehaves(error.to_string())
}

async fn send(warm: &mut Warm, message: &ToWorker) -> Result<(), Undelivered> {
    patiently(warm.sender.send(message)).await
}

async fn receive(warm: &mut Warm) -> Result<FromWorker, Undelivered> {
    let message = patiently(warm.receiver.receive()).await?;
    message.ok_or_else(|| Undelivered::Dead("the worker closed the connection".to_owned()))
}

/// Waits for the worker as long as a living one may be silent.
async fn patiently<T>(
    step: impl Future<Output = Result<T, ConnectionError>>,
) -> Result<T, Undelivered> {
    let silence = Duration::from_millis(SILENCE_MS);
    async { Ok(step.await?) }
        .or(async {
            executor::late(silence).await;
            Err(Undelivered::Dead(format!(
                "the worker was silent for {silence:?}"
            )))
        })
        .await
}

/// Sends what the worker asked for, as far as it is there.
async fn send_blobs(
    warm: &mut Warm,
    prepared: &Prepared<'_>,
    digests: Vec<Digest>,
    sent: &mut Meter,
) -> Result<(), Undelivered> {
    let mut since = Instant::now();
    for batch in digests.chunks(BATCH_MAX) {
        let mut wanted = Vec::with_capacity(batch.len());
        for digest in batch {
            let Some(content) = prepared.contents.content(digest) else {
                return Err(Undelivered::Misbehaves(format!(
                    "it asks for {digest}, which is not part of the job"
                )));
            };
            wanted.push((*digest, content));
        }
        for (digest, parcel) in prepared.parcels.pack(wanted).await {
            let size = match parcel {
                Parcel::Packed(packed) => {
                    send_packed(warm, digest, &packed).await?;
                    packed.size
                }
                Parcel::Large(file, size) => {
                    send_file(warm, digest, file, size).await?;
                    size
                }
                Parcel::Gone => {
                    send(warm, &ToWorker::Gone(digest)).await?;
                    return Err(Undelivered::Changed(digest));
                }
            };
            let now = Instant::now();
            sent.add(size, now - since);
            since = now;
        }
    }
    flush(warm).await
}

/// Queues a blob. Small ones leave together.
async fn send_packed(warm: &mut Warm, digest: Digest, packed: &Packed) -> Result<(), Undelivered> {
    let size = packed.size;
    warm.sender.queue(&ToWorker::Blob { digest, size })?;
    for chunk in &packed.chunks {
        warm.sender.queue(&ToWorker::Chunk(chunk.clone()))?;
        if warm.sender.queued_bytes() >= CHUNK_BYTES_MAX {
            flush(warm).await?;
        }
    }
    Ok(())
}

/// Sends what is queued, unless the worker has said meanwhile that it does not want it.
async fn flush(warm: &mut Warm) -> Result<(), Undelivered> {
    let sent = patiently(warm.sender.flush()).await;
    // A worker that gives up says so and hangs up, which may be noticed here first.
    while let Some(heard) = smol::future::poll_once(warm.receiver.receive()).await {
        match heard {
            Ok(Some(FromWorker::Alive)) => {}
            Ok(Some(FromWorker::Failed { failure, detail })) => {
                return Err(Undelivered::Refused { failure, detail });
            }
            Ok(Some(_)) => {
                return Err(Undelivered::Misbehaves(
                    "it speaks out of turn while it is sent what it asked for".to_owned(),
                ));
            }
            Ok(None) | Err(_) => break,
        }
    }
    sent
}

/// Streams a large file. The worker verifies its digest before it uses a byte of it.
async fn send_file(
    warm: &mut Warm,
    digest: Digest,
    file: File,
    size: u64,
) -> Result<(), Undelivered> {
    warm.sender.queue(&ToWorker::Blob { digest, size })?;
    let mut file = Some(file);
    let mut left = size;
    while left > 0 {
        let mut reader = file.take().expect("the file comes back from each read");
        let want = left.min(CHUNK_BYTES_MAX as u64);
        let read = move || {
            let mut piece = Vec::with_capacity(want as usize);
            let result = Read::by_ref(&mut reader).take(want).read_to_end(&mut piece);
            (reader, result.map(|_| compress::pack(&piece)))
        };
        let (reader, chunk) = threads::unblock(read).await;
        file = Some(reader);
        match chunk {
            Ok(chunk) if chunk.size > 0 => {
                left -= u64::from(chunk.size);
                warm.sender.queue(&ToWorker::Chunk(chunk))?;
                flush(warm).await?;
            }
            _ => {
                send(warm, &ToWorker::Gone(digest)).await?;
                return Err(Undelivered::Changed(digest));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{JobId, LeaseId, Term};
    use crate::message::Standing;

    /// A job that may write to `/w`, where `/w/old` stands.
    fn spec() -> JobSpec {
        let path = |text: &str| AbsPath::parse(text).unwrap();
        JobSpec {
            job: JobId(1),
            lease: LeaseId(1),
            term: Term(1),
            tenant: [0; 16],
            toolchain: Digest([0; 32]),
            program: path("/usr/bin/cc"),
            argv: Vec::new(),
            cwd: path("/w"),
            env: Vec::new(),
            umask: 0,
            terminal: None,
            writable: vec![path("/w")],
            standing: vec![Standing {
                path: path("/w/old"),
                mode: 0o644,
                is_empty: false,
            }],
            fresh: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// The sentence with which the worker is left that says these things over and over, which it must be before
    /// it has said `most` of them.
    fn left_for(most: usize, say: impl Fn(usize) -> FromWorker) -> String {
        let (spec, mut delivery) = (spec(), Delivery::default());
        for number in 0..most {
            match executor::block_on(delivery.take(say(number), &spec)) {
                Ok(()) => {}
                Err(Undelivered::Misbehaves(why)) => return why,
                Err(other) => panic!("{other}"),
            }
        }
        panic!("{most} of them are taken");
    }

    #[test]
    fn what_a_worker_can_make_this_machine_hold_has_a_bound() {
        let path = |name: String| AbsPath::parse(&name[..]).unwrap();
        let printed = |stream, bytes: usize| FromWorker::Output {
            stream,
            chunk: compress::pack(&vec![b'x'; bytes]),
        };
        let removed = || FromWorker::Removed(path("/w/old".to_owned()));
        let made = |number| FromWorker::Made {
            path: path(format!("/w/{number}")),
            target: None,
        };
        let chunks = OUTPUT_BYTES_MAX / CHUNK_BYTES_MAX + 1;
        let why = left_for(chunks, |_| printed(1, CHUNK_BYTES_MAX));
        assert!(why.contains("printed more"), "{why}");
        // Words of no length on one stream after the other.
        let why = left_for(OUTPUT_BYTES_MAX / 16, |number| {
            printed(1 + number as u8 % 2, 0)
        });
        assert!(why.contains("printed more"), "{why}");
        let why = left_for(2, |_| removed());
        assert!(why.contains("twice"), "{why}");
        let why = left_for(WRITTEN_MAX + 1, made);
        assert!(why.contains("files"), "{why}");
        let far = |number| FromWorker::Made {
            path: path(format!("/w/{number}")),
            target: Some(Bytes(vec![b'x'; PATH_BYTES_MAX + 1])),
        };
        let why = left_for(1, far);
        assert!(why.contains("too long"), "{why}");
    }

    #[test]
    fn a_worker_writes_and_removes_only_where_the_command_may() {
        let path = |name: &str| AbsPath::parse(name).unwrap();
        let file = |name| FromWorker::File {
            path: path(name),
            mode: 0o644,
            size: 1,
        };
        for message in [
            file("/elsewhere/a.o"),
            file("/w"),
            FromWorker::Removed(path("/w/new")),
            FromWorker::Made {
                path: path("/wide"),
                target: None,
            },
            FromWorker::Chunk(compress::pack(b"of no file")),
            FromWorker::Started,
        ] {
            left_for(1, |_| message.clone());
        }
    }
}
