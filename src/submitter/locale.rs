//! In which language and characters a compiler would speak here, and how to get the same elsewhere.
//!
//! A sandbox holds no locales but the two that the C library has built in, `C` and `C.UTF-8`. For
//! American English they say the same words, in the same characters, as long as one knows which
//! characters this machine would use; that is asked once. For every other language a job travels
//! too, but what its compiler printed can't be trusted to be what it would have said here.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Mutex;

use smol::process::Command;

use crate::id::Bytes;
use crate::message::Call;

/// Locales that are remembered. A machine uses a handful.
const KNOWN_MAX: usize = 64;

/// How a compiler elsewhere is told to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locale {
    /// As the user's variables say: the C library has it built in.
    AsItIs,
    /// With this value for `LC_ALL`.
    Like(&'static str),
    /// It can't be had elsewhere.
    Foreign,
}

/// What is known of this machine's locales.
#[derive(Default)]
pub struct Locales {
    known: Mutex<BTreeMap<Bytes, Locale>>,
}

impl Locales {
    /// The locale of a call.
    pub async fn of(&self, call: &Call) -> Locale {
        let characters = effective(call, "LC_CTYPE");
        let messages = effective(call, "LC_MESSAGES");
        let language = call.variable("LANGUAGE").filter(|value| !value.is_empty());
        if is_built_in(&characters) && is_built_in(&messages) {
            return Locale::AsItIs;
        }
        let is_american = |value: &[u8]| is_built_in(value) || value.starts_with(b"en_US");
        if language.is_some() || !is_american(&characters) || !is_american(&messages) {
            return Locale::Foreign;
        }
        if let Some(known) = self
            .known
            .lock()
            .expect("no panic under this lock")
            .get(&characters)
        {
            return *known;
        }
        let locale = ask(&characters).await;
        let mut known = self.known.lock().expect("no panic under this lock");
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(characters, locale);
        locale
    }
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
    command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    match command.output().await {
        Ok(output) if output.stdout == b"UTF-8\n" => Locale::Like("C.UTF-8"),
        Ok(output) if output.stdout == b"ANSI_X3.4-1968\n" => Locale::Like("C"),
        _ => Locale::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::CallKind;

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
        };
        smol::block_on(Locales::default().of(&call))
    }

    #[test]
    fn what_is_built_in_travels_as_it_is_and_other_languages_do_not() {
        assert_eq!(of(&[]), Locale::AsItIs);
        assert_eq!(
            of(&[("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")]),
            Locale::AsItIs
        );
        assert_eq!(of(&[("LANG", "C.UTF-8")]), Locale::AsItIs);
        assert_eq!(of(&[("LANG", "de_DE.UTF-8")]), Locale::Foreign);
        assert_eq!(
            of(&[("LANG", "en_US.UTF-8"), ("LC_MESSAGES", "fr_FR")]),
            Locale::Foreign
        );
        assert_eq!(
            of(&[("LANG", "en_US.UTF-8"), ("LANGUAGE", "de")]),
            Locale::Foreign
        );
    }

    #[test]
    fn american_is_built_in_in_the_characters_that_it_has_here() {
        // No machine has this one, so it is the same as C.
        assert_eq!(
            of(&[("LC_ALL", "en_US.no-such-charset")]),
            Locale::Like("C")
        );
        let installed = std::process::Command::new("locale")
            .arg("-a")
            .output()
            .unwrap();
        let has = String::from_utf8_lossy(&installed.stdout).contains("en_US.utf8");
        let expect = if has { "C.UTF-8" } else { "C" };
        assert_eq!(of(&[("LANG", "en_US.UTF-8")]), Locale::Like(expect));
    }
}
