//! In which language and characters a compiler would speak here, and how to get the same elsewhere.
//!
//! A sandbox holds no locales but the two that the C library has built in, `C` and `C.UTF-8`. For
//! American English they say the same words, in the same characters, as long as one knows which
//! characters this machine would use; that is asked once. clang has no other language, and gcc speaks
//! one only where its catalogs are installed, which they seldom are. Where they are, a job travels
//! too, but what its compiler printed can't be trusted to be what it would have said here. Catalogs
//! don't travel: a warning in German is not worth a toolchain per language.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::args::Family;
use crate::child;
use crate::id::Bytes;
use crate::message::Call;

/// Locales that are remembered. A machine uses a handful.
const KNOWN_MAX: usize = 64;

/// What a program that is asked for the name of an encoding may print.
const ANSWER_BYTES_MAX: u64 = 4096;

/// How a compiler elsewhere is told to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locale {
    /// As the user's variables say: the C library has it built in.
    AsItIs,
    /// With this value for `LC_ALL`.
    Like(&'static str),
    /// The same, but for what the C library says of errors: that is in another language here.
    ButForErrors(&'static str),
    /// It can't be had elsewhere.
    Foreign,
}

/// What is known of this machine's locales.
#[derive(Default)]
pub struct Locales {
    known: Mutex<BTreeMap<Bytes, Locale>>,
}

impl Locales {
    /// The locale of a call of a compiler of this family.
    pub async fn of(&self, call: &Call, family: Family) -> Locale {
        if family == Family::Clang {
            // It never asks.
            return Locale::AsItIs;
        }
        let characters = effective(call, "LC_CTYPE");
        let messages = effective(call, "LC_MESSAGES");
        let language = call.variable("LANGUAGE").filter(|value| !value.is_empty());
        if is_built_in(&characters) && is_built_in(&messages) {
            return Locale::AsItIs;
        }
        // A language of its own counts only beside a locale.
        let languages = match language {
            Some(languages) if !is_built_in(&messages) => languages.clone(),
            _ => messages,
        };
        let directories = catalog_directories(call.compiler.as_path());
        match spoken(&languages, &directories) {
            Speech::English => self.like(&characters).await,
            Speech::Errors => match self.like(&characters).await {
                Locale::Like(value) => Locale::ButForErrors(value),
                other => other,
            },
            Speech::Foreign => Locale::Foreign,
        }
    }

    /// English in the characters of a locale.
    async fn like(&self, characters: &Bytes) -> Locale {
        if let Some(known) = self
            .known
            .lock()
            .expect("no panic under this lock")
            .get(characters)
        {
            return *known;
        }
        let locale = ask(characters).await;
        let mut known = self.known.lock().expect("no panic under this lock");
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(characters.clone(), locale);
        locale
    }
}

/// What the programs of a toolchain say in a language of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Speech {
    /// English words alone.
    English,
    /// English, but for the C library's words for errors.
    Errors,
    /// Other words.
    Foreign,
}

/// What is said in the first of `languages` (separated by colons) that is known: a catalog in one of
/// the directories makes a difference.
fn spoken(languages: &[u8], directories: &[PathBuf]) -> Speech {
    const OF_COMPILERS: [&str; 6] = ["gcc", "cpplib", "gas", "bfd", "binutils", "opcodes"];
    let mut speech = Speech::English;
    for language in languages.split(|&b| b == b':') {
        // `de_AT.UTF-8@euro` is looked for as `de_AT` and as `de` too.
        let end = |at: &[u8]| language.iter().position(|b| at.contains(b));
        let lengths = [end(b"@"), end(b".@"), end(b"_.@"), Some(language.len())];
        for length in lengths.into_iter().flatten() {
            let name = Bytes::from(&language[..length]);
            // `en_US` has no catalogs worth the name: the originals are written in it.
            if name.is_empty() || is_built_in(&name) || &name[..] == b"en_US" {
                continue;
            }
            for directory in directories {
                let place = directory.join(name.as_path()).join("LC_MESSAGES");
                let Ok(catalogs) = std::fs::read_dir(place) else {
                    continue;
                };
                for catalog in catalogs.flatten() {
                    let file = catalog.file_name();
                    let file = file.to_string_lossy();
                    if OF_COMPILERS.iter().any(|one| file.starts_with(one)) {
                        return Speech::Foreign;
                    }
                    if file == "libc.mo" {
                        speech = Speech::Errors;
                    }
                }
            }
        }
    }
    speech
}

/// Where catalogs may lie: in the places of distributions, and beside a compiler of its own.
fn catalog_directories(compiler: &Path) -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = ["/usr/share/locale", "/usr/share/locale-langpack"]
        .map(PathBuf::from)
        .into();
    let real = std::fs::canonicalize(compiler).unwrap_or_default();
    for path in [compiler, &real] {
        let prefix = path.parent().and_then(Path::parent);
        directories.extend(prefix.map(|prefix| prefix.join("share/locale")));
    }
    directories
}

/// Whether a text has words of the C library for an error.
pub fn has_errors(text: &[u8]) -> bool {
    use nix::errno::Errno;
    const ERRORS: [Errno; 16] = [
        Errno::ENOENT,
        Errno::EACCES,
        Errno::EPERM,
        Errno::ENOTDIR,
        Errno::EISDIR,
        Errno::EIO,
        Errno::ENOSPC,
        Errno::EDQUOT,
        Errno::EFBIG,
        Errno::EMFILE,
        Errno::ENAMETOOLONG,
        Errno::ELOOP,
        Errno::EROFS,
        Errno::EINVAL,
        Errno::ENOMEM,
        Errno::EEXIST,
    ];
    ERRORS
        .iter()
        .any(|error| memchr::memmem::find(text, error.desc().as_bytes()).is_some())
}

/// The value that counts for a category. Empty is the same as `C`.
fn effective(call: &Call, category: &str) -> Bytes {
    let mut values = ["LC_ALL", category, "LANG"]
        .into_iter()
        .filter_map(|name| call.variable(name));
    values
        .find(|value| !value.is_empty())
        .cloned()
        .unwrap_or_default()
}

fn is_built_in(value: &[u8]) -> bool {
    matches!(value, b"" | b"C" | b"POSIX" | b"C.UTF-8" | b"C.utf8")
}

/// Asks the C library which characters a locale has here. A locale that is not installed has those
/// of `C`, as it has for a compiler.
async fn ask(value: &Bytes) -> Locale {
    let mut command = Command::new("locale");
    command
        .arg("charmap")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", value.as_os_str());
    match child::run(command, ANSWER_BYTES_MAX).await {
        Ok(printed) if printed.output == b"UTF-8\n" => Locale::Like("C.UTF-8"),
        Ok(printed) if printed.output == b"ANSI_X3.4-1968\n" => Locale::Like("C"),
        _ => Locale::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{CallKind, Sight};

    fn of(variables: &[(&str, &str)]) -> Locale {
        let call = Call {
            protocol: 1,
            kind: CallKind::Compile,
            compiler: Bytes::default(),
            argv: Vec::new(),
            cwd: Bytes::default(),
            env: variables
                .iter()
                .map(|(name, value)| (Bytes::from(*name), Bytes::from(*value)))
                .collect(),
            umask: 0,
            terminal: None,
            niceness: 0,
            sight: Sight::default(),
        };
        crate::executor::block_on(Locales::default().of(&call, Family::Gcc))
    }

    #[test]
    fn what_is_built_in_travels_as_it_is() {
        assert_eq!(of(&[]), Locale::AsItIs);
        assert_eq!(
            of(&[("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")]),
            Locale::AsItIs
        );
        assert_eq!(of(&[("LANG", "C.UTF-8")]), Locale::AsItIs);
    }

    #[test]
    fn a_language_is_spoken_where_its_catalogs_are() {
        let place = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = place.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        write("de/LC_MESSAGES/gcc-12.mo");
        write("fr/LC_MESSAGES/libc.mo");
        write("fr/LC_MESSAGES/make.mo");
        write("pt_BR/LC_MESSAGES/cpplib.mo");
        write("ja@x/LC_MESSAGES/gas.mo");
        for (languages, expect) in [
            ("de_DE.UTF-8", Speech::Foreign),
            ("de", Speech::Foreign),
            ("fr_FR@euro", Speech::Errors),
            ("fr:de", Speech::Foreign),
            ("pt_BR.UTF-8", Speech::Foreign),
            ("pt_PT", Speech::English),
            ("ja@x", Speech::Foreign),
            ("it_IT.UTF-8", Speech::English),
            ("en_US.UTF-8", Speech::English),
            ("C", Speech::English),
            ("", Speech::English),
        ] {
            let found = spoken(languages.as_bytes(), &[place.path().to_owned()]);
            assert_eq!(found, expect, "{languages}");
        }
    }

    #[test]
    fn words_of_the_c_library_are_recognised() {
        assert!(has_errors(b"cc1: warning: x: No such file or directory"));
        assert!(!has_errors(b"a.c:1: warning: unused variable"));
    }

    #[test]
    fn american_is_built_in_in_the_characters_that_it_has_here() {
        // No machine has this one, so it is the same as C.
        assert_eq!(
            of(&[("LC_ALL", "en_US.no-such-charset")]),
            Locale::Like("C")
        );
        let installed = Command::new("locale").arg("-a").output().unwrap();
        let has = String::from_utf8_lossy(&installed.stdout).contains("en_US.utf8");
        let expect = if has { "C.UTF-8" } else { "C" };
        assert_eq!(of(&[("LANG", "en_US.UTF-8")]), Locale::Like(expect));
    }
}
