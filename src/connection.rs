//! An encrypted, typed channel over TCP: Noise under the cluster key, postcard messages inside.
//!
//! Both ends first show 11 bytes in clear: a magic, how they authenticate, the protocol's version
//! and the key's fingerprint. They exist for one reason: that a node with another key, or none, is
//! told so in a sentence, instead of "decryption failed". Then Noise: `NNpsk0` under the key,
//! where the first message already proves that its sender has the key and costs a stranger's
//! victim no more than a hash; `NN` with `--open`. AES-GCM, since machines that compile have AES
//! in their processors (a third of ChaCha20's time per megabyte, measured).
//!
//! Knows nothing of who speaks; knows no reconnecting and no heartbeat. A read or write may last
//! for ever: whoever waits for a peer sets the time.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use smol::future::FutureExt;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use snow::StatelessTransportState;

use crate::account::{self, Phase};
use crate::frame::{self, Decoder, FrameError};
use crate::key::{Credentials, Fingerprint};
use crate::message::{MESSAGE_BYTES_MAX, PROTOCOL};
use crate::reactor::{Async, Timer};

const MAGIC: [u8; 4] = *b"ICE\0";
const PREAMBLE_BYTES: usize = 11;
/// Noise's own limit for a message.
const RECORD_BYTES_MAX: usize = 65535;
const TAG_BYTES: usize = 16;
/// What a connection on which nothing happens may hold in each of its buffers.
const IDLE_BYTES: usize = 4096;
/// What one record carries.
const PLAIN_BYTES_MAX: usize = RECORD_BYTES_MAX - TAG_BYTES;

/// Why there is no connection, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The operating system says so.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Nothing came in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// Whoever is there does not speak this protocol.
    #[error("the other end is not ice")]
    NotIce,
    /// It is ice, but of another version.
    #[error(
        "the other end speaks protocol {0}, this end {PROTOCOL}: install the same version of ice on both"
    )]
    Protocol(u16),
    /// It belongs to another cluster.
    #[error(
        "the other end has the cluster key {theirs}, this end {ours}: copy the key with `ice key show` there and `ice key import` here"
    )]
    OtherKey {
        /// Their fingerprint.
        theirs: Fingerprint,
        /// Our fingerprint.
        ours: Fingerprint,
    },
    /// One end wants a key and the other runs with `--open`.
    #[error(
        "{}",
        if *.0 { "the other end runs with --open and has no cluster key; this end has one: start both the same way" }
        else { "the other end wants a cluster key; this end runs with --open: start it without, after `ice key import`" }
    )]
    OpenMismatch(bool),
    /// The cipher does not fit: somebody interferes.
    #[error("a record that was not encrypted by the other end")]
    Cipher,
    /// It is not a message.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream ended within a message.
    #[error("the connection ended within a message")]
    Cut,
}

/// An established connection.
pub struct Connection {
    sender: Sender,
    receiver: Receiver,
    peer: SocketAddr,
}

impl Connection {
    /// Connects to `address` and shakes hands, within `timeout` for both together. Costs one round
    /// trip beyond TCP's own.
    pub async fn connect(
        address: SocketAddr,
        credentials: &Credentials,
        timeout: Duration,
    ) -> Result<Self, ConnectionError> {
        within(timeout, async {
            let stream = Async::<TcpStream>::connect(address).await?;
            Self::initiate(stream, credentials).await
        })
        .await
    }

    /// Answers the handshake on an accepted `stream`, within `timeout`.
    pub async fn accept(
        stream: Async<TcpStream>,
        credentials: &Credentials,
        timeout: Duration,
    ) -> Result<Self, ConnectionError> {
        within(timeout, Self::respond(stream, credentials)).await
    }

    /// The address of the other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Two halves that work on their own.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    async fn initiate(
        mut stream: Async<TcpStream>,
        credentials: &Credentials,
    ) -> Result<Self, ConnectionError> {
        let mut noise = builder(credentials)
            .build_initiator()
            .map_err(|_| ConnectionError::Cipher)?;
        let mut hello = preamble(credentials).to_vec();
        append_handshake(&mut noise, &mut hello)?;
        stream.write_all(&hello).await?;
        let mut theirs = [0; PREAMBLE_BYTES];
        stream.read_exact(&mut theirs).await.map_err(hung_up)?;
        judge(&theirs, credentials)?;
        take_handshake(&mut noise, &mut stream).await?;
        Self::established(stream, noise)
    }

    async fn respond(
        mut stream: Async<TcpStream>,
        credentials: &Credentials,
    ) -> Result<Self, ConnectionError> {
        let mut theirs = [0; PREAMBLE_BYTES];
        stream.read_exact(&mut theirs).await.map_err(hung_up)?;
        if theirs[..4] != MAGIC {
            return Err(ConnectionError::NotIce);
        }
        // The preamble goes out before theirs is judged, since they want to know why, too.
        let mut hello = preamble(credentials).to_vec();
        if let Err(error) = judge(&theirs, credentials) {
            stream.write_all(&hello).await?;
            return Err(error);
        }
        let mut noise = builder(credentials)
            .build_responder()
            .map_err(|_| ConnectionError::Cipher)?;
        take_handshake(&mut noise, &mut stream).await?;
        append_handshake(&mut noise, &mut hello)?;
        stream.write_all(&hello).await?;
        Self::established(stream, noise)
    }

    fn established(
        stream: Async<TcpStream>,
        noise: snow::HandshakeState,
    ) -> Result<Self, ConnectionError> {
        stream.get_ref().set_nodelay(true)?;
        let peer = stream.get_ref().peer_addr()?;
        let noise = Arc::new(
            noise
                .into_stateless_transport_mode()
                .map_err(|_| ConnectionError::Cipher)?,
        );
        let stream = Arc::new(stream);
        Ok(Self {
            sender: Sender {
                stream: stream.clone(),
                noise: noise.clone(),
                nonce: 0,
                plain: Vec::new(),
                record: Vec::new(),
            },
            receiver: Receiver {
                stream,
                noise,
                nonce: 0,
                raw: Vec::new(),
                plain: Vec::new(),
                decoder: Decoder::new(MESSAGE_BYTES_MAX),
            },
            peer,
        })
    }
}

/// The half that sends.
pub struct Sender {
    stream: Arc<Async<TcpStream>>,
    noise: Arc<StatelessTransportState>,
    nonce: u64,
    plain: Vec<u8>,
    record: Vec<u8>,
}

impl Sender {
    /// Sends `message` now. After an error, or when the future was dropped before its end, the
    /// connection is of no further use.
    pub async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), ConnectionError> {
        self.queue(message)?;
        self.flush().await
    }

    /// Prepares `message`; it leaves with the next [`Sender::flush`].
    pub fn queue<T: Serialize>(&mut self, message: &T) -> Result<(), ConnectionError> {
        Ok(frame::encode(message, MESSAGE_BYTES_MAX, &mut self.plain)?)
    }

    /// How many bytes are prepared and have not left.
    pub fn queued_bytes(&self) -> usize {
        self.plain.len()
    }

    /// Sends what is prepared.
    pub async fn flush(&mut self) -> Result<(), ConnectionError> {
        account::during_turns(Phase::Wire, self.flush_all()).await
    }

    async fn flush_all(&mut self) -> Result<(), ConnectionError> {
        self.record.clear();
        for piece in self.plain.chunks(PLAIN_BYTES_MAX) {
            let start = self.record.len();
            self.record.resize(start + 2 + piece.len() + TAG_BYTES, 0);
            let length = self
                .noise
                .write_message(self.nonce, piece, &mut self.record[start + 2..])
                .map_err(|_| ConnectionError::Cipher)?;
            self.record[start..start + 2].copy_from_slice(&(length as u16).to_be_bytes());
            self.nonce += 1;
        }
        self.plain.clear();
        // A large message leaves its buffers large; give the memory back.
        if self.plain.capacity() > 4 * RECORD_BYTES_MAX {
            self.plain = Vec::new();
        }
        (&*self.stream).write_all(&self.record).await?;
        account::sent(self.record.len());
        if self.record.capacity() > 4 * RECORD_BYTES_MAX {
            self.record = Vec::new();
        }
        Ok(())
    }

    /// Gives back the memory of messages that have left: for who has many connections and says little.
    pub fn rest(&mut self) {
        if self.plain.is_empty() && self.plain.capacity() > IDLE_BYTES {
            self.plain = Vec::new();
        }
        if self.plain.is_empty() && self.record.capacity() > IDLE_BYTES {
            self.record = Vec::new();
        }
    }
}

/// The half that receives.
pub struct Receiver {
    stream: Arc<Async<TcpStream>>,
    noise: Arc<StatelessTransportState>,
    nonce: u64,
    raw: Vec<u8>,
    plain: Vec<u8>,
    decoder: Decoder,
}

impl Receiver {
    /// The next message; none when the other end closed the connection between two messages.
    /// Dropping the future loses nothing: the next call goes on.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ConnectionError> {
        account::during_turns(Phase::Wire, self.receive_next()).await
    }

    async fn receive_next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ConnectionError> {
        loop {
            if let Some(message) = self.decoder.take()? {
                return Ok(Some(message));
            }
            if self.take_record()? {
                continue;
            }
            let start = self.raw.len();
            self.raw.resize(start + self.room(), 0);
            // Only this await can be dropped; what was read before stands in `raw`, cut to size.
            let guard = Truncate {
                raw: &mut self.raw,
                length: start,
            };
            let count = read_into(&self.stream, guard, start).await?;
            account::received(count);
            if count == 0 {
                let cut = !self.raw.is_empty() || self.decoder.is_mid_message();
                return if cut {
                    Err(ConnectionError::Cut)
                } else {
                    Ok(None)
                };
            }
        }
    }

    /// How many bytes to read at a time: what is missing of a record, a record in the middle of a message, or few.
    /// The room is there while nothing comes, and some processes have thousands of connections on which nothing comes.
    fn room(&self) -> usize {
        if self.raw.is_empty() && self.decoder.is_mid_message() {
            return RECORD_BYTES_MAX;
        }
        let missing = self.raw.first_chunk::<2>().map_or(0, |length| {
            let record = 2 + usize::from(u16::from_be_bytes(*length));
            record.saturating_sub(self.raw.len())
        });
        missing.max(IDLE_BYTES)
    }

    /// Decrypts one record if a whole one is there.
    fn take_record(&mut self) -> Result<bool, ConnectionError> {
        let Some((length, rest)) = self.raw.split_first_chunk::<2>() else {
            return Ok(false);
        };
        let length = usize::from(u16::from_be_bytes(*length));
        let Some(record) = rest.get(..length) else {
            return Ok(false);
        };
        if self.plain.len() < length {
            self.plain.resize(length, 0);
        }
        let count = self
            .noise
            .read_message(self.nonce, record, &mut self.plain)
            .map_err(|_| ConnectionError::Cipher)?;
        self.nonce += 1;
        self.decoder.push(&self.plain[..count]);
        self.raw.drain(..2 + length);
        Ok(true)
    }
}

/// Cuts a buffer back to what was really read, also when the read is dropped.
struct Truncate<'a> {
    raw: &'a mut Vec<u8>,
    length: usize,
}

impl Drop for Truncate<'_> {
    fn drop(&mut self) {
        self.raw.truncate(self.length);
    }
}

async fn read_into(
    stream: &Async<TcpStream>,
    mut guard: Truncate<'_>,
    start: usize,
) -> io::Result<usize> {
    let mut stream = stream;
    let count = stream.read(&mut guard.raw[start..]).await?;
    guard.length = start + count;
    Ok(count)
}

async fn within<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, ConnectionError>>,
) -> Result<T, ConnectionError> {
    work.or(async {
        Timer::after(timeout).await;
        Err(ConnectionError::Timeout(timeout))
    })
    .await
}

fn preamble(credentials: &Credentials) -> [u8; PREAMBLE_BYTES] {
    let mut bytes = [0; PREAMBLE_BYTES];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[5..7].copy_from_slice(&PROTOCOL.to_be_bytes());
    if let Credentials::Key(key) = credentials {
        bytes[4] = 1;
        bytes[7..].copy_from_slice(&key.fingerprint().0);
    }
    bytes
}

fn judge(theirs: &[u8; PREAMBLE_BYTES], credentials: &Credentials) -> Result<(), ConnectionError> {
    if theirs[..4] != MAGIC || theirs[4] > 1 {
        return Err(ConnectionError::NotIce);
    }
    let protocol = u16::from_be_bytes([theirs[5], theirs[6]]);
    if protocol != PROTOCOL {
        return Err(ConnectionError::Protocol(protocol));
    }
    let fingerprint = Fingerprint([theirs[7], theirs[8], theirs[9], theirs[10]]);
    match (credentials, theirs[4] == 1) {
        (Credentials::Key(key), true) if key.fingerprint() != fingerprint => {
            Err(ConnectionError::OtherKey {
                theirs: fingerprint,
                ours: key.fingerprint(),
            })
        }
        (Credentials::Key(_), true) | (Credentials::Open, false) => Ok(()),
        (Credentials::Key(_), false) => Err(ConnectionError::OpenMismatch(true)),
        (Credentials::Open, true) => Err(ConnectionError::OpenMismatch(false)),
    }
}

fn builder(credentials: &Credentials) -> snow::Builder<'_> {
    let (pattern, key) = match credentials {
        Credentials::Key(key) => ("Noise_NNpsk0_25519_AESGCM_BLAKE2s", Some(key)),
        Credentials::Open => ("Noise_NN_25519_AESGCM_BLAKE2s", None),
    };
    let builder = snow::Builder::new(pattern.parse().expect("a pattern that snow knows"));
    match key {
        Some(key) => builder.psk(0, key.bytes()).expect("psk 0 is set once"),
        None => builder,
    }
}

fn append_handshake(
    noise: &mut snow::HandshakeState,
    bytes: &mut Vec<u8>,
) -> Result<(), ConnectionError> {
    let mut message = [0; 256];
    let length = noise
        .write_message(&[], &mut message)
        .map_err(|_| ConnectionError::Cipher)?;
    bytes.push(length as u8);
    bytes.extend_from_slice(&message[..length]);
    Ok(())
}

async fn take_handshake(
    noise: &mut snow::HandshakeState,
    stream: &mut Async<TcpStream>,
) -> Result<(), ConnectionError> {
    let mut length = [0; 1];
    stream.read_exact(&mut length).await.map_err(hung_up)?;
    let mut message = vec![0; usize::from(length[0])];
    stream.read_exact(&mut message).await.map_err(hung_up)?;
    noise
        .read_message(&message, &mut [0; 256])
        .map_err(|_| ConnectionError::Cipher)?;
    Ok(())
}

/// An end of file within the handshake: whoever is there does not speak ice.
fn hung_up(error: io::Error) -> ConnectionError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        ConnectionError::NotIce
    } else {
        ConnectionError::Io(error)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::key::ClusterKey;

    fn key() -> Credentials {
        Credentials::Key(Arc::new(ClusterKey::random().unwrap()))
    }

    /// Connects two ends over loopback and returns what each came to.
    fn pair(
        ours: &Credentials,
        theirs: &Credentials,
    ) -> (
        Result<Connection, ConnectionError>,
        Result<Connection, ConnectionError>,
    ) {
        crate::executor::block_on(async {
            let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).unwrap();
            let address = listener.get_ref().local_addr().unwrap();
            let limit = Duration::from_secs(10);
            smol::future::zip(Connection::connect(address, ours, limit), async {
                let (stream, _) = listener.accept().await.unwrap();
                Connection::accept(stream, theirs, limit).await
            })
            .await
        })
    }

    #[test]
    fn messages_of_every_size_arrive_and_the_end_is_clean() {
        for credentials in [key(), Credentials::Open] {
            let (a, b) = pair(&credentials, &credentials);
            let (mut sender, _) = a.unwrap().split();
            let (_sender, mut receiver) = b.unwrap().split();
            let sizes = [
                0,
                1,
                100,
                PLAIN_BYTES_MAX - 5,
                PLAIN_BYTES_MAX,
                200_000,
                1_000_000,
            ];
            crate::executor::block_on(async {
                let send = async {
                    for size in sizes {
                        sender.send(&"x".repeat(size)).await.unwrap();
                    }
                    drop(sender);
                };
                let receive = async {
                    for size in sizes {
                        assert_eq!(
                            receiver.receive::<String>().await.unwrap().unwrap().len(),
                            size
                        );
                    }
                };
                smol::future::zip(send, receive).await;
            });
        }
    }

    #[test]
    fn other_keys_and_no_key_are_told_why() {
        let (ours, theirs) = pair(&key(), &key());
        assert!(matches!(ours, Err(ConnectionError::OtherKey { .. })));
        assert!(ours.err().unwrap().to_string().contains("ice key import"));
        assert!(matches!(theirs, Err(ConnectionError::OtherKey { .. })));
        let (ours, theirs) = pair(&key(), &Credentials::Open);
        assert!(matches!(ours, Err(ConnectionError::OpenMismatch(true))));
        assert!(matches!(theirs, Err(ConnectionError::OpenMismatch(false))));
    }

    #[test]
    fn a_dropped_receive_loses_nothing() {
        let credentials = key();
        let (a, b) = pair(&credentials, &credentials);
        let (mut sender, _keep) = a.unwrap().split();
        let (_sender, mut receiver) = b.unwrap().split();
        crate::executor::block_on(async {
            for round in 0..50u32 {
                // Polled once and dropped, before and while data arrives.
                let _ = smol::future::poll_once(receiver.receive::<Vec<u32>>()).await;
                sender.send(&vec![round; 5000]).await.unwrap();
                let _ = smol::future::poll_once(async {
                    smol::future::yield_now().await;
                })
                .await;
                let got = receiver.receive::<Vec<u32>>().await.unwrap().unwrap();
                assert_eq!(got, vec![round; 5000]);
            }
        });
    }

    #[test]
    fn garbage_is_refused() {
        crate::executor::block_on(async {
            let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).unwrap();
            let address = listener.get_ref().local_addr().unwrap();
            for bytes in [
                &b"GET / HTTP/1.0\r\n\r\n"[..],
                &[0; 400],
                &[b'I', b'C', b'E', 0, 9, 0, 1, 0, 0, 0, 0, 4],
            ] {
                let mut client = Async::<TcpStream>::connect(address).await.unwrap();
                let (stream, _) = listener.accept().await.unwrap();
                client.write_all(bytes).await.unwrap();
                drop(client);
                let result = Connection::accept(stream, &key(), Duration::from_secs(10)).await;
                assert!(result.is_err(), "{bytes:?}");
            }
        });
    }
}
