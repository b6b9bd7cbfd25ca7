//! Options that the driver hands on to one of its parts: `-Wp,`, `-Wa,`, `-Xclang`, `-mllvm`.
//!
//! The parts have options of their own, often under the same names as the driver's and with other
//! values. Here is the short list of those that builds use and that touch no file but those named
//! here; all others keep the compile local.

use crate::id::Bytes;

use super::plan::Forced;
use super::reason::{Cause, Reason};
use super::table::{ForcedKind, Headers};

/// What options handed to the preprocessor ask for.
#[derive(Debug, Default)]
pub(super) struct ToPreprocessor {
    /// `-D` and `-U`, joined.
    pub defines: Vec<Bytes>,
    /// `-MD` and `-MMD`, which take a file here.
    pub dependencies: Option<(Headers, Bytes)>,
    /// `-include` and `-imacros`.
    pub forced: Vec<Forced>,
    /// The words that change the search list.
    pub search: Vec<Bytes>,
}

/// Reads the pieces of all `-Wp,` and `-Xpreprocessor`, in order.
pub(super) fn to_preprocessor(pieces: &[&[u8]]) -> Result<ToPreprocessor, Reason> {
    let mut asked = ToPreprocessor::default();
    let mut pieces = pieces.iter().copied();
    while let Some(piece) = pieces.next() {
        let refuse = |cause| Reason::about(cause, piece);
        let mut value = || pieces.next().ok_or_else(|| refuse(Cause::MissingValue));
        match piece {
            b"-D" | b"-U" => asked.defines.push(Bytes([piece, value()?].concat())),
            b"-MD" | b"-MMD" => {
                let file = value()?;
                let headers = match piece {
                    b"-MD" => Headers::All,
                    _ => Headers::User,
                };
                let before = asked.dependencies.replace((headers, Bytes::from(file)));
                if before.is_some() {
                    return Err(refuse(Cause::DependencyForm));
                }
            }
            b"-MT" | b"-MQ" => {
                value()?;
            }
            b"-include" | b"-imacros" => asked.forced.push(Forced {
                kind: match piece {
                    b"-include" => ForcedKind::Include,
                    _ => ForcedKind::Macros,
                },
                name: Bytes::from(value()?),
            }),
            b"-I" | b"-isystem" | b"-iquote" | b"-idirafter" => {
                asked
                    .search
                    .extend([Bytes::from(piece), Bytes::from(value()?)]);
            }
            b"-nostdinc" | b"-nostdinc++" | b"-undef" => asked.search.push(Bytes::from(piece)),
            b"-MP" | b"-w" | b"-P" | b"-C" | b"-CC" => {}
            _ if piece.starts_with(b"-D") || piece.starts_with(b"-U") => {
                asked.defines.push(Bytes::from(piece));
            }
            _ if piece.starts_with(b"-I") && piece != b"-I-" => {
                asked.search.push(Bytes::from(piece));
            }
            _ if piece.starts_with(b"-W") && !piece.contains(&b'=') => {}
            _ => return Err(refuse(Cause::InnerOption)),
        }
    }
    Ok(asked)
}

/// What options handed to the assembler ask for.
#[derive(Debug, Default)]
pub(super) struct ToAssembler {
    /// Debug information is asked for.
    pub debug: bool,
    /// `-I`: where it looks for what it includes.
    pub search: Vec<Bytes>,
    /// Sources that it reads before its input.
    pub reads: Vec<Bytes>,
    /// Listings and dependencies.
    pub writes: Vec<Bytes>,
}

/// Reads the pieces of all `-Wa,` and `-Xassembler`, in order.
pub(super) fn to_assembler(pieces: &[&[u8]]) -> Result<ToAssembler, Reason> {
    const HARMLESS: &[&str] = &[
        "--noexecstack",
        "--execstack",
        "--fatal-warnings",
        "--warn",
        "--no-warn",
        "-W",
        "-L",
        "-f",
        "-w",
        "-J",
        "-K",
        "-R",
        "-D",
        "-n",
        "-s",
        "-n",
        "--alternate",
        "--divide",
        "--keep-locals",
        "--nocompress-debug-sections",
        "--no-pad-sections",
        "--reduce-memory-overheads",
        "--strip-local-absolute",
        "--traditional-format",
        "--32",
        "--64",
        "--x32",
        "-EL",
        "-EB",
        "-mlittle-endian",
        "-mbig-endian",
    ];
    const HARMLESS_PREFIXES: &[&str] = &[
        "-m",
        "--compress-debug-sections",
        "--size-check=",
        "--elf-stt-common=",
        "--generate-missing-build-notes=",
        "--debug-prefix-map=",
        "--listing-lhs-width",
        "--listing-lhs-width2",
        "--listing-rhs-width",
        "--listing-cont-lines",
        "--multibyte-handling=",
    ];
    let mut asked = ToAssembler::default();
    let mut pieces = pieces.iter().copied();
    while let Some(piece) = pieces.next() {
        let is = |words: &[&str]| words.iter().any(|word| word.as_bytes() == piece);
        let begins = |words: &[&str]| words.iter().any(|word| piece.starts_with(word.as_bytes()));
        let refuse = |cause| Reason::about(cause, piece);
        let mut value = || pieces.next().ok_or_else(|| refuse(Cause::MissingValue));
        if is(&["--defsym", "-defsym", "--debug-prefix-map"]) {
            value()?;
        } else if is(&["-I"]) {
            asked.search.push(Bytes::from(value()?));
        } else if is(&["--MD"]) {
            asked.writes.push(Bytes::from(value()?));
        } else if is(&["-g", "--gen-debug"]) || begins(&["--gdwarf", "-gdwarf", "--gstabs"]) {
            asked.debug = true;
        } else if let Some(directory) = piece.strip_prefix(b"-I") {
            asked.search.push(Bytes::from(directory));
        } else if let Some(listing) = piece.strip_prefix(b"-a") {
            asked.writes.extend(listing_file(listing).map_err(refuse)?);
        } else if is(HARMLESS) || begins(HARMLESS_PREFIXES) || begins(&["--defsym="]) {
        } else if piece
            .first()
            .is_some_and(|&first| !matches!(first, b'-' | b'@'))
        {
            asked.reads.push(Bytes::from(piece));
        } else {
            return Err(refuse(Cause::AssemblerOption));
        }
    }
    Ok(asked)
}

/// The file of a listing, of what follows `-a`; none when it is printed.
fn listing_file(asked: &[u8]) -> Result<Option<Bytes>, Cause> {
    let equals = asked.iter().position(|&b| b == b'=');
    let (parts, file) = match equals {
        Some(equals) => (&asked[..equals], Some(Bytes::from(&asked[equals + 1..]))),
        None => (asked, None),
    };
    if parts.contains(&b'g') {
        // It begins with the time of day.
        Err(Cause::Timing)
    } else if parts.iter().all(|part| b"cdhilmns".contains(part)) {
        Ok(file)
    } else {
        Err(Cause::AssemblerOption)
    }
}

/// What options handed to clang's compiler proper ask for.
#[derive(Debug, Default)]
pub(super) struct ToClang {
    /// `-include`.
    pub forced: Vec<Forced>,
    /// `-include-pch`.
    pub precompiled: Vec<Bytes>,
}

/// Reads the operands of all `-Xclang`, in order.
pub(super) fn to_clang(operands: &[&[u8]]) -> Result<ToClang, Reason> {
    const HARMLESS: &[&[u8]] = &[
        b"-disable-O0-optnone",
        b"-disable-lifetime-markers",
        b"-disable-llvm-optzns",
        b"-disable-llvm-passes",
        b"-disable-red-zone",
        b"-fcolor-diagnostics",
        b"-fdebug-pass-manager",
        b"-fdenormal-fp-math",
        b"-ffake-address-space-map",
        b"-fno-pch-timestamp",
        b"-fno-validate-pch",
        b"-fretain-comments-from-system-headers",
        b"-mnoexecstack",
        b"-mrelax-all",
        b"-no-opaque-pointers",
        b"-opaque-pointers",
        b"-sys-header-deps",
        b"-w",
    ];
    const WITH_A_WORD: &[&[u8]] = &[
        b"-mrelocation-model",
        b"-mthread-model",
        b"-pic-level",
        b"-target-abi",
        b"-target-cpu",
        b"-target-feature",
        b"-tune-cpu",
    ];
    let mut asked = ToClang::default();
    let mut operands = operands.iter().copied();
    while let Some(operand) = operands.next() {
        let refuse = |cause| Reason::about(cause, operand);
        let mut value = || operands.next().ok_or_else(|| refuse(Cause::MissingValue));
        match operand {
            b"-include" => asked.forced.push(Forced {
                kind: ForcedKind::Include,
                name: Bytes::from(value()?),
            }),
            b"-include-pch" => {
                let file = value()?;
                if !is_precompiled_name(file) {
                    return Err(refuse(Cause::PrecompiledHeader));
                }
                asked.precompiled.push(Bytes::from(file));
            }
            b"-mllvm" => to_llvm(value()?)?,
            b"-load" | b"-plugin" | b"-add-plugin" => return Err(refuse(Cause::Plugin)),
            b"-emit-pch" | b"-building-pch-with-obj" | b"-pch-through-header" => {
                return Err(refuse(Cause::PrecompiledHeader));
            }
            _ if HARMLESS.contains(&operand) => {}
            _ if WITH_A_WORD.contains(&operand) => {
                value()?;
            }
            _ if operand.starts_with(b"-W") && !operand.contains(&b'=') => {}
            _ => return Err(refuse(Cause::InnerOption)),
        }
    }
    Ok(asked)
}

/// Whether a precompiled header is called after the header that it was made from.
pub(super) fn is_precompiled_name(file: &[u8]) -> bool {
    [&b".pch"[..], b".gch"]
        .iter()
        .any(|suffix| file.len() > suffix.len() && file.ends_with(suffix))
}

/// What the operand of `-mllvm` says against a compile elsewhere.
pub(super) fn to_llvm(operand: &[u8]) -> Result<(), Reason> {
    if touches_no_file(operand) {
        Ok(())
    } else {
        Err(Reason::about(Cause::InnerOption, operand))
    }
}

/// Whether an option of LLVM is a switch, or has a number or a truth value.
fn touches_no_file(operand: &[u8]) -> bool {
    if !operand.starts_with(b"-") || operand.contains(&b'/') {
        return false;
    }
    let Some(equals) = operand.iter().position(|&b| b == b'=') else {
        // A word without a value would be followed by one in the next `-mllvm`, which does not
        // begin with a dash and is refused there.
        return true;
    };
    let value = &operand[equals + 1..];
    matches!(value, b"true" | b"false")
        || (!value.is_empty() && value.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(list: &str) -> Vec<&[u8]> {
        list.split(',').map(str::as_bytes).collect()
    }

    #[test]
    fn the_preprocessor_is_asked_for_what_is_known_only() {
        for (list, expect) in [
            ("-DA=1,-U,B", "[\"-DA=1\", \"-UB\"] None [] []"),
            ("-MD,x.d,-MT,y", "[] Some((All, \"x.d\")) [] []"),
            ("-MMD,x.d", "[] Some((User, \"x.d\")) [] []"),
            ("-MD", "missing-value"),
            ("-MD,a,-MMD,b", "dependency-form"),
            ("-MF,a", "inner-option"),
            ("-include,a.h", "[] None [\"a.h\"] []"),
            ("-include", "missing-value"),
            (
                "-Iinc,-isystem,x",
                "[] None [] [\"-Iinc\", \"-isystem\", \"x\"]",
            ),
            ("-I-", "inner-option"),
            ("-Wno-trigraphs", "[] None [] []"),
            ("-Wnormalized=x", "inner-option"),
            ("x", "inner-option"),
        ] {
            let found = match to_preprocessor(&pieces(list)) {
                Ok(asked) => {
                    let forced: Vec<_> = asked.forced.iter().map(|forced| &forced.name).collect();
                    let (defines, search) = (&asked.defines, &asked.search);
                    format!("{defines:?} {:?} {forced:?} {search:?}", asked.dependencies)
                }
                Err(reason) => reason.word().to_owned(),
            };
            assert_eq!(found, expect, "{list}");
        }
    }

    #[test]
    fn every_piece_for_the_assembler_counts() {
        for (list, expect) in [
            ("--noexecstack", Ok("")),
            ("-march=armv7-a,-mfpu=neon", Ok("")),
            ("--defsym,A=1,-L", Ok("")),
            ("--gdwarf-5", Ok(" debug")),
            ("-al=list.txt,-L", Ok(" >list.txt")),
            ("-L,-adhln=list.txt", Ok(" >list.txt")),
            ("-ahl", Ok("")),
            ("-ag=x", Err("-ag=x")),
            ("-aq=x", Err("-aq=x")),
            ("-Idir,-I,other", Ok(" -Idir -Iother")),
            ("other.s", Ok(" <other.s")),
            ("@file", Err("@file")),
            ("--defsym", Err("--defsym")),
            ("--MD,x.d", Ok(" >x.d")),
            ("-o,x", Err("-o")),
            ("--statistics", Err("--statistics")),
        ] {
            let found = match to_assembler(&pieces(list)) {
                Ok(asked) => {
                    let mut text = String::new();
                    let parts = [
                        ("-I", asked.search),
                        ("<", asked.reads),
                        (">", asked.writes),
                    ];
                    for (sign, files) in parts {
                        for file in files {
                            text += &format!(" {sign}{file}");
                        }
                    }
                    Ok(text + if asked.debug { " debug" } else { "" })
                }
                Err(reason) => Err(reason.subject.to_string()),
            };
            let expect = expect.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(found, expect, "{list}");
        }
    }

    #[test]
    fn operands_for_clang_are_read_in_order() {
        for (list, expect) in [
            ("-disable-O0-optnone", "[] []"),
            (
                "-include-pch,x.h.pch,-include,x.h",
                "[\"x.h\"] [\"x.h.pch\"]",
            ),
            ("-include-pch,x", "precompiled-header"),
            ("-target-feature,+avx", "[] []"),
            ("-target-feature", "missing-value"),
            ("-mllvm,-x=/y", "inner-option"),
            ("-load,x.so", "plugin"),
            ("-foo", "inner-option"),
        ] {
            let found = match to_clang(&pieces(list)) {
                Ok(asked) => {
                    let forced: Vec<_> = asked.forced.iter().map(|forced| &forced.name).collect();
                    format!("{forced:?} {:?}", asked.precompiled)
                }
                Err(reason) => reason.word().to_owned(),
            };
            assert_eq!(found, expect, "{list}");
        }
    }

    #[test]
    fn an_operand_of_llvm_names_no_file() {
        for (operand, expect) in [
            ("-inline-threshold=100", true),
            ("-enable-x", true),
            ("-enable-x=true", true),
            ("-list=names.txt", false),
            ("-dir=/x", false),
            ("-name=x", false),
            ("file", false),
            ("-x=", false),
        ] {
            assert_eq!(touches_no_file(operand.as_bytes()), expect, "{operand}");
        }
    }
}
