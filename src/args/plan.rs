//! What a compile that may travel reads and writes, and its command lines.
//!
//! A plan is made from items that [`super::verdict`] has found harmless, and says nothing about
//! files that it can't see: paths are **as the command spells them**, relative to its working
//! directory. Who uses them resolves symlinks and `..` as the kernel would, which text can't.

use crate::id::Bytes;
use crate::masquerade::file_name;

use super::compiler::{Compiler, Family, Language};
use super::inner::{ToAssembler, ToClang, ToPreprocessor};
use super::parse::Item;
use super::reason::{Cause, Reason};
use super::table::{ForcedKind, Headers, Meaning, Stage};

/// A compile that may be done elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whose rules the command line follows.
    pub family: Family,
    /// How far the compile goes.
    pub stage: Stage,
    /// The inputs, in order; never empty.
    pub units: Vec<Unit>,
    /// The directories that the compile may write to, each once; `.` is the working directory.
    /// They need not exist: then the compiler fails, and must fail elsewhere too.
    pub writable: Vec<Bytes>,
    /// All arguments that can change the search list or what is predefined, in order.
    pub search: Vec<Bytes>,
    /// Files that are included before the input, in order.
    pub forced: Vec<Forced>,
    /// `-DNAME`, `-DNAME=VALUE` and `-UNAME`, in the order in which they take effect.
    pub defines: Vec<Bytes>,
    /// Directories where the assembler alone looks for what it includes.
    pub assembler_search: Vec<Bytes>,
    /// Files that are read besides sources and headers, response files included. When one is not a
    /// regular file, the compile is not understood and must stay local.
    pub extra_inputs: Vec<Bytes>,
    /// Files that are read when they are there, and whose names are known in part only.
    pub profiles: Vec<Profiles>,
    /// Where the driver looks for programs before its own places, of `-B`: directories, or what names
    /// begin with. When one of its programs is there, the compile must stay local.
    pub prefixes: Vec<Bytes>,
    /// Whether debug information is asked for.
    pub debug: bool,
    /// The command line of the same compile where an option means the processor of this machine:
    /// response files expanded.
    pub native: Option<Native>,
    /// The same compile in two steps; none when it has no such form.
    pub preprocessed: Option<Preprocessed>,
    /// The unchanged command line.
    pub argv: Vec<Bytes>,
}

/// One input, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The input.
    pub input: Bytes,
    /// Its index in the command line; none when a response file names it.
    pub index: Option<usize>,
    /// Its language.
    pub language: Language,
    /// Whether it went through the preprocessor already, or does not need to.
    pub is_text: bool,
    /// The main output: of `-o`, or derived from the input, in the working directory.
    pub output: Bytes,
    /// The dependency file that is written.
    pub dependencies: Option<DependencyFile>,
}

/// Profiles or lists that a compile may read: every file in a directory whose name has this end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profiles {
    /// The directory; it need not exist.
    pub directory: Bytes,
    /// The end of the names.
    pub suffix: Bytes,
}

/// A command line with options that mean the processor of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Native {
    /// All words, without response files.
    pub words: Vec<Bytes>,
    /// The indexes in `words` of `-march=native` and its kind, ascending.
    pub options: Vec<usize>,
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
    pub stage: Stage,
    pub argv: &'a [Bytes],
    pub words: &'a [Bytes],
    pub items: &'a [Item<'a>],
    pub inputs: Vec<Input<'a>>,
    pub output: Option<&'a [u8]>,
    pub to_preprocessor: ToPreprocessor,
    pub to_assembler: ToAssembler,
    pub to_clang: ToClang,
    pub response_files: Vec<Bytes>,
}

/// An input whose language travels.
pub(super) struct Input<'a> {
    pub value: &'a [u8],
    pub index: Option<usize>,
    pub language: Language,
    pub is_text: bool,
}

impl Plan {
    /// Draws up the plan; it fails when the name of a derived output would be empty.
    pub(super) fn draw(draft: Draft<'_>) -> Result<Self, Reason> {
        let debug = draft.to_assembler.debug || debug_is_on(draft.items);
        let units = draft
            .inputs
            .iter()
            .map(|input| unit(&draft, input))
            .collect::<Result<Vec<_>, _>>()?;
        let preprocessed = Preprocessed::draw(&draft, &units, debug);

        let native = native(&draft)?;
        let mut plan = Self {
            family: draft.compiler.family,
            stage: draft.stage,
            writable: Vec::new(),
            search: Vec::new(),
            forced: Vec::new(),
            defines: Vec::new(),
            assembler_search: draft.to_assembler.search,
            extra_inputs: draft.response_files,
            profiles: Vec::new(),
            prefixes: Vec::new(),
            debug,
            native,
            preprocessed,
            argv: draft.argv.to_vec(),
            units,
        };
        for place in plan.places().cloned().collect::<Vec<_>>() {
            plan.may_write(directory(&place).to_vec());
        }
        for item in draft.items {
            plan.take(item);
        }
        // Both families put what is handed to the preprocessor after their own options.
        plan.defines.extend(draft.to_preprocessor.defines);
        plan.forced.extend(draft.to_preprocessor.forced);
        for word in draft.to_preprocessor.search {
            plan.search.extend([Bytes::from("-Xpreprocessor"), word]);
        }
        plan.forced.extend(draft.to_clang.forced);
        for header in draft.to_clang.precompiled {
            plan.take_precompiled(&header);
        }
        plan.extra_inputs.extend(draft.to_assembler.reads);
        for file in draft.to_assembler.writes {
            plan.may_write(directory(&file).to_vec());
        }
        Ok(plan)
    }

    /// The first input: people know the job by it.
    pub fn name(&self) -> &Bytes {
        &self.units[0].input
    }

    /// The main outputs and dependency files.
    pub fn places(&self) -> impl Iterator<Item = &Bytes> {
        self.units.iter().flat_map(|unit| {
            let dependencies = unit.dependencies.iter().map(|file| &file.path);
            std::iter::once(&unit.output).chain(dependencies)
        })
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
            Meaning::PrecompiledHeader => self.take_precompiled(item.value),
            Meaning::Prefix => {
                self.search.extend_from_slice(item.words);
                self.prefixes.push(Bytes::from(item.value));
            }
            Meaning::Resources => {
                self.search.extend_from_slice(item.words);
                self.profiles.push(Profiles {
                    directory: Bytes([item.value, b"/share"].concat()),
                    suffix: Bytes::from(".txt"),
                });
            }
            Meaning::Reads => self.extra_inputs.push(Bytes::from(item.value)),
            Meaning::Configures => {
                self.search.extend_from_slice(item.words);
                // A bare name may stand in a directory of the compiler's, which it tells itself.
                if item.value.contains(&b'/') {
                    self.extra_inputs.push(Bytes::from(item.value));
                }
            }
            Meaning::Writes => self.may_write(directory(item.value).to_vec()),
            // Where side files fall depends on the compiler's version: both places are allowed.
            Meaning::Side | Meaning::DiagnosticsFormat => self.may_write(b".".to_vec()),
            Meaning::SidePrefix => {
                self.may_write(b".".to_vec());
                self.may_write(directory(item.value).to_vec());
            }
            Meaning::Dump => {
                self.may_write(b".".to_vec());
                if let Some(file) = dump_file(item.value) {
                    self.may_write(directory(file).to_vec());
                }
            }
            Meaning::Profile => self.take_profile(item.value),
            _ => {}
        }
    }

    /// clang proves a precompiled header by the files that it was made from, first of all the header
    /// that it is named after.
    fn take_precompiled(&mut self, file: &[u8]) {
        self.extra_inputs.push(Bytes::from(file));
        self.forced.push(Forced {
            kind: ForcedKind::Include,
            name: Bytes::from(without_suffix(file)),
        });
    }

    /// The names of profiles depend on the family and the version; all that they could be are
    /// allowed for. `place` is what the option says, if anything.
    fn take_profile(&mut self, place: &[u8]) {
        if self.family == Family::Clang {
            let beside: &[u8] = if place.is_empty() { b"." } else { place };
            let file = |name: &[u8]| Bytes([beside, b"/", name].concat());
            for name in [&b"default.profdata"[..], b"code.prof"] {
                self.extra_inputs.push(file(name));
            }
            if !place.is_empty() {
                self.extra_inputs.push(Bytes::from(place));
            }
            return;
        }
        if place.is_empty() {
            self.extra_inputs.push(Bytes::from("fbdata.afdo"));
        } else {
            self.extra_inputs.push(Bytes::from(place));
        }
        let mut directories = vec![b".".to_vec(), place.to_vec(), directory(place).to_vec()];
        directories.extend(self.writable.iter().map(|directory| directory.0.clone()));
        directories.retain(|directory| !directory.is_empty());
        directories.sort();
        directories.dedup();
        for unit in &self.units {
            for path in [&unit.input, &unit.output] {
                let stem = without_suffix(file_name(path));
                let suffix = Bytes([stem, b".gcda"].concat());
                for directory in &directories {
                    let profiles = Profiles {
                        directory: Bytes(directory.clone()),
                        suffix: suffix.clone(),
                    };
                    if !self.profiles.contains(&profiles) {
                        self.profiles.push(profiles);
                    }
                }
            }
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
    /// None when there is more than one input, or one that needs no preprocessor or is assembler.
    fn draw(draft: &Draft<'_>, units: &[Unit], debug: bool) -> Option<Self> {
        let [unit] = units else { return None };
        if unit.is_text || unit.language == Language::Assembler {
            return None;
        }
        let (output, dependencies) = (&unit.output, unit.dependencies.as_ref());
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
            Bytes::from(unit.language.preprocessed_name()),
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
                    | Meaning::SidePrefix
                    | Meaning::Dump
                    | Meaning::Writes
                    | Meaning::Profile
                    | Meaning::PrecompiledHeader
                    | Meaning::Configures
                    | Meaning::ToClang
                    | Meaning::ToLlvm
            )
        });
        Some(Self {
            preprocess,
            compile,
            compile_input,
            exact: !debug && !inexact,
        })
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
            | Meaning::SidePrefix
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

/// What becomes of one input.
fn unit(draft: &Draft<'_>, input: &Input<'_>) -> Result<Unit, Reason> {
    let output = match draft.output {
        Some(output) => Bytes::from(output),
        None => derived_output(draft, input)?,
    };
    Ok(Unit {
        input: Bytes::from(input.value),
        index: input.index,
        language: input.language,
        is_text: input.is_text,
        output,
        dependencies: dependency_file(draft, input)?,
    })
}

/// clang's options that write its command line into the object.
const RECORDING: [&[u8]; 4] = [
    b"-grecord-gcc-switches",
    b"-grecord-command-line",
    b"-frecord-gcc-switches",
    b"-frecord-command-line",
];

/// The command line with the options that mean this machine's processor, if there are any.
fn native(draft: &Draft<'_>) -> Result<Option<Native>, Reason> {
    let is_native =
        |item: &&Item<'_>| item.meaning == Meaning::Processor && item.value.starts_with(b"native");
    let options: Vec<usize> = draft
        .items
        .iter()
        .filter(is_native)
        .map(|item| item.at + 1)
        .collect();
    if options.is_empty() {
        return Ok(None);
    }
    // clang is sent other words than it was given. gcc is sent the same, with specs beside them.
    let records = |word: &&Bytes| RECORDING.contains(&&word[..]);
    if draft.compiler.family == Family::Clang
        && let Some(word) = draft.words.iter().find(records)
    {
        return Err(Reason::about(Cause::NativeCpu, word));
    }
    Ok(Some(Native {
        words: draft.argv[..1].iter().chain(draft.words).cloned().collect(),
        options,
    }))
}

/// The file that an option for dumps names; none when it names none, or a stream.
pub(super) fn dump_file(value: &[u8]) -> Option<&[u8]> {
    let equals = value.iter().position(|&b| b == b'=')?;
    let file = &value[equals + 1..];
    (!matches!(file, b"stdout" | b"stderr" | b"-")).then_some(file)
}

/// What the driver calls the output when nobody names it.
fn derived_output(draft: &Draft<'_>, input: &Input<'_>) -> Result<Bytes, Reason> {
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
    named_after(input.value, suffix)
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
fn dependency_file(draft: &Draft<'_>, input: &Input<'_>) -> Result<Option<DependencyFile>, Reason> {
    if input.is_text && input.language == Language::Assembler {
        return Ok(None);
    }
    if let Some((headers, path)) = &draft.to_preprocessor.dependencies {
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
        (None, None) => named_after(input.value, b".d")?,
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
