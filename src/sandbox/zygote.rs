//! The daemon's side of the sandbox: starts a zygote, hands it jobs, learns how they ended.
//!
//! Knows no system call of the sandbox itself (those are `enter`'s) and nothing of what a job
//! compiles. Each job has a stream of its own: it carries the launch one way and the reports the
//! other, and closing it is what kills the job. So nothing is multiplexed, and a future that is
//! dropped halfway harms its own job only.

use std::future::Future;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use smol::future::FutureExt;
use smol::io::AsyncWriteExt;

use super::memory::occupied_bytes;
use super::spec::{
    Consumed, Ended, Fault, LAUNCH_BYTES_MAX, Launch, Limits, REPORT_BYTES_MAX, Refusal, Report,
    SPEC_BYTES_MAX, ZygoteSpec,
};
use crate::frame::{self, Decoder, FrameError};
use crate::reactor::{Async, Timer};
use crate::sys::receive_with_fds;

/// The argument with which this program is a zygote; see [`super::zygote_main`].
pub const ZYGOTE_ARGUMENT: &str = "sandbox-zygote";

/// This program, even when its file was replaced by a newer one.
pub const OURSELVES: &str = "/proc/self/exe";

/// How often a job's memory is looked at; the first time sooner.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const FIRST_LOOK: Duration = Duration::from_millis(50);

/// Why there is no sandbox, or why a job did not run in it.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The zygote's process could not be started or spoken to.
    #[error("start the sandbox: {0}")]
    Io(#[from] io::Error),
    /// This machine does not let the sandbox be built.
    #[error("build the sandbox: {tried}: {errno}")]
    Refused {
        /// What was tried.
        tried: String,
        /// What came of it.
        errno: Errno,
    },
    /// The job's description does not fit its tree.
    #[error("invalid job: {tried}: {errno}")]
    Invalid {
        /// What was tried.
        tried: String,
        /// What came of it.
        errno: Errno,
    },
    /// The program can't be executed: it or its interpreter is missing, or it is for another
    /// machine.
    #[error("execute the job's program: {0}")]
    Program(Errno),
    /// The job's description is longer than the limit.
    #[error("describe a job to the sandbox: {0}")]
    Frame(#[from] FrameError),
    /// The zygote ended, and its jobs with it.
    #[error("the sandbox's process ended")]
    Died,
}

impl From<Refusal> for SandboxError {
    fn from(refusal: Refusal) -> Self {
        let errno = Errno::from_raw(refusal.errno);
        let tried = refusal.tried;
        match refusal.fault {
            Fault::Sandbox => Self::Refused { tried, errno },
            Fault::Job => Self::Invalid { tried, errno },
            Fault::Program => Self::Program(errno),
        }
    }
}

/// A process that holds one toolchain and its trees and clones jobs. When it is dropped, it and
/// all its jobs are killed, and the trees are gone.
#[derive(Debug)]
pub struct Zygote {
    control: Async<UnixStream>,
    trees: OwnedFd,
    /// Its process, when it is a child of this one.
    process: Option<Child>,
}

/// How a zygote's process comes into being.
#[derive(Clone)]
pub enum Starter {
    /// As a child of this process, from this program, which calls [`super::zygote_main`] for
    /// [`ZYGOTE_ARGUMENT`].
    Here(PathBuf),
    /// By somebody with more rights, who is handed the zygote's end of its socket as its standard
    /// input.
    Elsewhere(Handover),
}

/// Hands a zygote's end of its socket to whoever starts it.
pub type Handover = Arc<dyn Fn(OwnedFd) -> io::Result<()> + Send + Sync>;

impl Starter {
    fn start(&self, theirs: OwnedFd) -> io::Result<Option<Child>> {
        match self {
            Self::Here(program) => Command::new(program)
                .arg(ZYGOTE_ARGUMENT)
                .env_clear()
                .current_dir("/")
                .stdin(theirs)
                .stdout(Stdio::null())
                .spawn()
                .map(Some),
            Self::Elsewhere(hand_over) => hand_over(theirs).map(|()| None),
        }
    }
}

impl Zygote {
    /// Starts a zygote, a fresh process.
    pub async fn start(starter: &Starter, spec: &ZygoteSpec) -> Result<Self, SandboxError> {
        let (control, theirs) = UnixStream::pair()?;
        let process = starter.start(OwnedFd::from(theirs))?;
        // From here on dropping kills it. The descriptor stands in for the trees' until they come.
        let mut zygote = Self {
            trees: control.as_fd().try_clone_to_owned()?,
            control: Async::new(control)?,
            process,
        };
        let (mut stream, theirs) = stream_pair()?;
        zygote.send(&[theirs.as_fd()]).await?;
        drop(theirs);

        let mut bytes = Vec::new();
        frame::encode(spec, SPEC_BYTES_MAX, &mut bytes)?;
        stream
            .write_all(&bytes)
            .await
            .map_err(|_| SandboxError::Died)?;
        let mut decoder = Decoder::new(REPORT_BYTES_MAX);
        let mut piece = [0; 1024];
        loop {
            let (length, mut fds) = stream
                .read_with(|stream| Ok(receive_with_fds(stream.as_fd(), &mut piece)?))
                .await?;
            decoder.push(&piece[..length]);
            match decoder.take()? {
                Some(Report::Ready) => {
                    zygote.trees = fds.pop().ok_or(SandboxError::Died)?;
                    return Ok(zygote);
                }
                Some(Report::Refused(refusal)) => return Err(refusal.into()),
                Some(_) => return Err(SandboxError::Died),
                None if length == 0 => return Err(SandboxError::Died),
                None => {}
            }
        }
    }

    /// The directory of the trees. A job's tree is `tree<number>` in it; who has this descriptor
    /// can create, link and remove there from outside of all namespaces.
    pub fn tree_root(&self) -> BorrowedFd<'_> {
        self.trees.as_fd()
    }

    /// Whether its process still runs, as far as its end of the socket tells.
    pub fn is_alive(&self) -> bool {
        let mut watched = [PollFd::new(self.control.as_fd(), PollFlags::POLLIN)];
        // It never sends anything here, so there is nothing to read but the end.
        matches!(poll(&mut watched, PollTimeout::ZERO), Ok(0))
    }

    /// Starts a job; several may run at once, each in its own tree. It returns when the program is
    /// executed. Standard input is empty.
    pub async fn launch(
        &self,
        launch: &Launch,
        stdout: OwnedFd,
        stderr: OwnedFd,
    ) -> Result<Running, SandboxError> {
        let mut bytes = Vec::new();
        frame::encode(launch, LAUNCH_BYTES_MAX, &mut bytes)?;
        let (mut stream, theirs) = stream_pair()?;
        self.send(&[theirs.as_fd(), stdout.as_fd(), stderr.as_fd()])
            .await?;
        drop((theirs, stdout, stderr));
        // An init that fails early answers before it has read everything; its answer counts.
        let _ = stream.write_all(&bytes).await;

        let mut running = Running {
            stream,
            decoder: Decoder::new(REPORT_BYTES_MAX),
            init: None,
            limits: launch.limits,
            verdict: None,
            ended: None,
        };
        loop {
            match running.report().await? {
                Report::Cloned(pid) => running.init = Some(pid),
                Report::Started => return Ok(running),
                Report::Refused(refusal) => return Err(refusal.into()),
                Report::Ready | Report::Ended(..) | Report::Gone(_) => {
                    return Err(SandboxError::Died);
                }
            }
        }
    }

    /// One byte, so that the message is whole or not sent at all.
    async fn send(&self, fds: &[BorrowedFd<'_>]) -> Result<(), SandboxError> {
        let fds: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        self.control
            .write_with(|control| {
                Ok(sendmsg::<()>(
                    control.as_raw_fd(),
                    &[IoSlice::new(b"j")],
                    &[ControlMessage::ScmRights(&fds)],
                    MsgFlags::MSG_NOSIGNAL,
                    None,
                )?)
            })
            .await
            .map(drop)
            .map_err(|error| match error.raw_os_error() {
                Some(libc_error) if Errno::from_raw(libc_error) == Errno::EPIPE => {
                    SandboxError::Died
                }
                _ => error.into(),
            })
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // Its jobs die with it. It sleeps or runs our own code, so this does not last. Where it is
        // no child of ours, it ends with its socket.
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A job that runs. When it is dropped, the whole job is killed.
#[derive(Debug)]
pub struct Running {
    stream: Async<UnixStream>,
    decoder: Decoder,
    /// The job's init as a process of this machine.
    init: Option<i32>,
    limits: Limits,
    /// Why we stopped it.
    verdict: Option<Ended>,
    /// What the init said of its program.
    ended: Option<(Ended, Consumed)>,
}

impl Running {
    /// Waits until nothing of the job is left. The future may be dropped and made again.
    pub async fn wait(&mut self) -> Result<(Ended, Consumed), SandboxError> {
        let mut look = FIRST_LOOK;
        loop {
            let report = or_after(look, self.report()).await;
            match report.transpose()? {
                Some(Report::Cloned(pid)) => self.init = Some(pid),
                Some(Report::Ended(ended, consumed)) => self.ended = Some((ended, consumed)),
                Some(Report::Gone(cpu_us)) => return Ok(self.result(cpu_us)),
                Some(Report::Ready | Report::Started | Report::Refused(_)) => {
                    return Err(SandboxError::Died);
                }
                None => {
                    look = LOOK_EVERY;
                    self.look();
                }
            }
        }
    }

    /// Kills all of the job. [`Self::wait`] then says [`Ended::Killed`], unless it had ended.
    pub fn kill(&mut self) {
        self.stop(Ended::Killed);
    }

    fn stop(&mut self, verdict: Ended) {
        self.verdict.get_or_insert(verdict);
        let _ = self.stream.get_ref().shutdown(std::net::Shutdown::Write);
    }

    fn look(&mut self) {
        if let Some(init) = self.init
            && self.ended.is_none()
            && occupied_bytes(init, self.limits.processes)
                .is_none_or(|bytes| bytes > self.limits.memory_bytes)
        {
            self.stop(Ended::OutOfMemory);
        }
    }

    fn result(&self, whole_us: u64) -> (Ended, Consumed) {
        // An init that said nothing was killed: by us, or by the kernel when memory ran out.
        let (ended, mut consumed) = self
            .ended
            .or(self.verdict.map(|verdict| (verdict, Consumed::default())))
            .unwrap_or((Ended::OutOfMemory, Consumed::default()));
        if self.ended.is_some() {
            consumed.sandbox_us = whole_us.saturating_sub(consumed.cpu_us);
        } else {
            consumed.cpu_us = whole_us;
        }
        (ended, consumed)
    }

    async fn report(&mut self) -> Result<Report, SandboxError> {
        let mut piece = [0; 1024];
        loop {
            if let Some(report) = self.decoder.take()? {
                return Ok(report);
            }
            let length = self
                .stream
                .read_with(|mut stream| io::Read::read(&mut stream, &mut piece))
                .await
                .map_err(|_| SandboxError::Died)?;
            if length == 0 {
                return Err(SandboxError::Died);
            }
            self.decoder.push(&piece[..length]);
        }
    }
}

/// The future's value, or nothing after a while.
async fn or_after<T>(duration: Duration, future: impl Future<Output = T>) -> Option<T> {
    async { Some(future.await) }
        .or(async {
            Timer::after(duration).await;
            None
        })
        .await
}

/// A stream whose other end may be read without an executor.
fn stream_pair() -> io::Result<(Async<UnixStream>, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    Ok((Async::new(ours)?, theirs))
}
