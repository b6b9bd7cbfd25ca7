//! Messages on a stream of bytes: a length of four bytes (little-endian), then postcard.
//!
//! Knows no socket and no cipher: the blocking client, the agents' sockets and the encrypted
//! connections all feed it bytes. A length is held against the limit before anything is allocated.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other end announced more than this conversation allows.
    #[error("a message of {length} bytes; at most {limit} are accepted")]
    TooLong {
        /// What it announced.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The bytes are not the expected message.
    #[error("a message that makes no sense: {0}")]
    Malformed(#[from] postcard::Error),
    /// There are bytes after the message's end.
    #[error("a message with {0} bytes too many")]
    Trailing(usize),
}

/// Appends `message` with its length to `bytes`.
pub fn encode<T: Serialize>(
    message: &T,
    limit: usize,
    bytes: &mut Vec<u8>,
) -> Result<(), FrameError> {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    let mut whole = postcard::to_extend(message, std::mem::take(bytes))?;
    let length = whole.len() - start - 4;
    if length > limit {
        whole.truncate(start);
        *bytes = whole;
        return Err(FrameError::TooLong { length, limit });
    }
    whole[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
    *bytes = whole;
    Ok(())
}

/// Puts messages together again from pieces of any size.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    taken: usize,
    limit: usize,
}

impl Decoder {
    /// A decoder that accepts messages of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: Vec::new(),
            taken: 0,
            limit,
        }
    }

    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 && (self.taken == self.buffer.len() || self.taken > 64 << 10) {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message; none when more bytes are needed.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let bytes = &self.buffer[self.taken..];
        let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > self.limit {
            return Err(FrameError::TooLong {
                length,
                limit: self.limit,
            });
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let (message, trailing) = postcard::take_from_bytes(body)?;
        if !trailing.is_empty() {
            return Err(FrameError::Trailing(trailing.len()));
        }
        self.taken += 4 + length;
        Ok(Some(message))
    }

    /// Whether a message has begun and not ended: an end of file now is an error.
    pub fn is_mid_message(&self) -> bool {
        self.taken < self.buffer.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_any_cut() {
        let mut bytes = Vec::new();
        for message in ["", "one", "a longer one"] {
            encode(&message, 100, &mut bytes).unwrap();
        }
        for step in 1..bytes.len() {
            let mut decoder = Decoder::new(100);
            let mut seen = Vec::new();
            for piece in bytes.chunks(step) {
                decoder.push(piece);
                while let Some(text) = decoder.take::<String>().unwrap() {
                    seen.push(text);
                }
            }
            assert_eq!(seen, ["", "one", "a longer one"]);
            assert!(!decoder.is_mid_message());
        }
    }

    #[test]
    fn a_lying_length_is_refused_before_it_is_believed() {
        let mut decoder = Decoder::new(100);
        decoder.push(&u32::MAX.to_le_bytes());
        assert!(matches!(
            decoder.take::<String>(),
            Err(FrameError::TooLong { limit: 100, .. })
        ));
        assert!(decoder.buffer.capacity() < 1000);
    }

    #[test]
    fn too_long_a_message_is_not_sent_and_leaves_no_trace() {
        let mut bytes = vec![7];
        assert!(matches!(
            encode(&"x".repeat(200), 100, &mut bytes),
            Err(FrameError::TooLong { .. })
        ));
        assert_eq!(bytes, [7]);
    }

    #[test]
    fn bytes_after_the_message_are_an_error() {
        let mut decoder = Decoder::new(100);
        decoder.push(&[3, 0, 0, 0, 1, b'a', b'b']);
        assert!(matches!(
            decoder.take::<String>(),
            Err(FrameError::Trailing(1))
        ));
    }
}
