//! Goes through the clean text of a file once, in one dialect, and notes what could open another file.
//!
//! Comments, literals and raw strings are followed exactly. In doubt something is noted: what is noted in
//! vain costs a look, and what is missed breaks a build.

use memchr::memmem;

use super::assembly::{assembly, line_at};
use super::directives::{Computed, Directives, Form, Include, Use, asks};
use super::words::{Argument, calls, identifier, is_word, name_hash, words};

/// One way through a text.
pub struct Reader<'a> {
    /// The file as it is.
    pub original: &'a [u8],
    /// The same, clean.
    pub text: &'a [u8],
    /// Where in the file the text stands, as [`clean`](super::splices::clean) says.
    pub origins: &'a [(usize, usize)],
    /// Raw strings are known.
    pub raw: bool,
    /// A lone carriage return ends a line.
    pub returns: bool,
    /// An assembler's directive that reads a file occurs somewhere.
    pub reads_assembly: bool,
    /// What was found.
    pub found: &'a mut Directives,
    /// The line of `counted`; counted on only where somebody asks.
    pub line: u32,
    /// How far lines were counted.
    pub counted: usize,
}

impl<'a> Reader<'a> {
    /// Goes through the text.
    pub fn run(&mut self) {
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
