//! Reads a page as the format's description says, and accepts nothing else: what tests hold pages against.

use std::collections::BTreeMap;

/// Samples by name and labels; panics where the text is not as the format's description says.
pub(in crate::scheduler::metrics) fn parse(text: &str) -> BTreeMap<String, f64> {
    let name_end = |text: &str| {
        let is_part = |(at, c): (usize, char)| {
            c.is_ascii_alphabetic() || c == '_' || c == ':' || at > 0 && c.is_ascii_digit()
        };
        text.char_indices()
            .find(|&part| !is_part(part))
            .map_or(text.len(), |(at, _)| at)
    };
    assert!(text.ends_with('\n'));
    let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
    let mut helped: Vec<&str> = Vec::new();
    let mut family = "";
    let mut samples = BTreeMap::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let [word, name, rest] = [(); 3].map(|()| words.next().expect(line));
            assert_eq!(name_end(name), name.len(), "{line}");
            match word {
                "HELP" => {
                    assert!(!helped.contains(&name), "twice: {line}");
                    assert!(!rest.contains('\\') && !rest.is_empty(), "{line}");
                    helped.push(name);
                }
                "TYPE" => {
                    assert!(["gauge", "counter", "histogram"].contains(&rest), "{line}");
                    assert_eq!(helped.last(), Some(&name), "{line}");
                    assert_eq!(kinds.insert(name, rest), None, "twice: {line}");
                    // As promtool's linter wants it.
                    assert_eq!(rest == "counter", name.ends_with("_total"), "{line}");
                    family = name;
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        let end = name_end(line);
        let name = &line[..end];
        assert!(end > 0, "{line}");
        let suffixes: &[&str] = match kinds[family] {
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        let is_of = |suffix: &&&str| name.strip_suffix(**suffix) == Some(family);
        assert!(suffixes.iter().any(|suffix| is_of(&suffix)), "{line}");
        let mut rest = &line[end..];
        if let Some(mut labels) = rest.strip_prefix('{') {
            loop {
                let end = name_end(labels);
                assert!(end > 0, "{line}");
                labels = labels[end..].strip_prefix("=\"").expect(line);
                let mut chars = labels.char_indices();
                let close = loop {
                    match chars.next().expect(line) {
                        (at, '"') => break at,
                        (_, '\\') => {
                            let (_, next) = chars.next().expect(line);
                            assert!(['\\', '"', 'n'].contains(&next), "{line}");
                        }
                        _ => {}
                    }
                };
                labels = &labels[close + 1..];
                if let Some(after) = labels.strip_prefix('}') {
                    rest = after;
                    break;
                }
                labels = labels.strip_prefix(',').expect(line);
            }
        }
        let value: f64 = rest.strip_prefix(' ').expect(line).parse().expect(line);
        let series = line[..line.len() - rest.len()].to_owned();
        assert_eq!(samples.insert(series, value), None, "twice: {line}");
    }
    assert_eq!(helped.len(), kinds.len());
    samples
}
