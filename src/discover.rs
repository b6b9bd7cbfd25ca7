//! Finds schedulers on the local network: a question to everybody, an answer to who asked.
//!
//! Questions go by IPv4 broadcast on every interface, by IPv6 multicast to [`GROUP`] on every interface,
//! and to this machine itself. Each datagram carries a keyed BLAKE3 over all that matters, the netname included, which
//! itself does not travel: a stranger learns nothing and is told nothing, and a scheduler of another cluster or
//! another protocol is simply not there. A cluster without a key uses one that everybody knows. The nonce of
//! the question is in the answer, so an old answer is worth nothing. An answer that was passed on by somebody
//! else can still lead to a wrong address; the handshake there fails ([`crate::connection`]), which is why
//! nothing more is proven here.
//!
//! Schedulers find each other in the same way: their questions say what they are themselves. So there is
//! no announcement that could be recorded and repeated.
//!
//! icecream uses the same port. Its schedulers answer to a first byte of 21 or more and take what begins with
//! `ICE` or `ICF` for another scheduler, before which they drop their daemons. So our datagrams begin with a zero
//! byte, and we never answer its questions.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn6, setsockopt, sockopt};
use smol::future::FutureExt;

use crate::key::ClusterKey;
use crate::message::{Claim, Datagram, Nonce, Office, PROTOCOL};
use crate::reactor::{Async, Timer};

/// The IPv6 group that schedulers listen to: link-local, and marked as one that nobody has assigned
/// (RFC 4291 section 2.7), since the plain `ff02::` numbers are IANA's to give.
pub const GROUP: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x1ce, 0x8765);

const MAGIC: [u8; 13] = *b"\0ICE-DISCOVER";
const HEAD_BYTES: usize = MAGIC.len() + 2;
const MAC_BYTES: usize = 32;
/// More than the longest datagram has.
const DATAGRAM_BYTES_MAX: usize = 160;
/// A datagram may be lost, so the question is repeated, at first after so long.
const REPEAT: Duration = Duration::from_millis(100);
/// A standby that answers may be quicker than the master; so long the master has to answer, too.
const MASTERS_GRACE: Duration = Duration::from_millis(50);

/// What proves that a datagram belongs to a cluster.
#[derive(Clone)]
pub struct Seal {
    key: [u8; 32],
    netname: String,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key is a secret.
        write!(f, "Seal({:?})", self.netname)
    }
}

impl Seal {
    /// For the cluster that has this key for datagrams ([`crate::key::Credentials::datagram_key`]) and this netname.
    pub fn new(key: [u8; 32], netname: &str) -> Self {
        let netname = netname.to_owned();
        Self { key, netname }
    }

    /// The bytes of a datagram.
    pub fn seal(&self, datagram: &Datagram) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&PROTOCOL.to_be_bytes());
        let bytes = postcard::to_extend(datagram, bytes);
        let mut bytes = bytes.expect("a vector takes everything");
        let mac = self.mac(&bytes);
        bytes.extend_from_slice(mac.as_bytes());
        bytes
    }

    /// The datagram, if it comes from this cluster.
    pub fn open(&self, bytes: &[u8]) -> Option<Datagram> {
        let (body, theirs) = bytes.split_last_chunk::<MAC_BYTES>()?;
        // blake3's comparison takes the same time wherever the difference is.
        if self.mac(body) != *theirs {
            return None;
        }
        let (head, body) = body.split_at_checked(HEAD_BYTES)?;
        let (magic, protocol) = head.split_at(MAGIC.len());
        if magic != MAGIC || protocol != PROTOCOL.to_be_bytes() {
            return None;
        }
        let (datagram, rest) = postcard::take_from_bytes(body).ok()?;
        rest.is_empty().then_some(datagram)
    }

    fn mac(&self, body: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        // With its length, so that nothing can move between the netname and the body.
        hasher.update(&(self.netname.len() as u64).to_le_bytes());
        hasher.update(self.netname.as_bytes());
        hasher.update(body);
        hasher.finalize()
    }
}

/// A scheduler that has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it takes TCP connections.
    pub address: SocketAddr,
    /// What it is.
    pub claim: Claim,
}

/// Asks every network of this machine, and the machine itself, for the schedulers of a cluster on UDP `port`.
/// Returns as soon as the master has answered, or shortly after another scheduler has, or empty after `wait`;
/// the master is the first. Errors: only when no socket can be had.
pub async fn find(seal: &Seal, port: u16, wait: Duration) -> io::Result<Vec<Found>> {
    let sockets = Sockets::to_ask()?;
    let nonce = fresh_nonce()?;
    let question = seal.seal(&Datagram::Question { nonce, asker: None });
    let end = Instant::now() + wait;
    let asked = async {
        let mut repeat = REPEAT;
        loop {
            sockets.send_to_all(&question, port).await;
            Timer::after(repeat).await;
            repeat *= 2;
        }
    };
    let mut found: Vec<Found> = Vec::new();
    let heard = async {
        let mut until = end;
        loop {
            let late = async {
                Timer::at(until).await;
                None
            };
            let Some((bytes, from)) = async { Some(sockets.receive().await) }.or(late).await else {
                return;
            };
            let Some(Datagram::Answer { nonce: of, claim }) = seal.open(&bytes) else {
                continue;
            };
            if of != nonce || claim.port == 0 {
                continue;
            }
            let address = at_port(from, claim.port);
            match claim.office {
                Office::Master => {
                    found.insert(0, Found { address, claim });
                    return;
                }
                Office::Standby | Office::Looking => {
                    if !found.iter().any(|found| found.claim.id == claim.id) {
                        found.push(Found { address, claim });
                    }
                    until = until.min(Instant::now() + MASTERS_GRACE);
                }
            }
        }
    };
    heard.or(asked).await;
    Ok(found)
}

/// The sockets for datagrams, one for each family that this machine has.
#[derive(Debug)]
pub struct Sockets {
    v4: Option<Async<UdpSocket>>,
    v6: Option<Async<UdpSocket>>,
}

impl Sockets {
    /// Sockets on which a scheduler hears questions: UDP `port`. An error when not even one can be had.
    pub fn listen(port: u16) -> io::Result<Self> {
        // Bound to an address of its own, a socket would not hear broadcasts.
        let v4 = Async::<UdpSocket>::bind((Ipv4Addr::UNSPECIFIED, port));
        let v6 = only_v6(port).inspect(join_everywhere);
        Self::of(v4, v6)
    }

    /// Sockets to ask from.
    pub fn to_ask() -> io::Result<Self> {
        let v4 = Async::<UdpSocket>::bind((Ipv4Addr::UNSPECIFIED, 0));
        Self::of(v4, only_v6(0))
    }

    fn of(v4: io::Result<Async<UdpSocket>>, v6: io::Result<Async<UdpSocket>>) -> io::Result<Self> {
        match (v4, v6) {
            (Err(error), Err(_)) => Err(error),
            (v4, v6) => {
                if let Ok(v4) = &v4 {
                    v4.get_ref().set_broadcast(true)?;
                }
                Ok(Self {
                    v4: v4.inspect_err(|error| log::debug!("no IPv4: {error}")).ok(),
                    v6: v6.inspect_err(|error| log::debug!("no IPv6: {error}")).ok(),
                })
            }
        }
    }

    /// Listens to [`GROUP`] on the interfaces that came up since the start, too.
    pub fn join(&self) {
        self.v6.iter().for_each(join_everywhere);
    }

    /// The next datagram and who sent it.
    pub async fn receive(&self) -> (Vec<u8>, SocketAddr) {
        loop {
            match receive(self.v4.as_ref())
                .or(receive(self.v6.as_ref()))
                .await
            {
                Ok(received) => return received,
                Err(error) => {
                    // An earlier one could not be delivered, or the machine is short of something.
                    log::debug!("hear schedulers: {error}");
                    Timer::after(Duration::from_millis(10)).await;
                }
            }
        }
    }

    /// Sends to one.
    pub async fn send(&self, bytes: &[u8], to: SocketAddr) {
        let socket = match to.ip().to_canonical() {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        if let Some(socket) = socket
            && let Err(error) = socket.send_to(bytes, canonical(to)).await
        {
            // A network that can't be reached now does not hinder the others.
            log::debug!("send to {to}: {error}");
        }
    }

    /// Sends to `port` of everybody.
    pub async fn send_to_all(&self, bytes: &[u8], port: u16) {
        for target in targets(port) {
            self.send(bytes, target).await;
        }
    }
}

/// What was received, and who sent it; never anything where there is no socket.
async fn receive(socket: Option<&Async<UdpSocket>>) -> io::Result<(Vec<u8>, SocketAddr)> {
    let Some(socket) = socket else {
        return smol::future::pending().await;
    };
    let mut bytes = [0; DATAGRAM_BYTES_MAX];
    let (length, from) = socket.recv_from(&mut bytes).await?;
    Ok((bytes[..length].to_vec(), from))
}

/// A socket that leaves IPv4 to the other one.
fn only_v6(port: u16) -> io::Result<Async<UdpSocket>> {
    let socket = nix::sys::socket::socket(
        AddressFamily::Inet6,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    let address = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
    nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrIn6::from(address))?;
    Async::new(UdpSocket::from(socket))
}

fn join_everywhere(socket: &Async<UdpSocket>) {
    for interface in multicast_interfaces() {
        // Most often it has been joined already.
        let _ = socket.get_ref().join_multicast_v6(&GROUP, interface);
    }
}

/// Where to ask: the broadcast address of each interface that has one, the group on each interface, and this
/// machine.
fn targets(port: u16) -> Vec<SocketAddr> {
    let mut targets = vec![
        Ipv4Addr::LOCALHOST,
        // Several schedulers on one machine have ports of their own, and some listen on one address only.
        Ipv4Addr::new(127, 255, 255, 255),
    ];
    match nix::ifaddrs::getifaddrs() {
        Ok(interfaces) => {
            let broadcasts = interfaces
                .filter(|interface| {
                    let flags = interface.flags;
                    flags.contains(InterfaceFlags::IFF_BROADCAST | InterfaceFlags::IFF_UP)
                })
                .filter_map(|interface| Some(interface.broadcast?.as_sockaddr_in()?.ip()));
            targets.extend(broadcasts);
        }
        Err(error) => log::debug!("list the network interfaces: {error}"),
    }
    targets.sort_unstable();
    targets.dedup();
    let groups = multicast_interfaces()
        .into_iter()
        .map(|interface| SocketAddr::V6(SocketAddrV6::new(GROUP, port, 0, interface)));
    let targets = targets.into_iter().map(|ip| SocketAddr::from((ip, port)));
    targets.chain(groups).collect()
}

/// The numbers of the interfaces that are up, have an IPv6 address and take multicasts.
fn multicast_interfaces() -> Vec<u32> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    let mut numbers: Vec<u32> = interfaces
        .filter(|interface| {
            let flags = interface.flags;
            flags.contains(InterfaceFlags::IFF_MULTICAST | InterfaceFlags::IFF_UP)
        })
        .filter(|interface| {
            interface
                .address
                .is_some_and(|a| a.as_sockaddr_in6().is_some())
        })
        .filter_map(|interface| nix::net::if_::if_nametoindex(&interface.interface_name[..]).ok())
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// The same machine at another port; a link-local address keeps its interface.
pub fn at_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, address.port())),
        IpAddr::V6(_) => address,
    }
}

/// A nonce from the kernel's randomness.
pub fn fresh_nonce() -> io::Result<Nonce> {
    let random = ClusterKey::random()?;
    let mut nonce = Nonce::default();
    let length = nonce.len();
    nonce.copy_from_slice(&random.bytes()[..length]);
    Ok(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{SchedulerId, Term};

    const KEY: [u8; 32] = [7; 32];
    const NONCE: Nonce = [3; 16];

    fn claim() -> Claim {
        Claim {
            id: SchedulerId(u64::MAX),
            started_ms: u64::MAX,
            term: Term(u64::MAX),
            office: Office::Master,
            port: 8765,
        }
    }

    fn datagrams() -> [Datagram; 3] {
        let (nonce, claim) = (NONCE, claim());
        [
            Datagram::Question { nonce, asker: None },
            Datagram::Question {
                nonce,
                asker: Some(claim),
            },
            Datagram::Answer { nonce, claim },
        ]
    }

    #[test]
    fn a_datagram_is_understood_only_with_key_and_netname() {
        for datagram in datagrams() {
            let bytes = Seal::new(KEY, "ICE").seal(&datagram);
            assert_eq!(Seal::new(KEY, "ICE").open(&bytes), Some(datagram));
            for (key, netname) in [(KEY, "ICF"), (KEY, ""), (KEY, "ICE\0"), ([8; 32], "ICE")] {
                assert_eq!(Seal::new(key, netname).open(&bytes), None, "{netname}");
            }
        }
    }

    #[test]
    fn no_datagram_is_taken_when_a_bit_is_wrong_or_a_byte_is_missing() {
        let seal = Seal::new(KEY, "ICE");
        for bytes in datagrams().map(|datagram| seal.seal(&datagram)) {
            let mut wrong = Vec::new();
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                wrong.push(flipped);
            }
            wrong.extend((0..bytes.len()).map(|length| bytes[..length].to_vec()));
            wrong.push([&bytes[..], &[0]].concat());
            for bytes in wrong {
                assert_eq!(seal.open(&bytes), None, "{bytes:?}");
            }
        }
    }

    #[test]
    fn every_datagram_fits_into_what_is_read() {
        for datagram in datagrams() {
            let length = Seal::new(KEY, "ICE").seal(&datagram).len();
            assert!(length < DATAGRAM_BYTES_MAX, "{length}");
        }
    }

    /// icecream answers a first byte of 21 or more, as unsigned or as signed, and takes 268 bytes or
    /// a beginning with `ICE` or `ICF` for an announcement.
    #[test]
    fn icecream_ignores_our_datagrams_and_we_ignore_its() {
        let seal = Seal::new(KEY, "ICE");
        for bytes in datagrams().map(|datagram| seal.seal(&datagram)) {
            assert_eq!(bytes[0], 0);
            assert!(bytes.len() < 200);
        }
        let mut announcement = vec![0; 268];
        announcement[..4].copy_from_slice(b"ICF\x2c");
        let theirs: [&[u8]; 4] = [
            &[0x2c],
            &[0x24],
            &announcement,
            b"ICE\x2c\0\0\0\0\0\0\0\0\x03ICE",
        ];
        for bytes in theirs {
            assert_eq!(seal.open(bytes), None);
        }
    }

    #[test]
    fn a_question_reaches_a_listener_over_both_families() {
        crate::executor::block_on(async {
            let listener = Sockets::listen(0).unwrap();
            let port = |socket: &Option<Async<UdpSocket>>| {
                socket.as_ref().map(|s| s.get_ref().local_addr().unwrap())
            };
            let asker = Sockets::to_ask().unwrap();
            let targets = [port(&listener.v4), port(&listener.v6)];
            for (number, target) in targets.into_iter().flatten().enumerate() {
                let mut to = target;
                to.set_ip(match target.ip() {
                    IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
                });
                let said = [number as u8; 7];
                asker.send(&said, to).await;
                let (heard, from) = listener.receive().await;
                assert_eq!(heard, said);
                assert_eq!(from.ip(), to.ip());
            }
        });
    }
}
