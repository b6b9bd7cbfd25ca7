//! Computed includes: every header name that a macro expression could expand to.
//!
//! Which definition is in force at a directive depends on conditions that nobody evaluates here.
//! So every definition of a name in the closure is tried, and none at all, as a backtracking search:
//! one run of the ordinary expansion algorithm per choice of definitions, each name meaning one thing
//! within a run, as it does in the compiler. A run that does not end in a header's name is dropped:
//! there the compiler itself would report an error. What this evaluator can't know (the compiler's
//! own macros, a definition that was too long to keep) is an error, never a guess.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use crate::include::directives::{Form, OPAQUE, identifier, is_word};

/// Runs of one expression, at most: choices multiply.
const RUNS_MAX: usize = 20_000;
/// Tokens that one run may take up, at most: expansions grow exponentially in hostile text.
const TOKENS_MAX: usize = 20_000;
/// Tokens that all runs of one expression may take up together.
const WORK_MAX: usize = 3_000_000;
/// A name with more meanings than this is put off, if it can be: see [`Meaning::Deferred`].
const EAGER_MEANINGS_MAX: usize = 4;
/// Encloses the name of a macro that was put off. No token contains it.
const MARK: u8 = 1;
/// Nested argument expansions, at most.
const DEPTH_MAX: usize = 64;

/// A header's name, as it would stand in the directive.
pub type Target = (Form, Vec<u8>);

/// Why the names can't be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// A name depends on a macro that only the compiler knows.
    #[error("depends on {0}, which is the compiler's")]
    Builtin(String),
    /// A definition was too long or too strange.
    #[error("depends on {0}, whose definition was not understood")]
    Definition(String),
    /// Too many combinations of definitions.
    #[error("has too many possible values")]
    Budget,
}

/// Every name that `operand` can expand to. `definitions` yields all texts that follow `#define`
/// for a name, in the whole closure and on the command line.
pub fn targets(
    operand: &[u8],
    definitions: &mut dyn FnMut(&[u8]) -> Vec<Vec<u8>>,
) -> Result<BTreeSet<Target>, Unknown> {
    let mut eager = BTreeSet::new();
    loop {
        match targets_with(operand, definitions, &eager) {
            Ok(targets) => return Ok(targets),
            Err(Stop::Unknown(unknown)) => return Err(unknown),
            Err(Stop::Eager(name)) => drop(eager.insert(name)),
            Err(Stop::NoName) => return Ok(BTreeSet::new()),
        }
    }
}

fn targets_with(
    operand: &[u8],
    definitions: &mut dyn FnMut(&[u8]) -> Vec<Vec<u8>>,
    eager: &BTreeSet<Text>,
) -> Result<BTreeSet<Target>, Stop> {
    let mut expansion = Expansion {
        definitions,
        eager,
        known: BTreeMap::new(),
        choices: Vec::new(),
        next: 0,
        chosen: BTreeMap::new(),
        tokens: 0,
    };
    let operand = tokens(operand);
    let mut found = BTreeSet::new();
    let mut work = 0;
    for _ in 0..RUNS_MAX {
        expansion.next = 0;
        expansion.chosen.clear();
        expansion.tokens = 0;
        match expansion.expand(operand.clone().into(), 0) {
            Ok(tokens) => {
                if let Some(target) = target(&tokens).map_err(Stop::Unknown)? {
                    expansion.spell(target, &mut found)?;
                }
            }
            Err(Stop::NoName) => {}
            Err(stop) => return Err(stop),
        }
        work += expansion.tokens;
        if work > WORK_MAX {
            return Err(Stop::Unknown(Unknown::Budget));
        }
        if !expansion.advance() {
            return Ok(found);
        }
    }
    Err(Stop::Unknown(Unknown::Budget))
}

/// The header's name that the tokens spell, if they do.
fn target(tokens: &[Token]) -> Result<Option<Target>, Unknown> {
    let Some(first) = tokens.first() else {
        return Ok(None);
    };
    let (form, name, used) = match &first.text[..] {
        [b'"', name @ .., b'"'] => (Form::Quote, name.to_vec(), &tokens[..1]),
        b"<" => {
            let Some(end) = tokens.iter().position(|token| &token.text[..] == b">") else {
                return Ok(None);
            };
            let mut name = Vec::new();
            for token in &tokens[1..end] {
                if token.space && !name.is_empty() {
                    name.push(b' ');
                }
                name.extend_from_slice(&token.text);
            }
            (Form::Angle, name, &tokens[..end])
        }
        _ => return Ok(None),
    };
    match used.iter().find_map(|token| token.unsure.clone()) {
        Some(unsure) => Err(Unknown::Builtin(words(&unsure))),
        None if name.is_empty() => Ok(None),
        None => Ok(Some((form, name))),
    }
}

fn words(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

type Text = Rc<[u8]>;

#[derive(Clone, Debug)]
struct Token {
    text: Text,
    /// A blank stood before it.
    space: bool,
    /// Names that it must not be expanded as again.
    hidden: Hidden,
    /// A name in it that may be one of the compiler's own macros.
    unsure: Option<Text>,
}

/// A set of names as a shared list: it grows by one at a time.
type Hidden = Option<Rc<HiddenNames>>;

#[derive(Debug)]
struct HiddenNames {
    name: Text,
    others: Hidden,
}

fn hides(mut hidden: &Hidden, name: &[u8]) -> bool {
    while let Some(names) = hidden {
        if *names.name == *name {
            return true;
        }
        hidden = &names.others;
    }
    false
}

fn hide(hidden: &Hidden, name: &Text) -> Hidden {
    if hides(hidden, name) {
        return hidden.clone();
    }
    Some(Rc::new(HiddenNames {
        name: name.clone(),
        others: hidden.clone(),
    }))
}

fn unite(hidden: &Hidden, mut more: &Hidden) -> Hidden {
    let mut all = hidden.clone();
    while let Some(names) = more {
        all = hide(&all, &names.name);
        more = &names.others;
    }
    all
}

fn intersect(hidden: &Hidden, mut other: &Hidden) -> Hidden {
    let mut both = None;
    while let Some(names) = other {
        if hides(hidden, &names.name) {
            both = hide(&both, &names.name);
        }
        other = &names.others;
    }
    both
}

#[derive(Debug)]
struct Macro {
    /// Parameters; none for an object-like macro.
    parameters: Option<Vec<Text>>,
    /// The last parameter takes all remaining arguments.
    variadic: bool,
    body: Vec<Token>,
}

#[derive(Clone, Debug)]
enum Meaning {
    Undefined,
    Macro(Rc<Macro>),
    /// One of many plain texts, which can't take part in any further expansion: it stays a mark in
    /// the result, so that a hundred file names cost one run and not a hundred.
    Deferred(Rc<[Vec<u8>]>),
    Opaque,
}

enum Stop {
    /// This run's result is no header's name.
    NoName,
    /// This name was put off and must not be.
    Eager(Text),
    Unknown(Unknown),
}

struct Expansion<'a> {
    definitions: &'a mut dyn FnMut(&[u8]) -> Vec<Vec<u8>>,
    eager: &'a BTreeSet<Text>,
    known: BTreeMap<Text, Rc<[Meaning]>>,
    /// The path through the tree of choices: (taken, of how many).
    choices: Vec<(usize, usize)>,
    next: usize,
    chosen: BTreeMap<Text, Meaning>,
    tokens: usize,
}

impl Expansion<'_> {
    /// Goes to the next path; false when all have been gone.
    fn advance(&mut self) -> bool {
        self.choices.truncate(self.next);
        while let Some((taken, count)) = self.choices.last_mut() {
            *taken += 1;
            if taken < count {
                return true;
            }
            self.choices.pop();
        }
        false
    }

    fn meaning(&mut self, name: &Text) -> Meaning {
        if let Some(meaning) = self.chosen.get(name) {
            return meaning.clone();
        }
        let options = match self.known.get(name) {
            Some(options) => options.clone(),
            None => {
                let options = meanings(name, (self.definitions)(name));
                let options = self.defer(name, options);
                self.known.insert(name.clone(), options.clone());
                options
            }
        };
        let taken = if options.len() == 1 {
            0
        } else {
            if self.next == self.choices.len() {
                self.choices.push((0, options.len()));
            }
            self.next += 1;
            self.choices[self.next - 1].0
        };
        self.chosen.insert(name.clone(), options[taken].clone());
        options[taken].clone()
    }

    /// Puts those meanings together whose choice can be put off, if they are many.
    fn defer(&mut self, name: &Text, options: Rc<[Meaning]>) -> Rc<[Meaning]> {
        if options.len() <= EAGER_MEANINGS_MAX || self.eager.contains(name) {
            return options;
        }
        let mut texts = Vec::new();
        let mut others = Vec::new();
        for option in options.iter() {
            let text = match option {
                Meaning::Undefined => Some(name.to_vec()),
                Meaning::Macro(definition) if definition.parameters.is_none() => {
                    self.inert(&definition.body)
                }
                _ => None,
            };
            match text {
                Some(text) => texts.push(text),
                None => others.push(option.clone()),
            }
        }
        if texts.len() <= EAGER_MEANINGS_MAX {
            return options;
        }
        others.push(Meaning::Deferred(texts.into()));
        others.into()
    }

    /// The spelling of a body in which nothing can be expanded and which is no part of a call, a
    /// string or a name's delimiters.
    fn inert(&mut self, body: &[Token]) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        for token in body {
            let acts = matches!(
                token.text[0],
                b'"' | b'\'' | b'<' | b'>' | b'(' | b')' | b',' | b'#' | b'\\'
            );
            let expands = is_name(&token.text)
                && (is_reserved(&token.text)
                    || meanings(&token.text, (self.definitions)(&token.text)).len() > 1);
            if acts || expands {
                return None;
            }
            if token.space && !text.is_empty() {
                text.push(b' ');
            }
            text.extend_from_slice(&token.text);
        }
        (!text.is_empty()).then_some(text)
    }

    /// Puts every text in the place of each name that was put off.
    fn spell(&self, target: Target, found: &mut BTreeSet<Target>) -> Result<(), Stop> {
        let mut work = vec![target];
        while let Some((form, name)) = work.pop() {
            if found.len() + work.len() > RUNS_MAX {
                return Err(Stop::Unknown(Unknown::Budget));
            }
            let Some(start) = memchr::memchr(MARK, &name) else {
                found.insert((form, name));
                continue;
            };
            let rest = &name[start + 1..];
            let end = memchr::memchr(MARK, rest).ok_or(Stop::NoName)?;
            let mark = &name[start..start + end + 2];
            let texts = self.known.get(&rest[..end]).and_then(|meanings| {
                meanings.iter().find_map(|meaning| match meaning {
                    Meaning::Deferred(texts) => Some(texts),
                    _ => None,
                })
            });
            let Some(texts) = texts else {
                return Err(Stop::NoName);
            };
            for text in texts.iter() {
                let mut spelled = Vec::with_capacity(name.len() + text.len());
                let mut at = 0;
                for hit in memchr::memmem::find_iter(&name, mark) {
                    spelled.extend_from_slice(&name[at..hit]);
                    spelled.extend_from_slice(text);
                    at = hit + mark.len();
                }
                spelled.extend_from_slice(&name[at..]);
                work.push((form, spelled));
            }
        }
        Ok(())
    }

    /// Expands fully. At depth 0 the result has to begin a header's name.
    fn expand(&mut self, mut input: VecDeque<Token>, depth: usize) -> Result<Vec<Token>, Stop> {
        if depth > DEPTH_MAX {
            return Err(Stop::Unknown(Unknown::Budget));
        }
        let mut output: Vec<Token> = Vec::new();
        while let Some(mut token) = input.pop_front() {
            self.tokens += 1;
            if self.tokens > TOKENS_MAX {
                return Err(Stop::Unknown(Unknown::Budget));
            }
            let expandable = is_name(&token.text) && !hides(&token.hidden, &token.text);
            match expandable.then(|| self.meaning(&token.text)) {
                Some(Meaning::Opaque) => {
                    return Err(Stop::Unknown(Unknown::Definition(words(&token.text))));
                }
                Some(Meaning::Deferred(_)) => {
                    let mark = [&[MARK][..], &token.text, &[MARK]].concat();
                    token.text = mark.into();
                }
                Some(Meaning::Macro(definition)) => {
                    let replaced = match &definition.parameters {
                        None => {
                            let hidden = hide(&token.hidden, &token.text);
                            Some(self.substitute(&definition, &[], &hidden, depth)?)
                        }
                        Some(_) => match arguments(&input) {
                            Some((arguments, used, close)) => {
                                let both = intersect(&token.hidden, &close);
                                let hidden = hide(&both, &token.text);
                                input.drain(..used);
                                Some(self.substitute(&definition, &arguments, &hidden, depth)?)
                            }
                            None => None,
                        },
                    };
                    if let Some(mut replaced) = replaced {
                        if let Some(first) = replaced.first_mut() {
                            first.space = token.space;
                        }
                        for token in replaced.into_iter().rev() {
                            input.push_front(token);
                        }
                        continue;
                    }
                }
                Some(Meaning::Undefined) if is_reserved(&token.text) => {
                    token.unsure = Some(token.text.clone());
                }
                _ => {}
            }
            if depth == 0 && output.is_empty() {
                match &token.text[..] {
                    [b'"', ..] | b"<" => {}
                    b"__FILE__" | b"__BASE_FILE__" => {
                        return Err(Stop::Unknown(Unknown::Builtin(words(&token.text))));
                    }
                    _ => return Err(Stop::NoName),
                }
                if token.text[0] == b'"' {
                    return Ok(vec![token]); // the rest of the line can't change the name
                }
            }
            output.push(token);
        }
        Ok(output)
    }

    fn substitute(
        &mut self,
        definition: &Macro,
        arguments: &[Vec<Token>],
        hidden: &Hidden,
        depth: usize,
    ) -> Result<Vec<Token>, Stop> {
        let no_parameters = Vec::new();
        let parameters = definition.parameters.as_ref().unwrap_or(&no_parameters);
        let bound = bind(parameters, definition.variadic, arguments).ok_or(Stop::NoName)?;
        let body = &definition.body;
        let output = self.replace(body, parameters, &bound, definition, depth)?;
        Ok(output
            .into_iter()
            .map(|token| Token {
                hidden: unite(&token.hidden, hidden),
                ..token
            })
            .collect())
    }

    fn replace(
        &mut self,
        body: &[Token],
        parameters: &[Text],
        bound: &[Vec<Token>],
        definition: &Macro,
        depth: usize,
    ) -> Result<Vec<Token>, Stop> {
        let argument = |token: &Token| parameters.iter().position(|name| *name == token.text);
        let is = |at: usize, text: &[u8]| body.get(at).is_some_and(|token| *token.text == *text);
        let function = definition.parameters.is_some();
        let mut output: Vec<Token> = Vec::new();
        let mut paste = false;
        let mut at = 0;
        while at < body.len() {
            let token = &body[at];
            if &token.text[..] == b"##" && at > 0 && at + 1 < body.len() {
                paste = true;
                at += 1;
                continue;
            }
            let mut piece = if function
                && &token.text[..] == b"#"
                && let Some(which) = body.get(at + 1).and_then(&argument)
            {
                at += 1;
                vec![Token {
                    space: token.space,
                    ..stringize(&bound[which])
                }]
            } else if &token.text[..] == b"__VA_OPT__" && definition.variadic && is(at + 1, b"(") {
                let length = closing(&body[at + 1..]).ok_or(Stop::NoName)?;
                let inner = &body[at + 2..at + 1 + length];
                at += 1 + length;
                match bound.last() {
                    Some(rest) if !rest.is_empty() => {
                        self.replace(inner, parameters, bound, definition, depth)?
                    }
                    _ => Vec::new(),
                }
            } else if let Some(which) = argument(token) {
                let raw = paste || is(at + 1, b"##");
                // GNU: in `, ## args` the comma goes away with the arguments, and nothing is pasted.
                let after_comma = paste
                    && definition.variadic
                    && which + 1 == parameters.len()
                    && output.last().is_some_and(|last| &last.text[..] == b",");
                if after_comma {
                    paste = false;
                    if bound[which].is_empty() {
                        output.pop();
                    }
                }
                let mut piece = if raw && !after_comma {
                    bound[which].clone()
                } else {
                    self.expand(bound[which].clone().into(), depth + 1)?
                };
                if let Some(first) = piece.first_mut() {
                    first.space = token.space;
                }
                piece
            } else {
                vec![token.clone()]
            };
            if paste {
                paste = false;
                if !piece.is_empty()
                    && let Some(left) = output.pop()
                {
                    let right = piece.remove(0);
                    for (side, other) in [(&left, &right), (&right, &left)] {
                        if let [MARK, name @ .., MARK] = &side.text[..] {
                            // Plain text and a punctuator never make one token.
                            let joins = other.text.iter().any(|&b| is_word(b) || b == b'.');
                            let eager = Stop::Eager(name.into());
                            return Err(if joins { eager } else { Stop::NoName });
                        }
                    }
                    output.push(join(left, right).ok_or(Stop::NoName)?);
                }
            }
            output.extend(piece);
            self.tokens += 1;
            at += 1;
        }
        Ok(output)
    }
}

fn meanings(name: &[u8], definitions: Vec<Vec<u8>>) -> Rc<[Meaning]> {
    let mut texts: Vec<Vec<u8>> = definitions;
    // GNU dialects define these plain words as 1, each on its own platform.
    let plain: [&[u8]; 12] = [
        b"linux", b"unix", b"i386", b"sun", b"sparc", b"mips", b"arm", b"vax", b"hpux", b"sgi",
        b"m68k", b"PPC",
    ];
    if plain.contains(&name) {
        texts.push([name, b" 1"].concat());
    }
    texts.sort_unstable();
    texts.dedup();
    let mut meanings: Vec<Meaning> = texts
        .iter()
        .map(|text| match definition(&text[name.len()..]) {
            Some(definition) => Meaning::Macro(Rc::new(definition)),
            None => Meaning::Opaque,
        })
        .collect();
    meanings.push(Meaning::Undefined);
    meanings.into()
}

/// Reads what follows the name in a `#define`.
fn definition(text: &[u8]) -> Option<Macro> {
    if text == OPAQUE {
        return None;
    }
    let (parameters, body) = match text.strip_prefix(b"(") {
        Some(rest) => {
            let close = memchr::memchr(b')', rest)?;
            (Some(&rest[..close]), &rest[close + 1..])
        }
        None => (None, text),
    };
    let mut variadic = false;
    let parameters = parameters.map(|list| {
        list.split(|&b| b == b',')
            .map(<[u8]>::trim_ascii)
            .filter(|name| !name.is_empty())
            .map(|name| match name.strip_suffix(b"...") {
                Some(b"") => {
                    variadic = true;
                    Rc::from(&b"__VA_ARGS__"[..])
                }
                Some(name) => {
                    variadic = true;
                    Rc::from(name.trim_ascii())
                }
                None => Rc::from(name),
            })
            .collect()
    });
    Some(Macro {
        parameters,
        variadic,
        body: tokens(body),
    })
}

/// The arguments of a call that begins at the front of `input`, how many tokens it takes, and what
/// its closing parenthesis hides.
fn arguments(input: &VecDeque<Token>) -> Option<(Vec<Vec<Token>>, usize, Hidden)> {
    if &input.front()?.text[..] != b"(" {
        return None;
    }
    let mut arguments = vec![Vec::new()];
    let mut depth = 0;
    for (at, token) in input.iter().enumerate().skip(1) {
        match &token.text[..] {
            b")" if depth == 0 => return Some((arguments, at + 1, token.hidden.clone())),
            b"," if depth == 0 => {
                arguments.push(Vec::new());
                continue;
            }
            b"(" => depth += 1,
            b")" => depth -= 1,
            _ => {}
        }
        arguments.last_mut()?.push(token.clone());
    }
    None
}

/// The arguments by parameter; none where their number does not fit.
fn bind(parameters: &[Text], variadic: bool, arguments: &[Vec<Token>]) -> Option<Vec<Vec<Token>>> {
    if parameters.is_empty() {
        let nothing = arguments.iter().all(Vec::is_empty) && arguments.len() <= 1;
        return nothing.then(Vec::new);
    }
    let mut bound: Vec<Vec<Token>> = arguments.to_vec();
    if variadic {
        let fixed = parameters.len() - 1;
        if bound.len() < fixed {
            return None;
        }
        let rest = bound.split_off(fixed);
        let mut joined: Vec<Token> = Vec::new();
        for (at, argument) in rest.into_iter().enumerate() {
            if at > 0 {
                joined.push(plain(b",", false));
            }
            joined.extend(argument);
        }
        bound.push(joined);
    }
    (bound.len() == parameters.len()).then_some(bound)
}

/// The place of the parenthesis that closes the one at the front.
fn closing(body: &[Token]) -> Option<usize> {
    let mut depth = 0;
    body.iter().position(|token| {
        match &token.text[..] {
            b"(" => depth += 1,
            b")" => depth -= 1,
            _ => {}
        }
        depth == 0
    })
}

fn stringize(argument: &[Token]) -> Token {
    let mut text = vec![b'"'];
    for (at, token) in argument.iter().enumerate() {
        if at > 0 && token.space {
            text.push(b' ');
        }
        let literal = matches!(token.text.last(), Some(b'"' | b'\''));
        for &byte in &token.text[..] {
            if literal && matches!(byte, b'"' | b'\\') {
                text.push(b'\\');
            }
            text.push(byte);
        }
    }
    text.push(b'"');
    Token {
        unsure: argument.iter().find_map(|token| token.unsure.clone()),
        ..plain(&text, false)
    }
}

/// One token made of two; none if that is not a token, which is an error in every compiler.
fn join(left: Token, right: Token) -> Option<Token> {
    let text = [&left.text[..], &right.text[..]].concat();
    let mut joined = tokens(&text);
    let token = joined.pop()?;
    // Punctuators are single bytes here, so that two of them have to pass for one token.
    let punctuators = text.len() <= 4 && !text.iter().any(|&b| is_word(b) || b == b'"');
    if !joined.is_empty() && !punctuators {
        return None;
    }
    Some(Token {
        text: text.into(),
        space: left.space,
        hidden: intersect(&left.hidden, &right.hidden),
        unsure: left.unsure.or(right.unsure),
        ..token
    })
}

fn plain(text: &[u8], space: bool) -> Token {
    Token {
        text: text.into(),
        space,
        hidden: None,
        unsure: None,
    }
}

fn is_name(text: &[u8]) -> bool {
    text.first()
        .is_some_and(|&b| is_word(b) && !b.is_ascii_digit())
}

/// Whether the compiler may define a macro of this name.
fn is_reserved(name: &[u8]) -> bool {
    matches!(name, [b'_', b'_' | b'A'..=b'Z', ..])
}

/// Splits text into preprocessing tokens. Punctuators are single bytes, except `##` and `...`,
/// since header names only ever need their spelling.
fn tokens(text: &[u8]) -> Vec<Token> {
    let mut list = Vec::new();
    let mut at = 0;
    let mut space = false;
    while let Some(&byte) = text.get(at) {
        if byte.is_ascii_whitespace() || byte == 0x0b {
            space = true;
            at += 1;
            continue;
        }
        let rest = &text[at..];
        let length = match byte {
            b'"' | b'\'' => literal(rest),
            b'.' if rest.starts_with(b"...") => 3,
            b'#' if rest.starts_with(b"##") => 2,
            b'%' if rest.starts_with(b"%:%:") => 4,
            b'.' if rest.get(1).is_some_and(u8::is_ascii_digit) => number(rest),
            b'0'..=b'9' => number(rest),
            _ if is_word(byte) => identifier(rest).len(),
            _ => 1,
        };
        let spelled = match &rest[..length] {
            b"%:%:" => b"##",
            spelled => spelled,
        };
        list.push(plain(spelled, space));
        space = false;
        at += length;
    }
    list
}

fn literal(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(&byte) = text.get(at) {
        at += match byte {
            b'\\' => 2,
            _ if byte == text[0] => return at + 1,
            _ => 1,
        };
    }
    text.len()
}

/// The length of a preprocessing number, which takes more than numbers do: `1.74`, `1e+5`, `0x1p-3`.
fn number(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(&byte) = text.get(at) {
        let sign = matches!(byte, b'+' | b'-') && matches!(text[at - 1], b'e' | b'E' | b'p' | b'P');
        if !is_word(byte) && byte != b'.' && !sign {
            break;
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::include::directives;

    fn names(text: &str, operand: &str) -> String {
        let found = directives::read(text.as_bytes());
        let mut definitions = |name: &[u8]| -> Vec<Vec<u8>> {
            found.definitions.of(name).map(<[u8]>::to_vec).collect()
        };
        match targets(operand.as_bytes(), &mut definitions) {
            Ok(names) => {
                let spelled = names.iter().map(|(form, name)| match form {
                    Form::Quote => format!("\"{}\"", String::from_utf8_lossy(name)),
                    Form::Angle => format!("<{}>", String::from_utf8_lossy(name)),
                });
                spelled.collect::<Vec<_>>().join(" ")
            }
            Err(unknown) => unknown.to_string(),
        }
    }

    #[test]
    fn every_reachable_name_is_found() {
        let pp = "#define STR(x) STR_I(x)\n#define STR_I(x) #x\n#define CAT(a,b) CAT_I(a,b)\n\
                  #define CAT_I(a,b) a ## b\n";
        for (text, operand, expect) in [
            ("#define A \"x.h\"", "A", "\"x.h\""),
            ("#define A <x/y.h>", "A", "<x/y.h>"),
            ("#define A B\n#define B \"x.h\"", "A", "\"x.h\""),
            ("#define A \"x.h\"\n#define A <y.h>", "A", "\"x.h\" <y.h>"),
            ("", "A", ""),
            ("#define A 1", "A", ""),
            ("#define A(x) <x.h>", "A(y)", "<y.h>"),
            ("#define A() \"x.h\"", "A ( )", "\"x.h\""),
            ("#define A A", "A", ""),
            ("#define D lib", "<D/x.h>", "<D/x.h> <lib/x.h>"),
            (pp, "STR(a/b.h)", "\"a/b.h\""),
            (pp, "<CAT(a, b).h>", "<CAT(a, b).h> <CAT_I(a,b).h> <ab.h>"),
            (
                &format!("{pp}#define DIR gcc\n#define DIR plain\n"),
                "STR(mpl/DIR/x.hpp)",
                "\"mpl/DIR/x.hpp\" \"mpl/gcc/x.hpp\" \"mpl/plain/x.hpp\"",
            ),
            (
                &format!("{pp}#define V 12\n#define NAME(n) STR(CAT(x_, n).h)"),
                "NAME(V)",
                "\"CAT(x_, 12).h\" \"CAT(x_, V).h\" \"CAT_I(x_,12).h\" \"CAT_I(x_,V).h\" \
                 \"x_12.h\" \"x_V.h\"",
            ),
            (
                &format!(
                    "{pp}#define IT_1 <one.h>\n#define IT_2 <two.h>\n#define DEPTH() 0\n\
                          #define INC(x) CAT(INC_, x)\n#define INC_0 1\n#define INC_1 2\n\
                          #define DEPTH() 1\n#define ITERATE() CAT(IT_, INC(DEPTH()))"
                ),
                "ITERATE()",
                "<one.h> <two.h>",
            ),
            (
                "#define ELEM(n, t) ELEM_ ## n t\n#define ELEM_2(a,b,c) c\n#define P (1, 2, \"f.h\")",
                "ELEM(2, P)",
                "\"f.h\"",
            ),
            ("#define F(a, ...) __VA_ARGS__", "F(1, <x.h>)", "<x.h>"),
            ("#define F(a, b...) <a.h> , ## b", "F(y)", "<y.h>"),
            ("#define F(...) __VA_OPT__(<y.h>)", "F(1)", "<y.h>"),
            (
                &format!("{pp}"),
                "STR(linux/x.h)",
                "\"1/x.h\" \"linux/x.h\"",
            ),
        ] {
            assert_eq!(names(text, operand), expect, "{text:?} {operand:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_an_error() {
        let pp = "#define STR(x) STR_I(x)\n#define STR_I(x) #x\n";
        let long = format!("#define A \"{}\"", "x".repeat(5000));
        let mut wide = pp.to_owned();
        for name in ["A", "B", "C", "D", "E"] {
            for value in 0..20 {
                wide += &format!("#define {name} {value}\n");
            }
        }
        let mut many = pp.to_owned();
        for value in 0..3000 {
            many += &format!("#define A a{value}.h\n#define B b{value}\n");
        }
        assert_eq!(names(&many, "STR(x/A)").split(' ').count(), 3001);
        many += "#define CAT(x, y) x ## y\n#define CAT2(x, y) CAT(x, y)\n";
        assert!(names(&many, "<CAT2(c, B)>").contains(" <cb7> "));
        let deep = "#define A B B B B\n#define B C C C C\n#define C D D D D\n#define D E E E E\n\
                    #define E F F F F\n#define F G G G G\n#define G H H H H\n#define H I I I I";
        for (text, operand, expect) in [
            (pp, "STR(x__GNUC__/y.h)", "\"x__GNUC__/y.h\""),
            (
                pp,
                "STR(x/__GNUC__.h)",
                "depends on __GNUC__, which is the compiler's",
            ),
            (
                "",
                "__FILE__",
                "depends on __FILE__, which is the compiler's",
            ),
            (
                &long[..],
                "A",
                "depends on A, whose definition was not understood",
            ),
            (&wide[..], "STR(A/B/C/D/E)", "has too many possible values"),
            (deep, "<A", "has too many possible values"),
        ] {
            assert_eq!(names(text, operand), expect, "{operand:?}");
        }
    }
}
