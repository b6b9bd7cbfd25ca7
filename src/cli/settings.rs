//! Configuration files: what they say becomes the defaults of the command line's grammar.
//!
//! A file has a section per word (`[daemon]`, `[scheduler]`, …) whose keys are the word's long
//! options, and `[cluster]` for what all of them share. Since a value from a file takes the place of
//! an option's default, there is one grammar, one validation and one order: an option beats a
//! variable, a variable beats the user's file, that beats the system's, and that the default.
//!
//! What is wrong in a file is an error that names the line, also in a section that nobody asks for
//! now: a misspelt key that is silently ignored is found out months later.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, Command, CommandFactory};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::options::Ice;

/// The section for options that several words have.
pub(super) const SHARED: &str = "cluster";

/// The keys of [`SHARED`].
const SHARED_KEYS: [&str; 4] = ["netname", "open", "key-file", "scheduler"];

/// The words that have a section.
pub(super) const SECTIONS: [&str; 4] = ["daemon", "scheduler", "status", "monitor"];

/// Options that a variable of the environment stands for, the first that is set counting.
pub(super) const VARIABLES: [(&str, &[&str]); 3] = [
    ("scheduler", &["ICECC_SCHEDULER", "USE_SCHEDULER"]),
    ("socket", &["ICE_SOCKET"]),
    ("key-file", &["ICE_KEY_FILE"]),
];

/// A configuration file larger than this is none.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
pub(super) enum SettingsError {
    /// It can't be read.
    #[error("read the configuration file {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// A line makes no sense.
    #[error("{}:{line}: {what}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong there.
        what: String,
    },
}

/// What the files say.
#[derive(Debug, Default)]
pub(super) struct Settings {
    by_key: BTreeMap<(String, String), Setting>,
}

/// A value, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// As it would be written on the command line.
    pub(super) value: String,
    path: PathBuf,
    line: usize,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

impl Settings {
    /// Reads the files that exist, the later ones over the earlier ones.
    pub(super) fn read(paths: &[PathBuf]) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        for path in paths {
            let read = || -> io::Result<Option<String>> {
                match std::fs::metadata(path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Ok(metadata) if metadata.len() > FILE_BYTES_MAX => Err(io::Error::other(
                        format!("larger than {FILE_BYTES_MAX} bytes"),
                    )),
                    _ => std::fs::read_to_string(path).map(Some),
                }
            };
            let text = read().map_err(|source| SettingsError::Read {
                path: path.clone(),
                source,
            })?;
            if let Some(text) = text {
                settings.add(path, &text)?;
            }
        }
        Ok(settings)
    }

    /// Adds what `text`, the content of `path`, says.
    fn add(&mut self, path: &Path, text: &str) -> Result<(), SettingsError> {
        let wrong = |at: usize, what: String| SettingsError::Line {
            path: path.to_owned(),
            line: text[..at.min(text.len())].matches('\n').count() + 1,
            what,
        };
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            wrong(at, error.message().to_owned())
        })?;
        let grammar = Ice::command();
        for (section, keys) in table.get_ref() {
            let at = section.span().start;
            let section = section.get_ref().as_ref();
            let DeValue::Table(keys) = keys.get_ref() else {
                let what = format!("{section:?} stands before the first section");
                return Err(wrong(at, what));
            };
            if section != SHARED && !SECTIONS.contains(&section) {
                let what = format!(
                    "unknown section [{section}]; there are [{SHARED}], [{}]",
                    SECTIONS.join("], [")
                );
                return Err(wrong(at, what));
            }
            for (key, value) in keys {
                let at = key.span().start;
                let key = key.get_ref().as_ref();
                let (word, option) = option(&grammar, section, key).ok_or_else(|| {
                    let what = format!("unknown key {key:?} in [{section}]");
                    wrong(at, what)
                })?;
                let value = spelled(option, value, path.parent())
                    .ok_or_else(|| wrong(at, format!("{key} wants {}", wanted(option))))?;
                validate(word, option, &value)
                    .map_err(|why| wrong(at, format!("{key} = {value:?}: {why}")))?;
                let setting = Setting {
                    value,
                    path: path.to_owned(),
                    line: text[..at].matches('\n').count() + 1,
                };
                self.by_key
                    .insert((section.to_owned(), key.to_owned()), setting);
            }
        }
        Ok(())
    }

    /// What the files say about an option of a word.
    pub(super) fn of(&self, word: &str, key: &str) -> Option<&Setting> {
        let find = |section: &str| self.by_key.get(&(section.to_owned(), key.to_owned()));
        let shared = SECTIONS.contains(&word).then(|| find(SHARED)).flatten();
        find(word).or(shared)
    }

    /// The grammar with these settings as defaults, but for those that a variable overrules.
    pub(super) fn grammar(&self, variables: &BTreeMap<OsString, OsString>) -> Command {
        let mut grammar = Ice::command();
        for word in SECTIONS {
            if grammar.find_subcommand(word).is_none() {
                continue;
            }
            grammar = grammar.mut_subcommand(word, |command| {
                command.mut_args(|arg| {
                    let setting = arg
                        .get_long()
                        .and_then(|key| match variable(variables, key) {
                            None => self.of(word, key),
                            Some(_) => None,
                        });
                    match setting {
                        Some(setting) => arg.default_value(setting.value.clone()),
                        None => arg,
                    }
                })
            });
        }
        grammar
    }
}

/// The variable that stands for an option, if it is set to something.
pub(super) fn variable(
    variables: &BTreeMap<OsString, OsString>,
    key: &str,
) -> Option<(&'static str, OsString)> {
    let (_, names) = VARIABLES.iter().find(|(option, _)| *option == key)?;
    names.iter().find_map(|&name| {
        let value = variables.get(Path::new(name).as_os_str())?;
        (!value.is_empty()).then(|| (name, value.clone()))
    })
}

/// The options of a word that a file may set: those with a long name that are not hidden.
pub(super) fn keys(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| {
        let is_common = matches!(arg.get_id().as_str(), "help" | "version");
        arg.get_long().is_some() && !arg.is_hide_set() && !is_common
    })
}

/// The option that a key of a section means, and a word that has it.
fn option<'a>(grammar: &'a Command, section: &str, key: &str) -> Option<(&'a str, &'a Arg)> {
    let words = match section {
        SHARED if SHARED_KEYS.contains(&key) => &SECTIONS[..],
        SHARED => &[],
        word => std::slice::from_ref(SECTIONS.iter().find(|&&known| known == word)?),
    };
    words.iter().find_map(|word| {
        let command = grammar.find_subcommand(word)?;
        let arg = keys(command).find(|arg| arg.get_long() == Some(key))?;
        Some((command.get_name(), arg))
    })
}

/// A value as the command line would have it; none when it is of the wrong kind. A relative path is
/// relative to the file.
fn spelled(arg: &Arg, value: &Spanned<DeValue<'_>>, directory: Option<&Path>) -> Option<String> {
    let one = |value: &DeValue<'_>| match value {
        DeValue::String(text) if is_path(arg.get_value_parser()) => {
            Some(directory?.join(text.as_ref()).to_str()?.to_owned())
        }
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        _ => None,
    };
    match (arg.get_action(), value.get_ref()) {
        (ArgAction::SetTrue, DeValue::Boolean(flag)) => Some(flag.to_string()),
        (ArgAction::SetTrue, _) => None,
        (ArgAction::Count, DeValue::Integer(number)) => Some(number.as_str().to_owned()),
        (ArgAction::Count, _) => None,
        // Options with several values are lists with commas on the command line.
        (_, DeValue::Array(values)) => values
            .iter()
            .map(|value| one(value.get_ref()))
            .collect::<Option<Vec<_>>>()
            .map(|values| values.join(",")),
        (_, value) => one(value),
    }
}

fn is_path(parser: &ValueParser) -> bool {
    parser.type_id() == std::any::TypeId::of::<PathBuf>()
}

fn wanted(arg: &Arg) -> &'static str {
    match arg.get_action() {
        ArgAction::SetTrue => "true or false",
        ArgAction::Count => "a number",
        _ => "a string or a number",
    }
}

/// Asks the grammar itself.
fn validate(word: &str, arg: &Arg, value: &str) -> Result<(), String> {
    let id = arg.get_id().clone();
    let value = value.to_owned();
    let grammar = Ice::command().mut_subcommand(word, |command| {
        command.mut_arg(id, |arg| arg.default_value(value))
    });
    match grammar.try_get_matches_from(["ice", word]) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            let why = line.rsplit_once(": ").map_or(line, |(_, why)| why);
            Err(why.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;
    use crate::cli::options::{DaemonOptions, Word};

    fn settings(text: &str) -> Result<Settings, String> {
        let mut settings = Settings::default();
        match settings.add(Path::new("/etc/ice/ice.toml"), text) {
            Ok(()) => Ok(settings),
            Err(error) => Err(error.to_string()),
        }
    }

    fn daemon(settings: &Settings, line: &str, variables: &[(&str, &str)]) -> DaemonOptions {
        let variables = variables
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let matches = settings
            .grammar(&variables)
            .try_get_matches_from(line.split_whitespace())
            .unwrap();
        match Ice::from_arg_matches(&matches).unwrap().word {
            Word::Daemon(options) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_option_beats_a_variable_beats_a_file_beats_the_default() {
        let mut settings =
            settings("[cluster]\nscheduler = [\"a\", \"b:2\"]\nopen = true\n[daemon]\nnice = 7\n")
                .unwrap();
        let user = "[daemon]\nmax-jobs = 3\nverbose = 2\ncache-limit = \"1G\"\ncache-dir = \"c\"";
        settings.add(Path::new("/home/u/ice.toml"), user).unwrap();
        let told = daemon(&settings, "ice daemon --nice 9", &[]);
        assert_eq!(told.nice, 9);
        assert_eq!(told.max_jobs, Some(3));
        assert_eq!(told.process.verbose, 2);
        assert_eq!(told.cache_limit, 1 << 30);
        assert_eq!(told.cache_dir.as_deref(), Some(Path::new("/home/u/c")));
        assert_eq!(told.scheduler, ["a", "b:2"]);
        assert!(told.cluster.open);
        assert_eq!(told.port, 10245);
        let by_variable = daemon(&settings, "ice daemon", &[("USE_SCHEDULER", "b")]);
        assert!(by_variable.scheduler.is_empty(), "left to the variable");
        assert_eq!(by_variable.nice, 7);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, expect) in [
            (
                "[daemon]\n\nmax-job = 3\n",
                ":3: unknown key \"max-job\" in [daemon]",
            ),
            ("[demon]\n", ":1: unknown section [demon]"),
            ("nice = 3\n", ":1: \"nice\" stands before the first section"),
            (
                "[daemon]\nnice = 77\n",
                ":2: nice = \"77\": 77 is not in 0..=19",
            ),
            ("[daemon]\nopen = \"yes\"\n", ":2: open wants true or false"),
            (
                "[daemon]\nport = 1.5\n",
                ":2: port wants a string or a number",
            ),
            (
                "[daemon]\ncache-limit = \"4X\"\n",
                ":2: cache-limit = \"4X\": the unit must be",
            ),
            (
                "[cluster]\nmax-jobs = 1\n",
                ":2: unknown key \"max-jobs\" in [cluster]",
            ),
            (
                "[daemon]\nloopback = true\n",
                ":2: unknown key \"loopback\"",
            ),
            ("[daemon\n", ":1: "),
        ] {
            let error = settings(text).map(|_| ()).unwrap_err();
            assert!(error.starts_with("/etc/ice/ice.toml"), "{error}");
            assert!(error.contains(expect), "{error}");
        }
    }

    #[test]
    fn a_missing_file_says_nothing_and_a_directory_is_an_error() {
        let nowhere = PathBuf::from("/nonexistent/ice.toml");
        assert!(Settings::read(&[nowhere]).unwrap().by_key.is_empty());
        assert!(Settings::read(&["/".into()]).is_err());
    }
}
