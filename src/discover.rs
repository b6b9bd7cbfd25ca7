//! Finds the scheduler on the local network: a question by UDP broadcast, an answer to who asked.
//!
//! Both carry a keyed BLAKE3 over all that matters, the netname included, which itself does not
//! travel: a stranger learns nothing and is told nothing, and a scheduler of another cluster or
//! another protocol is simply not there. The nonce of the question is in the answer, so an old answer is
//! worth nothing. An answer that was passed on by somebody else can still lead to a wrong address; the
//! handshake there fails ([`crate::connection`]), which is why nothing more is proven here.
//!
//! icecream uses the same port. Its schedulers answer to a first byte of 21 or more and take what begins with
//! `ICE` or `ICF` for another scheduler, before which they drop their daemons. So our packets begin with a zero
//! byte, and we never answer its questions.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use smol::future::FutureExt;

use crate::key::ClusterKey;
use crate::message::PROTOCOL;
use crate::reactor::{Async, Timer};

const MAGIC: [u8; 13] = *b"\0ICE-DISCOVER";
const QUESTION: u8 = 1;
const ANSWER: u8 = 2;
const NONCE_BYTES: usize = 16;
const MAC_BYTES: usize = 32;
const HEAD_BYTES: usize = MAGIC.len() + 3 + NONCE_BYTES;
const QUESTION_BYTES: usize = HEAD_BYTES + MAC_BYTES;
const ANSWER_BYTES: usize = HEAD_BYTES + 2 + MAC_BYTES;
/// A packet may be lost, so the question is repeated, at first after so long.
const REPEAT: Duration = Duration::from_millis(100);

/// Makes an answer belong to its question.
pub type Nonce = [u8; NONCE_BYTES];

/// Asks every IPv4 network of this machine, and the machine itself, for the scheduler of `netname` on UDP
/// `port`. Returns with the first answer, or empty after `wait`. Errors: only when no socket can be had.
pub async fn find(
    key: &[u8; 32],
    netname: &str,
    port: u16,
    wait: Duration,
) -> io::Result<Vec<SocketAddr>> {
    let socket = Async::<UdpSocket>::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.get_ref().set_broadcast(true)?;
    let nonce = fresh_nonce()?;
    let question = question(key, netname, &nonce);
    let heard = hear_answer(&socket, key, netname, &nonce);
    let asked = async {
        let end = Instant::now() + wait;
        let mut repeat = REPEAT;
        loop {
            for target in targets() {
                // A network that can't be reached now does not hinder the others.
                let sent = socket.send_to(&question, (target, port)).await;
                if let Err(error) = sent {
                    log::debug!("ask for a scheduler at {target}: {error}");
                }
            }
            let next = (Instant::now() + repeat).min(end);
            Timer::at(next).await;
            if next == end {
                return None;
            }
            repeat *= 2;
        }
    };
    Ok(heard.or(asked).await.into_iter().collect())
}

/// The socket on which a scheduler hears questions: UDP `port`.
pub fn listen(port: u16) -> io::Result<Async<UdpSocket>> {
    // Bound to an address of its own, a socket would not hear broadcasts.
    Async::<UdpSocket>::bind((Ipv4Addr::UNSPECIFIED, port))
}

/// Answers questions for ever: the scheduler of `netname` takes TCP connections on `tcp_port`.
pub async fn answer(socket: &Async<UdpSocket>, key: &[u8; 32], netname: &str, tcp_port: u16) {
    let mut packet = [0; QUESTION_BYTES + 1];
    loop {
        match socket.recv_from(&mut packet).await {
            Ok((length, from)) => {
                if let Some(nonce) = parse_question(&packet[..length], key, netname) {
                    let reply = answer_packet(key, netname, &nonce, tcp_port);
                    if let Err(error) = socket.send_to(&reply, from).await {
                        log::debug!("answer the question of {from}: {error}");
                    }
                }
            }
            Err(error) => {
                // An earlier answer could not be delivered, or the machine is short of something.
                log::debug!("hear questions for a scheduler: {error}");
                Timer::after(Duration::from_millis(10)).await;
            }
        }
    }
}

/// The packet that asks for the scheduler of `netname`.
pub fn question(key: &[u8; 32], netname: &str, nonce: &Nonce) -> Vec<u8> {
    let mut packet = head(QUESTION, nonce);
    let mac = mac(key, netname, &packet);
    packet.extend_from_slice(mac.as_bytes());
    packet
}

/// The nonce of a question that is meant for the scheduler of `netname`, from a holder of `key`.
pub fn parse_question(packet: &[u8], key: &[u8; 32], netname: &str) -> Option<Nonce> {
    if packet.len() != QUESTION_BYTES {
        return None;
    }
    let body = proven(packet, key, netname)?;
    let nonce = body[HEAD_BYTES - NONCE_BYTES..].try_into().ok()?;
    (body == head(QUESTION, &nonce)).then_some(nonce)
}

/// The answer to the question with `nonce`: connect to TCP `port` where this comes from.
pub fn answer_packet(key: &[u8; 32], netname: &str, nonce: &Nonce, port: u16) -> Vec<u8> {
    let mut packet = head(ANSWER, nonce);
    packet.extend_from_slice(&port.to_be_bytes());
    let mac = mac(key, netname, &packet);
    packet.extend_from_slice(mac.as_bytes());
    packet
}

/// The port in an answer to the question with `nonce`.
pub fn parse_answer(packet: &[u8], key: &[u8; 32], netname: &str, nonce: &Nonce) -> Option<u16> {
    if packet.len() != ANSWER_BYTES {
        return None;
    }
    let (head_bytes, port) = proven(packet, key, netname)?.split_at_checked(HEAD_BYTES)?;
    let port = u16::from_be_bytes(port.try_into().ok()?);
    (head_bytes == head(ANSWER, nonce) && port != 0).then_some(port)
}

async fn hear_answer(
    socket: &Async<UdpSocket>,
    key: &[u8; 32],
    netname: &str,
    nonce: &Nonce,
) -> Option<SocketAddr> {
    let mut packet = [0; ANSWER_BYTES + 1];
    loop {
        match socket.recv_from(&mut packet).await {
            Ok((length, from)) => {
                if let Some(port) = parse_answer(&packet[..length], key, netname, nonce) {
                    return Some(SocketAddr::new(from.ip(), port));
                }
            }
            Err(error) => {
                log::debug!("hear a scheduler: {error}");
                Timer::after(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Where to ask: the broadcast address of each interface that has one, and this machine.
fn targets() -> Vec<Ipv4Addr> {
    let mut targets = vec![Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 255, 255, 255)];
    match nix::ifaddrs::getifaddrs() {
        Ok(interfaces) => {
            let broadcasts = interfaces
                .filter(|interface| {
                    let flags = interface.flags;
                    flags.contains(nix::net::if_::InterfaceFlags::IFF_BROADCAST)
                        && flags.contains(nix::net::if_::InterfaceFlags::IFF_UP)
                })
                .filter_map(|interface| Some(interface.broadcast?.as_sockaddr_in()?.ip()));
            targets.extend(broadcasts);
        }
        Err(error) => log::debug!("list the network interfaces: {error}"),
    }
    targets.sort_unstable();
    targets.dedup();
    targets
}

fn fresh_nonce() -> io::Result<Nonce> {
    let random = ClusterKey::random()?;
    let mut nonce = [0; NONCE_BYTES];
    nonce.copy_from_slice(&random.bytes()[..NONCE_BYTES]);
    Ok(nonce)
}

fn head(kind: u8, nonce: &Nonce) -> Vec<u8> {
    let mut packet = MAGIC.to_vec();
    packet.extend_from_slice(&PROTOCOL.to_be_bytes());
    packet.push(kind);
    packet.extend_from_slice(nonce);
    packet
}

/// The packet without its MAC, if that is right.
fn proven<'a>(packet: &'a [u8], key: &[u8; 32], netname: &str) -> Option<&'a [u8]> {
    let (body, theirs) = packet.split_last_chunk::<MAC_BYTES>()?;
    // blake3's comparison takes the same time wherever the difference is.
    (mac(key, netname, body) == *theirs).then_some(body)
}

fn mac(key: &[u8; 32], netname: &str, body: &[u8]) -> blake3::Hash {
    // The body's length is fixed by its kind, so nothing can move between it and the netname.
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(body);
    hasher.update(netname.as_bytes());
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const NONCE: Nonce = [3; NONCE_BYTES];

    #[test]
    fn a_question_is_understood_only_with_key_and_netname() {
        let packet = question(&KEY, "ICE", &NONCE);
        assert_eq!(parse_question(&packet, &KEY, "ICE"), Some(NONCE));
        assert_eq!(parse_question(&packet, &[8; 32], "ICE"), None);
        assert_eq!(parse_question(&packet, &KEY, "ICF"), None);
        assert_eq!(parse_question(&packet, &KEY, ""), None);
    }

    #[test]
    fn an_answer_is_believed_only_with_key_netname_and_the_same_nonce() {
        let packet = answer_packet(&KEY, "ICE", &NONCE, 8765);
        assert_eq!(parse_answer(&packet, &KEY, "ICE", &NONCE), Some(8765));
        assert_eq!(parse_answer(&packet, &[8; 32], "ICE", &NONCE), None);
        assert_eq!(parse_answer(&packet, &KEY, "OTHER", &NONCE), None);
        assert_eq!(parse_answer(&packet, &KEY, "ICE", &[4; 16]), None);
        let portless = answer_packet(&KEY, "ICE", &NONCE, 0);
        assert_eq!(parse_answer(&portless, &KEY, "ICE", &NONCE), None);
    }

    #[test]
    fn no_packet_is_taken_when_a_bit_is_wrong_or_a_byte_is_missing() {
        let packets = [
            question(&KEY, "ICE", &NONCE),
            answer_packet(&KEY, "ICE", &NONCE, 8765),
        ];
        for packet in packets {
            let mut wrong = Vec::new();
            for bit in 0..packet.len() * 8 {
                let mut flipped = packet.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                wrong.push(flipped);
            }
            wrong.extend((0..packet.len()).map(|length| packet[..length].to_vec()));
            wrong.push([&packet[..], &[0]].concat());
            for packet in wrong {
                assert_eq!(parse_question(&packet, &KEY, "ICE"), None, "{packet:?}");
                assert_eq!(parse_answer(&packet, &KEY, "ICE", &NONCE), None);
            }
        }
    }

    #[test]
    fn questions_are_no_answers_and_the_reverse() {
        let asked = question(&KEY, "ICE", &NONCE);
        let answered = answer_packet(&KEY, "ICE", &NONCE, 8765);
        assert_eq!(parse_answer(&asked, &KEY, "ICE", &NONCE), None);
        assert_eq!(parse_question(&answered, &KEY, "ICE"), None);
    }

    /// icecream answers a first byte of 21 or more, as unsigned or as signed, and takes 268 bytes or
    /// a beginning with `ICE` or `ICF` for an announcement.
    #[test]
    fn icecream_ignores_our_packets_and_we_ignore_its() {
        for packet in [
            question(&KEY, "ICE", &NONCE),
            answer_packet(&KEY, "ICE", &NONCE, 8765),
        ] {
            assert_eq!(packet[0], 0);
            assert!(packet.len() < 100);
        }
        let mut announcement = vec![0; 268];
        announcement[..4].copy_from_slice(b"ICF\x2c");
        let theirs: [&[u8]; 4] = [
            &[0x2c],
            &[0x24],
            &announcement,
            b"ICE\x2c\0\0\0\0\0\0\0\0\x03ICE",
        ];
        for packet in theirs {
            assert_eq!(parse_question(packet, &KEY, "ICE"), None);
            assert_eq!(parse_answer(packet, &KEY, "ICE", &NONCE), None);
        }
    }
}
