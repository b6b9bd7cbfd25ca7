//! What `-march=native` and its kind mean on this machine, and how to say it to a compiler elsewhere.
//!
//! gcc's driver turns them into options of the compiler proper, by a function that its specs call. The
//! command stays as it is and gets a file of specs in which that function's result stands instead of
//! the call, so that the compiler proper is called with the same words in the same order: they are
//! recorded in objects. clang's driver turns them into a name and features that are recorded nowhere;
//! the name takes the place of `native`, and the features are handed over by `-Xclang`. Either way the driver is asked what it would run, for the command as
//! it is and for the one that is sent; only when that is the same does the job travel.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::compiler;
use crate::args::{Family, Native, Plan};
use crate::child::Printed;
use crate::id::{Bytes, Digest};
use crate::message::Call;

/// Where the specs lie on the worker.
pub const SPECS_PLACE: &str = "/ice-native/specs";

/// Answers that are kept. A project has a handful of different flags.
const KNOWN_MAX: usize = 256;

/// What a compiler that is asked may print. All specs of gcc are a twentieth of it.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Stand around what the driver makes of the options, in its own words.
const MARKS: [&[u8]; 2] = [b"-DICE_NATIVE_BEGINS", b"-DICE_NATIVE_ENDS"];

/// How a job says what this machine's processor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adapted {
    /// By specs, to be read from [`SPECS_PLACE`].
    Specs(Arc<Vec<u8>>),
    /// By the processor's name in the options, and by what it can do.
    Named(Processor),
}

/// A processor in clang's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processor {
    /// Whose instructions are used.
    cpu: Option<Bytes>,
    /// Whose speed counts, when that is another.
    tune: Option<Bytes>,
    /// `+` or `-` and a feature, in order.
    features: Vec<Bytes>,
}

impl Adapted {
    /// The command line to be sent.
    pub fn argv(&self, plan: &Plan, native: &Native) -> Vec<Bytes> {
        match self {
            Self::Specs(_) => {
                let specs = Bytes::from(&format!("-specs={SPECS_PLACE}")[..]);
                plan.argv.iter().cloned().chain([specs]).collect()
            }
            Self::Named(processor) => {
                let named = |(index, word): (usize, &Bytes)| {
                    let is_native = native.options.contains(&index);
                    let name = is_native.then(|| processor.name_in(word)).flatten();
                    name.unwrap_or_else(|| word.clone())
                };
                let mut argv: Vec<Bytes> = native.words.iter().enumerate().map(named).collect();
                // Options may not follow `--`, and may precede everything.
                argv.splice(1..1, processor.words());
                argv
            }
        }
    }
}

/// What an answer depends on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Question {
    toolchain: Digest,
    compiler: Bytes,
    name: Bytes,
    language: &'static str,
    flags: Vec<Bytes>,
}

/// What is known of this machine's processor.
#[derive(Default)]
pub struct Processors {
    known: Mutex<BTreeMap<Question, Result<Adapted, String>>>,
}

impl Processors {
    /// How the command of `plan` is sent.
    ///
    /// # Errors
    /// Why it can't be.
    pub async fn adapt(
        &self,
        call: &Call,
        plan: &Plan,
        toolchain: Digest,
    ) -> Result<Adapted, String> {
        let mut answer: Option<Adapted> = None;
        for unit in &plan.units {
            let question = Question {
                toolchain,
                compiler: call.compiler.clone(),
                name: call.argv[0].clone(),
                language: unit.language.name(),
                flags: plan.search.clone(),
            };
            let adapted = self.answer(call, plan.family, question).await?;
            if answer.as_ref().is_some_and(|before| *before != adapted) {
                return Err("it means different things for the inputs".to_owned());
            }
            answer = Some(adapted);
        }
        answer.ok_or_else(|| "there is no input".to_owned())
    }

    async fn answer(
        &self,
        call: &Call,
        family: Family,
        question: Question,
    ) -> Result<Adapted, String> {
        let known = || self.known.lock().expect("no panic under this lock");
        if let Some(answer) = known().get(&question) {
            return answer.clone();
        }
        let answer = match family {
            Family::Gcc => by_specs(call, &question).await,
            Family::Clang => by_name(call, &question).await,
        };
        // A compiler that could not be started may be started the next time.
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Err(format!("ask the compiler: {error}")),
        };
        let mut known = known();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(question, answer.clone());
        answer
    }
}

async fn by_specs(call: &Call, question: &Question) -> io::Result<Result<Adapted, String>> {
    let specs = ask(call, &[Bytes::from("-dumpspecs")]).await?.output;
    let Some(body) = named_spec(&specs, b"cc1_cpu") else {
        return Ok(Err("the compiler has no specs for it".to_owned()));
    };
    let body = body.trim_ascii();
    let marked = [
        b"*cc1_cpu:\n",
        MARKS[0],
        b" ",
        body,
        b" ",
        MARKS[1],
        b"\n\n",
    ]
    .concat();
    let commands = with_specs(call, question, &marked).await?;
    let Some(words) = commands.iter().find_map(|command| between(command)) else {
        return Ok(Err("the compiler does not say what it is".to_owned()));
    };
    let mut specs = b"*cc1_cpu:\n%>march=native %>mtune=native".to_vec();
    for word in words {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_=.,+".contains(byte);
        if !word.iter().all(plain) {
            return Ok(Err(format!("{} is no plain word", Bytes::from(&word[..]))));
        }
        specs.push(b' ');
        specs.extend_from_slice(word);
    }
    specs.extend_from_slice(b"\n\n");
    let as_it_is = commands_of(&ask(call, &asking(question, &[])).await?.errors);
    if as_it_is.is_empty() || with_specs(call, question, &specs).await? != as_it_is {
        return Ok(Err("it can't be said otherwise".to_owned()));
    }
    Ok(Ok(Adapted::Specs(Arc::new(specs))))
}

/// What the driver would run with these specs.
async fn with_specs(
    call: &Call,
    question: &Question,
    specs: &[u8],
) -> io::Result<Vec<Vec<Vec<u8>>>> {
    let file = Specs::write(specs)?;
    let option = Bytes([b"-specs=", file.0.as_os_str().as_encoded_bytes()].concat());
    let messages = ask(call, &asking(question, &[option])).await?.errors;
    Ok(commands_of(&messages))
}

/// A file of specs, removed when dropped.
struct Specs(PathBuf);

impl Specs {
    fn write(text: &[u8]) -> io::Result<Self> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("ice-specs-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let specs = Self(path);
        file.write_all(text)?;
        Ok(specs)
    }
}

impl Drop for Specs {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn by_name(call: &Call, question: &Question) -> io::Result<Result<Adapted, String>> {
    let messages = ask(call, &asking(question, &[])).await?.errors;
    let commands = commands_of(&messages);
    let Some(wanted) = commands.iter().find_map(|command| Processor::of(command)) else {
        return Ok(Err("the compiler does not say what it is".to_owned()));
    };
    let mut rewritten = question.clone();
    for flag in &mut rewritten.flags {
        if let Some(named) = wanted.name_in(flag) {
            *flag = named;
        }
    }
    let words: Vec<Bytes> = wanted.words().collect();
    let messages = ask(call, &asking(&rewritten, &words)).await?.errors;
    let said = commands_of(&messages);
    let said = said.iter().find_map(|command| Processor::of(command));
    if said.is_none_or(|said| said.effect() != wanted.effect()) {
        return Ok(Err("it can't be said otherwise".to_owned()));
    }
    Ok(Ok(Adapted::Named(wanted)))
}

impl Processor {
    /// What clang's compiler proper is told; none when the command is another.
    fn of(command: &[Vec<u8>]) -> Option<Self> {
        if command.get(1).is_none_or(|word| word != b"-cc1") {
            return None;
        }
        let mut processor = Self::default();
        for pair in command.windows(2) {
            let value = Bytes::from(&pair[1][..]);
            match &pair[0][..] {
                b"-target-cpu" => processor.cpu = Some(value),
                b"-tune-cpu" => processor.tune = Some(value),
                b"-target-feature" => processor.features.push(value),
                _ => {}
            }
        }
        Some(processor)
    }

    /// An option with `native` for its value, with this processor's name instead.
    fn name_in(&self, option: &Bytes) -> Option<Bytes> {
        let stem = option.strip_suffix(b"native")?;
        let name = match stem {
            b"-march=" | b"-mcpu=" => self.cpu.as_ref()?,
            b"-mtune=" => self.tune.as_ref()?,
            _ => return None,
        };
        Some(Bytes([stem, name].concat()))
    }

    /// The driver's words for the features.
    fn words(&self) -> impl Iterator<Item = Bytes> {
        let words = self.features.iter().flat_map(|feature| {
            [&b"-Xclang"[..], b"-target-feature", b"-Xclang", feature].map(Bytes::from)
        });
        words.collect::<Vec<_>>().into_iter()
    }

    /// What it comes to: the last word on each feature counts.
    fn effect(&self) -> (Option<&Bytes>, Option<&Bytes>, BTreeMap<&[u8], u8>) {
        let features = self
            .features
            .iter()
            .filter_map(|feature| feature.split_first());
        let features = features.map(|(sign, name)| (name, *sign)).collect();
        (self.cpu.as_ref(), self.tune.as_ref(), features)
    }
}

/// The words that ask a driver what it would run. In a pipe, so that no temporary name is in it.
fn asking(question: &Question, more: &[Bytes]) -> Vec<Bytes> {
    let end = [
        "-pipe",
        "-x",
        question.language,
        "-c",
        "-o",
        "/dev/null",
        "/dev/null",
    ];
    let first = [Bytes::from("-###")];
    let flags = question.flags.iter().chain(more).cloned();
    let end = end.into_iter().map(Bytes::from);
    first.into_iter().chain(flags).chain(end).collect()
}

/// What the compiler prints when it is given these words.
async fn ask(call: &Call, words: &[Bytes]) -> io::Result<Printed> {
    let words = words.iter().map(|word| word.as_os_str());
    compiler::ask(call, words, ANSWER_BYTES_MAX).await
}

/// The body of a named spec in what `-dumpspecs` prints.
fn named_spec<'a>(specs: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let head = [b"*", name, b":\n"].concat();
    let start = memchr::memmem::find_iter(specs, &head)
        .find(|&at| at == 0 || specs[at - 1] == b'\n')?
        + head.len();
    let rest = &specs[start..];
    let end = memchr::memmem::find(rest, b"\n\n").unwrap_or(rest.len());
    Some(&rest[..end])
}

/// The commands in what `-###` prints, as their words. They begin with a blank.
fn commands_of(messages: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let lines = messages.split(|&b| b == b'\n');
    let commands = lines.filter(|line| line.first() == Some(&b' '));
    commands.map(unquoted).collect()
}

/// The words of a line in which some are in double quotes, with backslashes before what would end
/// them.
fn unquoted(line: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quoted = false;
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => word.get_or_insert_default().extend(bytes.next()),
            b'"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            b' ' if !quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    words
}

/// The words between the marks.
fn between(command: &[Vec<u8>]) -> Option<&[Vec<u8>]> {
    let place = |mark: &[u8]| command.iter().position(|word| word == mark);
    command.get(place(MARKS[0])? + 1..place(MARKS[1])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drivers_commands_are_read_word_by_word() {
        let said = b"Using built-in specs.\n cc1 -quiet \"-march=x\" \"a \\\"b\\\\\" |\n as --64\n";
        let commands = commands_of(said);
        let expect: [&[&[u8]]; 2] = [
            &[b"cc1", b"-quiet", b"-march=x", b"a \"b\\", b"|"],
            &[b"as", b"--64"],
        ];
        assert_eq!(commands, expect);
    }

    #[test]
    fn a_named_spec_ends_at_an_empty_line() {
        let specs = b"*asm:\n%{m}\n\n*cc1_cpu:\n%{march=native:%:f(x)}\n\n*cc1:\n\n";
        assert_eq!(
            named_spec(specs, b"cc1_cpu"),
            Some(&b"%{march=native:%:f(x)}"[..])
        );
        assert_eq!(named_spec(specs, b"asm"), Some(&b"%{m}"[..]));
        assert_eq!(named_spec(specs, b"cpp"), None);
    }

    #[test]
    fn a_processor_is_named_where_native_stood() {
        let command = |line: &str| unquoted(line.as_bytes());
        let of = |line: &str| Processor::of(&command(line));
        let one = "clang -cc1 -target-cpu a -target-cpu b -target-feature +x -target-feature -x";
        let one = of(one).unwrap();
        let other = of("clang -cc1 -O2 -target-feature -x -target-cpu b").unwrap();
        assert_eq!(one.effect(), other.effect());
        let other = of("clang -cc1 -target-cpu b -target-feature +x").unwrap();
        assert_ne!(one.effect(), other.effect());
        assert_eq!(of("as --64"), None);
        for (option, expect) in [
            ("-march=native", Some("-march=b")),
            ("-mtune=native", None),
            ("-march=x", None),
            ("-DX=native", None),
        ] {
            let named = one.name_in(&Bytes::from(option));
            assert_eq!(named, expect.map(Bytes::from), "{option}");
        }
    }
}
