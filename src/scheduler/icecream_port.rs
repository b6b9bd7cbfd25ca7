//! The sockets of icecream's monitors. They come to the scheduler's own port, since that is where they look.
//!
//! What is said is in [`super::icecream`], and who hears it in [`super::audience`]. Nothing is announced
//! in the network: a real scheduler of icecream would drop its daemons, and daemons would come here.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use smol::channel::Sender;
use smol::future::FutureExt;
use smol::io::{AsyncReadExt, AsyncWriteExt};

use crate::reactor::{Async, Timer};
use crate::scheduler::audience::{self, Guest};
use crate::scheduler::icecream::{Answer, Greeting, is_greeting};

/// How long a greeting may take.
const GREETING_TIME: Duration = Duration::from_secs(5);

/// Whether the other end of a connection speaks icecream's protocol. Takes nothing from the stream.
///
/// # Errors
/// The kernel's; the end of the stream is one.
pub async fn is_icecream(stream: &Async<TcpStream>) -> io::Result<bool> {
    let mut first = [0];
    match stream.read_with(|stream| stream.peek(&mut first)).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(is_greeting(first[0])),
    }
}

/// Serves a peer of icecream to its end: a monitor hears the news, and whoever else it is hears nothing.
///
/// # Errors
/// Why it ended.
pub async fn serve(
    mut stream: Async<TcpStream>,
    from: SocketAddr,
    guests: &Sender<Guest>,
) -> io::Result<()> {
    let late = async {
        Timer::after(GREETING_TIME).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    greet(&mut stream).or(late).await?;
    log::info!("a monitor of icecream looks on from {from}");
    let (seat, ticket) = audience::seat();
    if guests.send(Guest::Icecream(seat)).await.is_err() {
        return Ok(());
    }
    let let_go = async {
        // Nothing is ever sent: the end is the message.
        let _ = ticket.held.recv().await;
        Err(io::Error::other("it reads too slowly"))
    };
    let mut spoken = [0; 64];
    let reader = &stream;
    let gone = async {
        // A monitor has nothing more to say; it ends, at most.
        match { reader }.read(&mut spoken).await? {
            0 => Ok(()),
            _ => Err(io::Error::other("it asks for something")),
        }
    };
    let writer = &stream;
    let told = async {
        while let Ok(piece) = ticket.pieces.recv().await {
            { writer }.write_all(&piece).await?;
        }
        // The rest has been told; who let it go says so.
        smol::future::pending().await
    };
    gone.or(let_go).or(told).await
}

async fn greet(stream: &mut Async<TcpStream>) -> io::Result<()> {
    stream.write_all(&Greeting::hello()).await?;
    let mut greeting = Greeting::default();
    let mut bytes = [0; 64];
    loop {
        let count = stream.read(&mut bytes).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match greeting.hear(&bytes[..count]) {
            Answer::Say(said) => stream.write_all(&said).await?,
            Answer::Monitor => return Ok(()),
            Answer::Stranger(why) => return Err(io::Error::other(why)),
        }
    }
}
