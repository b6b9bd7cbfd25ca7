//! What a scan is asked, what it answers, and why it may refuse.
//!
//! Only words; nothing here looks at anything.

use std::sync::Arc;

use crate::id::{AbsPath, Bytes};
use crate::include::search::SearchList;
use crate::message::Entry;

/// Files of one scan, at most: beyond, a compile is not worth distributing this way.
pub const SCAN_FILES_MAX: usize = 20_000;

/// What a scan needs to know of a compile.
#[derive(Clone, Copy, Debug)]
pub struct ScanRequest<'a> {
    /// The working directory as the kernel names it.
    pub cwd: &'a AbsPath,
    /// The main file as it is spelled on the command line.
    pub main: &'a [u8],
    /// The compiler's search list for these flags.
    pub search: &'a SearchList,
    /// Every directory named on the command line (`-I` and its family, `$PWD`): each must exist on
    /// the worker exactly if it exists here.
    pub named_dirs: &'a [Bytes],
    /// Files included before the main file.
    pub forced: &'a [(Forced, Bytes)],
    /// The values of `-D`: `NAME`, `NAME=VALUE`, `NAME(x)=VALUE`.
    pub defines: &'a [Bytes],
    /// Other input files, relative to `cwd`. What does not exist is left out.
    pub extra: &'a [Bytes],
    /// Whose rules apply.
    pub family: Family,
    /// The main file's language.
    pub language: Language,
}

/// How a file is included from the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Forced {
    /// `-include`.
    Include,
    /// `-imacros`.
    Macros,
}

/// A family of compilers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// GCC.
    Gcc,
    /// Clang.
    Clang,
}

/// A source language, as far as it matters to a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Language {
    /// C or Objective-C.
    C,
    /// C++ or Objective-C++.
    Cxx,
    /// Assembler that is preprocessed.
    Assembler,
}

/// A number for an entry, unique as long as the scanner lives: a new content, time or target gets
/// a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryNumber(pub u64);

/// An entry of a scan.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its number; cheaper to compare than the entry.
    pub number: EntryNumber,
    /// The entry.
    pub entry: Arc<Entry>,
}

/// The result of a scan.
#[derive(Clone, Debug)]
pub struct Scan {
    /// Main file, headers, symlinks on the way to them, search directories and working directory,
    /// sorted by path. Directories that hold an entry are not listed for that.
    pub entries: Arc<[Listed]>,
    /// Some file mentions `__DATE__`, `__TIME__` or `__TIMESTAMP__`.
    pub uses_time: bool,
    /// The canonical path of the main file.
    pub main: AbsPath,
}

/// Why a compile can't be scanned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Decline {
    /// The main file does not exist.
    #[error("main file {0} does not exist")]
    NoMain(String),
    /// Permission denied, a symlink loop, or an error of the disk.
    #[error("{0} can't be read")]
    Unreadable(String),
    /// A device, pipe, socket, or a file in `/proc`.
    #[error("{0} is no regular file")]
    Special(String),
    /// A precompiled header in several variants: the compiler takes the first that fits, in the order
    /// in which this disk keeps them.
    #[error("{0} has several variants")]
    Precompiled(String),
    /// An `#include` whose file could not be told.
    #[error("{file}:{line}: include of {operand} {why}")]
    Computed {
        /// The including file.
        file: String,
        /// The line, more or less.
        line: u32,
        /// The expression.
        operand: String,
        /// What is not known.
        why: String,
    },
    /// Assembler reads files where the preprocessor does not see it.
    #[error("{0}:{1}: .incbin or .include of a file that is not written out")]
    Assembler(String, u32),
    /// A pragma that replaces files.
    #[error("{0}:{1}: #pragma {2}")]
    Pragma(String, u32, &'static str),
    /// Two names of one inode, which a compiler that goes by inodes includes only once. Elsewhere they
    /// are two.
    #[error("{0} and {1} are one file, which is included once")]
    Linked(String, String),
    /// A directory of the search list came or went since the compiler was asked: ask again.
    #[error("search list is stale: {0}")]
    Stale(String),
    /// Files changed while they were read, again and again.
    #[error("{0} keeps changing")]
    Changing(String),
    /// More than [`SCAN_FILES_MAX`] files.
    #[error("more than {SCAN_FILES_MAX} files")]
    Budget,
}

impl Decline {
    /// One stable word for the job log.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NoMain(_) => "no-main-file",
            Self::Unreadable(_) => "unreadable-file",
            Self::Special(_) => "special-file",
            Self::Precompiled(_) => "precompiled-header",
            Self::Computed { .. } => "computed-include",
            Self::Assembler(..) => "assembler-include",
            Self::Linked(..) => "linked-header",
            Self::Pragma(..) => "pragma",
            Self::Stale(_) => "stale-search-list",
            Self::Changing(_) => "changing-file",
            Self::Budget => "too-many-files",
        }
    }
}
