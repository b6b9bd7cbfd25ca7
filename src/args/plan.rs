//! What a compile that may travel reads and writes, and its command lines.
//!
//! A plan is made from items that [`super::verdict`] has found harmless, and says nothing about
//! files that it can't see: paths are **as the command spells them**, relative to its working
//! directory. Who uses them resolves symlinks and `..` as the kernel would, which text can't.

use crate::id::Bytes;
use crate::masquerade::file_name;

use super::compiler::{Compiler, Family, Language};
use super::inner::ToPreprocessor;
use super::parse::Item;
use super::reason::{Cause, Reason};
use super::table::{ForcedKind, Headers, Meaning, Stage};

/// A compile of one file that may be done elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whose rules the command line follows.
    pub family: Family,
    /// The language of the input.
    pub language: Language,
    /// How far the compile goes.
    pub stage: Stage,
    /// The input.
    pub input: Bytes,
    /// The index of the input in `argv`; none when a response file names it.
    pub input_index: Option<usize>,
    /// The main output: of `-o`, or derived from the input, in the working directory.
    pub output: Bytes,
    /// The directories that the compile may write to, each once; `.` is the working directory.
    /// They need not exist: then the compiler fails, and must fail elsewhere too.
    pub writable: Vec<Bytes>,
    /// The dependency file that is written.
    pub dependencies: Option<DependencyFile>,
    /// All arguments that can change the search list or what is predefined, in order.
    pub search: Vec<Bytes>,
    /// Files that are included before the input, in order.
    pub forced: Vec<Forced>,
    /// `-DNAME`, `-DNAME=VALUE` and `-UNAME`, in the order in which they take effect.
    pub defines: Vec<Bytes>,
    /// Files that are read besides sources and headers, response files included. When one is not a
    /// regular file, the compile is not understood and must stay local.
    pub extra_inputs: Vec<Bytes>,
    /// Whether debug information is asked for.
    pub debug: bool,
    /// The same compile in two steps.
    pub preprocessed: Preprocessed,
    /// The unchanged command line.
    pub argv: Vec<Bytes>,
}

/// A dependency file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DependencyFile {
    /// Where it is written.
    pub path: Bytes,
    /// Which headers it names.
    pub headers: Headers,
}

/// A file that is included before the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forced {
    /// What it gives.
    pub kind: ForcedKind,
    /// Its name: looked for in the working directory first, then as if quoted in the input.
    pub name: Bytes,
}

/// A compile in two steps: preprocess here, compile the text elsewhere.
///
/// Diagnostics of the second step are not those of the plain compiler: they have no columns, and
/// know less about macros. When it prints anything, compile again, in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preprocessed {
    /// Writes the preprocessed text to standard output, and the dependency file.
    pub preprocess: Vec<Bytes>,
    /// Compiles the text. It needs no response file.
    pub compile: Vec<Bytes>,
    /// The index in `compile` of the name of the text; until replaced, it is the input's.
    pub compile_input: usize,
    /// Whether the object is the plain compiler's, as far as the command line tells: columns and
    /// the command line itself are in debug information, coverage, sanitizers' reports and more.
    pub exact: bool,
}

/// What [`Plan::draw`] is made from.
pub(super) struct Draft<'a> {
    pub compiler: Compiler,
    pub language: Language,
    pub stage: Stage,
    pub argv: &'a [Bytes],
    pub items: &'a [Item<'a>],
    pub input: Item<'a>,
    pub input_index: Option<usize>,
    pub output: Option<&'a [u8]>,
    pub handed: ToPreprocessor,
    pub assembler_debug: bool,
    pub response_files: Vec<Bytes>,
}

impl Plan {
    /// Draws up the plan; it fails when the name of a derived output would be empty.
    pub(super) fn draw(draft: Draft<'_>) -> Result<Self, Reason> {
        let debug = draft.assembler_debug || debug_is_on(draft.items);
        let output = match draft.output {
            Some(output) => Bytes::from(output),
            None => derived_output(&draft)?,
        };
        let dependencies = dependency_file(&draft)?;
        let preprocessed = Preprocessed::draw(&draft, &output, dependencies.as_ref(), debug);

        let mut plan = Self {
            family: draft.compiler.family,
            language: draft.language,
            stage: draft.stage,
            input: Bytes::from(draft.input.value),
            input_index: draft.input_index,
            writable: Vec::new(),
            search: Vec::new(),
            forced: Vec::new(),
            defines: Vec::new(),
            extra_inputs: draft.response_files,
            debug,
            preprocessed,
            argv: draft.argv.to_vec(),
            output,
            dependencies,
        };
        plan.may_write(directory(&plan.output).to_vec());
        if let Some(file) = &plan.dependencies {
            plan.may_write(directory(&file.path).to_vec());
        }
        for item in draft.items {
            plan.take(item);
        }
        // Both families put what is handed to the preprocessor after their own options.
        plan.defines.extend(draft.handed.defines);
        Ok(plan)
    }

    fn take(&mut self, item: &Item<'_>) {
        match item.meaning {
            Meaning::Code
            | Meaning::UnlistedCode
            | Meaning::InexactCode
            | Meaning::Processor
            | Meaning::Search => self.search.extend_from_slice(item.words),
            Meaning::Define => self.defines.push(Bytes([b"-D", item.value].concat())),
            Meaning::Undefine => self.defines.push(Bytes([b"-U", item.value].concat())),
            Meaning::Forced(kind) => self.forced.push(Forced {
                kind,
                name: Bytes::from(item.value),
            }),
            Meaning::Reads => self.extra_inputs.push(Bytes::from(item.value)),
            Meaning::Writes => self.may_write(directory(item.value).to_vec()),
            // Where side files fall depends on the compiler's version: both places are allowed.
            Meaning::Side | Meaning::Dump | Meaning::DiagnosticsFormat => {
                self.may_write(b".".to_vec());
            }
            _ => {}
        }
    }

    fn may_write(&mut self, directory: Vec<u8>) {
        let directory = Bytes(directory);
        if !self.writable.contains(&directory) {
            self.writable.push(directory);
        }
    }
}

impl Preprocessed {
    fn draw(
        draft: &Draft<'_>,
        output: &Bytes,
        dependencies: Option<&DependencyFile>,
        debug: bool,
    ) -> Self {
        let clang = draft.compiler.family == Family::Clang;
        let asks =
            |wanted: fn(&Meaning) -> bool| draft.items.iter().any(|item| wanted(&item.meaning));

        let mut preprocess = vec![draft.argv[0].clone(), Bytes::from("-E")];
        if clang {
            // What is of no use to the preprocessor is of use to the second step.
            preprocess.push(Bytes::from("-Qunused-arguments"));
        }
        let by_driver = asks(|meaning| matches!(meaning, Meaning::Dependencies(_)));
        if let Some(file) = dependencies {
            if by_driver && !asks(|meaning| *meaning == Meaning::DependencyFile) {
                preprocess.extend([Bytes::from("-MF"), file.path.clone()]);
            }
            // The driver names the output as the target, but only when it knows one, which it
            // does not when it preprocesses.
            let named = draft.output.is_some() && (by_driver || clang);
            if named && !asks(|meaning| *meaning == Meaning::DependencyTarget) {
                preprocess.extend([Bytes::from("-MQ"), output.clone()]);
            }
        }
        let mut compile = vec![
            draft.argv[0].clone(),
            Bytes::from("-x"),
            Bytes::from(draft.language.preprocessed_name()),
        ];
        if draft.output.is_none() {
            compile.extend([Bytes::from("-o"), output.clone()]);
        }
        let mut compile_input = 0;
        for item in draft.items {
            let steps = Steps::of(item.meaning);
            if steps != Steps::Second {
                preprocess.extend_from_slice(item.words);
            }
            if steps != Steps::First {
                if item.meaning == Meaning::Input {
                    compile_input = compile.len();
                }
                compile.extend_from_slice(item.words);
            }
        }
        let inexact = asks(|meaning| {
            matches!(
                meaning,
                Meaning::Inexact
                    | Meaning::InexactCode
                    | Meaning::Side
                    | Meaning::Dump
                    | Meaning::Writes
                    | Meaning::ToClang
                    | Meaning::ToLlvm
            )
        });
        Self {
            preprocess,
            compile,
            compile_input,
            exact: !debug && !inexact,
        }
    }
}

/// Which step of a compile in two steps gets an option.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Steps {
    First,
    Second,
    Both,
}

impl Steps {
    fn of(meaning: Meaning) -> Self {
        match meaning {
            Meaning::Language
            | Meaning::Search
            | Meaning::Define
            | Meaning::Undefine
            | Meaning::Forced(_)
            | Meaning::PreprocessorOnly
            | Meaning::Charset
            | Meaning::Dependencies(_)
            | Meaning::DependencyFile
            | Meaning::DependencyTarget
            | Meaning::ToPreprocessorList
            | Meaning::ToPreprocessor => Self::First,
            Meaning::Stop(_)
            | Meaning::Output
            | Meaning::EmitLlvm
            | Meaning::Linker
            | Meaning::ToAssemblerList
            | Meaning::ToAssembler
            | Meaning::Writes
            | Meaning::Side
            | Meaning::Dump => Self::Second,
            _ => Self::Both,
        }
    }
}

/// Whether the last word on debug information is not "none".
fn debug_is_on(items: &[Item<'_>]) -> bool {
    // These change what debug information looks like, and ask for none.
    const MANNERS: &[&str] = &[
        "z",
        "record-",
        "strict-dwarf",
        "pubnames",
        "gnu-pubnames",
        "column-info",
        "variable-location-views",
        "as-loc",
        "statement-frontiers",
        "inline-points",
        "internal-reset-location-views",
        "describe-dies",
        "dwarf32",
        "dwarf64",
        "embed-source",
        "simple-template-names",
        "key-instructions",
    ];
    let mut on = false;
    for item in items.iter().filter(|item| item.meaning == Meaning::Debug) {
        let level = item.value;
        if MANNERS
            .iter()
            .any(|manner| level.starts_with(manner.as_bytes()))
        {
            continue;
        }
        on = !matches!(level, b"0" | b"=0" | b"gdb0" | b"stabs0" | b"stabs+0");
    }
    on
}

/// What the driver calls the output when nobody names it.
fn derived_output(draft: &Draft<'_>) -> Result<Bytes, Reason> {
    let llvm = draft
        .items
        .iter()
        .any(|item| item.meaning == Meaning::EmitLlvm);
    let suffix: &[u8] = match (draft.stage, llvm) {
        (Stage::Object, false) => b".o",
        (Stage::Object, true) => b".bc",
        (Stage::Assembly, false) => b".s",
        (Stage::Assembly, true) => b".ll",
    };
    named_after(draft.input.value, suffix)
}

/// A file in the working directory that is called like the input, but for the suffix.
fn named_after(input: &[u8], suffix: &[u8]) -> Result<Bytes, Reason> {
    let stem = without_suffix(file_name(input));
    if stem.is_empty() {
        return Err(Reason::about(Cause::UnclearOutput, input));
    }
    Ok(Bytes([stem, suffix].concat()))
}

/// The dependency file, if one is written.
fn dependency_file(draft: &Draft<'_>) -> Result<Option<DependencyFile>, Reason> {
    if let Some((headers, path)) = &draft.handed.dependencies {
        return Ok(Some(DependencyFile {
            path: path.clone(),
            headers: *headers,
        }));
    }
    let mut headers = None;
    let mut path = None;
    for item in draft.items {
        match item.meaning {
            Meaning::Dependencies(which) => headers = Some(which),
            Meaning::DependencyFile => path = Some(Bytes::from(item.value)),
            _ => {}
        }
    }
    let Some(headers) = headers else {
        return Ok(None);
    };
    let path = match (path, draft.output) {
        (Some(path), _) => path,
        (None, Some(output)) => Bytes([without_suffix(output), b".d"].concat()),
        (None, None) => named_after(draft.input.value, b".d")?,
    };
    Ok(Some(DependencyFile { path, headers }))
}

/// A path up to the last dot of its last component.
fn without_suffix(path: &[u8]) -> &[u8] {
    let name = file_name(path);
    match name.iter().rposition(|&b| b == b'.') {
        Some(dot) => &path[..path.len() - name.len() + dot],
        None => path,
    }
}

/// The directory of a file, as it is spelled.
fn directory(path: &[u8]) -> &[u8] {
    let Some(slash) = path.iter().rposition(|&b| b == b'/') else {
        return b".";
    };
    let end = path[..slash].iter().rposition(|&b| b != b'/');
    end.map_or(b"/", |end| &path[..=end])
}
