//! What differs from one run of a compiler to the next by its nature, made equal.
//!
//! A case has to ask for a mask by name; nothing is masked otherwise.

/// The names of masks.
pub const NAMES: [&str; 3] = ["temporary-names", "numbers", "addresses"];

/// The bytes with the mask laid on them.
pub fn masked(name: &str, bytes: &[u8]) -> Vec<u8> {
    match name {
        "temporary-names" => temporary_names(bytes),
        "numbers" => numbers(bytes),
        "addresses" => addresses(bytes),
        _ => panic!("no mask is called {name}"),
    }
}

/// A name in `/tmp` that gcc (`ccXXXXXX`) or clang (`a-xxxxxx`) chose: its random part is dropped.
fn temporary_names(bytes: &[u8]) -> Vec<u8> {
    const START: &[u8] = b"/tmp/";
    let mut masked = Vec::new();
    let mut rest = bytes;
    while let Some(at) = find(rest, START) {
        let (before, name) = rest.split_at(at + START.len());
        masked.extend_from_slice(before);
        rest = name;
        let is_random = |part: &[u8]| part.iter().all(u8::is_ascii_alphanumeric);
        let dash = rest.iter().position(|b| !b.is_ascii_alphanumeric());
        if rest.len() >= 8 && rest.starts_with(b"cc") && is_random(&rest[2..8]) {
            masked.extend_from_slice(b"cc??????");
            rest = &rest[8..];
        } else if let Some(dash) = dash
            && rest[dash] == b'-'
            && rest.len() >= dash + 7
            && is_random(&rest[dash + 1..dash + 7])
        {
            masked.extend_from_slice(&rest[..=dash]);
            masked.extend_from_slice(b"??????");
            rest = &rest[dash + 7..];
        }
    }
    masked.extend_from_slice(rest);
    masked
}

/// Every number, with what separates it from its neighbours, becomes `#`.
fn numbers(bytes: &[u8]) -> Vec<u8> {
    let mut masked = Vec::new();
    let mut is_number = false;
    for &byte in bytes {
        if byte.is_ascii_digit() {
            if !is_number {
                while masked.last().is_some_and(|b| b" .".contains(b)) {
                    masked.pop();
                }
                if masked.last() != Some(&b'#') {
                    masked.push(b'#');
                }
            }
            is_number = true;
        } else {
            is_number = false;
            masked.push(byte);
        }
    }
    masked
}

/// Every address in the compiler's memory: a hexadecimal number that is long.
fn addresses(bytes: &[u8]) -> Vec<u8> {
    const START: &[u8] = b"0x";
    const DIGITS_MIN: usize = 10;
    let mut masked = Vec::new();
    let mut rest = bytes;
    while let Some(at) = find(rest, START) {
        let (before, address) = rest.split_at(at + START.len());
        masked.extend_from_slice(before);
        let digits = address.iter().take_while(|b| b.is_ascii_hexdigit());
        let digits = digits.count();
        rest = address;
        if digits >= DIGITS_MIN {
            masked.push(b'?');
            rest = &rest[digits..];
        }
    }
    masked.extend_from_slice(rest);
    masked
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
