//! Reads from one file's bytes everything that could make a compiler open another file.
//!
//! It knows no other file, no search path and no condition: text in a skipped branch counts. It
//! must not miss anything in adversarial text, so comments, literals, raw strings, spliced lines
//! and trigraphs are followed exactly; where the dialect decides (raw strings in C, trigraphs, a
//! lone carriage return as a line's end) the file is read each way and the findings are united.

use std::borrow::Cow;

use memchr::memmem;

/// The longest macro definition that is kept; a longer one makes what depends on it unknown.
const DEFINITION_BYTES_MAX: usize = 4096;

/// What a directive does with the file that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// Reads it, the first one on the path: `#include`, `#import`.
    Include,
    /// Reads the next one on the path: `#include_next`.
    Next,
    /// Asks whether it exists: `__has_include`, `#pragma GCC dependency`.
    Probe,
    /// Asks whether a next one exists: `__has_include_next`.
    ProbeNext,
    /// Reads its bytes as data: `#embed`, `__has_embed`.
    Embed,
    /// Reads its bytes into assembly: `.incbin`. The name is relative to the working directory, then
    /// to the directories that assemblers are told of.
    Incbin,
    /// Reads it as assembly, looked for in the same way: `.include`.
    Assembly,
    /// Names it as the origin of the text (`#line`): compilers print its lines in diagnostics.
    /// The name is relative to the working directory.
    Line,
}

/// How a name is written, which decides where the search begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// `"name"`: beside the including file first.
    Quote,
    /// `<name>`.
    Angle,
}

/// A directive with a literal name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Include {
    /// What it does.
    pub usage: Use,
    /// How the name is written.
    pub form: Form,
    /// The name between the delimiters.
    pub name: Vec<u8>,
}

/// A directive whose name is the result of macro expansion.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Computed {
    /// What it does.
    pub usage: Use,
    /// The text to expand, comments removed.
    pub operand: Vec<u8>,
    /// Its line, from 1 (counted in spliced lines, so an estimate).
    pub line: u32,
    /// The macro through which a condition would have to ask (`HAS_INCLUDE(NAME)`): it matters only
    /// when that macro is a wrapper of `__has_include`. Empty for an ordinary directive.
    pub through: Vec<u8>,
    /// It stands in a macro's body, so that it is asked from wherever the macro is used.
    pub roams: bool,
}

/// Everything found in one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// Literal names, sorted, each once.
    pub includes: Vec<Include>,
    /// Computed names, sorted.
    pub computed: Vec<Computed>,
    /// Macros whose body asks `__has_include` about a parameter.
    pub wrappers: Vec<Vec<u8>>,
    /// Macros whose body asks in a way that is not followed: what they lead to can't be told.
    pub puzzles: Vec<Vec<u8>>,
    /// A condition asks in a way that is not followed: its line and text.
    pub puzzle: Option<(u32, Vec<u8>)>,
    /// Quoted names that macro bodies ask for, beside whatever file uses them; those in calls of other
    /// macros only if these are wrappers: the hash of their name is the second field.
    pub probes: Vec<(Include, Option<u32>)>,
    /// Names of files that stand written out in macro bodies, whoever may use them.
    pub written: Vec<Include>,
    /// The same, of words that no `(` follows.
    pub bare_words: Vec<u32>,
    /// Hashes of all words in conditions but the operands of `defined`, as [`name_hash`] makes them;
    /// sorted.
    pub condition_words: Vec<u32>,
    /// Every macro definition.
    pub definitions: Definitions,
    /// `__DATE__`, `__TIME__` or `__TIMESTAMP__` occurs.
    pub uses_time: bool,
    /// The line of a string that has `.incbin` or `.include` without a literal name: inline assembly
    /// that reads it is not known which file.
    pub assembler_string: Option<u32>,
    /// The same anywhere; it matters when the file is assembler itself.
    pub assembler_text: Option<u32>,
    /// A pragma that replaces files behind the directives' back: its line and its name.
    pub pragma: Option<(u32, &'static str)>,
    /// `#pragma once` occurs.
    pub once: bool,
    /// `#import` occurs.
    pub imports: bool,
}

/// Macro definitions, packed: a header may have thousands, and few are ever looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definitions {
    text: Vec<u8>,
    /// Hash of the name, start and end in `text`; sorted.
    index: Vec<(u32, u32, u32)>,
}

impl Definitions {
    /// The text of every definition of `name` that follows `#define`, as `NAME(a, b) body`.
    pub fn of<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let hash = name_hash(name);
        let start = self.index.partition_point(|entry| entry.0 < hash);
        self.index[start..]
            .iter()
            .take_while(move |entry| entry.0 == hash)
            .map(|&(_, start, end)| &self.text[start as usize..end as usize])
            .filter(move |text| identifier(text) == name)
    }

    /// Adds a definition, as it follows `#define`.
    pub fn add(&mut self, text: &[u8]) {
        let start = self.text.len() as u32;
        let name = identifier(text);
        if text.len() <= DEFINITION_BYTES_MAX {
            self.text.extend_from_slice(text);
        } else {
            self.text.extend_from_slice(name);
            self.text.extend_from_slice(OPAQUE);
        }
        self.index
            .push((name_hash(name), start, self.text.len() as u32));
    }

    /// Definitions whose text contains these bytes.
    pub fn mentioning(&self, word: &[u8]) -> impl Iterator<Item = &[u8]> {
        let found = memmem::find(&self.text, word).is_some();
        let mention = move |text: &&[u8]| memmem::find(text, word).is_some();
        self.all().filter(move |_| found).filter(mention)
    }

    /// The text of every definition.
    pub fn all(&self) -> impl Iterator<Item = &[u8]> {
        let range = |&(_, start, end): &(u32, u32, u32)| start as usize..end as usize;
        self.index.iter().map(move |entry| &self.text[range(entry)])
    }

    /// Hashes of the names, as [`name_hash`] makes them.
    pub fn hashes(&self) -> impl Iterator<Item = u32> {
        self.index.iter().map(|entry| entry.0)
    }

    /// The memory that it holds, in bytes.
    pub fn bytes(&self) -> usize {
        self.text.capacity() + 12 * self.index.capacity()
    }

    /// Puts them in order; [`Definitions::of`] finds nothing before that.
    pub fn finish(&mut self) {
        self.index.sort_unstable();
        let text = &self.text;
        let body = |&(_, start, end): &(u32, u32, u32)| &text[start as usize..end as usize];
        self.index.dedup_by(|a, b| a.0 == b.0 && body(a) == body(b));
        self.index.shrink_to_fit();
        self.text.shrink_to_fit();
    }
}

/// Stands for the body of a definition that was too long to keep. No source line can contain it,
/// since a line ends there.
pub const OPAQUE: &[u8] = b"\n";

/// Reads a file.
pub fn read(bytes: &[u8]) -> Directives {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut found = Directives {
        uses_time: [&b"__DATE__"[..], b"__TIME__", b"__TIMESTAMP__"]
            .into_iter()
            .any(|name| memmem::find(bytes, name).is_some()),
        // `_Pragma("once")`, however it is put together.
        once: memmem::find(bytes, b"_Pragma").is_some() && memmem::find(bytes, b"once").is_some(),
        ..Directives::default()
    };
    let mut reads_assembly = false;
    for (at, usage, operand) in assembly(bytes) {
        reads_assembly = true;
        match operand {
            Some(name) => found.includes.push(Include {
                usage,
                form: Form::Quote,
                name: name.to_vec(),
            }),
            None => drop(found.assembler_text.get_or_insert(line_at(bytes, at))),
        }
    }
    let either = |present: bool| {
        if present {
            &[false, true][..]
        } else {
            &[false][..]
        }
    };
    let has_raw = memmem::find(bytes, b"R\"").is_some() || memmem::find(bytes, b"R\\").is_some();
    let has_trigraphs = memmem::find(bytes, b"??").is_some();
    let has_returns = memchr::memchr_iter(b'\r', bytes).any(|at| bytes.get(at + 1) != Some(&b'\n'));
    for &trigraphs in either(has_trigraphs) {
        for &returns in either(has_returns) {
            let (text, origins) = clean(bytes, trigraphs, returns);
            for &raw in either(has_raw) {
                Reader {
                    original: bytes,
                    text: &text,
                    origins: &origins,
                    raw,
                    returns,
                    reads_assembly,
                    found: &mut found,
                    line: 1,
                    counted: 0,
                }
                .run();
            }
        }
    }
    found.includes.sort_unstable();
    found.includes.dedup();
    found.computed.sort_unstable();
    found
        .computed
        .dedup_by(|a, b| (a.usage, &a.operand, &a.through) == (b.usage, &b.operand, &b.through));
    for names in [&mut found.wrappers, &mut found.puzzles] {
        names.sort_unstable();
        names.dedup();
    }
    found.written.sort_unstable();
    found.written.dedup();
    found.probes.sort_unstable();
    found.probes.dedup();
    for words in [&mut found.condition_words, &mut found.bare_words] {
        words.sort_unstable();
        words.dedup();
        words.shrink_to_fit();
    }
    found.definitions.finish();
    found
}

/// The assembler's directives in `text` that read a file, wherever they stand, each with the name
/// that it reads when that is a literal: in quotes, which are escaped within a string of C. The first
/// field is where it stands.
fn assembly(text: &[u8]) -> impl Iterator<Item = (usize, Use, Option<&[u8]>)> {
    let words = [(Use::Incbin, &b".incbin"[..]), (Use::Assembly, b".include")];
    let occurrences = words.into_iter().flat_map(move |(usage, word)| {
        memmem::find_iter(text, word).map(move |at| (usage, at, at + word.len()))
    });
    occurrences.filter_map(move |(usage, start, end)| {
        // `x.include(y)` is none, `"\n.include"` is one.
        let begins = match &text[..start] {
            [.., b'\\', b'n' | b't' | b'r'] => true,
            [.., before] => !is_word(*before),
            [] => true,
        };
        let ends = text.get(end).is_none_or(|&after| !is_word(after));
        (begins && ends).then(|| (start, usage, literal(&text[end..])))
    })
}

/// The name in quotes at the start of `text`, after blanks. One with a macro's argument or an escape
/// in it is none.
fn literal(text: &[u8]) -> Option<&[u8]> {
    let text = text.trim_ascii_start();
    let (rest, close): (&[u8], &[u8]) = match text {
        [b'"', rest @ ..] => (rest, b"\""),
        [b'\\', b'"', rest @ ..] => (rest, b"\\\""),
        _ => return None,
    };
    let end = memmem::find(rest, close)?;
    let name = &rest[..end];
    let is_plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | b'%' | b'&' | b'\n');
    (!name.is_empty() && name.iter().all(is_plain)).then_some(name)
}

/// The line of a position, from 1.
fn line_at(text: &[u8], at: usize) -> u32 {
    1 + memchr::memchr_iter(b'\n', &text[..at]).count() as u32
}

/// The identifier at the start of `text`, possibly empty.
pub fn identifier(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|&b| !is_word(b)).unwrap_or(text.len());
    &text[..end]
}

/// Whether a byte can stand in an identifier (`$` and all of UTF-8 can, in practice).
pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// A hash of a macro's name.
pub fn name_hash(name: &[u8]) -> u32 {
    // FNV-1a; a collision only costs a comparison.
    name.iter().fold(0x811c_9dc5, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// Joins spliced lines and, if told so, replaces trigraphs. The second result says where text was
/// removed: (position in the clean text, position in the original), ascending.
fn clean(bytes: &[u8], trigraphs: bool, returns: bool) -> (Cow<'_, [u8]>, Vec<(usize, usize)>) {
    let mut origins = Vec::new();
    let mut text: Vec<u8> = Vec::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(step) = if trigraphs {
        memchr::memchr2(b'\\', b'?', &bytes[at..])
    } else {
        memchr::memchr(b'\\', &bytes[at..])
    } {
        at += step;
        let (byte, width) = match trigraph(&bytes[at..]) {
            Some(byte) if trigraphs => (byte, 3),
            _ => (bytes[at], 1),
        };
        if byte == b'\\'
            && let Some(end) = splice(bytes, at + width, returns)
        {
            text.extend_from_slice(&bytes[copied..at]);
            copied = end;
            origins.push((text.len(), end));
        } else if width == 3 {
            text.extend_from_slice(&bytes[copied..at]);
            text.push(byte);
            copied = at + 3;
            origins.push((text.len(), copied));
        }
        at = copied.max(at + 1);
    }
    if origins.is_empty() {
        return (Cow::Borrowed(bytes), origins);
    }
    text.extend_from_slice(&bytes[copied..]);
    (Cow::Owned(text), origins)
}

/// The end of the line break that follows a backslash, if one does. Compilers forgive blanks.
fn splice(bytes: &[u8], mut at: usize, returns: bool) -> Option<usize> {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | 0x0b | 0x0c)) {
        at += 1;
    }
    match (bytes.get(at)?, bytes.get(at + 1)) {
        (b'\n', _) => Some(at + 1),
        (b'\r', Some(b'\n')) => Some(at + 2),
        (b'\r', _) if returns => Some(at + 1),
        _ => None,
    }
}

fn trigraph(bytes: &[u8]) -> Option<u8> {
    let [b'?', b'?', third, ..] = bytes else {
        return None;
    };
    let place = b"=/'()!<>-".iter().position(|b| b == third)?;
    Some(b"#\\^[]|{}~"[place])
}

struct Reader<'a> {
    original: &'a [u8],
    text: &'a [u8],
    origins: &'a [(usize, usize)],
    raw: bool,
    returns: bool,
    /// An assembler's directive that reads a file occurs somewhere.
    reads_assembly: bool,
    found: &'a mut Directives,
    /// The line of `counted`; counted on only where somebody asks.
    line: u32,
    counted: usize,
}

impl<'a> Reader<'a> {
    fn run(&mut self) {
        let text = self.text;
        let mut at = 0;
        let mut fresh = true; // only blanks and comments since the line began
        while let Some(&byte) = text.get(at) {
            if fresh {
                match byte {
                    b'#' => {
                        at = self.directive(at + 1);
                        fresh = false;
                        continue;
                    }
                    b'%' if text.get(at + 1) == Some(&b':') => {
                        at = self.directive(at + 2);
                        fresh = false;
                        continue;
                    }
                    b'i' | b'e' => self.header_unit(at),
                    _ => {}
                }
            }
            match byte {
                b'\n' => {
                    at += 1;
                    fresh = true;
                }
                b'\r' if self.returns => {
                    at += 1;
                    fresh = true;
                }
                b'/' | b'"' | b'\'' => match self.skip(at) {
                    (end, true) => at = end,
                    (end, false) => {
                        at = end;
                        fresh = false;
                    }
                },
                b' ' | b'\t' | b'\r' | 0x0b | 0x0c => at += 1,
                _ => {
                    fresh = false;
                    at += 1;
                    while let Some(&byte) = text.get(at)
                        && !matches!(byte, b'\n' | b'\r' | b'/' | b'"' | b'\'')
                    {
                        at += 1;
                    }
                }
            }
        }
    }

    /// The end of the comment or literal that may begin here, and whether it was a comment.
    fn skip(&mut self, at: usize) -> (usize, bool) {
        let text = self.text;
        match (text[at], text.get(at + 1)) {
            (b'/', Some(b'/')) => (self.line_end(at), true),
            (b'/', Some(b'*')) => {
                let end = memmem::find(&text[at + 2..], b"*/").map(|end| at + 4 + end);
                (end.unwrap_or(text.len()), true)
            }
            (b'"', _) => (self.string(at), false),
            (b'\'', _) if !self.separates_digits(at) => (self.quoted(at, b'\''), false),
            _ => (at + 1, false),
        }
    }

    fn line_end(&self, at: usize) -> usize {
        let rest = &self.text[at..];
        let end = if self.returns {
            memchr::memchr2(b'\n', b'\r', rest)
        } else {
            memchr::memchr(b'\n', rest)
        };
        at + end.unwrap_or(rest.len())
    }

    fn string(&mut self, at: usize) -> usize {
        let end = match self.raw_string(at) {
            Some(end) => end,
            None => self.quoted(at, b'"'),
        };
        if self.reads_assembly && self.found.assembler_string.is_none() {
            let mut directives = assembly(&self.text[at..end]);
            if directives.any(|(_, _, name)| name.is_none()) {
                let line = line_at(self.original, self.to_original(at));
                self.found.assembler_string = Some(line);
            }
        }
        end
    }

    /// The end of an ordinary literal: its delimiter, or the line's end where it lacks one.
    fn quoted(&self, at: usize, delimiter: u8) -> usize {
        let mut at = at + 1;
        while let Some(&byte) = self.text.get(at) {
            match byte {
                b'\\' if !matches!(self.text.get(at + 1), Some(b'\n')) => at += 2,
                b'\n' => return at,
                b'\r' if self.returns => return at,
                _ if byte == delimiter => return at + 1,
                _ => at += 1,
            }
        }
        self.text.len()
    }

    /// The end of a raw string whose opening quote is here, if it is one. In a raw string splices
    /// and trigraphs are undone, so its end is looked for in the original text.
    fn raw_string(&self, at: usize) -> Option<usize> {
        if !self.raw {
            return None;
        }
        let start = self.text[..at]
            .iter()
            .rposition(|&b| !is_word(b))
            .map_or(0, |before| before + 1);
        if !matches!(&self.text[start..at], b"R" | b"LR" | b"uR" | b"UR" | b"u8R") {
            return None;
        }
        let open = self.to_original(at) + 1;
        let rest = self.original.get(open..)?;
        let paren = memchr::memchr(b'(', &rest[..rest.len().min(17)])?;
        if rest[..paren].iter().any(|b| {
            matches!(
                b,
                b' ' | b')' | b'\\' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | b'"'
            )
        }) {
            return None;
        }
        let mut terminator = vec![b')'];
        terminator.extend_from_slice(&rest[..paren]);
        terminator.push(b'"');
        let end = memmem::find(&rest[paren..], &terminator).map_or(self.original.len(), |end| {
            open + paren + end + terminator.len()
        });
        Some(self.to_clean(end))
    }

    fn to_original(&self, at: usize) -> usize {
        let after = self.origins.partition_point(|origin| origin.0 <= at);
        match after.checked_sub(1).map(|last| self.origins[last]) {
            Some((clean, original)) => original + (at - clean),
            None => at,
        }
    }

    fn to_clean(&self, at: usize) -> usize {
        let after = self.origins.partition_point(|origin| origin.1 <= at);
        let clean = match after.checked_sub(1).map(|last| self.origins[last]) {
            Some((clean, original)) => clean + (at - original),
            None => at,
        };
        clean.min(self.text.len())
    }

    /// Whether the apostrophe here stands within a number, as in `1'000`.
    fn separates_digits(&self, at: usize) -> bool {
        let start = self.text[..at]
            .iter()
            .rposition(|&b| !is_word(b) && b != b'\'' && b != b'.')
            .map_or(0, |before| before + 1);
        let run = &self.text[start..at];
        let digits = |run: &[u8]| {
            run.first().is_some_and(u8::is_ascii_digit)
                || (run.first() == Some(&b'.') && run.get(1).is_some_and(u8::is_ascii_digit))
        };
        digits(run) && self.text.get(at + 1).is_some_and(|&b| is_word(b))
    }

    /// Takes the header of an `import <name>;`: compilers look for it as if it were included. Modules by
    /// name are only found where the command line tells, whose options are refused elsewhere.
    fn header_unit(&mut self, at: usize) {
        let mut at = at;
        let mut word = identifier(&self.text[at..]);
        if word == b"export" {
            at = self.blanks(at + word.len());
            word = identifier(&self.text[at..]);
        }
        if word == b"import"
            && let Some((form, name, _)) = self.literal(self.blanks(at + word.len()))
        {
            self.include(Use::Include, form, name);
        }
    }

    /// Reads the directive whose `#` ends before `at`; returns where ordinary reading goes on.
    fn directive(&mut self, at: usize) -> usize {
        let at = self.blanks(at);
        let word = identifier(&self.text[at..]);
        let after = at + word.len();
        self.found.imports |= word == b"import";
        let usage = match word {
            b"include" | b"import" | b"__include_macros" => Use::Include,
            b"include_next" => Use::Next,
            b"embed" => Use::Embed,
            b"define" => return self.define(after),
            b"if" | b"elif" => return self.condition(after),
            b"pragma" => return self.pragma(after),
            b"line" => return self.line_marker(after),
            word if word.first().is_some_and(u8::is_ascii_digit) => return self.line_marker(at),
            _ => return after,
        };
        let at = self.blanks(after);
        match self.literal(at) {
            Some((form, name, end)) => {
                self.include(usage, form, name);
                end
            }
            None => {
                let (operand, end) = self.rest_of_line(at);
                self.computed(usage, &operand, b"", false, at);
                end
            }
        }
    }

    fn include(&mut self, usage: Use, form: Form, name: &[u8]) {
        if !name.is_empty() && !name.contains(&0) {
            self.found.includes.push(Include {
                usage,
                form,
                name: name.to_vec(),
            });
        }
    }

    /// The line of a position that is not before the last one asked about.
    fn line_of(&mut self, at: usize) -> u32 {
        self.line += memchr::memchr_iter(b'\n', &self.text[self.counted..at]).count() as u32;
        self.counted = at;
        self.line
    }

    fn computed(&mut self, usage: Use, operand: &[u8], through: &[u8], roams: bool, at: usize) {
        if identifier(operand).is_empty() && operand.first() != Some(&b'<') {
            return; // nothing that could expand to a name
        }
        let line = self.line_of(at);
        self.found.computed.push(Computed {
            usage,
            operand: operand.to_vec(),
            line,
            through: through.to_vec(),
            roams,
        });
    }

    /// Skips blanks and comments; a comment may lead onto another line.
    fn blanks(&self, mut at: usize) -> usize {
        let text = self.text;
        loop {
            match (text.get(at), text.get(at + 1)) {
                (Some(b' ' | b'\t' | 0x0b | 0x0c), _) => at += 1,
                (Some(b'\r'), _) if !self.returns => at += 1,
                (Some(b'/'), Some(b'*')) => {
                    at =
                        memmem::find(&text[at + 2..], b"*/").map_or(text.len(), |end| at + 4 + end);
                }
                _ => return at,
            }
        }
    }

    /// `"name"` or `<name>`, and its end.
    fn literal(&self, at: usize) -> Option<(Form, &'a [u8], usize)> {
        let (form, close) = match self.text.get(at)? {
            b'"' => (Form::Quote, b'"'),
            b'<' => (Form::Angle, b'>'),
            _ => return None,
        };
        let line = &self.text[at + 1..self.line_end(at)];
        let end = memchr::memchr(close, line)?;
        Some((form, &line[..end], at + end + 2))
    }

    /// The rest of the directive, comments replaced by a blank, and where it ends.
    fn rest_of_line(&mut self, at: usize) -> (Vec<u8>, usize) {
        let mut line = Vec::new();
        let mut at = at;
        while let Some(&byte) = self.text.get(at) {
            match byte {
                b'\n' => break,
                b'\r' if self.returns => break,
                b'/' | b'"' | b'\'' => {
                    let (end, comment) = self.skip(at);
                    if comment {
                        line.push(b' ');
                    } else {
                        line.extend_from_slice(&self.text[at..end]);
                    }
                    at = end;
                }
                b'\\' if let Some((character, length)) = universal(&self.text[at..]) => {
                    // The same identifier as the one that has the character itself.
                    line.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    at += length;
                }
                b'<' if line.trim_ascii_end().last() == Some(&b'(') => {
                    // A header's name may contain what looks like a comment.
                    let end = self.literal(at).map_or(at + 1, |literal| literal.2);
                    line.extend_from_slice(&self.text[at..end]);
                    at = end;
                }
                _ => {
                    line.push(byte);
                    at += 1;
                }
            }
        }
        (line.trim_ascii().to_vec(), at)
    }

    fn define(&mut self, at: usize) -> usize {
        let at = self.blanks(at);
        let (line, end) = self.rest_of_line(at);
        let name = identifier(&line);
        if name.is_empty() {
            return end;
        }
        self.found.definitions.add(&line);
        let rest = &line[name.len()..];
        let (parameters, body) = match rest.first() {
            Some(b'(') => match memchr::memchr(b')', rest) {
                Some(close) => (&rest[1..close], &rest[close + 1..]),
                None => (&rest[..0], rest),
            },
            _ => (&rest[..0], rest),
        };
        let is_parameter = |word: &[u8]| {
            word == b"__VA_ARGS__" || words(parameters).any(|parameter| parameter == word)
        };
        self.written(body, &is_parameter);
        if memmem::find(body, b"__has_").is_none() {
            for call in calls(body) {
                if let Argument::Literal(form, literal) = call.argument
                    && (form == Form::Angle || like_a_file(literal))
                {
                    // The callee may be a wrapper of `__has_include`.
                    self.include(Use::Probe, form, literal);
                    self.probe(Use::Probe, form, literal, Some(name_hash(call.callee)));
                }
            }
            return end;
        }
        for call in calls(body) {
            match (call.argument, asks(call.callee)) {
                (Argument::Literal(form, literal), usage) => {
                    if form == Form::Angle || usage.is_some() || like_a_file(literal) {
                        let through = usage.is_none().then(|| name_hash(call.callee));
                        let usage = usage.unwrap_or(Use::Probe);
                        self.include(usage, form, literal);
                        self.probe(usage, form, literal, through);
                    }
                    // In a body `<a/x.h>` is tokens, some of which may be parameters.
                    if usage.is_some() && form == Form::Angle && words(literal).any(is_parameter) {
                        self.found.puzzles.push(name.to_vec());
                    }
                }
                (Argument::Text(operand), Some(usage)) => {
                    if operand.contains(&b'#') {
                        self.found.puzzles.push(name.to_vec());
                    } else if words(operand).any(is_parameter) {
                        self.found.wrappers.push(name.to_vec());
                    } else {
                        self.computed(usage, operand, b"", true, at);
                    }
                }
                (Argument::Text(_), None) => {}
            }
        }
        // `#define HAS_INCLUDE __has_include`
        if asks(body.trim_ascii()).is_some() {
            self.found.wrappers.push(name.to_vec());
        } else if bare_operator(body) {
            self.found.puzzles.push(name.to_vec());
        }
        end
    }

    fn probe(&mut self, usage: Use, form: Form, name: &[u8], through: Option<u32>) {
        if form == Form::Quote && !name.is_empty() && !name.contains(&0) {
            let include = Include {
                usage,
                form,
                name: name.to_vec(),
            };
            self.found.probes.push((include, through));
        }
    }

    /// Takes the names of files that stand in a macro's body.
    fn written(&mut self, body: &[u8], is_parameter: &dyn Fn(&[u8]) -> bool) {
        let mut at = 0;
        while let Some(step) = memchr::memchr2(b'"', b'<', &body[at..]) {
            let start = at + step;
            let (form, close) = match body[start] {
                b'"' => (Form::Quote, b'"'),
                _ => (Form::Angle, b'>'),
            };
            let Some(length) = memchr::memchr(close, &body[start + 1..]) else {
                at = start + 1;
                continue;
            };
            let name = &body[start + 1..start + 1 + length];
            let is_name = like_a_file(name)
                && !name
                    .iter()
                    .any(|b| matches!(b, b'(' | b')' | b'<' | b'"' | b'='))
                && (form == Form::Quote || !words(name).any(is_parameter));
            if is_name && !name.is_empty() {
                self.found.written.push(Include {
                    usage: Use::Include,
                    form,
                    name: name.to_vec(),
                });
            }
            // A comparison is no name, and hides none that follows.
            at = if form == Form::Quote {
                start + length + 2
            } else {
                start + 1
            };
        }
    }

    fn condition(&mut self, at: usize) -> usize {
        let (line, end) = self.rest_of_line(at);
        let line_number = self.line_of(at);
        let mut spoken = words(&line);
        while let Some(word) = spoken.next() {
            match word {
                b"defined" => drop(spoken.next()),
                word => {
                    let hash = name_hash(word);
                    self.found.condition_words.push(hash);
                    let end = word.as_ptr().addr() - line.as_ptr().addr() + word.len();
                    if line[end..].trim_ascii_start().first() != Some(&b'(') {
                        self.found.bare_words.push(hash);
                    }
                }
            }
        }
        if bare_operator(&line) {
            self.found.puzzle.get_or_insert((line_number, line.clone()));
        }
        for call in calls(&line) {
            match (call.argument, asks(call.callee)) {
                // Whatever the macro's name is, only `__has_include` can make sense of a file's
                // name in a condition.
                (Argument::Literal(form, name), usage) => {
                    self.include(usage.unwrap_or(Use::Probe), form, name);
                }
                (Argument::Text(operand), Some(usage)) => {
                    self.computed(usage, operand, b"", false, at);
                }
                (Argument::Text(operand), None) => {
                    let first = operand
                        .first()
                        .is_some_and(|&b| is_word(b) && !b.is_ascii_digit());
                    if first && call.callee != b"defined" && !call.callee.starts_with(b"__has_") {
                        self.computed(Use::Probe, operand, call.callee, false, at);
                    }
                }
            }
        }
        end
    }

    fn pragma(&mut self, at: usize) -> usize {
        let (line, end) = self.rest_of_line(at);
        let mut parts = words(&line);
        let mut replaces = |name| {
            let line = line_at(self.original, self.to_original(at));
            self.found.pragma.get_or_insert((line, name));
        };
        match (parts.next(), parts.next()) {
            (Some(b"GCC"), Some(b"pch_preprocess")) => replaces("GCC pch_preprocess"),
            (Some(b"include_alias"), _) => replaces("include_alias"),
            (Some(b"clang"), Some(b"module")) => replaces("clang module"),
            (Some(b"once"), _) => self.found.once = true,
            (Some(b"GCC" | b"clang"), Some(b"dependency")) => {
                for (open, close, form) in [(b'"', b'"', Form::Quote), (b'<', b'>', Form::Angle)] {
                    if let Some(start) = memchr::memchr(open, &line)
                        && let Some(length) = memchr::memchr(close, &line[start + 1..])
                    {
                        self.include(Use::Probe, form, &line[start + 1..start + 1 + length]);
                    }
                }
            }
            _ => {}
        }
        end
    }

    fn line_marker(&mut self, at: usize) -> usize {
        let end = self.line_end(at);
        let line = &self.text[at..end];
        if let Some(start) = memchr::memchr(b'"', line) {
            let close = self.quoted(at + start, b'"');
            let name = &self.text[at + start + 1..close.max(at + start + 2) - 1];
            let mut plain = Vec::with_capacity(name.len());
            let mut bytes = name.iter();
            while let Some(&byte) = bytes.next() {
                plain.push(match byte {
                    b'\\' => *bytes.next().unwrap_or(&b'\\'),
                    byte => byte,
                });
            }
            self.include(Use::Line, Form::Quote, &plain);
        }
        // A comment may begin on this line and hide what follows.
        at
    }
}

/// The character that a universal character name (`\u00c1`) stands for, and the name's length.
fn universal(text: &[u8]) -> Option<(char, usize)> {
    let length = match text.get(1)? {
        b'u' => 6,
        b'U' => 10,
        _ => return None,
    };
    let digits = std::str::from_utf8(text.get(2..length)?).ok()?;
    let is_number = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = u32::from_str_radix(digits, 16).ok().filter(|_| is_number);
    Some((char::from_u32(number?)?, length))
}

/// What an operator or directive of this name does with a file.
pub fn asks(callee: &[u8]) -> Option<Use> {
    match callee {
        b"__has_include" | b"__has_include__" => Some(Use::Probe),
        b"__has_include_next" | b"__has_include_next__" => Some(Use::ProbeNext),
        b"__has_embed" => Some(Use::Embed),
        _ => None,
    }
}

/// Whether an operator that asks for files stands in the text without an operand: handed to a macro,
/// which may ask by it. As the operand of `defined` it asks nothing.
fn bare_operator(text: &[u8]) -> bool {
    let mut before: &[u8] = b"";
    let mut at = 0;
    while let Some(start) = text[at..].iter().position(|&b| is_word(b)) {
        let start = at + start;
        let word = identifier(&text[start..]);
        at = start + word.len();
        let called = text[at..].trim_ascii_start().first() == Some(&b'(');
        if (asks(word).is_some() && before != b"defined" && !called) || part_of_operator(word) {
            return true;
        }
        before = word;
    }
    false
}

/// Whether a word may be pasted together to an operator that asks for files.
fn part_of_operator(word: &[u8]) -> bool {
    let operators: [&[u8]; 2] = [b"__has_include_next", b"__has_embed"];
    word.len() >= 3
        && asks(word).is_none()
        && operators.iter().any(|operator| operator.starts_with(word))
}

fn like_a_file(name: &[u8]) -> bool {
    name.len() <= 128
        && !name
            .iter()
            .any(|b| matches!(b, b' ' | b'%' | b'\\' | b'\t' | b';' | b','))
}

/// A call in a macro's body or a condition.
pub struct Call<'a> {
    /// The word before the parenthesis.
    pub callee: &'a [u8],
    /// What follows it.
    pub argument: Argument<'a>,
}

/// What stands in a call's parentheses.
pub enum Argument<'a> {
    /// A file's name, first of all.
    Literal(Form, &'a [u8]),
    /// Something else, all of it.
    Text(&'a [u8]),
}

/// Every `word ( …`, nested ones too.
pub fn calls(line: &[u8]) -> impl Iterator<Item = Call<'_>> {
    memchr::memchr_iter(b'(', line).filter_map(move |open| {
        let before = line[..open].trim_ascii_end();
        let start = before
            .iter()
            .rposition(|&b| !is_word(b))
            .map_or(0, |last| last + 1);
        let callee = &before[start..];
        let rest = line[open + 1..].trim_ascii_start();
        let close = match rest.first()? {
            b'"' => Some((Form::Quote, b'"')),
            b'<' => Some((Form::Angle, b'>')),
            _ => None,
        };
        if let Some((form, close)) = close {
            let end = memchr::memchr(close, &rest[1..])?;
            let argument = Argument::Literal(form, &rest[1..=end]);
            return Some(Call { callee, argument });
        }
        if callee.is_empty() {
            return None;
        }
        let mut depth = 0_usize;
        let end = rest.iter().position(|&b| {
            match b {
                b'(' => depth += 1,
                b')' if depth == 0 => return true,
                b')' => depth -= 1,
                _ => {}
            }
            false
        });
        let argument = Argument::Text(rest[..end.unwrap_or(rest.len())].trim_ascii());
        Some(Call { callee, argument })
    })
}

/// All words of a text: names and numbers.
pub fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&b| !is_word(b)).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> String {
        let found = read(text.as_bytes());
        let mut names: Vec<String> = found
            .includes
            .iter()
            .map(|include| {
                let name = String::from_utf8_lossy(&include.name);
                let usage = match include.usage {
                    Use::Include => "",
                    Use::Next => "next ",
                    Use::Probe => "probe ",
                    Use::ProbeNext => "probe-next ",
                    Use::Embed => "embed ",
                    Use::Line => "line ",
                    Use::Incbin => "incbin ",
                    Use::Assembly => "assembly ",
                };
                match include.form {
                    Form::Quote => format!("{usage}\"{name}\""),
                    Form::Angle => format!("{usage}<{name}>"),
                }
            })
            .collect();
        names.extend(found.computed.iter().map(|computed| {
            let operand = String::from_utf8_lossy(&computed.operand);
            match &computed.through[..] {
                b"" => format!("= {operand}"),
                through => format!("= {} {operand}", String::from_utf8_lossy(through)),
            }
        }));
        names.join(", ")
    }

    #[test]
    fn every_way_to_write_a_directive_is_seen() {
        for (text, expect) in [
            ("#include <a.h>\n#include \"b.h\"", "\"b.h\", <a.h>"),
            ("  #  include<a.h>", "<a.h>"),
            ("%: include <a.h>", "<a.h>"),
            ("%:%\n#include <a.h>", "<a.h>"),
            ("??=include <a.h>", "<a.h>"),
            ("/* x */ # /* y\n */ include /**/ <a.h>", "<a.h>"),
            ("#inc\\\nlude <a\\\n.h>", "<a.h>"),
            ("#inc\\  \r\nlude <a.h>\r\n", "<a.h>"),
            ("#inc??/\nlude <a.h>", "<a.h>"),
            ("\u{feff}#include <a.h>", "<a.h>"),
            ("int x;\r#include <a.h>\r", "<a.h>"),
            ("#include_next <a.h>", "next <a.h>"),
            ("#import \"a.h\"", "\"a.h\""),
            ("#embed \"a.bin\" limit(4)", "embed \"a.bin\""),
            ("#include <a//b.h>", "<a//b.h>"),
            ("#include \"a/*b.h\"\n#include <c.h>", "\"a/*b.h\", <c.h>"),
            ("#if 0\n#include <a.h>\n#endif", "<a.h>"),
            ("#include X", "= X"),
            ("#include X(a, /* b */ c) // d", "= X(a,   c)"),
            ("# 1 \"a\\\\b.y\" 2", "line \"a\\b.y\""),
            ("#line 7 \"a.y\"", "line \"a.y\""),
            ("#pragma GCC dependency \"a.y\" old", "probe \"a.y\""),
            ("#if __has_include(<a.h>) && X", "probe <a.h>"),
            ("#elif __has_include_next ( \"a.h\" )", "probe-next \"a.h\""),
            ("#if __has_include(<sys//a.h>)", "probe <sys//a.h>"),
            ("#if __has_include(NAME)", "= NAME"),
            ("#if HAS(<a.h>)", "probe <a.h>"),
            ("#if HAS(NAME)", "= HAS NAME"),
            ("#define HAVE __has_include(<a.h>)", "probe <a.h>"),
            ("#define HAVE HAS(\"a.h\")", "probe \"a.h\""),
            ("#if __has_embed(\"a.bin\")", "embed \"a.bin\""),
            ("import <a.h>;", "<a.h>"),
            ("export import \"a.h\";", "\"a.h\""),
            ("import a;\nmodule;\nimport (x);", ""),
        ] {
            assert_eq!(names(text), expect, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_directive_is_not_taken_for_one() {
        for text in [
            "// #include <a.h>",
            "// \\\n#include <a.h>",
            "/*\n#include <a.h>\n*/",
            "x #include <a.h>",
            "char *s = \"\\\n#include <a.h>\";",
            "#error don't #include <a.h>",
            "#define X \\\n#include <a.h>",
            "#includes <a.h>",
            "#include",
            "#include <>",
            "#if defined(__has_include)",
            "/\\\n* x *\\\n/ y\n/* \n#include <a.h>",
        ] {
            assert_eq!(names(text), "", "{text:?}");
        }
    }

    #[test]
    fn nothing_hides_a_directive() {
        for text in [
            "int a = 1'000; /* ' */\n#include <a.h>",
            "int a = 1'0'0; // '\n#include <a.h>",
            "char c = '\"';\n#include <a.h>",
            "char c = '\\'';\n#include <a.h>",
            "#error don't /* x\n#include <a.h>\n",
            "char *s = \"/*\";\n#include <a.h>",
            "char *s = R\"(\" /* )\";\n#include <a.h>",
            "char *s = R\"x()\" )\\\nx\" )x\";\n#include <a.h>",
            "char *s = fooR\"(\";\n#include <a.h>\n\")\";",
            "#define R\nchar *s = R\"(\";\n#include <a.h>\n/* )\" */",
            "#ifdef X // \"\n#include <a.h>",
            "/**/#include <a.h>",
            "#define A /* x\n*/\n#include <a.h>",
            "# 1 \"x\" /* \n y */\n#include <a.h>",
            "#endif /* x\n */ \n#include <a.h>",
            "// ??/\n#include <a.h>",
        ] {
            assert!(names(text).contains("<a.h>"), "{text:?}");
        }
    }

    #[test]
    fn what_an_assembler_reads_is_seen_when_it_is_literal() {
        for (text, expect, unclear, unclear_string) in [
            (".incbin \"a.bin\"", "incbin \"a.bin\"", false, false),
            ("  .include\t\"a.s\" # x", "assembly \"a.s\"", false, false),
            ("x: .incbin \"a b\", 4, 8", "incbin \"a b\"", false, false),
            (
                "asm(\".incbin \\\"a.bin\\\"\\n\");",
                "incbin \"a.bin\"",
                false,
                false,
            ),
            (
                "asm(\"nop\\n.incbin \\\"a\\\"\");",
                "incbin \"a\"",
                false,
                false,
            ),
            (
                "asm(R\"(\n.include \"a.s\")\");",
                "assembly \"a.s\"",
                false,
                false,
            ),
            ("asm(\".incbin \" NAME);", "", true, true),
            ("asm(\".incbin \\\"\" NAME \"\\\"\");", "", true, true),
            (".incbin NAME", "", true, false),
            (".incbin \"\\name\"", "", true, false),
            ("x.include(1); // .incbin", "", true, false),
            ("x.include(1); y = \"a.include\";", "", false, false),
            (".includes \"x\"", "", false, false),
        ] {
            let found = read(text.as_bytes());
            assert_eq!(names(text), expect, "{text}");
            assert_eq!(found.assembler_text.is_some(), unclear, "{text}");
            assert_eq!(found.assembler_string.is_some(), unclear_string, "{text}");
        }
    }

    #[test]
    fn dangerous_text_is_flagged() {
        assert!(read(b"int t = __TIME__;").uses_time);
        assert!(read(b"puts(__TIMESTAMP__);").uses_time);
        assert!(!read(b"timer(); __TIME_T_TYPE t; int n = __TIMESIZE;").uses_time);
        let pragma = read(b"\n#pragma GCC pch_preprocess \"x\"").pragma;
        assert_eq!(pragma, Some((2, "GCC pch_preprocess")));
        let text = b"a\\\nb\nasm(\".incbin \" NAME);";
        assert_eq!(read(text).assembler_string, Some(3));
        assert!(read(b"  #pragma once\n").once);
        assert!(read(b"#import <a.h>\n").imports);
        assert!(!read(b"#include <a.h>\n#pragma twice once\n").once);
    }

    #[test]
    fn definitions_are_found_by_name() {
        let found =
            read(b"#define A 1\n#define A \"x\" // c\n#define B(x, ...) x\\\n+1\n#define C");
        let all = |name: &str| {
            let found: Vec<String> = found
                .definitions
                .of(name.as_bytes())
                .map(|text| String::from_utf8_lossy(text).into_owned())
                .collect();
            found.join("|")
        };
        assert_eq!(all("A"), "A 1|A \"x\"");
        assert_eq!(all("B"), "B(x, ...) x+1");
        assert_eq!(all("C"), "C");
        assert_eq!(all("D"), "");
    }

    #[test]
    fn a_wrapper_of_has_include_is_known() {
        let wrappers = |text: &str| read(text.as_bytes()).wrappers.len();
        assert_eq!(wrappers("#define HAS(x) __has_include(x)"), 1);
        assert_eq!(wrappers("#define HAS __has_include"), 1);
        assert_eq!(wrappers("#define __has_include(x) 0"), 0);
        assert_eq!(wrappers("#define HAS(x) __has_include(<y>)"), 0);
    }
}
