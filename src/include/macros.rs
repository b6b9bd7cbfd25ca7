//! Preprocessing tokens and macro definitions, as computed includes need them.
//!
//! Nothing is expanded here. Punctuators are single bytes, since header names only ever need their
//! spelling.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::include::definitions::OPAQUE;
use crate::include::words::{identifier, is_word};

/// A token's spelling.
pub type Text = Rc<[u8]>;

/// A preprocessing token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token {
    /// Its spelling.
    pub text: Text,
    /// A blank stood before it.
    pub space: bool,
    /// Names that it must not be expanded as again.
    pub hidden: Hidden,
    /// A name in it that may be one of the compiler's own macros.
    pub unsure: Option<Text>,
}

/// A set of names; most tokens share theirs.
pub type Hidden = Option<Rc<BTreeSet<Text>>>;

/// Whether a name is in the set.
pub fn hides(hidden: &Hidden, name: &[u8]) -> bool {
    hidden.as_ref().is_some_and(|names| names.contains(name))
}

/// The set with one more name.
pub fn hide(hidden: &Hidden, name: &Text) -> Hidden {
    let mut names = hidden.as_deref().cloned().unwrap_or_default();
    names.insert(name.clone());
    Some(Rc::new(names))
}

/// The names in either set.
pub fn unite(hidden: &Hidden, more: &Hidden) -> Hidden {
    match (hidden, more) {
        (None, other) | (other, None) => other.clone(),
        (Some(some), Some(more)) if some.is_superset(more) => hidden.clone(),
        (Some(some), Some(more)) => Some(Rc::new(some.union(more).cloned().collect())),
    }
}

/// The names in both sets.
pub fn intersect(hidden: &Hidden, other: &Hidden) -> Hidden {
    let both: BTreeSet<Text> = hidden
        .as_ref()?
        .intersection(other.as_ref()?)
        .cloned()
        .collect();
    (!both.is_empty()).then(|| Rc::new(both))
}

/// A macro's definition.
#[derive(Debug)]
pub struct Macro {
    /// Parameters; none for an object-like macro.
    pub parameters: Option<Vec<Text>>,
    /// The last parameter takes all remaining arguments.
    pub variadic: bool,
    /// Whether a parameter stands where its argument is expanded first, by parameter.
    pub expands: Vec<bool>,
    /// What it is replaced by.
    pub body: Vec<Token>,
}

impl Macro {
    /// Which parameter a token is, if it is one.
    pub fn parameter(&self, token: &Token) -> Option<usize> {
        self.parameters
            .as_ref()?
            .iter()
            .position(|name| *name == token.text)
    }
}

/// Reads what follows the name in a `#define`.
pub fn definition(text: &[u8]) -> Option<Macro> {
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
    let parameters: Option<Vec<Text>> = parameters.map(|list| {
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
    let mut definition = Macro {
        expands: vec![false; parameters.as_ref().map_or(0, Vec::len)],
        parameters,
        variadic,
        body: tokens(body),
    };
    for (at, token) in definition.body.iter().enumerate() {
        let beside = |at: Option<usize>, text: &[u8]| {
            at.and_then(|at| definition.body.get(at))
                .is_some_and(|token| *token.text == *text)
        };
        if let Some(which) = definition.parameter(token) {
            let before = at.checked_sub(1);
            let comma = at.checked_sub(2).filter(|_| beside(before, b"##"));
            let raw = beside(before, b"#")
                || beside(Some(at + 1), b"##")
                || (beside(before, b"##") && !(definition.variadic && beside(comma, b",")));
            definition.expands[which] |= !raw;
        }
    }
    Some(definition)
}

/// A token about which nothing is known but its spelling.
pub fn plain(text: &[u8], space: bool) -> Token {
    Token {
        text: text.into(),
        space,
        hidden: None,
        unsure: None,
    }
}

/// Whether a token could be a macro's name.
pub fn is_name(text: &[u8]) -> bool {
    text.first()
        .is_some_and(|&b| is_word(b) && !b.is_ascii_digit())
}

/// Whether the compiler may define a macro of this name.
pub fn is_reserved(name: &[u8]) -> bool {
    matches!(name, [b'_', b'_' | b'A'..=b'Z', ..])
}

/// Splits text into preprocessing tokens. Punctuators are single bytes, except `##` and `...`,
/// since header names only ever need their spelling.
pub fn tokens(text: &[u8]) -> Vec<Token> {
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

/// Text for an error.
pub fn words(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}
