//! A coarser answer for expressions with too many expansions: every header's name that stands written
//! out in a macro within reach.
//!
//! Boost's file iteration selects a tuple's element through a dozen macros with several definitions
//! each; all combinations are too many, yet the name comes out as it was written. Within reach is
//! every name that a reachable body mentions and, because of `##`, every macro whose name can be put
//! together from words that stand in reachable bodies. Where a reachable macro makes a string out of
//! its argument, or where a name's `<` has no `>`, names could arise that stand nowhere: that is an
//! error.

use std::collections::BTreeSet;

use crate::include::computed::{MacroTable, Target, Unknown, targets_of};
use crate::include::directives::is_word;
use crate::include::macros::{Macro, Token, definition, is_name, words};

/// Macros within reach, at most.
const REACH_MAX: usize = 5000;

/// Every header's name that is written out within reach of `operand`.
pub fn names(operand: &[u8], table: &mut dyn MacroTable) -> Result<BTreeSet<Target>, Unknown> {
    let mut harvest = Harvest::default();
    let whole = definition(&[b" ", operand].concat()).ok_or(Unknown::Budget)?;
    harvest.gather(&whole, table)?;
    let mut reached: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut longer: BTreeSet<Vec<u8>> = BTreeSet::new();
    loop {
        while let Some(name) = harvest.pending.pop() {
            if !reached.insert(name.clone()) {
                continue;
            }
            if reached.len() > REACH_MAX {
                return Err(Unknown::Budget);
            }
            for text in table.definitions(&name) {
                let unclear = || Unknown::Definition(words(&name));
                let definition = definition(&text[name.len()..]).ok_or_else(unclear)?;
                harvest.gather(&definition, table)?;
            }
            longer.extend(table.longer(&name));
        }
        let made = longer.iter().filter(|name| !reached.contains(*name));
        harvest.pending = made
            .filter(|name| harvest.can_make(name))
            .cloned()
            .collect();
        if harvest.pending.is_empty() {
            return Ok(harvest.found);
        }
    }
}

#[derive(Default)]
struct Harvest {
    found: BTreeSet<Target>,
    /// Names to look at.
    pending: Vec<Vec<u8>>,
    /// Every name and number that stands in a reachable body.
    words: BTreeSet<Vec<u8>>,
}

impl Harvest {
    /// Takes the names of headers and of macros out of a body.
    fn gather(&mut self, definition: &Macro, table: &mut dyn MacroTable) -> Result<(), Unknown> {
        let body = &definition.body;
        for (at, token) in body.iter().enumerate() {
            let parameter = definition.parameter(token).is_some();
            match &token.text[..] {
                b"#" if definition.parameters.is_some() => return Err(Unknown::Budget),
                b"<" => {
                    let length = body[at..].iter().position(|token| &token.text[..] == b">");
                    let inside = &body[at..=at + length.ok_or(Unknown::Budget)?];
                    if inside
                        .iter()
                        .any(|token| definition.parameter(token).is_some())
                    {
                        return Err(Unknown::Budget);
                    }
                    self.found.extend(targets_of(&spelling(inside), table)?);
                }
                [b'"', ..] => self.found.extend(targets_of(&token.text, table)?),
                word if !parameter && word.iter().all(|&b| is_word(b)) => {
                    if is_name(word) {
                        self.pending.push(word.to_vec());
                    }
                    self.words.insert(word.to_vec());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether a name is a sequence of reachable words.
    fn can_make(&self, name: &[u8]) -> bool {
        let mut ends = vec![false; name.len() + 1];
        ends[0] = true;
        for end in 1..=name.len() {
            ends[end] = (0..end).any(|start| ends[start] && self.words.contains(&name[start..end]));
        }
        ends[name.len()]
    }
}

fn spelling(tokens: &[Token]) -> Vec<u8> {
    let mut text = Vec::new();
    for token in tokens {
        if token.space {
            text.push(b' ');
        }
        text.extend_from_slice(&token.text);
    }
    text
}
