//! The verdict on a compiler call: may it be compiled elsewhere, and if not, why.
//!
//! The rule is one: whatever is not understood stays local. The first thing on the command line
//! that keeps a compile local is its reason, except that calls which compile nothing, probes and
//! links are told apart first, since nobody wonders about those.

use crate::id::{AbsPath, Bytes};
use crate::masquerade::file_name;

use super::compiler::{Compiler, Content, Family, Language};
use super::inner;
use super::parse::{Item, items};
use super::plan::{Draft, Input, Plan, dump_file};
use super::probe::{is_probe, is_probe_place, is_question};
use super::reason::{Cause, Reason};
use super::response::{self, Expanded};
use super::table::{Meaning, Stage};

/// A compiler call.
#[derive(Clone, Copy, Debug)]
pub struct Invocation<'a> {
    /// The compiler's name as it was called, or the name that a `cc` leads to.
    pub program: &'a [u8],
    /// The command line, the compiler's name included.
    pub argv: &'a [Bytes],
    /// The working directory.
    pub cwd: &'a AbsPath,
    /// The environment.
    pub env: &'a [(Bytes, Bytes)],
}

/// What becomes of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be compiled elsewhere.
    Distribute(Box<Plan>),
    /// It stays here.
    Local(Reason),
}

/// The verdict on a call. Response files are read by `read_response_file`, by name as spelled,
/// relative to the working directory; it answers none for what is not a readable regular file.
pub fn classify(
    invocation: &Invocation<'_>,
    read_response_file: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>,
) -> Verdict {
    match plan(invocation, read_response_file) {
        Ok(plan) => Verdict::Distribute(Box::new(plan)),
        Err(reason) => Verdict::Local(reason),
    }
}

/// Whether a call needs neither a slot nor a daemon, because it compiles nothing or is a probe
/// that a build system waits for. A quick look at the command line alone: when in doubt, no.
pub fn runs_at_once(argv: &[Bytes]) -> bool {
    let Some((program, words)) = argv.split_first() else {
        return false;
    };
    let Some(compiler) = Compiler::named(program) else {
        return false;
    };
    if words.iter().any(|word| word.starts_with(b"@")) {
        return false;
    }
    let mut inputs = false;
    let mut probe = false;
    for item in items(compiler.family, words) {
        match item.meaning {
            Meaning::Information | Meaning::PreprocessAlone => return true,
            Meaning::Processor if item.value == b"help" => return true,
            Meaning::Input => {
                inputs = true;
                probe |= is_probe(item.value) || is_question(item.value);
            }
            Meaning::Output => probe |= is_probe(item.value),
            // What is not understood may be anything.
            Meaning::Unknown | Meaning::Incomplete => inputs = true,
            _ => {}
        }
    }
    probe || !inputs
}

fn plan(
    invocation: &Invocation<'_>,
    read_response_file: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>,
) -> Result<Plan, Reason> {
    let Some(compiler) = Compiler::named(invocation.program) else {
        return Err(Reason::about(Cause::UnknownCompiler, invocation.program));
    };
    if invocation.argv.is_empty() {
        return Err(Cause::NoInput.into());
    }
    let expanded = response::expand(invocation.argv, read_response_file)
        .map_err(|word| Reason::about(Cause::ResponseFile, &word))?;
    let items: Vec<Item<'_>> = items(compiler.family, &expanded.words).collect();
    let call = Call::gather(&items);

    call.is_a_compile(invocation.cwd)?;
    check_environment(compiler.family, invocation.env)?;
    for item in &items {
        check(item)?;
    }
    let to_preprocessor = inner::to_preprocessor(&call.to_preprocessor)?;
    let mut response_files = expanded.files;
    let pieces = assemblers_words(compiler.family, &call.to_assembler, read_response_file)?;
    response_files.extend(pieces.files);
    let pieces: Vec<&[u8]> = pieces.words.iter().map(|word| &word[..]).collect();
    let to_assembler = inner::to_assembler(&pieces)?;
    let to_clang = inner::to_clang(&call.to_clang)?;
    let mut inputs = Vec::with_capacity(call.inputs.len());
    for (input, option) in &call.inputs {
        let (language, is_text) = language(compiler, *input, *option)?;
        inputs.push(Input {
            value: input.value,
            index: expanded.origins[input.at],
            language,
            is_text,
        });
    }
    let stage = call.stage.unwrap_or(Stage::Object);
    let assembler = |input: &&Input<'_>| input.language == Language::Assembler;
    if let Some(input) = inputs.iter().find(assembler)
        && stage == Stage::Assembly
    {
        return Err(Reason::about(Cause::Assembler, input.value));
    }
    let output = call.one_output()?;
    call.several_are_clear(&inputs, output)?;
    let by_driver = call.dependencies || call.dependency_files > 0;
    let clear = call.dependency_files <= usize::from(call.dependencies);
    if !clear || (by_driver && to_preprocessor.dependencies.is_some()) {
        return Err(Cause::DependencyForm.into());
    }
    let handed_dependencies = to_preprocessor.dependencies.iter().map(|(_, path)| path);
    for path in handed_dependencies.chain(&to_assembler.writes) {
        check_written(path)?;
    }
    let forced = to_preprocessor.forced.iter().chain(&to_clang.forced);
    let read = forced
        .map(|forced| &forced.name)
        .chain(&to_assembler.reads)
        .chain(&to_clang.precompiled);
    for path in read {
        check_read(path)?;
    }
    Plan::draw(Draft {
        compiler,
        stage,
        argv: invocation.argv,
        words: &expanded.words,
        items: &items,
        inputs,
        output,
        to_preprocessor,
        to_assembler,
        to_clang,
        response_files,
    })
}

/// What the assembler gets to read. GNU's expands response files by the same rules as the driver;
/// clang hands these words to a part of itself that knows no response files.
fn assemblers_words(
    family: Family,
    pieces: &[&[u8]],
    read_response_file: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>,
) -> Result<Expanded, Reason> {
    let words = pieces.iter().map(|piece| Bytes::from(*piece));
    if family == Family::Clang {
        return Ok(Expanded {
            words: words.collect(),
            origins: Vec::new(),
            files: Vec::new(),
        });
    }
    let argv: Vec<Bytes> = [Bytes::from("as")].into_iter().chain(words).collect();
    response::expand(&argv, read_response_file)
        .map_err(|word| Reason::about(Cause::ResponseFile, &word))
}

/// What a command line asks for as a whole.
#[derive(Default)]
struct Call<'a> {
    information: Option<&'a [u8]>,
    preprocess_alone: Option<&'a [u8]>,
    syntax_only: bool,
    stage: Option<Stage>,
    /// Each input with the operand of the last `-x` before it.
    inputs: Vec<(Item<'a>, Option<&'a [u8]>)>,
    outputs: Vec<&'a [u8]>,
    dependencies: bool,
    dependency_files: usize,
    to_preprocessor: Vec<&'a [u8]>,
    to_assembler: Vec<&'a [u8]>,
    to_clang: Vec<&'a [u8]>,
}

impl<'a> Call<'a> {
    fn gather(items: &[Item<'a>]) -> Self {
        let mut call = Self::default();
        let mut language = None;
        for item in items {
            let pieces = item.value.split(|&b| b == b',');
            match item.meaning {
                Meaning::Information => call.information = Some(item.word()),
                Meaning::Processor if item.value == b"help" => {
                    call.information = Some(item.word());
                }
                Meaning::PreprocessAlone => call.preprocess_alone = Some(item.word()),
                Meaning::Local(Cause::SyntaxOnly) => call.syntax_only = true,
                // `-S` is stronger than `-c`, wherever they stand.
                Meaning::Stop(stage) => {
                    call.stage = Some(call.stage.map_or(stage, |before| before.min(stage)));
                }
                Meaning::Language => language = Some(item.value),
                Meaning::Input => call.inputs.push((*item, language)),
                Meaning::Output => call.outputs.push(item.value),
                Meaning::Dependencies(_) => call.dependencies = true,
                Meaning::DependencyFile => call.dependency_files += 1,
                Meaning::ToPreprocessor => call.to_preprocessor.push(item.value),
                Meaning::ToPreprocessorList => call.to_preprocessor.extend(pieces),
                Meaning::ToAssembler => call.to_assembler.push(item.value),
                Meaning::ToAssemblerList => call.to_assembler.extend(pieces),
                Meaning::ToClang => call.to_clang.push(item.value),
                _ => {}
            }
        }
        call
    }

    /// Whether the call compiles and is not a probe.
    fn is_a_compile(&self, cwd: &AbsPath) -> Result<(), Reason> {
        if let Some(word) = self.information {
            return Err(Reason::about(Cause::Information, word));
        }
        if let Some(word) = self.preprocess_alone {
            return Err(Reason::about(Cause::PreprocessAlone, word));
        }
        if self.inputs.is_empty() {
            return Err(Cause::NoInput.into());
        }
        let inputs = self.inputs.iter().map(|(item, _)| item.value);
        let mut paths = inputs.chain(self.outputs.iter().copied());
        if let Some(path) = paths.find(|path| is_probe(path)) {
            return Err(Reason::about(Cause::ConfigureProbe, path));
        }
        if is_probe_place(cwd.as_bytes()) {
            return Err(Reason::about(Cause::ConfigureProbe, cwd.as_bytes()));
        }
        match self.stage {
            None if self.syntax_only => Err(Cause::SyntaxOnly.into()),
            None => Err(Cause::Link.into()),
            Some(_) => Ok(()),
        }
    }

    /// Several inputs have outputs of their own: what names one output or one dependency file for
    /// all of them is an error, or written by each in its turn.
    fn several_are_clear(&self, inputs: &[Input<'_>], output: Option<&[u8]>) -> Result<(), Reason> {
        if inputs.len() < 2 {
            return Ok(());
        }
        let handed = self
            .to_preprocessor
            .iter()
            .any(|piece| piece.starts_with(b"-M"));
        if output.is_some() || handed || self.dependency_files > 0 {
            return Err(Cause::SeveralInputs.into());
        }
        let mut names: Vec<&[u8]> = inputs.iter().map(|input| stem(input.value)).collect();
        names.sort_unstable();
        // `a/x.c b/x.c` write one object, in an order that counts.
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Cause::SeveralInputs.into());
        }
        Ok(())
    }

    fn one_output(&self) -> Result<Option<&'a [u8]>, Reason> {
        match self.outputs[..] {
            [] => Ok(None),
            [output] => Ok(Some(output)),
            [_, second, ..] => Err(Reason::about(Cause::UnclearOutput, second)),
        }
    }
}

/// What an item alone says against a compile elsewhere.
fn check(item: &Item<'_>) -> Result<(), Reason> {
    let refuse = |cause| Err(Reason::about(cause, item.word()));
    match item.meaning {
        Meaning::Local(cause) => refuse(cause),
        Meaning::Verbose => refuse(Cause::Verbose),
        Meaning::Unknown => refuse(Cause::UnknownOption),
        Meaning::Incomplete => refuse(Cause::MissingValue),
        Meaning::UnlistedCode | Meaning::UnlistedPlain if may_name_a_file(item.value) => {
            refuse(Cause::UnknownOption)
        }
        Meaning::Dump => dump_file(item.value).map_or(Ok(()), check_written),
        Meaning::Charset if !is_utf_8(item.value) => refuse(Cause::Charset),
        Meaning::Search if item.value.ends_with(b".hmap") => {
            Err(Reason::about(Cause::VirtualFiles, item.value))
        }
        Meaning::ToLlvm => inner::to_llvm(item.value),
        Meaning::Input if item.value == b"-" => refuse(Cause::StandardInput),
        Meaning::Input if item.value.is_empty() => refuse(Cause::NoInput),
        Meaning::Forced(_)
        | Meaning::Reads
        | Meaning::Configures
        | Meaning::PrecompiledHeader
        | Meaning::Prefix
        | Meaning::Resources
        | Meaning::SidePrefix
            if item.value.is_empty() =>
        {
            refuse(Cause::MissingValue)
        }
        Meaning::PrecompiledHeader if !inner::is_precompiled_name(item.value) => {
            refuse(Cause::PrecompiledHeader)
        }
        Meaning::SidePrefix if is_device(item.value) => refuse(Cause::DeviceFile),
        Meaning::Input
        | Meaning::Forced(_)
        | Meaning::Reads
        | Meaning::Configures
        | Meaning::Profile
        | Meaning::Prefix
        | Meaning::Resources
        | Meaning::PrecompiledHeader => check_read(item.value),
        Meaning::Output | Meaning::DependencyFile | Meaning::Writes => check_written(item.value),
        _ => Ok(()),
    }
}

fn check_read(path: &[u8]) -> Result<(), Reason> {
    if is_device(path) {
        Err(Reason::about(Cause::DeviceFile, path))
    } else {
        Ok(())
    }
}

fn check_written(path: &[u8]) -> Result<(), Reason> {
    if path == b"-" {
        Err(Cause::StandardOutput.into())
    } else if path.is_empty() || path.ends_with(b"/") {
        Err(Reason::about(Cause::UnclearOutput, path))
    } else if is_device(path) {
        Err(Reason::about(Cause::DeviceFile, path))
    } else {
        Ok(())
    }
}

/// Whether a path leads to devices or processes by its text.
fn is_device(path: &[u8]) -> bool {
    let mut parts = path
        .split(|&b| b == b'/')
        .filter(|part| !matches!(*part, b"" | b"."));
    path.starts_with(b"/") && matches!(parts.next(), Some(b"dev" | b"proc"))
}

/// Whether the value of an option that is not listed could be the name of a file: by what it
/// looks like, or by what the option is called.
fn may_name_a_file(rest: &[u8]) -> bool {
    let Some(equals) = rest.iter().position(|&b| b == b'=') else {
        return rest.contains(&b'/');
    };
    let (name, value) = (&rest[..equals], &rest[equals + 1..]);
    let called_so = name.split(|&b| b == b'-').any(|part| {
        let whole: &[&[u8]] = &[
            b"file",
            b"files",
            b"path",
            b"dir",
            b"directory",
            b"use",
            b"output",
            b"cache",
        ];
        whole.contains(&part) || part.ends_with(b"list")
    });
    let suffix = value
        .windows(2)
        .any(|pair| pair[0] == b'.' && pair[1].is_ascii_alphabetic());
    called_so || suffix || value.contains(&b'/') || value.contains(&b'@')
}

fn is_utf_8(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"utf-8") || name.eq_ignore_ascii_case(b"utf8")
}

/// What the environment says against a compile elsewhere.
fn check_environment(family: Family, env: &[(Bytes, Bytes)]) -> Result<(), Reason> {
    for (name, value) in env {
        let gcc = family == Family::Gcc;
        let is_set = !value.is_empty();
        let changes = match &name[..] {
            // Other programs and installations, and other formats of objects.
            b"GCC_EXEC_PREFIX" | b"COMPILER_PATH" | b"GCC_COMPARE_DEBUG" | b"GNUTARGET" => is_set,
            // Libraries in the compiler's own process.
            b"LD_PRELOAD" | b"LD_AUDIT" => !are_harmless(value),
            // Dependencies are appended to a file that other compiles append to as well.
            b"DEPENDENCIES_OUTPUT" | b"SUNPRO_DEPENDENCIES" => true,
            // Diagnostics go to a file or a socket too.
            b"GCC_DIAGNOSTICS_LOG" | b"EXPERIMENTAL_SARIF_SOCKET" => gcc && is_set,
            // Options are edited, or what the driver does is written to files.
            b"CCC_OVERRIDE_OPTIONS" | b"CCC_ADD_ARGS" | b"RC_DEBUG_OPTIONS" => !gcc,
            b"AS_SECURE_LOG_FILE" | b"LLVM_OVERRIDE_PRODUCER" | b"LLVM_PROFILE_FILE" => {
                !gcc && is_set
            }
            name if name.starts_with(b"CC_PRINT_") || name == b"CC_LOG_DIAGNOSTICS" => !gcc,
            name if name.starts_with(b"CLANG_") || name.starts_with(b"LIBCLANG_") => !gcc && is_set,
            _ => false,
        };
        if changes {
            return Err(Reason::about(Cause::Environment, name));
        }
    }
    Ok(())
}

/// Whether libraries that are loaded into every program change nothing of what a compiler does:
/// they watch where it writes, leave out `fsync`, pretend about owners, or allocate memory.
fn are_harmless(libraries: &[u8]) -> bool {
    const HARMLESS: &[&[u8]] = &[
        b"libeatmydata.so",
        b"libfakeroot-sysv.so",
        b"libfakeroot-tcp.so",
        b"libfakeroot.so",
        b"libjemalloc.so",
        b"libmimalloc.so",
        b"libsandbox.so",
        b"libstdbuf.so",
        b"libtcmalloc.so",
        b"libtcmalloc_minimal.so",
    ];
    let mut libraries = libraries
        .split(|&b| matches!(b, b':' | b' '))
        .filter(|library| !library.is_empty());
    libraries.all(|library| {
        let name = file_name(library);
        let known = |known: &&&[u8]| {
            let rest = name.strip_prefix(**known);
            rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'.')))
        };
        HARMLESS.iter().any(|library| known(&library))
    })
}

/// The language of the input, when it is one that travels, and whether it is preprocessed.
fn language(
    compiler: Compiler,
    input: Item<'_>,
    option: Option<&[u8]>,
) -> Result<(Language, bool), Reason> {
    let content = option
        .and_then(Content::of_language)
        .unwrap_or_else(|| Content::of_file(compiler, input.value));
    let cause = match content {
        Content::Source(language) => return Ok((language, false)),
        Content::Preprocessed(language) => return Ok((language, true)),
        Content::Header => Cause::PrecompiledHeader,
        Content::Other => Cause::UnknownLanguage,
    };
    Err(Reason::about(cause, input.value))
}

/// What the outputs of an input are called after.
fn stem(input: &[u8]) -> &[u8] {
    let name = file_name(input);
    let dot = name.iter().rposition(|&b| b == b'.');
    &name[..dot.unwrap_or(name.len())]
}
