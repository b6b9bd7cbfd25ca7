//! The format of a case, and nothing about what is done with it.
//!
//! ```text
//! about: dependency files fall where gcc puts them      what for; one or more lines
//! compilers: gcc                                        both when it is not said
//! needs: command xz                                     else the case is skipped, aloud
//! terminal: 80x24                                       all streams are a terminal of this size
//! mask: numbers report.json                             see the module `mask`
//! with: plain                                           files from `with/plain` first
//! tmpfs: full 64k                                       a file system of this size is mounted there
//! prepare: mkdir -p "$(printf 'a\nb')"                  shell, once, before anything is compared
//!
//! $ CC -MD -c a.c -o o/a.o                              shell; CC and CXX are the compilers, ICE is
//! remote                                                `ice` or nothing; a `\` goes on in the next line
//! $ CC -E nothing.h; CXX -c a.cc
//! fails                                                 the exit status is not 0
//! local at-once                                         a line for each compiler call, in order
//! clang: local native-cpu                               only said of one compiler
//! gcc: remote
//! clang$ CC -c a.c -flto=thin                           only run by one compiler
//!
//! --- a.c                                               a file, to the next such line
//! --- tool (755)                                        with a mode
//! --- link -> a.c                                       a symbolic link
//! --- twin = a.c                                        another name of the same file
//! --- pipe |                                            a FIFO
//! --- o/ (700)                                          a directory
//! ```

use std::path::PathBuf;

use crate::mask;

/// Whose compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// GNU's.
    Gcc,
    /// LLVM's.
    Clang,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Gcc, Self::Clang];

    /// Its name in cases.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gcc => "gcc",
            Self::Clang => "clang",
        }
    }

    /// The compiler for C++.
    pub fn plus(self) -> &'static str {
        match self {
            Self::Gcc => "g++",
            Self::Clang => "clang++",
        }
    }
}

/// A case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// What it is for.
    pub about: String,
    /// The compilers that run it; none for all.
    pub compilers: Vec<Family>,
    /// What must be there.
    pub needs: Vec<Need>,
    /// The terminal's columns and rows.
    pub terminal: Option<(u16, u16)>,
    /// What differs from run to run by nature: a mask's name and the files it is laid on, besides
    /// the streams.
    pub masks: Vec<(String, Vec<String>)>,
    /// Directories of files below `with`.
    pub with: Vec<String>,
    /// Mounted file systems and their sizes.
    pub tmpfs: Vec<(String, String)>,
    /// Shell, to finish the directory.
    pub prepare: Vec<String>,
    /// What is run, in order.
    pub commands: Vec<Step>,
    /// Whether it is not run without a daemon, because nothing in it could show.
    pub cluster_only: bool,
    /// Its files, in order.
    pub files: Vec<(PathBuf, Content)>,
}

/// What a case can't do without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// A program that is found in `PATH`.
    Command(String),
    /// Something in the file system.
    File(String),
    /// A locale that is installed.
    Locale(String),
}

/// A command of a case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The compiler that it is for; none for both.
    pub only: Option<Family>,
    /// Shell.
    pub line: String,
    /// Whether it is not known if the plain compiler succeeds.
    pub may_fail: bool,
    /// What is expected, and of which compiler when not of both.
    expectations: Vec<(Option<Family>, Expectation)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expectation {
    Fails,
    Place(Expected),
}

/// Where a compiler call is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// By a worker, from the sources.
    Remote,
    /// By a worker, from preprocessed text.
    Preprocessed,
    /// Here, with this word for a reason.
    Local(String),
    /// Wherever.
    Anywhere,
    /// By a worker, from the sources, or here, with one of these words for a reason.
    RemoteUnless(&'static [&'static str]),
}

/// What a file is at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A file and its mode.
    Text(Vec<u8>, u32),
    /// A directory and its mode.
    Directory(u32),
    /// A symbolic link.
    Link(String),
    /// Another name of an earlier file.
    Twin(String),
    /// A FIFO.
    Fifo,
}

impl Step {
    /// A command that may fail, with one call in this place.
    pub fn trying(line: String, place: Expected) -> Self {
        Self {
            only: None,
            line,
            may_fail: true,
            expectations: vec![(None, Expectation::Place(place))],
        }
    }

    /// Whether the plain compiler is to fail.
    pub fn fails(&self, family: Family) -> bool {
        self.of(family).any(|said| *said == Expectation::Fails)
    }

    /// Where its compiler calls are to run, in order.
    pub fn places(&self, family: Family) -> Vec<Expected> {
        let places = self.of(family).filter_map(|said| match said {
            Expectation::Place(place) => Some(place.clone()),
            Expectation::Fails => None,
        });
        places.collect()
    }

    fn of(&self, family: Family) -> impl Iterator<Item = &Expectation> {
        let said = self.expectations.iter();
        said.filter(move |(of, _)| of.is_none_or(|of| of == family))
            .map(|(_, expectation)| expectation)
    }
}

impl Case {
    /// Reads a case. An error names the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut case = Self::default();
        let mut lines = text.split_inclusive('\n').enumerate().peekable();
        while let Some((number, raw)) = lines.next() {
            let told = |why: String| format!("line {}: {why}", number + 1);
            let line = raw.strip_suffix('\n').unwrap_or(raw);
            if let Some(heading) = line.strip_prefix("--- ") {
                let mut body = Vec::new();
                while let Some((_, next)) = lines.next_if(|(_, next)| !next.starts_with("--- ")) {
                    body.extend_from_slice(next.as_bytes());
                }
                case.files.push(file(heading, body).map_err(told)?);
            } else if let Some((only, command)) = prompt(line) {
                let mut command = command.to_owned();
                while let Some(start) = command.strip_suffix('\\') {
                    let Some((_, next)) = lines.next() else {
                        return Err(told("a command goes on in no line".to_owned()));
                    };
                    command = format!("{start}{}", next.trim_end_matches('\n'));
                }
                case.commands.push(Step {
                    only,
                    line: command,
                    may_fail: false,
                    expectations: Vec::new(),
                });
            } else if !line.is_empty() && !line.starts_with('#') {
                case.line(line).map_err(told)?;
            }
        }
        if case.about.is_empty() {
            return Err("it does not say what it is about".to_owned());
        }
        if case.commands.is_empty() {
            return Err("it has no command".to_owned());
        }
        Ok(case)
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let (word, rest) = line.split_once(": ").unwrap_or(("", line));
        let words: Vec<&str> = rest.split_whitespace().collect();
        let strings = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        match (word, &words[..]) {
            ("about", _) => {
                self.about += rest;
                self.about.push('\n');
            }
            ("compilers", names) => {
                let families = names.iter().map(|name| family(name));
                self.compilers = families.collect::<Result<_, _>>()?;
            }
            ("needs", ["command", name]) => self.needs.push(Need::Command((*name).to_owned())),
            ("needs", ["file", name]) => self.needs.push(Need::File((*name).to_owned())),
            ("needs", ["locale", name]) => self.needs.push(Need::Locale((*name).to_owned())),
            ("terminal", [size]) => {
                let size = size
                    .split_once('x')
                    .and_then(|(columns, rows)| Some((columns.parse().ok()?, rows.parse().ok()?)));
                self.terminal = Some(size.ok_or("a size is two numbers: 80x24")?);
            }
            ("mask", [name, files @ ..]) if mask::NAMES.contains(name) => {
                self.masks.push(((*name).to_owned(), strings(files)));
            }
            ("with", names) => self.with.extend::<Vec<String>>(strings(names)),
            ("tmpfs", [directory, size]) => {
                self.tmpfs
                    .push(((*directory).to_owned(), (*size).to_owned()));
            }
            ("prepare", _) => self.prepare.push(rest.to_owned()),
            ("" | "gcc" | "clang", words) => {
                let of = match word {
                    "" => None,
                    name => Some(family(name)?),
                };
                let said = match words {
                    ["fails"] => Expectation::Fails,
                    ["remote"] => Expectation::Place(Expected::Remote),
                    ["preprocessed"] => Expectation::Place(Expected::Preprocessed),
                    ["anywhere"] => Expectation::Place(Expected::Anywhere),
                    ["local", reason] => Expectation::Place(Expected::Local((*reason).to_owned())),
                    _ => return Err(format!("not understood: {line}")),
                };
                let command = self.commands.last_mut();
                let command = command.ok_or("expected of which command?")?;
                command.expectations.push((of, said));
            }
            _ => return Err(format!("not understood: {line}")),
        }
        Ok(())
    }
}

fn prompt(line: &str) -> Option<(Option<Family>, &str)> {
    let (only, command) = line.split_once("$ ")?;
    match only {
        "" => Some((None, command)),
        name => Some((Some(family(name).ok()?), command)),
    }
}

fn family(name: &str) -> Result<Family, String> {
    let found = Family::ALL.into_iter().find(|family| family.name() == name);
    found.ok_or_else(|| format!("{name} is no compiler"))
}

fn file(heading: &str, body: Vec<u8>) -> Result<(PathBuf, Content), String> {
    let mode = heading
        .strip_suffix(')')
        .and_then(|rest| rest.rsplit_once(" ("))
        .and_then(|(name, mode)| Some((name, u32::from_str_radix(mode, 8).ok()?)));
    let (name, mode) = mode.map_or((heading, None), |(name, mode)| (name, Some(mode)));
    let (name, content) = if let Some((name, target)) = name.split_once(" -> ") {
        (name, Content::Link(target.to_owned()))
    } else if let Some((name, other)) = name.split_once(" = ") {
        (name, Content::Twin(other.to_owned()))
    } else if let Some(name) = name.strip_suffix(" |") {
        (name, Content::Fifo)
    } else if let Some(name) = name.strip_suffix('/') {
        (name, Content::Directory(mode.unwrap_or(0o755)))
    } else {
        return Ok((name.into(), Content::Text(body, mode.unwrap_or(0o644))));
    };
    if body.iter().any(|&byte| byte != b'\n') {
        return Err(format!("{name} has a text and is no file"));
    }
    Ok((name.into(), content))
}
