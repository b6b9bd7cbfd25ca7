//! What a program or a shared library asks of the dynamic linker.
//!
//! Knows bytes only: where they come from, and where the libraries lie that they name, is
//! [`super::closure`]'s. `ldd` is not asked, since it runs what it examines and knows only this
//! machine's libraries.

use object::elf;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, ReadRef};

use crate::id::Bytes;

/// The most libraries and search directories that one file may name; gcc's own name ten.
const NAMES_MAX: usize = 1024;

/// The part of an ELF file that decides which other files it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elf {
    /// For which machine it is.
    pub machine: Machine,
    /// The dynamic linker, as it is spelled; none for a library or a static program.
    pub interpreter: Option<Bytes>,
    /// The libraries that it names, in their order.
    pub needed: Vec<Bytes>,
    /// Search directories for these and for what these need (`DT_RPATH`), `$ORIGIN` unreplaced.
    pub rpath: Vec<Bytes>,
    /// Search directories for these alone (`DT_RUNPATH`), `$ORIGIN` unreplaced. When there are
    /// any, `rpath` doesn't count.
    pub runpath: Vec<Bytes>,
}

/// Two files can be loaded into one process only when these are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// `e_machine`.
    pub number: u16,
    /// Whether its addresses have 64 bits.
    pub wide: bool,
    /// Whether it is little-endian.
    pub little: bool,
}

impl Machine {
    /// The machine as `uname -m` says it where this program is at home; none for one that ice
    /// doesn't know.
    pub fn platform(self) -> Option<&'static str> {
        Some(match (elf::Machine(self.number), self.wide, self.little) {
            (elf::EM_X86_64, true, _) => "x86_64",
            (elf::EM_386, false, _) => "i686",
            (elf::EM_AARCH64, true, true) => "aarch64",
            (elf::EM_ARM, false, true) => "armv7l",
            (elf::EM_RISCV, true, true) => "riscv64",
            (elf::EM_PPC64, true, true) => "ppc64le",
            (elf::EM_PPC64, true, false) => "ppc64",
            (elf::EM_PPC, false, false) => "ppc",
            (elf::EM_S390, true, false) => "s390x",
            (elf::EM_LOONGARCH, true, true) => "loongarch64",
            _ => return None,
        })
    }
}

/// Reads `data`; none when it is no ELF file, or a damaged one.
pub fn parse<'data, R: ReadRef<'data>>(data: R) -> Option<Elf> {
    let ident = data.read_bytes_at(0, 16).ok()?;
    if ident[..4] != elf::ELFMAG {
        return None;
    }
    match elf::FileClass(ident[4]) {
        elf::ELFCLASS32 => parse_class::<elf::FileHeader32<Endianness>, R>(data),
        elf::ELFCLASS64 => parse_class::<elf::FileHeader64<Endianness>, R>(data),
        _ => None,
    }
}

fn parse_class<'data, H, R>(data: R) -> Option<Elf>
where
    H: FileHeader<Endian = Endianness>,
    R: ReadRef<'data>,
{
    let header = H::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, data).ok()?;
    let mut found = Elf {
        machine: Machine {
            number: header.e_machine(endian).0,
            wide: header.is_class_64(),
            little: header.is_little_endian(),
        },
        ..Elf::default()
    };
    for segment in segments {
        if let Ok(Some(interpreter)) = segment.interpreter(endian, data) {
            found.interpreter = Some(Bytes::from(interpreter));
        }
        if let Ok(Some(dynamics)) = segment.dynamic(endian, data) {
            let strings = Strings::locate::<H>(endian, segments, dynamics)?;
            for dynamic in dynamics {
                let list = match dynamic.tag(endian) {
                    elf::DT_NEEDED => &mut found.needed,
                    elf::DT_RPATH => &mut found.rpath,
                    elf::DT_RUNPATH => &mut found.runpath,
                    elf::DT_NULL => break,
                    _ => continue,
                };
                let text = strings.text(data, dynamic.val32(endian)?)?;
                let is_list = dynamic.tag(endian) != elf::DT_NEEDED;
                if is_list {
                    let parts = text.split(|&byte| byte == b':');
                    list.extend(parts.filter(|part| !part.is_empty()).map(Bytes::from));
                } else {
                    list.push(Bytes::from(text));
                }
                if list.len() > NAMES_MAX {
                    return None;
                }
            }
        }
    }
    Some(found)
}

/// The dynamic string table, found as the dynamic linker finds it: by the segments, since
/// sections may have been stripped.
struct Strings {
    offset: u64,
    size: u64,
}

impl Strings {
    fn locate<H: FileHeader<Endian = Endianness>>(
        endian: Endianness,
        segments: &[H::ProgramHeader],
        dynamics: &[H::Dyn],
    ) -> Option<Self> {
        let value = |tag| {
            let dynamic = dynamics.iter().find(|d| d.tag(endian) == tag);
            dynamic.map(|d| -> u64 { d.d_val(endian).into() })
        };
        let (Some(address), Some(size)) = (value(elf::DT_STRTAB), value(elf::DT_STRSZ)) else {
            // Without names there is nothing to look up either.
            return Some(Self { offset: 0, size: 0 });
        };
        let load = segments.iter().find(|segment| {
            let start: u64 = segment.p_vaddr(endian).into();
            let length: u64 = segment.p_filesz(endian).into();
            segment.p_type(endian) == elf::PT_LOAD && address >= start && address - start < length
        })?;
        let start: u64 = load.p_vaddr(endian).into();
        let file: u64 = load.p_offset(endian).into();
        Some(Self {
            offset: file.checked_add(address - start)?,
            size,
        })
    }

    fn text<'data, R: ReadRef<'data>>(&self, data: R, at: u32) -> Option<&'data [u8]> {
        let start = self.offset.checked_add(u64::from(at))?;
        let end = self.offset.checked_add(self.size)?;
        data.read_bytes_at_until(start..end, 0).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A little-endian file with one loaded segment at address 0x1000, an interpreter, and a
    /// dynamic section of these tags with strings.
    fn file(wide: bool, interpreter: &str, dynamics: &[(u32, &str)]) -> Vec<u8> {
        let word = |value: u64| -> Vec<u8> {
            let bytes = value.to_le_bytes();
            bytes[..if wide { 8 } else { 4 }].to_vec()
        };
        let (header, segment, entry) = if wide { (64, 56, 16) } else { (52, 32, 8) };
        let mut strings = vec![0];
        let mut table = Vec::new();
        let place = |strings: &mut Vec<u8>, text: &str| {
            let at = strings.len() as u64;
            strings.extend(text.as_bytes());
            strings.push(0);
            at
        };
        let mut pairs: Vec<(u64, u64)> = Vec::new();
        for (tag, text) in dynamics {
            pairs.push((u64::from(*tag), place(&mut strings, text)));
        }
        let interpreter_at = header + 3 * segment;
        let strings_at = interpreter_at + interpreter.len() as u64 + 1;
        let table_at = (strings_at + strings.len() as u64).next_multiple_of(8);
        pairs.push((5, 0x1000 + strings_at));
        pairs.push((10, strings.len() as u64));
        pairs.push((0, 0));
        // What follows the end of the table is not looked at.
        pairs.push((1, 0xffff));
        for (tag, value) in &pairs {
            table.extend(word(*tag));
            table.extend(word(*value));
        }
        assert_eq!(table.len() as u64, entry * pairs.len() as u64);
        let end = table_at + table.len() as u64;

        let mut bytes = vec![0x7f, b'E', b'L', b'F', if wide { 2 } else { 1 }, 1, 1];
        bytes.resize(16, 0);
        bytes.extend(3u16.to_le_bytes());
        bytes.extend(if wide { 62u16 } else { 3 }.to_le_bytes());
        bytes.extend(1u32.to_le_bytes());
        bytes.extend([word(0), word(header), word(0)].concat());
        bytes.extend(0u32.to_le_bytes());
        for half in [header, segment, 3, 64, 0, 0] {
            bytes.extend((half as u16).to_le_bytes());
        }
        let interpreter_length = interpreter.len() as u64 + 1;
        for (kind, at, length) in [
            (1u32, 0, end),
            (3, interpreter_at, interpreter_length),
            (2, table_at, end - table_at),
        ] {
            bytes.extend(kind.to_le_bytes());
            if wide {
                bytes.extend(4u32.to_le_bytes());
            }
            let address = at + 0x1000;
            bytes.extend(
                [
                    word(at),
                    word(address),
                    word(address),
                    word(length),
                    word(length),
                ]
                .concat(),
            );
            if !wide {
                bytes.extend(4u32.to_le_bytes());
            }
            bytes.extend(word(8));
        }
        bytes.extend(interpreter.as_bytes());
        bytes.push(0);
        bytes.extend(&strings);
        bytes.resize(table_at as usize, 0);
        bytes.extend(&table);
        bytes
    }

    const SAMPLE: [(u32, &str); 4] = [
        (1, "liba.so.1"),
        (1, "libb.so"),
        (15, "/x:$ORIGIN/../lib"),
        (29, "/y::"),
    ];

    #[test]
    fn a_program_says_what_it_needs() {
        for (wide, number, platform) in [(true, 62, "x86_64"), (false, 3, "i686")] {
            let found = parse(&file(wide, "/lib/ld.so", &SAMPLE)[..]).unwrap();
            let list = |texts: &[&str]| texts.iter().map(|t| Bytes::from(*t)).collect::<Vec<_>>();
            assert_eq!(
                found,
                Elf {
                    machine: Machine {
                        number,
                        wide,
                        little: true
                    },
                    interpreter: Some("/lib/ld.so".into()),
                    needed: list(&["liba.so.1", "libb.so"]),
                    rpath: list(&["/x", "$ORIGIN/../lib"]),
                    runpath: list(&["/y"]),
                }
            );
            assert_eq!(found.machine.platform(), Some(platform));
        }
    }

    #[test]
    fn no_cut_and_no_changed_byte_panics() {
        for wide in [true, false] {
            let good = file(wide, "/lib/ld.so", &SAMPLE);
            for cut in 0..good.len() {
                parse(&good[..cut]);
            }
            for at in 0..good.len() {
                for value in [0, 1, 0x7f, 0xff] {
                    let mut bad = good.clone();
                    bad[at] = value;
                    parse(&bad[..]);
                }
            }
        }
        assert_eq!(parse(&b"#!/bin/sh\nexec gcc"[..]), None);
        assert_eq!(parse(&b""[..]), None);
    }

    #[test]
    fn too_many_names_are_refused() {
        let many = vec![(1, "l"); NAMES_MAX + 1];
        assert_eq!(parse(&file(true, "/lib/ld.so", &many)[..]), None);
    }
}
