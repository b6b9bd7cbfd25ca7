//! What icecream's programs are called with, in ice's own words. Pure.
//!
//! Scripts that were written for icecream call `icecc`, `icerun`, `iceccd`, `icecc-scheduler` and
//! `icecc-create-env` and read what they print, so each form of their command lines has its row here.
//! Daemon and scheduler share the short options with ours, and the grammar knows the long ones.

use crate::id::Bytes;
use crate::masquerade;

/// What a call under one of icecream's names asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// What `ice` does with this command line, the program's name included.
    Ice(Vec<Bytes>),
    /// To be told this line.
    Line(String),
    /// Nothing that has a meaning: this is to be said, with exit status 1.
    Usage(&'static str),
}

/// How icecream's archive maker is called.
const CREATE_ENV_USAGE: &str = "usage: icecc-create-env COMPILER [C++-COMPILER] [--addfile FILE]... \
     [--compression none|gzip|bzip2|zstd|xz]";

/// The meaning of `argv` under the file name of its first word; none when that is not one of
/// icecream's. `is_data` tells whether a path is a file that can't be executed.
pub(super) fn asked(argv: &[Bytes], is_data: impl Fn(&Bytes) -> bool) -> Option<Asked> {
    let (name, rest) = argv.split_first()?;
    let first = rest.first().map(|word| &word[..]);
    let with = |word: &str, rest: &[Bytes]| {
        let start = ["ice", word].into_iter().map(Bytes::from);
        Asked::Ice(start.chain(rest.iter().cloned()).collect())
    };
    let is_version = matches!(first, Some(b"--version"));
    Some(match masquerade::file_name(name) {
        b"icecc" if is_version => version("ICECC"),
        b"icecc" if first == Some(b"--build-native") => build_native(&rest[1..], is_data),
        b"icecc" => Asked::Ice([&["ice".into()], rest].concat()),
        b"icerun" if is_version => version("ICERUN"),
        b"icerun" => with("local", rest),
        b"iceccd" if is_version => version("ICECCD"),
        b"iceccd" => with("daemon", rest),
        b"icecc-scheduler" if is_version => version("ICECC-SCHEDULER"),
        b"icecc-scheduler" => with("scheduler", rest),
        b"icecc-create-env" => create_env(rest),
        _ => return None,
    })
}

/// As icecream says it: the name in capitals and the version, and behind it who really is there.
fn version(name: &str) -> Asked {
    Asked::Line(format!("{name} {} (ice)", env!("CARGO_PKG_VERSION")))
}

/// `icecc --build-native [compiler] [file...]`; before there was a compiler to name, all were files.
fn build_native(rest: &[Bytes], is_data: impl Fn(&Bytes) -> bool) -> Asked {
    let (compiler, files) = match rest.split_first() {
        Some((first, files)) if !is_data(first) => (Some(first), files),
        _ => (None, rest),
    };
    archive(
        compiler.into_iter().cloned().collect(),
        files.to_vec(),
        None,
    )
}

/// `COMPILER [C++-COMPILER] [options]`, or the older `--gcc GCC G++` and `--clang CLANG [WRAPPER]`.
fn create_env(rest: &[Bytes]) -> Asked {
    let mut compilers: Vec<Bytes> = Vec::new();
    let mut files = Vec::new();
    let mut compression = None;
    let mut words = rest.iter().peekable();
    // It was an option once, and is what happens in any case.
    words.next_if(|word| word.0 == b"--respect-path");
    while let Some(word) = words.next() {
        match &word[..] {
            b"--addfile" => match words.next() {
                Some(file) => files.push(file.clone()),
                None => return Asked::Usage(CREATE_ENV_USAGE),
            },
            b"--compression" => match words.next() {
                Some(name) => compression = Some(name.clone()),
                None => return Asked::Usage(CREATE_ENV_USAGE),
            },
            b"--gcc" => match (words.next(), words.next()) {
                (Some(gcc), Some(gxx)) => compilers.extend([gcc.clone(), gxx.clone()]),
                _ => return Asked::Usage(CREATE_ENV_USAGE),
            },
            b"--clang" => match words.next() {
                Some(clang) => {
                    compilers.push(clang.clone());
                    // A program that icecream's clang archives need, and ours do not.
                    words.next_if(|word| !word.starts_with(b"-"));
                }
                None => return Asked::Usage(CREATE_ENV_USAGE),
            },
            [b'-', ..] => return Asked::Usage(CREATE_ENV_USAGE),
            _ => compilers.push(word.clone()),
        }
    }
    match compilers.is_empty() {
        true => Asked::Usage(CREATE_ENV_USAGE),
        false => archive(compilers, files, compression),
    }
}

fn archive(compilers: Vec<Bytes>, files: Vec<Bytes>, compression: Option<Bytes>) -> Asked {
    let mut argv: Vec<Bytes> = ["ice", "build-native", "--as-icecream"]
        .map(Bytes::from)
        .to_vec();
    if let Some(compression) = compression {
        argv.extend(["--compression".into(), compression]);
    }
    for file in files {
        argv.extend(["--addfile".into(), file]);
    }
    argv.push("--".into());
    argv.extend(compilers);
    Asked::Ice(argv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn icecreams_command_lines_keep_their_meaning() {
        let rows: &[(&str, Option<&str>)] = &[
            ("icecc gcc -c a.c", Some("ice gcc -c a.c")),
            ("/usr/bin/icecc /usr/bin/g++ x", Some("ice /usr/bin/g++ x")),
            ("icecc", Some("ice")),
            ("icecc --help", Some("ice --help")),
            ("icerun moc -v", Some("ice local moc -v")),
            ("icerun --help", Some("ice local --help")),
            ("iceccd -d -m 3", Some("ice daemon -d -m 3")),
            ("icecc-scheduler -n x", Some("ice scheduler -n x")),
            (
                "icecc --build-native",
                Some("ice build-native --as-icecream --"),
            ),
            (
                "icecc --build-native clang",
                Some("ice build-native --as-icecream -- clang"),
            ),
            (
                "icecc --build-native gcc a.txt /b",
                Some("ice build-native --as-icecream --addfile a.txt --addfile /b -- gcc"),
            ),
            (
                "icecc --build-native a.txt b",
                Some("ice build-native --as-icecream --addfile a.txt --addfile b --"),
            ),
            (
                "icecc-create-env --respect-path gcc g++ --addfile f --compression xz",
                Some("ice build-native --as-icecream --compression xz --addfile f -- gcc g++"),
            ),
            (
                "icecc-create-env --gcc /a/gcc /a/g++ --clang /b/clang /usr/lib/icecc/compilerwrapper",
                Some("ice build-native --as-icecream -- /a/gcc /a/g++ /b/clang"),
            ),
            (
                "icecc-create-env --clang clang --addfile f",
                Some("ice build-native --as-icecream --addfile f -- clang"),
            ),
            ("ice gcc", None),
            ("icecc-1.4 gcc", None),
            ("gcc -c a.c", None),
        ];
        let words = |line: &str| line.split(' ').map(Bytes::from).collect::<Vec<_>>();
        for (line, expect) in rows {
            let found = asked(&words(line), |path| path.ends_with(b".txt"));
            assert_eq!(found, expect.map(|line| Asked::Ice(words(line))), "{line}");
        }
        for line in [
            "icecc-create-env",
            "icecc-create-env --respect-path",
            "icecc-create-env --gcc gcc",
            "icecc-create-env gcc --addfile",
            "icecc-create-env gcc --what",
            "icecc-create-env --addfile f",
        ] {
            let found = asked(&words(line), |_| false);
            assert_eq!(found, Some(Asked::Usage(CREATE_ENV_USAGE)), "{line}");
        }
        let version = asked(&words("/x/icecc --version"), |_| false);
        assert!(matches!(version, Some(Asked::Line(line)) if line.starts_with("ICECC ")));
    }
}
