//! Options that the driver hands on to one of its parts: `-Wp,`, `-Wa,`, `-Xclang`, `-mllvm`.
//!
//! The parts have options of their own, often under the same names as the driver's and with other
//! values. Here is the short list of those that builds use and that touch no file but those named
//! here; all others keep the compile local.

use crate::id::Bytes;

use super::reason::{Cause, Reason};
use super::table::Headers;

/// What options handed to the preprocessor ask for.
#[derive(Debug, Default)]
pub(super) struct ToPreprocessor {
    /// `-D` and `-U`, joined.
    pub defines: Vec<Bytes>,
    /// `-MD` and `-MMD`, which take a file here.
    pub dependencies: Option<(Headers, Bytes)>,
}

/// Reads the pieces of all `-Wp,` and `-Xpreprocessor`, in order.
pub(super) fn to_preprocessor(pieces: &[&[u8]]) -> Result<ToPreprocessor, Reason> {
    let mut asked = ToPreprocessor::default();
    let mut pieces = pieces.iter().copied();
    while let Some(piece) = pieces.next() {
        let refuse = |cause| Reason::about(cause, piece);
        match piece {
            b"-D" | b"-U" => {
                let name = pieces.next().ok_or_else(|| refuse(Cause::MissingValue))?;
                asked.defines.push(Bytes([piece, name].concat()));
            }
            b"-MD" | b"-MMD" => {
                let file = pieces.next().ok_or_else(|| refuse(Cause::MissingValue))?;
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
                pieces.next().ok_or_else(|| refuse(Cause::MissingValue))?;
            }
            b"-MP" => {}
            _ if piece.starts_with(b"-D") || piece.starts_with(b"-U") => {
                asked.defines.push(Bytes::from(piece));
            }
            _ => return Err(refuse(Cause::InnerOption)),
        }
    }
    Ok(asked)
}

/// Reads the pieces of all `-Wa,` and `-Xassembler`: whether they ask for debug information.
pub(super) fn to_assembler(pieces: &[&[u8]]) -> Result<bool, Reason> {
    const HARMLESS: &[&str] = &[
        "--noexecstack",
        "--execstack",
        "--fatal-warnings",
        "--warn",
        "--no-warn",
        "-W",
        "-L",
        "--keep-locals",
        "--nocompress-debug-sections",
        "--reduce-memory-overheads",
        "--strip-local-absolute",
        "--32",
        "--64",
        "--x32",
        "--divide",
    ];
    const HARMLESS_PREFIXES: &[&str] = &[
        "-m",
        "--compress-debug-sections",
        "--size-check=",
        "--elf-stt-common=",
        "--generate-missing-build-notes=",
        "--debug-prefix-map=",
    ];
    let mut debug = false;
    let mut pieces = pieces.iter().copied();
    while let Some(piece) = pieces.next() {
        let is = |words: &[&str]| words.iter().any(|word| word.as_bytes() == piece);
        let begins = |words: &[&str]| words.iter().any(|word| piece.starts_with(word.as_bytes()));
        if is(&["--defsym", "--debug-prefix-map"]) {
            if pieces.next().is_none() {
                return Err(Reason::about(Cause::MissingValue, piece));
            }
        } else if is(&["-g", "--gen-debug"]) || begins(&["--gdwarf", "--gstabs"]) {
            debug = true;
        } else if !is(HARMLESS) && !begins(HARMLESS_PREFIXES) {
            return Err(Reason::about(Cause::AssemblerOption, piece));
        }
    }
    Ok(debug)
}

/// What the operand of `-Xclang` says against a compile elsewhere.
pub(super) fn to_clang(operand: &[u8]) -> Result<(), Reason> {
    let cause = match operand {
        b"-disable-llvm-passes"
        | b"-disable-O0-optnone"
        | b"-disable-lifetime-markers"
        | b"-fcolor-diagnostics"
        | b"-no-opaque-pointers"
        | b"-opaque-pointers"
        | b"-fdebug-pass-manager" => return Ok(()),
        b"-include-pch" | b"-emit-pch" | b"-fno-pch-timestamp" => Cause::PrecompiledHeader,
        b"-load" | b"-plugin" | b"-add-plugin" => Cause::Plugin,
        _ => Cause::InnerOption,
    };
    Err(Reason::about(cause, operand))
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
    fn the_preprocessor_is_asked_for_macros_and_dependencies_only() {
        for (list, expect) in [
            ("-DA=1,-U,B", "[\"-DA=1\", \"-UB\"] None"),
            ("-MD,x.d,-MT,y", "[] Some((All, \"x.d\"))"),
            ("-MMD,x.d", "[] Some((User, \"x.d\"))"),
            ("-MD", "missing-value"),
            ("-MD,a,-MMD,b", "dependency-form"),
            ("-MF,a", "inner-option"),
            ("-include,a.h", "inner-option"),
            ("x", "inner-option"),
        ] {
            let found = match to_preprocessor(&pieces(list)) {
                Ok(asked) => format!("{:?} {:?}", asked.defines, asked.dependencies),
                Err(reason) => reason.word().to_owned(),
            };
            assert_eq!(found, expect, "{list}");
        }
    }

    #[test]
    fn every_piece_for_the_assembler_counts() {
        for (list, expect) in [
            ("--noexecstack", Ok(false)),
            ("-march=armv7-a,-mfpu=neon", Ok(false)),
            ("--defsym,A=1,-L", Ok(false)),
            ("--gdwarf-5", Ok(true)),
            ("-al=list.txt,-L", Err("-al=list.txt")),
            ("-L,-al=list.txt", Err("-al=list.txt")),
            ("-Idir", Err("-Idir")),
            ("other.s", Err("other.s")),
            ("@file", Err("@file")),
            ("--defsym", Err("--defsym")),
            ("--MD,x.d", Err("--MD")),
        ] {
            let found = to_assembler(&pieces(list)).map_err(|reason| reason.subject.to_string());
            assert_eq!(found, expect.map_err(str::to_owned), "{list}");
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
