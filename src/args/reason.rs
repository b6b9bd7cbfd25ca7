//! Why a compile stays on this machine.
//!
//! A [`Cause`] has a stable word for the job log and its readers' scripts, and a [`Reason`] adds
//! the argument or file it is about. Nothing here decides anything: [`super::verdict`] does.

use crate::id::Bytes;

/// Why a compile stays on this machine, and what on the command line is to blame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Which kind of reason.
    pub cause: Cause,
    /// The argument, file or variable it is about; empty when it is about the whole command.
    pub subject: Bytes,
}

impl Reason {
    /// A reason that is about `subject`.
    pub fn about(cause: Cause, subject: &[u8]) -> Self {
        Self {
            cause,
            subject: Bytes::from(subject),
        }
    }

    /// A stable word in kebab case.
    pub fn word(&self) -> &'static str {
        self.cause.word()
    }

    /// One line for people: what stays local and why.
    pub fn sentence(&self) -> String {
        let why = self.cause.explanation();
        if self.subject.is_empty() {
            why.to_owned()
        } else {
            format!("{}: {why}", self.subject)
        }
    }
}

impl From<Cause> for Reason {
    fn from(cause: Cause) -> Self {
        Self::about(cause, b"")
    }
}

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident $word:literal $explanation:literal;)*) => {
        /// The kinds of reason for a compile to stay local.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Cause {
            $($(#[$doc])* $name,)*
        }

        impl Cause {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// A stable word in kebab case, unique among the causes.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The rest of a sentence that may begin with the thing it is about.
            const fn explanation(self) -> &'static str {
                match self { $(Self::$name => $explanation,)* }
            }
        }
    };
}

causes! {
    /// The name of the program is not that of a gcc or clang driver for C and C++.
    UnknownCompiler "unknown-compiler" "not known as a compiler for C or C++";
    /// The call asks the compiler about itself, or for its commands (`-###`).
    Information "information" "asks the compiler about itself and compiles nothing";
    /// `-E`, `-M`, `-MM`.
    PreprocessAlone "preprocess-only" "the call only preprocesses";
    /// `-fsyntax-only`.
    SyntaxOnly "syntax-only" "the call only checks the syntax, which writes no object";
    /// There are inputs, and neither `-c` nor `-S`.
    Link "link" "the call links";
    /// There is no input file.
    NoInput "no-input" "the call has no input file";
    /// There is more than one input file.
    SeveralInputs "several-inputs" "more than one input file in one call";
    /// The input is `-`.
    StandardInput "standard-input" "the input is read from a pipe";
    /// The output, or a file of dependencies, is `-`.
    StandardOutput "standard-output" "an output is written to the caller's standard output";
    /// A file below `/dev` or `/proc` is read or written.
    DeviceFile "device-file" "a device is not the same on another machine";
    /// The command names more than one output, or an output that can't be a file.
    UnclearOutput "unclear-output" "it is not clear which file is written";
    /// The input's suffix, or `-x`, names no language that travels.
    UnknownLanguage "unknown-language" "not a language that is compiled remotely";
    /// Assembler, preprocessed or not: its `.include` and `.incbin` are not scanned.
    Assembler "assembler" "assembler may read files that only the assembler knows";
    /// The input is preprocessed already, and its diagnostics quote files that it names.
    PreprocessedInput "preprocessed-input" "diagnostics of preprocessed text quote files that are not declared";
    /// A precompiled header is made, or used by an option.
    PrecompiledHeader "precompiled-header" "a precompiled header depends on files that are not declared";
    /// Modules of C++ or of clang.
    Modules "modules" "modules read and write files that are not declared";
    /// A plugin is loaded into the compiler.
    Plugin "plugin" "a plugin may do anything";
    /// A profile steers the compile, from a file whose name the compiler derives.
    Profile "profile" "the compiler derives the name of a profile that it reads";
    /// The option changes which programs or installation the compiler uses.
    CompilerLookup "compiler-lookup" "changes which programs and files the compiler takes for its own";
    /// clang calls an assembler that is not its own.
    ExternalAssembler "external-assembler" "clang would call an assembler that is not part of it";
    /// `-march=native` and its kind.
    NativeCpu "native-cpu" "means the processor of this machine";
    /// A response file is missing, too big, or quoted in a way that compilers read differently.
    ResponseFile "response-file" "the response file can't be read as every compiler reads it";
    /// An option whose meaning is not known, and that could name a file.
    UnknownOption "unknown-option" "it is not known whether this option reads or writes files";
    /// The value of the last option is missing.
    MissingValue "missing-value" "the option's value is missing";
    /// An option is handed on to a part of the compiler, and is not known.
    InnerOption "inner-option" "handed on to a part of the compiler, which may read or write files";
    /// An option for the assembler that may read or write files.
    AssemblerOption "assembler-option" "the assembler may read or write files by it";
    /// Something else than an object, assembly and their companions is written.
    OtherOutput "other-output" "writes files other than the usual ones";
    /// The commands that the driver runs are printed, with names of temporary files.
    Verbose "verbose" "prints what the compiler does on this machine";
    /// Times or memory of the compiler are printed.
    Timing "timing" "prints times of this machine";
    /// A character set that is not UTF-8.
    Charset "charset" "the character set is not UTF-8";
    /// A header map or an overlay of the file system.
    VirtualFiles "virtual-files" "headers are found through a map that is not scanned";
    /// Code for another device is made in the same call.
    Offload "offload" "compiles for another device in the same call";
    /// A probe of autoconf, CMake, Meson: small, and waited for.
    ConfigureProbe "configure-probe" "a probe of a build system's configuration is fastest here";
    /// A variable of the environment changes what the compiler reads or writes.
    Environment "environment" "the variable changes what the compiler reads or writes";
    /// Dependencies are asked for in a form that is not known to be local to one file.
    DependencyForm "dependency-form" "dependencies are written in a form that does not travel";
    /// The option changes the directory that paths are relative to.
    WorkingDirectory "working-directory" "changes the directory that paths are relative to";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn words_are_unique_and_in_kebab_case() {
        let words: BTreeSet<_> = Cause::ALL.iter().map(|cause| cause.word()).collect();
        assert_eq!(words.len(), Cause::ALL.len());
        for word in words {
            assert!(
                word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
                "{word}"
            );
        }
    }

    #[test]
    fn a_sentence_names_what_it_is_about() {
        assert_eq!(
            Reason::about(Cause::NativeCpu, b"-march=native").sentence(),
            "-march=native: means the processor of this machine"
        );
        assert_eq!(Reason::from(Cause::Link).sentence(), "the call links");
    }
}
