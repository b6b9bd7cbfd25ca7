//! The worker's end of a connection during one job: says `Alive` while it works, fetches blobs,
//! and notices that the submitter no longer wants the result.
//!
//! A task of its own writes, so that a heartbeat goes out whatever the job is busy with; the job
//! hands it messages through a short channel, whose length is what a slow submitter can make this
//! worker hold.

use std::time::Duration;

use smol::channel;
use smol::future::FutureExt;

use crate::compress;
use crate::connection::{ConnectionError, Receiver, Sender};
use crate::executor;
use crate::id::Digest;
use crate::message::{ALIVE_EVERY_MS, Failure, FromWorker, ToWorker};

/// How long a submitter may take for the next piece of what it was asked for.
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a submitter may let a message to it wait.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages between the job and the writing task: with chunks in them, some MB.
const QUEUE_LENGTH: usize = 16;

/// Why a job ends without a result.
#[derive(Debug, thiserror::Error)]
#[error("{detail} ({failure:?})")]
pub struct Failed {
    /// What the submitter is told.
    pub failure: Failure,
    /// The sentence that goes with it.
    pub detail: String,
}

impl Failed {
    /// A failure with its sentence.
    pub fn new(failure: Failure, detail: impl Into<String>) -> Self {
        Self {
            failure,
            detail: detail.into(),
        }
    }
}

/// What a job speaks through.
pub struct Conversation<'a> {
    outgoing: channel::Sender<FromWorker>,
    incoming: &'a mut Receiver,
}

/// Runs `job` with a conversation over the two halves. Ends when the job has ended and everything
/// that it said is sent; then says what the job came to.
pub async fn hold<T>(
    sender: &mut Sender,
    receiver: &mut Receiver,
    job: impl AsyncFnOnce(&mut Conversation<'_>) -> T,
) -> Result<T, ConnectionError> {
    let (outgoing, queue) = channel::bounded(QUEUE_LENGTH);
    let work = async {
        let mut conversation = Conversation {
            outgoing,
            incoming: receiver,
        };
        Ok::<T, ConnectionError>(job(&mut conversation).await)
    };
    let write = async {
        loop {
            let next = async { queue.recv().await.map_err(|_| ()) }
                .or(async {
                    executor::late(Duration::from_millis(ALIVE_EVERY_MS)).await;
                    Ok(FromWorker::Alive)
                })
                .await;
            let Ok(message) = next else { return Ok(()) };
            let send = async { sender.send(&message).await };
            let late = async {
                executor::late(WRITE_TIMEOUT).await;
                Err(ConnectionError::Timeout(WRITE_TIMEOUT))
            };
            send.or(late).await?;
        }
    };
    // When writing fails, nobody wants the job any more and it is dropped where it stands.
    let (result, ()) = smol::future::try_zip(work, write).await?;
    Ok(result)
}

impl Conversation<'_> {
    /// A sender of its own, for what goes out while the conversation waits for something else.
    pub fn outgoing(&self) -> channel::Sender<FromWorker> {
        self.outgoing.clone()
    }

    /// Says something.
    pub async fn say(&self, message: FromWorker) {
        // The writer ends before the job only with an error, and then this job is dropped.
        let _ = self.outgoing.send(message).await;
    }

    /// Waits for `work`, unless the submitter cancels or goes first.
    pub async fn unless_cancelled<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, Failed> {
        let incoming = &mut *self.incoming;
        async { Ok(work.await) }
            .or(async {
                Err(match incoming.receive::<ToWorker>().await {
                    Ok(Some(ToWorker::Cancel)) => {
                        Failed::new(Failure::Cancelled, "the submitter cancelled the job")
                    }
                    Ok(Some(_)) => Failed::new(Failure::Invalid, "a message out of turn"),
                    Ok(None) => Failed::new(Failure::Cancelled, "the submitter is gone"),
                    Err(error) => Failed::new(
                        Failure::Cancelled,
                        format!("the submitter is gone: {error}"),
                    ),
                })
            })
            .await
    }

    /// The next message of a submitter that has been asked for something.
    pub async fn hear(&mut self) -> Result<ToWorker, Failed> {
        let incoming = &mut *self.incoming;
        let message = async { Some(incoming.receive::<ToWorker>().await) }
            .or(async {
                executor::late(PIECE_TIMEOUT).await;
                None
            })
            .await;
        match message {
            None => Err(Failed::new(
                Failure::Cancelled,
                format!("nothing came within {PIECE_TIMEOUT:?}"),
            )),
            Some(Ok(Some(ToWorker::Cancel))) => Err(Failed::new(
                Failure::Cancelled,
                "the submitter cancelled the job",
            )),
            Some(Ok(Some(ToWorker::Gone(digest)))) => Err(Failed::new(
                Failure::Cancelled,
                format!("{} is gone at the submitter", digest.short()),
            )),
            Some(Ok(Some(message))) => Ok(message),
            Some(Ok(None)) => Err(Failed::new(Failure::Cancelled, "the submitter is gone")),
            Some(Err(error)) => Err(Failed::new(
                Failure::Cancelled,
                format!("the submitter is gone: {error}"),
            )),
        }
    }

    /// Hears that the blob `digest` of `size` bytes begins.
    pub async fn hear_blob(&mut self, digest: Digest, size: u64) -> Result<(), Failed> {
        match self.hear().await? {
            ToWorker::Blob {
                digest: theirs,
                size: their_size,
            } if theirs == digest && their_size == size => Ok(()),
            ToWorker::Blob {
                size: their_size, ..
            } => Err(Failed::new(
                Failure::Cancelled,
                format!(
                    "blob {} is announced with {their_size} bytes instead of {size}",
                    digest.short()
                ),
            )),
            _ => Err(Failed::new(
                Failure::Invalid,
                format!("blob {} was asked for, something else came", digest.short()),
            )),
        }
    }

    /// Hears the next piece of a blob of which `left` bytes are missing.
    pub async fn hear_piece(&mut self, left: u64) -> Result<Vec<u8>, Failed> {
        let ToWorker::Chunk(chunk) = self.hear().await? else {
            return Err(Failed::new(Failure::Invalid, "a blob was cut short"));
        };
        let piece = compress::unpack(chunk)
            .map_err(|error| Failed::new(Failure::Invalid, error.to_string()))?;
        if piece.is_empty() || piece.len() as u64 > left {
            return Err(Failed::new(Failure::Invalid, "a chunk of the wrong size"));
        }
        Ok(piece)
    }
}
