//! The client's side of its one conversation: a call, an acknowledgement, an answer.
//!
//! Every step before the acknowledgement has the same deadline, and none of them blocks: a daemon
//! that hangs must cost a build a second per call at most, and never the build.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket,
};

use super::variables::Variables;
use crate::frame::{Decoder, FrameError, encode};
use crate::message::{Answer, CALL_BYTES_MAX, Call};

/// The slot's descriptor goes out of the way of the small numbers that a program may take for a
/// jobserver's.
const SLOT_DESCRIPTOR_MIN: i32 = 200;

/// How long to wait before trying a socket again whose queue is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SubmitterError {
    /// Nobody listens at any of the places.
    #[error("no daemon listens at {0}")]
    Nobody(String),
    /// The daemon did not do its part in time.
    #[error("the daemon did not answer in time")]
    Silent,
    /// The daemon closed the connection.
    #[error("the daemon closed the connection")]
    Lost,
    /// The daemon's answer is not one.
    #[error("the daemon's answer makes no sense: {0}")]
    Garbage(String),
    /// The operating system refused.
    #[error("can't talk to the daemon: {0}")]
    Io(#[from] io::Error),
}

impl From<Errno> for SubmitterError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EPIPE | Errno::ECONNRESET => Self::Lost,
            errno => Self::Io(errno.into()),
        }
    }
}

impl From<FrameError> for SubmitterError {
    fn from(error: FrameError) -> Self {
        Self::Garbage(error.to_string())
    }
}

/// A submitter that has been called.
#[derive(Debug)]
pub struct Submitter {
    socket: OwnedFd,
    decoder: Decoder,
}

/// Where a submitter may listen, best first.
pub fn places(variables: &Variables) -> Vec<PathBuf> {
    let named = ["ICE_SOCKET", "ICECC_TEST_SOCKET"];
    if let Some(place) = named.into_iter().find_map(|name| variables.os(name)) {
        return vec![place.into()];
    }
    let mut places = vec![PathBuf::from("/run/ice/ice.sock")];
    if let Some(directory) = variables.os("XDG_RUNTIME_DIR") {
        places.push(Path::new(directory).join("ice/ice.sock"));
    }
    if let Some(home) = variables.os("HOME") {
        places.push(Path::new(home).join(".ice/ice.sock"));
    }
    places
}

/// Connects to the first of `places` where somebody listens.
pub fn reach(places: &[PathBuf], deadline: Instant) -> Result<Submitter, SubmitterError> {
    for place in places {
        match reach_one(place, deadline) {
            Ok(socket) => {
                return Ok(Submitter {
                    socket,
                    decoder: Decoder::new(CALL_BYTES_MAX),
                });
            }
            Err(Errno::ETIMEDOUT) => return Err(SubmitterError::Silent),
            // Not there, stale, or somebody else's.
            Err(_) => {}
        }
    }
    let names = places.iter().map(|place| place.display().to_string());
    Err(SubmitterError::Nobody(
        names.collect::<Vec<_>>().join(" or "),
    ))
}

impl Submitter {
    /// Sends the call.
    pub fn send(&self, call: &Call, deadline: Instant) -> Result<(), SubmitterError> {
        let mut bytes = Vec::with_capacity(16 << 10);
        encode(call, CALL_BYTES_MAX, &mut bytes)?;
        let mut sent = 0;
        while sent < bytes.len() {
            match send(
                self.socket.as_raw_fd(),
                &bytes[sent..],
                MsgFlags::MSG_NOSIGNAL,
            ) {
                Ok(count) => sent += count,
                Err(Errno::EAGAIN) => self.wait_for(PollFlags::POLLOUT, Some(deadline))?,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// The submitter's next answer; without a deadline it may take as long as a compile takes.
    pub fn answer(&mut self, deadline: Option<Instant>) -> Result<Answer, SubmitterError> {
        let mut piece = [0; 4096];
        loop {
            if let Some(answer) = self.decoder.take()? {
                return Ok(answer);
            }
            self.wait_for(PollFlags::POLLIN, deadline)?;
            match recv(self.socket.as_raw_fd(), &mut piece, MsgFlags::empty()) {
                Ok(0) => return Err(SubmitterError::Lost),
                Ok(count) => self.decoder.push(&piece[..count]),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Makes the connection survive `exec`: it is the slot, and the kernel returns it when the
    /// program that we become has ended.
    pub fn hand_over(self) {
        let moved = fcntl(&self.socket, FcntlArg::F_DUPFD(SLOT_DESCRIPTOR_MIN));
        if moved.is_err() {
            // A low limit of descriptors: then it stays where it is. A failure here only gives the
            // slot back too early.
            let _ = fcntl(&self.socket, FcntlArg::F_SETFD(FdFlag::empty()));
            std::mem::forget(self.socket);
        }
    }

    fn wait_for(&self, events: PollFlags, deadline: Option<Instant>) -> Result<(), SubmitterError> {
        loop {
            let timeout = match deadline {
                None => PollTimeout::NONE,
                Some(deadline) => match remaining(deadline) {
                    Some(rest) => rest,
                    None => return Err(SubmitterError::Silent),
                },
            };
            match poll(&mut [PollFd::new(self.socket.as_fd(), events)], timeout) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Connects without ever blocking: a listener whose queue is full is asked again until `deadline`.
fn reach_one(place: &Path, deadline: Instant) -> Result<OwnedFd, Errno> {
    let address = UnixAddr::new(place)?;
    let socket = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    loop {
        match connect(socket.as_raw_fd(), &address) {
            Ok(()) => return Ok(socket),
            Err(Errno::EAGAIN) => {
                if remaining(deadline).is_none() {
                    return Err(Errno::ETIMEDOUT);
                }
                std::thread::sleep(QUEUE_FULL_PAUSE);
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// The time until `deadline`, rounded up to a millisecond; none when it has passed.
fn remaining(deadline: Instant) -> Option<PollTimeout> {
    let rest = deadline.checked_duration_since(Instant::now())?;
    let rest_ms = rest.as_millis().saturating_add(1);
    Some(PollTimeout::try_from(rest_ms).unwrap_or(PollTimeout::MAX))
}
