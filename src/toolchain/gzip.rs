//! gzip, as a reader and a writer over miniz_oxide, which knows deflate but not its wrapping.
//!
//! Knows nothing of archives. Several members in one file are one stream, as `gzip` has it.

use std::io::{self, BufRead, BufReader, Read, Write};

use miniz_oxide::deflate::core::{CompressorOxide, create_comp_flags_from_zip_params};
use miniz_oxide::deflate::stream::deflate;
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

const FLAG_HEADER_CRC: u8 = 2;
const FLAG_EXTRA: u8 = 4;
const FLAG_NAME: u8 = 8;
const FLAG_COMMENT: u8 = 16;

/// The longest name or comment in a header; `gzip` writes a file's name.
const NAME_BYTES_MAX: usize = 64 << 10;

/// Inflates what it reads, and checks length and CRC at the end of each member.
pub struct Reader<R> {
    inner: BufReader<R>,
    state: Option<Box<InflateState>>,
    check: Crc,
    length: u32,
    members: u32,
}

impl<R: Read> Reader<R> {
    /// A reader; the header is looked at when it is first read.
    pub fn new(inner: R) -> Self {
        Self {
            inner: BufReader::with_capacity(64 << 10, inner),
            state: None,
            check: Crc::new(),
            length: 0,
            members: 0,
        }
    }

    /// Reads a member's header; false at the end of the file.
    fn begin(&mut self) -> io::Result<bool> {
        if self.members > 0 && self.inner.fill_buf()?.is_empty() {
            return Ok(false);
        }
        let mut header = [0; 10];
        self.inner.read_exact(&mut header)?;
        if header[..3] != [0x1f, 0x8b, 8] {
            return Err(malformed("not gzip"));
        }
        let flags = header[3];
        if flags & FLAG_EXTRA != 0 {
            let mut length = [0; 2];
            self.inner.read_exact(&mut length)?;
            let length = u64::from(u16::from_le_bytes(length));
            io::copy(&mut (&mut self.inner).take(length), &mut io::sink())?;
        }
        for flag in [FLAG_NAME, FLAG_COMMENT] {
            if flags & flag != 0 {
                let mut limited = (&mut self.inner).take(NAME_BYTES_MAX as u64);
                let mut name = Vec::new();
                limited.read_until(0, &mut name)?;
                if name.last() != Some(&0) {
                    return Err(malformed("a gzip header without end"));
                }
            }
        }
        if flags & FLAG_HEADER_CRC != 0 {
            self.inner.read_exact(&mut [0; 2])?;
        }
        self.state = Some(InflateState::new_boxed(DataFormat::Raw));
        self.check = Crc::new();
        self.length = 0;
        self.members += 1;
        Ok(true)
    }

    fn end(&mut self) -> io::Result<()> {
        let mut trailer = [0; 8];
        self.inner.read_exact(&mut trailer)?;
        let [a, b, c, d, e, f, g, h] = trailer;
        self.state = None;
        if u32::from_le_bytes([a, b, c, d]) != self.check.value()
            || u32::from_le_bytes([e, f, g, h]) != self.length
        {
            return Err(malformed("damaged gzip data: the check sum differs"));
        }
        Ok(())
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if self.state.is_none() && !self.begin()? {
                return Ok(0);
            }
            let Some(state) = self.state.as_deref_mut() else {
                return Ok(0);
            };
            let input = self.inner.fill_buf()?;
            let at_end = input.is_empty();
            let result = inflate(state, input, out, MZFlush::None);
            self.inner.consume(result.bytes_consumed);
            let produced = result.bytes_written;
            self.check.add(&out[..produced]);
            self.length = self.length.wrapping_add(produced as u32);
            match result.status {
                Ok(MZStatus::StreamEnd) => self.end()?,
                Ok(_) | Err(MZError::Buf) if produced > 0 || !at_end => {}
                Ok(_) | Err(MZError::Buf) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(_) => return Err(malformed("damaged gzip data")),
            }
            if produced > 0 {
                return Ok(produced);
            }
        }
    }
}

/// Deflates what is written. [`Writer::finish`] completes the member.
pub struct Writer<W> {
    inner: W,
    compressor: Box<CompressorOxide>,
    buffer: Vec<u8>,
    check: Crc,
    length: u32,
}

impl<W: Write> Writer<W> {
    /// A writer at gzip's usual level, 6; writes the header, without a name or a time, so that
    /// the same content makes the same file.
    pub fn new(mut inner: W) -> io::Result<Self> {
        inner.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])?;
        let flags = create_comp_flags_from_zip_params(6, 0, 0);
        Ok(Self {
            inner,
            compressor: Box::new(CompressorOxide::new(flags)),
            buffer: vec![0; 64 << 10],
            check: Crc::new(),
            length: 0,
        })
    }

    /// Writes what is left, and the trailer.
    pub fn finish(mut self) -> io::Result<W> {
        self.run(&[], MZFlush::Finish)?;
        self.inner.write_all(&self.check.value().to_le_bytes())?;
        self.inner.write_all(&self.length.to_le_bytes())?;
        Ok(self.inner)
    }

    fn run(&mut self, mut data: &[u8], flush: MZFlush) -> io::Result<()> {
        loop {
            let result = deflate(&mut self.compressor, data, &mut self.buffer, flush);
            data = &data[result.bytes_consumed..];
            self.inner.write_all(&self.buffer[..result.bytes_written])?;
            match result.status {
                Ok(MZStatus::StreamEnd) => return Ok(()),
                // "No progress" is what it says when all input is taken in.
                Ok(_) | Err(MZError::Buf) if data.is_empty() && flush == MZFlush::None => {
                    return Ok(());
                }
                Ok(_) => {}
                Err(error) => return Err(io::Error::other(format!("deflate: {error:?}"))),
            }
        }
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.run(data, MZFlush::None)?;
        self.check.add(data);
        self.length = self.length.wrapping_add(data.len() as u32);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// gzip's CRC-32 (reflected, polynomial 0xedb88320).
struct Crc(u32);

impl Crc {
    fn new() -> Self {
        Self(u32::MAX)
    }

    fn add(&mut self, data: &[u8]) {
        for &byte in data {
            self.0 = CRC_TABLE[usize::from(self.0 as u8 ^ byte)] ^ (self.0 >> 8);
        }
    }

    fn value(&self) -> u32 {
        !self.0
    }
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            let carry = value & 1;
            value >>= 1;
            if carry != 0 {
                value ^= 0xedb8_8320;
            }
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(data: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new()).unwrap();
        for piece in data.chunks(1000) {
            writer.write_all(piece).unwrap();
        }
        writer.finish().unwrap()
    }

    fn unpacked(data: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Reader::new(data).read_to_end(&mut out)?;
        Ok(out)
    }

    fn sample() -> Vec<u8> {
        (0..200_000u32)
            .map(|i| (i.wrapping_mul(i) >> 13) as u8)
            .collect()
    }

    #[test]
    fn the_check_sum_is_the_known_one() {
        let mut crc = Crc::new();
        crc.add(b"123456789");
        assert_eq!(crc.value(), 0xcbf4_3926);
    }

    #[test]
    fn what_is_written_is_read_again() {
        for data in [Vec::new(), b"x".to_vec(), sample()] {
            assert_eq!(unpacked(&packed(&data)).unwrap(), data);
        }
    }

    #[test]
    fn members_are_one_stream() {
        let mut bytes = packed(b"one ");
        bytes.extend(packed(b"two"));
        assert_eq!(unpacked(&bytes).unwrap(), b"one two");
    }

    #[test]
    fn a_header_with_every_field_is_stepped_over() {
        let plain = packed(b"text");
        let mut bytes = plain[..10].to_vec();
        bytes[3] = FLAG_EXTRA | FLAG_NAME | FLAG_COMMENT | FLAG_HEADER_CRC;
        bytes.extend(b"\x02\0ab");
        bytes.extend(b"name\0comment\0\0\0");
        bytes.extend(&plain[10..]);
        assert_eq!(unpacked(&bytes).unwrap(), b"text");
    }

    #[test]
    fn damage_is_an_error() {
        let good = packed(&sample());
        let last = good.len() - 1;
        for cut in [0, 5, 10, 11, good.len() / 2, last - 8, last] {
            assert!(unpacked(&good[..cut]).is_err(), "cut at {cut}");
        }
        for at in [0, good.len() / 2, last - 5, last] {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(unpacked(&bad).is_err(), "changed at {at}");
        }
    }
}
