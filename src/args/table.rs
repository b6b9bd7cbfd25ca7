//! What can be said of a compiler's option, and the look-up of a word among [`super::options`].
//!
//! No command line is known here: [`super::parse`] walks one. The rows are sorted by spelling, so
//! that the client can look up the arguments of every call without building anything.

use super::compiler::Family;
use super::options::RULES;
use super::reason::Cause;

/// How an option takes its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// It has none.
    Flag,
    /// The rest of the word, which may be empty.
    Joined,
    /// The next word.
    Separate,
    /// The rest of the word, or the next word when there is no rest.
    Either,
}

/// What an option means for a compile elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A word that is not an option.
    Input,
    /// `--`: only inputs follow.
    EndOfOptions,
    /// Nothing is known about it.
    Unknown,
    /// An option that wants a value is the last word.
    Incomplete,

    /// The compile stops after this stage.
    Stop(Stage),
    /// Nothing is compiled: `-E`, `-M`.
    PreprocessAlone,
    /// The compiler tells about itself and does nothing else.
    Information,
    /// `-v`.
    Verbose,
    /// `-o`.
    Output,
    /// `-x`.
    Language,
    /// `-emit-llvm`: other suffixes.
    EmitLlvm,

    /// Changes code, and perhaps predefined macros or the search list.
    Code,
    /// Like [`Meaning::Code`], unless its value could be a file: the default of a prefix.
    UnlistedCode,
    /// Like [`Meaning::Code`], and what it adds is not the same after preprocessing apart.
    InexactCode,
    /// Changes neither predefined macros nor search list.
    Plain,
    /// Like [`Meaning::Plain`], unless its value could be a file: the default of a prefix.
    UnlistedPlain,
    /// Like [`Meaning::Plain`], and what it adds is not the same after preprocessing apart.
    Inexact,
    /// Some level of debug information.
    Debug,
    /// Means nothing to the preprocessor.
    Linker,
    /// Means something to the preprocessor alone, but neither for search nor macros.
    PreprocessorOnly,
    /// Changes the search list, or what is predefined, and means nothing after preprocessing.
    Search,
    /// `-D`.
    Define,
    /// `-U`.
    Undefine,
    /// `-include` and `-imacros`.
    Forced(ForcedKind),
    /// `-march=`, `-mtune=`, `-mcpu=`.
    Processor,
    /// The character set of sources or strings.
    Charset,

    /// `-MD`, `-MMD`.
    Dependencies(Headers),
    /// `-MF`.
    DependencyFile,
    /// `-MT`, `-MQ`.
    DependencyTarget,

    /// `-Wp,`.
    ToPreprocessorList,
    /// `-Xpreprocessor`.
    ToPreprocessor,
    /// `-Wa,`.
    ToAssemblerList,
    /// `-Xassembler`.
    ToAssembler,
    /// `-Xclang`.
    ToClang,
    /// `-mllvm`.
    ToLlvm,

    /// Reads a file of options, specs or the like, which the compiler also finds by a bare name.
    Configures,
    /// `-include-pch`.
    PrecompiledHeader,
    /// Reads a profile, from files whose names are derived.
    Profile,
    /// `-B`: programs and headers are looked for there first.
    Prefix,
    /// `-resource-dir`: clang's own headers, and lists of what sanitizers leave out.
    Resources,

    /// Reads the file that is its value.
    Reads,
    /// Writes the file that is its value.
    Writes,
    /// Writes files whose names are derived, beside the output or in the working directory.
    Side,
    /// Like [`Meaning::Side`]; its value is what the names begin with.
    SidePrefix,
    /// Like [`Meaning::Side`], or to the file that it names after a `=`.
    Dump,
    /// `-fdiagnostics-format=`: to standard error, or to a file beside the output.
    DiagnosticsFormat,
    /// Keeps the compile local.
    Local(Cause),
}

/// How far a compile goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// `-S`: to assembly.
    Assembly,
    /// `-c`: to an object.
    Object,
}

/// What a forced file gives to the compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForcedKind {
    /// All of it: `-include`.
    Include,
    /// Its macros: `-imacros`.
    Macros,
}

/// Which headers dependencies name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headers {
    /// All: `-MD`.
    All,
    /// Not those of system directories: `-MMD`.
    User,
}

/// One option, or all options with a common beginning.
#[derive(Debug)]
pub(super) struct Rule {
    /// How it is spelled, or begins.
    pub spelling: &'static str,
    /// How it takes its value.
    pub form: Form,
    /// What it means.
    pub meaning: Meaning,
    /// The only family that has it; none when both have.
    only: Option<Family>,
}

impl Rule {
    /// Whether `word`, which begins with the spelling, is this option in `family`.
    fn fits(&self, family: Family, word: &[u8]) -> bool {
        let exact = word.len() == self.spelling.len();
        let form = match self.form {
            Form::Flag | Form::Separate => exact,
            Form::Joined | Form::Either => true,
        };
        form && self.only.is_none_or(|only| only == family)
    }
}

/// The rule for `word`: the one with the longest spelling that fits.
pub(super) fn find(family: Family, word: &[u8]) -> Option<&'static Rule> {
    // The greatest row that is not greater than the key shares with it whatever the longest
    // fitting row shares; so cutting the key to what they share never cuts that row off.
    let mut key = word;
    loop {
        let end = RULES.partition_point(|rule| rule.spelling.as_bytes() <= key);
        let spelling = RULES[..end].last()?.spelling;
        let shared = key
            .iter()
            .zip(spelling.as_bytes())
            .take_while(|(a, b)| a == b)
            .count();
        if shared < spelling.len() {
            key = &key[..shared];
            continue;
        }
        let same = RULES[..end].iter().rev();
        for rule in same.take_while(|rule| rule.spelling == spelling) {
            if rule.fits(family, word) {
                return Some(rule);
            }
        }
        key = &key[..shared - 1];
    }
}

/// An option of both families.
pub(super) const fn both(spelling: &'static str, form: Form, meaning: Meaning) -> Rule {
    Rule {
        spelling,
        form,
        meaning,
        only: None,
    }
}

/// An option of gcc alone.
pub(super) const fn gcc(spelling: &'static str, form: Form, meaning: Meaning) -> Rule {
    Rule {
        only: Some(Family::Gcc),
        ..both(spelling, form, meaning)
    }
}

/// An option of clang alone.
pub(super) const fn clang(spelling: &'static str, form: Form, meaning: Meaning) -> Rule {
    Rule {
        only: Some(Family::Clang),
        ..both(spelling, form, meaning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_no_option_twice() {
        for pair in RULES.windows(2) {
            let order = pair[0].spelling.as_bytes().cmp(pair[1].spelling.as_bytes());
            let apart = order.is_eq() && pair[0].only.is_some() && pair[1].only.is_some();
            assert!(order.is_lt() || apart, "{:?} {:?}", pair[0], pair[1]);
        }
    }

    #[test]
    fn the_longest_spelling_wins() {
        for (family, word, spelling) in [
            (Family::Gcc, "-I", "-I"),
            (Family::Gcc, "-Ifoo", "-I"),
            (Family::Gcc, "-I-", "-I-"),
            (Family::Gcc, "-include", "-include"),
            (Family::Gcc, "-isystemfoo", "-isystem"),
            (Family::Gcc, "-isystem-after", "-isystem"),
            (Family::Clang, "-isystem-after", "-isystem-after"),
            (Family::Gcc, "-fprofile-arcs", "-fprofile-arcs"),
            (Family::Gcc, "-fprofile-arcsx", "-fprofile-"),
            (Family::Gcc, "-fno-plt", "-f"),
            (Family::Gcc, "-O2", "-O"),
            (Family::Gcc, "-MFx", "-MF"),
            (Family::Gcc, "-Mx", ""),
            (Family::Gcc, "--sysroot=/x", "--sysroot="),
            (Family::Gcc, "--sysrootx", ""),
            (Family::Gcc, "--", ""),
            (Family::Clang, "--", "--"),
            (Family::Gcc, "-cc", ""),
            (Family::Gcc, "-target", ""),
            (Family::Clang, "-target", "-target"),
        ] {
            let found = find(family, word.as_bytes()).map_or("", |rule| rule.spelling);
            assert_eq!(found, spelling, "{word}");
        }
    }

    #[test]
    fn every_row_is_found_by_its_own_spelling() {
        for rule in RULES {
            let family = rule.only.unwrap_or(Family::Gcc);
            let found = find(family, rule.spelling.as_bytes()).unwrap();
            assert_eq!(found.spelling, rule.spelling);
            assert_eq!(found.meaning, rule.meaning);
        }
    }
}
