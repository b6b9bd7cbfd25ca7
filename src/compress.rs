//! Bulk data in chunks: LZ4 where it pays, as it is where it does not.
//!
//! LZ4 because on a fast network a denser codec costs more CPU on the submitter than it saves on
//! the wire. The size that a chunk claims is held against [`CHUNK_BYTES_MAX`] before it is believed.

use crate::id::Bytes;
use crate::message::{CHUNK_BYTES_MAX, Chunk};

/// A chunk that does not unpack.
#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    /// It claims to be larger than any chunk may be.
    #[error("a chunk of {0} bytes; at most {CHUNK_BYTES_MAX} are accepted")]
    TooLarge(u32),
    /// It is damaged.
    #[error("a chunk that does not unpack to the {0} bytes that it claims")]
    Damaged(u32),
}

/// Packs at most [`CHUNK_BYTES_MAX`] bytes.
///
/// # Panics
/// When `data` is longer.
pub fn pack(data: &[u8]) -> Chunk {
    assert!(
        data.len() <= CHUNK_BYTES_MAX,
        "a chunk is cut to size by its sender"
    );
    let size = data.len() as u32;
    if data.len() >= 128 {
        let packed = lz4_flex::block::compress(data);
        // An eighth saved is worth the other end's time; less is not.
        if packed.len() <= data.len() - data.len() / 8 {
            return Chunk {
                size,
                data: Bytes(packed),
            };
        }
    }
    Chunk {
        size,
        data: Bytes(data.to_vec()),
    }
}

/// Unpacks a chunk for good.
pub fn unpack(chunk: Chunk) -> Result<Vec<u8>, CompressError> {
    let mut unpacker = Unpacker::default();
    unpacker.unpack(&chunk)?;
    Ok(match chunk.data.len() == chunk.size as usize {
        // It was not packed.
        true => chunk.data.0,
        false => unpacker.room,
    })
}

/// Unpacks many chunks, one after the other, into the same memory: that of the largest of them.
#[derive(Debug, Default)]
pub struct Unpacker {
    room: Vec<u8>,
}

impl Unpacker {
    /// What is in `chunk`, until the next one comes.
    pub fn unpack<'a>(&'a mut self, chunk: &'a Chunk) -> Result<&'a [u8], CompressError> {
        let size = chunk.size as usize;
        if size > CHUNK_BYTES_MAX {
            return Err(CompressError::TooLarge(chunk.size));
        }
        if chunk.data.len() == size {
            return Ok(&chunk.data);
        }
        if self.room.len() < size {
            self.room.resize(size, 0);
        }
        match lz4_flex::block::decompress_into(&chunk.data, &mut self.room[..size]) {
            Ok(unpacked) if unpacked == size => Ok(&self.room[..size]),
            _ => Err(CompressError::Damaged(chunk.size)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_unpacks() {
        let noise: Vec<u8> = (0..1000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        for data in [
            Vec::new(),
            b"short".to_vec(),
            vec![b'x'; CHUNK_BYTES_MAX],
            noise,
        ] {
            let chunk = pack(&data);
            assert!(chunk.data.len() <= data.len());
            assert_eq!(unpack(chunk).unwrap(), data);
        }
    }

    #[test]
    fn a_lying_chunk_is_refused() {
        let good = pack(&[b'x'; 1000]);
        for size in [999, 1001, CHUNK_BYTES_MAX as u32 + 1, u32::MAX] {
            assert!(
                unpack(Chunk {
                    size,
                    data: good.data.clone()
                })
                .is_err(),
                "{size}"
            );
        }
        assert!(
            unpack(Chunk {
                size: 50,
                data: Bytes(vec![0xff; 20])
            })
            .is_err()
        );
    }
}
