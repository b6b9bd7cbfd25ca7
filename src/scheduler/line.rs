//! The two tasks of a peer's connection: one reads, one writes from its outbox.
//!
//! They wait for the peer so that the dispatcher never does. Neither knows what the messages mean; the end of a
//! connection is told like a message.

use std::time::Duration;

use smol::channel;
use smol::future::FutureExt;

use crate::connection::{Receiver, Sender};
use crate::message::FromScheduler;
use crate::reactor::Timer;
use crate::scheduler::door::Input;
use crate::scheduler::state::PeerId;

/// Bytes that are sent at once, about.
const BATCH_BYTES: usize = 64 << 10;

/// Hands on what a peer says, until it ends, or is silent for longer than `patience`.
pub(super) async fn read(
    id: PeerId,
    mut receiver: Receiver,
    patience: Option<Duration>,
    inputs: channel::Sender<Input>,
) {
    let why = loop {
        let silence = async {
            match patience {
                Some(patience) => Timer::after(patience).await,
                None => smol::future::pending().await,
            };
            Ok(None)
        };
        match receiver.receive().or(silence).await {
            Ok(Some(message)) => {
                if inputs.send(Input::Heard(id, message)).await.is_err() {
                    return;
                }
            }
            Ok(None) => break "the connection ended".to_owned(),
            Err(error) => break error.to_string(),
        }
    };
    inputs.send(Input::Ended(id, why)).await.ok();
}

/// Sends a peer what is in its outbox, as much at a time as there is, until the outbox is closed.
pub(super) async fn write(
    id: PeerId,
    mut sender: Sender,
    outgoing: channel::Receiver<FromScheduler>,
    inputs: channel::Sender<Input>,
) {
    while let Ok(message) = outgoing.recv().await {
        let mut prepared = sender.queue(&message);
        while prepared.is_ok()
            && sender.queued_bytes() < BATCH_BYTES
            && let Ok(message) = outgoing.try_recv()
        {
            prepared = sender.queue(&message);
        }
        let sent = match prepared {
            Ok(()) => sender.flush().await,
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            inputs.send(Input::Ended(id, error.to_string())).await.ok();
            return;
        }
        sender.rest();
    }
}
