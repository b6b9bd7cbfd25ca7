//! From `argv` to a role.
//!
//! A name decides first, then a word, and the grammar of options is built only when neither is a
//! compiler's: it costs a third of what a whole compile call may.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;

use clap::FromArgMatches;

use super::icecream::{self, Asked};
use super::options::Ice;
use super::resolve::World;
use super::settings::{SECTIONS, Settings};
use super::{dispatch, resolve};
use crate::client::{self, Invocation};
use crate::id::Bytes;
use crate::masquerade;
use crate::message::CallKind;

/// The words that are ice's own; every other first word is a command.
pub(super) const WORDS: &[&str] = &[
    "scheduler",
    "daemon",
    "status",
    "doctor",
    "monitor",
    "build-native",
    "key",
    "run",
    "trace",
    "local",
    "explain",
    "symlinks",
    "config",
    "completions",
    "agent",
    "sandbox-zygote",
    "sandbox-probe",
    "help",
];

/// Does what the command line says and returns the exit status.
pub fn run(argv: Vec<OsString>) -> u8 {
    let argv = argv.into_iter().map(Bytes::from).collect();
    match meaning(argv, client::lookup::is_icerun, is_data) {
        Meaning::Client(invocation) => client::run(invocation),
        Meaning::Line(line) => {
            println!("{line}");
            0
        }
        Meaning::Usage(usage) => {
            eprintln!("{usage}");
            1
        }
        Meaning::Grammar(argv) => resolve::world_of_this_process()
            .and_then(|world| obey(&argv, &world))
            .unwrap_or_else(|error| {
                eprintln!("ice: {error}");
                1
            }),
    }
}

/// Runs the role that the grammar finds in a command line.
fn obey(argv: &[Bytes], world: &World) -> Result<u8, Box<dyn Error + Send + Sync>> {
    // A broken configuration must not keep anybody from reading the help.
    let word = argv.get(1).map(Bytes::as_os_str).and_then(OsStr::to_str);
    let settings = match word {
        Some(word) if matches!(word, "config" | "doctor") || SECTIONS.contains(&word) => {
            Settings::read(&world.config_files())?
        }
        _ => Settings::default(),
    };
    match parse(argv, world, &settings) {
        Ok(ice) => dispatch::dispatch(ice, world, &settings, argv),
        Err(error) => {
            // Standard output may be closed; then there is nobody to tell.
            let _ = error.print();
            Ok(error.exit_code() as u8)
        }
    }
}

/// What a command line says, with these settings as its defaults.
pub(super) fn parse(
    argv: &[Bytes],
    world: &World,
    settings: &Settings,
) -> clap::error::Result<Ice> {
    settings
        .grammar(&world.variables)
        .try_get_matches_from(argv.iter().map(Bytes::as_os_str))
        .and_then(|matches| Ice::from_arg_matches(&matches))
}

/// Who serves a command line.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// The client.
    Client(Invocation),
    /// The role that the grammar finds in this command line.
    Grammar(Vec<Bytes>),
    /// A line to be printed.
    Line(String),
    /// What is to be said of a command line without a meaning.
    Usage(&'static str),
}

/// `is_icerun` tells whether a name that the process was called by is a link to `icerun`, and
/// `is_data` whether a path is a file that can't be executed. No compile asks either.
fn meaning(
    mut argv: Vec<Bytes>,
    is_icerun: impl Fn(&Bytes) -> bool,
    is_data: impl Fn(&Bytes) -> bool,
) -> Meaning {
    let Some(name) = argv.first() else {
        return Meaning::Grammar(vec!["ice".into()]);
    };
    if masquerade::language(name).is_some() {
        return compile(argv);
    }
    match icecream::asked(&argv, is_data) {
        Some(Asked::Ice(translated)) => argv = translated,
        Some(Asked::Line(line)) => return Meaning::Line(line),
        Some(Asked::Usage(usage)) => return Meaning::Usage(usage),
        None if masquerade::file_name(name) != b"ice" && is_icerun(name) => {
            argv[0] = masquerade::file_name(name).into();
            return Meaning::Client(Invocation {
                kind: CallKind::Local,
                argv,
            });
        }
        None => argv[0] = "ice".into(),
    }
    let Some(word) = argv.get(1) else {
        return Meaning::Grammar(argv);
    };
    if word.0 == b"--build-native" {
        argv[1] = "build-native".into();
        return Meaning::Grammar(argv);
    }
    let is_local = word.0 == b"local";
    // `ice local COMMAND` is on the way of a build too; its options are the grammar's.
    if is_local && argv.get(2).is_some_and(|c| !c.starts_with(b"-")) {
        argv.drain(..2);
        return Meaning::Client(Invocation {
            kind: CallKind::Local,
            argv,
        });
    }
    if word.starts_with(b"-") || WORDS.iter().any(|own| own.as_bytes() == word.0) {
        return Meaning::Grammar(argv);
    }
    argv.remove(0);
    compile(argv)
}

/// Whether a path leads to a file that nobody may execute.
fn is_data(path: &Bytes) -> bool {
    let metadata = std::fs::metadata(path.as_path());
    metadata.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 == 0)
}

/// A command: a compiler is compiled with, anything else gets a local slot.
fn compile(argv: Vec<Bytes>) -> Meaning {
    let kind = match masquerade::language(&argv[0]) {
        Some(_) => CallKind::Compile,
        None => CallKind::Local,
    };
    Meaning::Client(Invocation { kind, argv })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_decides_before_a_word_and_a_word_before_the_grammar() {
        let rows: &[(&[&str], Option<CallKind>, &[&str])] = &[
            // As a compiler.
            (
                &["gcc", "-c", "a.c"],
                Some(CallKind::Compile),
                &["gcc", "-c", "a.c"],
            ),
            (
                &["/x/clang++-14", "daemon"],
                Some(CallKind::Compile),
                &["/x/clang++-14", "daemon"],
            ),
            // As ice, with a command.
            (
                &["ice", "gcc", "-c"],
                Some(CallKind::Compile),
                &["gcc", "-c"],
            ),
            (&["/bin/ice", "./g++"], Some(CallKind::Compile), &["./g++"]),
            (
                &["icecc", "/usr/bin/cc"],
                Some(CallKind::Compile),
                &["/usr/bin/cc"],
            ),
            (&["ice", "moc", "-o"], Some(CallKind::Local), &["moc", "-o"]),
            (
                &["ice", "local", "moc", "-v"],
                Some(CallKind::Local),
                &["moc", "-v"],
            ),
            (&["ice", "local", "gcc"], Some(CallKind::Local), &["gcc"]),
            (&["icerun", "moc"], Some(CallKind::Local), &["moc"]),
            // As a role.
            (&["ice"], None, &["ice"]),
            (&["ice", "--version"], None, &["ice", "--version"]),
            (
                &["ice", "local", "--help"],
                None,
                &["ice", "local", "--help"],
            ),
            (&["ice", "local"], None, &["ice", "local"]),
            (&["iceccd", "-m", "3"], None, &["ice", "daemon", "-m", "3"]),
            (&["icecc-scheduler"], None, &["ice", "scheduler"]),
            (
                &["icecc-create-env", "gcc"],
                None,
                &["ice", "build-native", "--as-icecream", "--", "gcc"],
            ),
            (
                &["icecc", "--build-native", "gcc"],
                None,
                &["ice", "build-native", "--as-icecream", "--", "gcc"],
            ),
            (
                &["ice", "--build-native", "gcc"],
                None,
                &["ice", "build-native", "gcc"],
            ),
            // A link to icerun, under whatever name.
            (
                &["/x/link-to-icerun", "daemon"],
                Some(CallKind::Local),
                &["link-to-icerun", "daemon"],
            ),
            // Not a compiler's name, so it is some name of ice's own.
            (&["ice-1.2", "daemon"], None, &["ice", "daemon"]),
        ];
        for (argv, kind, expect) in rows {
            let words = |words: &[&str]| words.iter().map(|&w| w.into()).collect::<Vec<Bytes>>();
            let expect = match kind {
                Some(kind) => Meaning::Client(Invocation {
                    kind: *kind,
                    argv: words(expect),
                }),
                None => Meaning::Grammar(words(expect)),
            };
            let is_icerun = |name: &Bytes| name.ends_with(b"link-to-icerun");
            let found = meaning(words(argv), is_icerun, |_| false);
            assert_eq!(found, expect, "{argv:?}");
        }
    }
}
