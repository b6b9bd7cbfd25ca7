//! Computed includes: every header name that a macro expression could expand to.
//!
//! Which definition is in force at a directive depends on conditions that nobody evaluates here.
//! So an expansion has not one result but a set: every definition in the closure is tried, and none
//! at all. Equal states are merged, since a library's definitions for many compilers mostly come to
//! the same in the end. What does not end in a header's name is dropped: there the compiler itself
//! would report an error. What this evaluator can't know (the compiler's own macros, a definition
//! that was too long to keep) is an error, never a guess.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::include::directives::Form;
use crate::include::macros::{
    Hidden, Macro, Text, Token, definition, hide, hides, intersect, is_name, is_reserved, plain,
    tokens, unite, words,
};
use crate::include::words::is_word;

/// Names that one expression may have, at most.
const TARGETS_MAX: usize = 20_000;
/// Tokens that an expression may take up in all its expansions: they grow exponentially in hostile
/// text.
const WORK_MAX: usize = 50_000;
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

/// The macro definitions in reach of an expression: of the whole closure and the command line.
pub trait MacroTable {
    /// All texts that follow `#define` for this name, as `NAME(a, b) body`.
    fn definitions(&mut self, name: &[u8]) -> Vec<Vec<u8>>;
}

/// Every name that `operand` can expand to.
pub fn targets(operand: &[u8], table: &mut dyn MacroTable) -> Result<BTreeSet<Target>, Unknown> {
    let mut eager = BTreeSet::new();
    loop {
        match targets_with(operand, table, &eager) {
            Ok(targets) => return Ok(targets),
            Err(Stop::Unknown(unknown)) => return Err(unknown),
            Err(Stop::Eager(name)) => drop(eager.insert(name)),
            Err(Stop::NoName) => return Ok(BTreeSet::new()),
        }
    }
}

fn targets_with(
    operand: &[u8],
    table: &mut dyn MacroTable,
    eager: &BTreeSet<Text>,
) -> Result<BTreeSet<Target>, Stop> {
    let mut expansion = Expansion {
        table,
        eager,
        known: BTreeMap::new(),
        expanded: BTreeMap::new(),
        work: 0,
    };
    let mut found = BTreeSet::new();
    for tokens in expansion.expand(tokens(operand), 0)?.iter() {
        if let Some(target) = target(tokens).map_err(Stop::Unknown)? {
            expansion.spell(target, &mut found)?;
        }
    }
    Ok(found)
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
    /// The result is no header's name.
    NoName,
    /// This name was put off and must not be.
    Eager(Text),
    Unknown(Unknown),
}

struct Expansion<'a> {
    table: &'a mut dyn MacroTable,
    eager: &'a BTreeSet<Text>,
    known: BTreeMap<Text, Rc<[Meaning]>>,
    /// Results of nested expansions.
    expanded: BTreeMap<Vec<Token>, Rc<[Vec<Token>]>>,
    /// Tokens that were taken up so far.
    work: usize,
}

/// An expansion under way: the tokens that are done, and those to come, the next one last.
type State = (Vec<Token>, Vec<Token>);

impl Expansion<'_> {
    fn options(&mut self, name: &Text) -> Rc<[Meaning]> {
        if let Some(options) = self.known.get(name) {
            return options.clone();
        }
        let options = meanings(name, self.table.definitions(name));
        let options = self.defer(name, options);
        self.known.insert(name.clone(), options.clone());
        options
    }

    /// Whether nothing happens to this name without a `(` after it, whatever it means.
    fn only_called(&mut self, name: &Text) -> bool {
        self.options(name).iter().all(|option| match option {
            Meaning::Macro(definition) => definition.parameters.is_some(),
            _ => false,
        })
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
                    || meanings(&token.text, self.table.definitions(&token.text)).len() > 1);
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
            if found.len() + work.len() > TARGETS_MAX {
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

    /// Every result of expanding fully. At depth 0 only those that begin a header's name.
    fn expand(&mut self, mut input: Vec<Token>, depth: usize) -> Result<Rc<[Vec<Token>]>, Stop> {
        if depth > DEPTH_MAX {
            return Err(Stop::Unknown(Unknown::Budget));
        }
        if depth > 0 && !input.iter().any(|token| is_name(&token.text)) {
            return Ok([input].into());
        }
        if depth > 0
            && let Some(results) = self.expanded.get(&input)
        {
            return Ok(results.clone());
        }
        let key = input.clone();
        input.reverse();
        let mut states: Vec<State> = vec![(Vec::new(), input)];
        let mut seen: BTreeSet<State> = BTreeSet::new();
        let mut results = BTreeSet::new();
        while let Some((output, input)) = states.pop() {
            let mut next = Vec::new();
            results.extend(self.step(output, input, depth, &mut next)?);
            for state in next {
                if seen.insert(state.clone()) {
                    states.push(state);
                }
            }
        }
        let results: Rc<[Vec<Token>]> = results.into_iter().collect();
        if depth > 0 {
            self.expanded.insert(key, results.clone());
        }
        Ok(results)
    }

    /// Goes on to the next choice, whose outcomes it puts into `next`, or to the end: the result.
    fn step(
        &mut self,
        mut output: Vec<Token>,
        mut input: Vec<Token>,
        depth: usize,
        next: &mut Vec<State>,
    ) -> Result<Option<Vec<Token>>, Stop> {
        while let Some(mut token) = input.pop() {
            self.spend(1)?;
            let called = input.last().is_some_and(|next| &next.text[..] == b"(");
            if is_name(&token.text)
                && !hides(&token.hidden, &token.text)
                && (called || !self.only_called(&token.text))
            {
                let options = self.options(&token.text);
                if !matches!(&options[..], [Meaning::Undefined]) {
                    for option in options.iter() {
                        self.choose(option, &token, &output, &input, depth, next)?;
                    }
                    return Ok(None);
                }
                if is_reserved(&token.text) {
                    token.unsure = Some(token.text.clone());
                }
            }
            if depth == 0 && output.is_empty() {
                match &token.text[..] {
                    [b'"', ..] => return Ok(Some(vec![token])), // the rest can't change the name
                    b"<" => {}
                    b"__FILE__" | b"__BASE_FILE__" => {
                        return Err(Stop::Unknown(Unknown::Builtin(words(&token.text))));
                    }
                    _ => return Ok(None),
                }
            }
            output.push(token);
        }
        Ok(Some(output))
    }

    /// Puts the states into `next` to which one meaning of `token` leads.
    fn choose(
        &mut self,
        option: &Meaning,
        token: &Token,
        output: &[Token],
        input: &[Token],
        depth: usize,
        next: &mut Vec<State>,
    ) -> Result<(), Stop> {
        self.spend(output.len() + input.len() + 1)?;
        let mut stay = |text: Text| {
            // It can't begin a header's name.
            if depth > 0 || !output.is_empty() {
                let mut output = output.to_vec();
                output.push(Token {
                    text,
                    ..token.clone()
                });
                next.push((output, input.to_vec()));
            }
        };
        let definition = match option {
            Meaning::Opaque => {
                return Err(Stop::Unknown(Unknown::Definition(words(&token.text))));
            }
            Meaning::Undefined => {
                stay(token.text.clone());
                return Ok(());
            }
            Meaning::Deferred(_) => {
                stay([&[MARK][..], &token.text, &[MARK]].concat().into());
                return Ok(());
            }
            Meaning::Macro(definition) => definition,
        };
        let (bound, used, hidden) = match &definition.parameters {
            None => (Vec::new(), 0, hide(&token.hidden, &token.text)),
            Some(parameters) => match arguments(input) {
                Some((arguments, used, close)) => {
                    let hidden = hide(&intersect(&token.hidden, &close), &token.text);
                    match bind(parameters, definition.variadic, &arguments) {
                        Some(bound) => (bound, used, hidden),
                        None => return Ok(()),
                    }
                }
                None => {
                    stay(token.text.clone());
                    return Ok(());
                }
            },
        };
        let rest = &input[..input.len() - used];
        for mut replaced in self.substitute(definition, &bound, depth)? {
            self.spend(output.len() + rest.len() + replaced.len() + 1)?;
            for token in &mut replaced {
                token.hidden = unite(&token.hidden, &hidden);
            }
            if let Some(first) = replaced.first_mut() {
                first.space = token.space;
            }
            let mut input = rest.to_vec();
            input.extend(replaced.into_iter().rev());
            next.push((output.to_vec(), input));
        }
        Ok(())
    }

    fn spend(&mut self, tokens: usize) -> Result<(), Stop> {
        self.work += tokens;
        if self.work > WORK_MAX {
            return Err(Stop::Unknown(Unknown::Budget));
        }
        Ok(())
    }

    /// The body with its parameters replaced, once for each combination of the arguments' results.
    fn substitute(
        &mut self,
        definition: &Macro,
        bound: &[Vec<Token>],
        depth: usize,
    ) -> Result<Vec<Vec<Token>>, Stop> {
        let mut combinations: Vec<Vec<Vec<Token>>> = vec![Vec::new()];
        for (which, raw) in bound.iter().enumerate() {
            let results: Rc<[Vec<Token>]> = if definition.expands[which] {
                self.expand(raw.clone(), depth + 1)?
            } else {
                [Vec::new()].into()
            };
            let mut more = Vec::with_capacity(combinations.len() * results.len());
            for combination in &combinations {
                for result in results.iter() {
                    self.spend(1 + result.len())?;
                    let mut combination = combination.clone();
                    combination.push(result.clone());
                    more.push(combination);
                }
            }
            combinations = more;
        }
        let mut bodies = BTreeSet::new();
        for expanded in &combinations {
            match replace(&definition.body, definition, bound, expanded) {
                Ok(body) => drop(bodies.insert(body)),
                Err(Stop::NoName) => {}
                Err(stop) => return Err(stop),
            }
        }
        Ok(bodies.into_iter().collect())
    }
}

/// Replaces parameters by their arguments, as they are (`bound`) where the operators `#` and `##` ask
/// for that, else expanded.
fn replace(
    body: &[Token],
    definition: &Macro,
    bound: &[Vec<Token>],
    expanded: &[Vec<Token>],
) -> Result<Vec<Token>, Stop> {
    let is = |at: usize, text: &[u8]| body.get(at).is_some_and(|token| *token.text == *text);
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
        let string = (&token.text[..] == b"#")
            .then(|| body.get(at + 1).and_then(|next| definition.parameter(next)))
            .flatten();
        let mut piece = if let Some(which) = string {
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
                Some(rest) if !rest.is_empty() => replace(inner, definition, bound, expanded)?,
                _ => Vec::new(),
            }
        } else if let Some(which) = definition.parameter(token) {
            // GNU: in `, ## args` the comma goes away with the arguments, and nothing is pasted.
            let after_comma = paste
                && definition.variadic
                && which + 1 == bound.len()
                && output.last().is_some_and(|last| &last.text[..] == b",");
            if after_comma {
                paste = false;
                if bound[which].is_empty() {
                    output.pop();
                }
            }
            let raw = (paste || is(at + 1, b"##")) && !after_comma;
            let mut piece = if raw { &bound[which] } else { &expanded[which] }.clone();
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
                output.push(join(left, piece.remove(0))?);
            }
        }
        output.extend(piece);
        at += 1;
    }
    Ok(output)
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
    // A macro that is only ever function-like and is not defined leaves its call in the text, with
    // parentheses that no header's name has: that possibility leads nowhere and would double the work.
    let function = |text: &Vec<u8>| text.get(name.len()) == Some(&b'(');
    if texts.is_empty() || !texts.iter().all(function) {
        meanings.push(Meaning::Undefined);
    }
    meanings.into()
}

/// The arguments of a call that comes next in `input` (whose order is reversed), how many tokens it
/// takes, and what its closing parenthesis hides.
fn arguments(input: &[Token]) -> Option<(Vec<Vec<Token>>, usize, Hidden)> {
    if &input.last()?.text[..] != b"(" {
        return None;
    }
    let mut arguments = vec![Vec::new()];
    let mut depth = 0;
    for (at, token) in input.iter().rev().enumerate().skip(1) {
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

/// One token made of two. What makes none is an error in every compiler.
fn join(left: Token, right: Token) -> Result<Token, Stop> {
    for (side, other) in [(&left, &right), (&right, &left)] {
        if let [MARK, name @ .., MARK] = &side.text[..] {
            // Plain text and a punctuator never make one token.
            let joins = other.text.iter().any(|&b| is_word(b) || b == b'.');
            let eager = Stop::Eager(name.into());
            return Err(if joins { eager } else { Stop::NoName });
        }
    }
    let text = [&left.text[..], &right.text[..]].concat();
    // Punctuators are single bytes here, so that two of them have to pass for one token.
    let punctuators = text.len() <= 4 && !text.iter().any(|&b| is_word(b) || b == b'"');
    if tokens(&text).len() != 1 && !punctuators {
        return Err(Stop::NoName);
    }
    Ok(Token {
        text: text.into(),
        space: left.space,
        hidden: intersect(&left.hidden, &right.hidden),
        unsure: left.unsure.or(right.unsure),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::include::definitions::Definitions;
    use crate::include::directives;

    struct Table(Definitions);

    impl MacroTable for Table {
        fn definitions(&mut self, name: &[u8]) -> Vec<Vec<u8>> {
            self.0.of(name).map(<[u8]>::to_vec).collect()
        }
    }

    fn names(text: &str, operand: &str) -> String {
        let found = directives::read(text.as_bytes());
        let mut table = Table(found.definitions);
        match targets(operand.as_bytes(), &mut table) {
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
            (pp, "<CAT(a, b).h>", "<ab.h>"),
            (
                &format!("{pp}#define DIR gcc\n#define DIR plain\n"),
                "STR(mpl/DIR/x.hpp)",
                "\"mpl/DIR/x.hpp\" \"mpl/gcc/x.hpp\" \"mpl/plain/x.hpp\"",
            ),
            (
                &format!("{pp}#define V 12\n#define NAME(n) STR(CAT(x_, n).h)"),
                "NAME(V)",
                "\"x_12.h\" \"x_V.h\"",
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
            (pp, "STR(linux/x.h)", "\"1/x.h\" \"linux/x.h\""),
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
        for value in 0..300 {
            many += &format!("#define A a{value}.h\n#define B b{value}\n");
        }
        assert_eq!(names(&many, "STR(x/A)").split(' ').count(), 301);
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
