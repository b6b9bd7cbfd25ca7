//! The sockets of the text port: lines in, answers out, for telnet and nc.
//!
//! It has no key, so it listens on loopback unless it is told otherwise. Whoever says nothing for a while is
//! dropped, and so is whoever sends a line that never ends; a few can speak at a time. Lines end with any
//! control character, as in icecream; the first line of a telnet that negotiates is no command.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::reactor::{Async, Timer};
use smol::channel::{self, Sender};
use smol::future::FutureExt;
use smol::io::{AsyncReadExt, AsyncWriteExt};

use crate::executor;
use crate::scheduler::control::{self, Command};

/// Who speaks at a time, at most. One more is told so.
const CLIENTS_MAX: usize = 64;
/// A line's length, at most, in bytes: more than any list of hosts has.
const LINE_BYTES_MAX: usize = 4096;
/// Who says nothing for so long is dropped; icecream has the same time.
const IDLE: Duration = Duration::from_secs(36);
/// Who does not read an answer for so long is dropped.
const READ_TIME: Duration = Duration::from_secs(10);

/// A question to the dispatcher.
#[derive(Debug)]
pub enum Request {
    /// The first line.
    Banner(Sender<String>),
    /// What is answered to a command.
    Answer(Command, Sender<String>),
}

/// Serves for ever on `listener`; what is asked goes into `requests`.
pub async fn serve(listener: Async<TcpListener>, requests: Sender<Request>) {
    // Holds as many as there are clients.
    let (seats, seated) = channel::bounded::<()>(CLIENTS_MAX);
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                if seats.try_send(()).is_err() {
                    log::warn!("{from} is refused: {CLIENTS_MAX} clients use the text port");
                    continue;
                }
                let (requests, seated) = (requests.clone(), seated.clone());
                executor::spawn(async move {
                    if let Err(error) = converse(stream, from, &requests).await {
                        log::debug!("{from} at the text port: {error}");
                    }
                    let _ = seated.try_recv();
                })
                .detach();
            }
            Err(error) => {
                log::warn!("accept a client of the text port: {error}");
                Timer::after(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(
    mut stream: Async<TcpStream>,
    from: SocketAddr,
    requests: &Sender<Request>,
) -> io::Result<()> {
    say(&mut stream, &ask(requests, Request::Banner).await?).await?;
    let mut waiting = Vec::new();
    loop {
        while let Some(end) = waiting.iter().position(|byte| *byte < 0x20) {
            let line: Vec<u8> = waiting.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]).into_owned();
            // The second of two characters that end a line.
            if line.trim().is_empty() {
                continue;
            }
            let command = control::parse(&line);
            if matches!(
                command,
                Command::Block(_) | Command::Unblock(_) | Command::Remove(_)
            ) {
                log::info!("{from} at the text port: {line}");
            }
            let is_end = command == Command::Quit;
            let answer = ask(requests, |reply| Request::Answer(command, reply)).await?;
            say(&mut stream, &answer).await?;
            if is_end {
                return Ok(());
            }
        }
        if waiting.len() > LINE_BYTES_MAX {
            return Err(io::Error::other("a line without an end"));
        }
        let mut bytes = [0; 1024];
        let count = within(IDLE, stream.read(&mut bytes)).await?;
        if count == 0 {
            return Ok(());
        }
        waiting.extend_from_slice(&bytes[..count]);
    }
}

async fn ask(
    requests: &Sender<Request>,
    request: impl FnOnce(Sender<String>) -> Request,
) -> io::Result<String> {
    let gone = || io::Error::other("the scheduler is about to end");
    let (reply, answer) = channel::bounded(1);
    requests.send(request(reply)).await.map_err(|_| gone())?;
    answer.recv().await.map_err(|_| gone())
}

async fn say(stream: &mut Async<TcpStream>, text: &str) -> io::Result<()> {
    within(READ_TIME, stream.write_all(text.as_bytes())).await
}

async fn within<T>(time: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = async {
        Timer::after(time).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    work.or(late).await
}
