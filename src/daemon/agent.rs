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

use smol::Async;
use smol::channel::{Receiver, Sender};
use smol::io::{AsyncReadExt, AsyncWriteExt};

use super::process::{self, Start};
use crate::config::Declined;
use crate::executor;
use crate::frame::{self, Decoder};
use crate::message::{FromNode, MESSAGE_BYTES_MAX, ToNode};
use crate::submitter::job::Submitter;
use crate::submitter::placement::Placement;
use crate::sys;

/// Runs until the broker is gone.
pub fn run(declined: Declined) -> Result<(), Box<dyn Error + Send + Sync>> {
    // The cluster key is in this process, and the user it runs as need not know it.
    nix::sys::prctl::set_dumpable(false)?;
    process::prepare();
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
        while let Some(client) = next_descriptor(&broker).await? {
            let submitter = submitter.clone();
            let client = Async::new(UnixStream::from(client))?;
            executor::spawn(async move { submitter.serve(client).await }).detach();
        }
        Ok(())
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

/// The next descriptor that the broker passes; none when it is gone.
pub async fn next_descriptor(broker: &Async<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    loop {
        let mut bytes = [0; 64];
        let (count, mut descriptors) = broker
            .read_with(|socket| Ok(sys::receive_with_fds(socket.as_fd(), &mut bytes)?))
            .await?;
        if count == 0 {
            return Ok(None);
        }
        if let Some(descriptor) = descriptors.pop() {
            return Ok(Some(descriptor));
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
