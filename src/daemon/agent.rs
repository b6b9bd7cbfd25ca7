//! A user's own submitter beside a system daemon.
//!
//! It has the user's rights and no others, so that nobody reads a file through the daemon that he
//! could not read himself. Its clients come as sockets from the broker; its slots and leases come
//! from the node, over a socket that the broker made.

use std::error::Error;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use smol::channel::{Receiver, Sender};
use smol::future::FutureExt;
use smol::io::{AsyncReadExt, AsyncWriteExt};

use super::process::{self, Start};
use crate::config::Declined;
use crate::executor;
use crate::frame::{self, Decoder};
use crate::message::{FromNode, MESSAGE_BYTES_MAX, ToNode};
use crate::reactor::Async;
use crate::submitter::job::Submitter;
use crate::submitter::placement::Placement;
use crate::sys;

/// Runs until the broker is gone.
pub fn run(declined: Declined) -> Result<(), Box<dyn Error + Send + Sync>> {
    // The cluster key is in this process, and the user it runs as need not know it.
    nix::sys::prctl::set_dumpable(false)?;
    process::prepare();
    // It ends with the broker; a terminal or a service manager tells all processes at once to stop.
    let _hangups = crate::signal::hangups()?;
    let _stops = crate::signal::stops()?;
    let broker = Async::new(io::stdin().as_fd().try_clone_to_owned()?)?;
    executor::block_on(async {
        let Start {
            credentials,
            mut descriptors,
        } = process::hear_start(&broker).await?;
        let node = descriptors
            .pop()
            .ok_or("the broker sent no line to the node")?;
        let node = Async::new(UnixStream::from(node))?;
        let (to_node, outgoing) = smol::channel::unbounded();
        let (incoming, from_node) = smol::channel::unbounded();
        executor::spawn(async move {
            let result = smol::future::try_zip(speak(&node, outgoing), hear(&node, incoming)).await;
            log::warn!("the node is gone: {:?}", result.err());
        })
        .detach();
        let placement = Placement::new(to_node);
        let spool = Spool::make()?;
        let submitter = Submitter::new(
            placement.clone(),
            credentials,
            process::processors(),
            declined,
            process::platform(),
            spool.0.clone(),
        )?;
        executor::spawn(async move { placement.listen(from_node).await }).detach();
        // Each client holds one end as long as it is served.
        let (served, all_served) = smol::channel::bounded::<()>(1);
        loop {
            match hear_broker(&broker).await? {
                Word::Descriptor(client) => {
                    let (submitter, served) = (submitter.clone(), served.clone());
                    let client = Async::new(UnixStream::from(client))?;
                    executor::spawn(async move {
                        submitter.serve(client).await;
                        drop(served);
                    })
                    .detach();
                }
                Word::Reload => {}
                Word::Drain => {
                    drop(served);
                    let gone = async {
                        while !matches!(hear_broker(&broker).await, Ok(Word::Gone) | Err(_)) {}
                    };
                    let done = async {
                        let _ = all_served.recv().await;
                    };
                    done.or(gone).await;
                    return Ok(());
                }
                Word::Gone => return Ok(()),
            }
        }
    })
}

/// Where archives are unpacked: a directory that only this user can reach, gone with the agent.
struct Spool(PathBuf);

impl Spool {
    fn make() -> io::Result<Self> {
        let name = std::env::temp_dir().join("ice-agent-XXXXXX");
        Ok(Self(nix::unistd::mkdtemp(&name)?))
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            log::warn!("remove {}: {error}", self.0.display());
        }
    }
}

/// What the broker says.
#[derive(Debug)]
pub enum Word {
    /// A socket: a client for an agent, an agent's line for the node.
    Descriptor(OwnedFd),
    /// Read the configuration anew.
    Reload,
    /// Take nothing new, and end when what runs has ended.
    Drain,
    /// Nothing any more: it is gone.
    Gone,
}

/// The broker's [`Word::Reload`] as bytes.
pub const RELOAD: &[u8] = b"H";

/// The broker's [`Word::Drain`] as bytes.
pub const DRAIN: &[u8] = b"D";

/// The next word of the broker.
pub async fn hear_broker(broker: &Async<OwnedFd>) -> io::Result<Word> {
    loop {
        let mut bytes = [0; 64];
        let (count, mut descriptors) = broker
            .read_with(|socket| Ok(sys::receive_with_fds(socket.as_fd(), &mut bytes)?))
            .await?;
        match (&bytes[..count], descriptors.pop()) {
            (_, Some(descriptor)) => return Ok(Word::Descriptor(descriptor)),
            ([], None) => return Ok(Word::Gone),
            (RELOAD, None) => return Ok(Word::Reload),
            (DRAIN, None) => return Ok(Word::Drain),
            _ => {}
        }
    }
}

/// Sends what comes through the channel, until it is closed.
pub async fn speak<T: serde::Serialize>(
    mut socket: &Async<UnixStream>,
    messages: Receiver<T>,
) -> io::Result<()> {
    while let Ok(message) = messages.recv().await {
        let mut bytes = Vec::new();
        frame::encode(&message, MESSAGE_BYTES_MAX, &mut bytes).map_err(io::Error::other)?;
        socket.write_all(&bytes).await?;
    }
    Ok(())
}

/// Hands what comes over the socket to the channel, until either is closed.
pub async fn hear<T: serde::de::DeserializeOwned>(
    mut socket: &Async<UnixStream>,
    messages: Sender<T>,
) -> io::Result<()> {
    let mut decoder = Decoder::new(MESSAGE_BYTES_MAX);
    let mut buffer = vec![0; 16 << 10];
    loop {
        while let Some(message) = decoder.take().map_err(io::Error::other)? {
            if messages.send(message).await.is_err() {
                return Ok(());
            }
        }
        let count = socket.read(&mut buffer).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        decoder.push(&buffer[..count]);
    }
}

/// Both directions of an agent's line, on the node's side.
pub async fn attend(
    socket: Async<UnixStream>,
    to_node: Sender<ToNode>,
    from_node: Receiver<FromNode>,
) {
    // The agent's end closes both: dropping `to_node` returns everything it held.
    let both = smol::future::try_zip(speak(&socket, from_node), hear(&socket, to_node)).await;
    log::info!(
        "an agent is gone: {:?}",
        both.err().map(|error| error.to_string())
    );
}
