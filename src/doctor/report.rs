//! Puts findings into words: text that fits a terminal of 80 columns, or JSON.

use super::finding::{Finding, Grade};

/// Columns of a terminal.
const WIDTH: usize = 80;
/// Before what mends.
const MEND_INDENT: &str = "               ";

/// The findings as lines, and a last one that counts.
pub fn as_text(findings: &[Finding]) -> String {
    let mut text = String::new();
    let mut last = None;
    for finding in findings {
        let group = match last == Some(finding.group) {
            true => "",
            false => finding.group.name(),
        };
        last = Some(finding.group);
        let head = format!("{group:<11}{:<9}", finding.grade.word());
        write_wrapped(&mut text, &head, &finding.what, "");
        for mend in finding.mend.iter().flat_map(|mend| mend.lines()) {
            let (command, comment) = match mend.split_once("   # ") {
                Some((command, comment)) => (command, Some(comment)),
                None => (mend, None),
            };
            if let Some(comment) = comment {
                write_wrapped(&mut text, MEND_INDENT, &format!("# {comment}"), "");
            }
            // A shell reads it as one line.
            write_wrapped(&mut text, MEND_INDENT, command, " \\");
        }
    }
    let count = |grade| {
        findings
            .iter()
            .filter(|finding| finding.grade == grade)
            .count()
    };
    let verdict = match (count(Grade::Broken), count(Grade::Warning)) {
        (0, 0) => "all is well".to_owned(),
        (0, warnings) => format!("nothing is broken; warnings: {warnings}"),
        (broken, warnings) => format!("broken: {broken}; warnings: {warnings}"),
    };
    text.push_str(&verdict);
    text.push('\n');
    text
}

/// One JSON object with the same findings.
pub fn as_json(findings: &[Finding]) -> String {
    let list: Vec<serde_json::Value> = findings
        .iter()
        .map(|finding| {
            serde_json::json!({
                "group": finding.group.name(),
                "grade": match finding.grade {
                    Grade::Fine => "ok",
                    Grade::Unknown => "unknown",
                    Grade::Warning => "warning",
                    Grade::Broken => "broken",
                },
                "what": finding.what,
                "mend": finding.mend,
            })
        })
        .collect();
    let is_well = findings
        .iter()
        .all(|finding| finding.grade != Grade::Broken);
    let whole = serde_json::json!({ "ok": is_well, "findings": list });
    format!("{whole}\n")
}

/// Writes `what` behind `head`, in lines that fit and begin below each other; all but the last end with `more`. A
/// word that is longer than a line has one of its own.
fn write_wrapped(text: &mut String, head: &str, what: &str, more: &str) {
    let indent = head.chars().count();
    let mut line = head.to_owned();
    let mut width = indent;
    for word in what.split_whitespace() {
        let length = word.chars().count();
        let is_first = width == indent;
        if !is_first && width + 1 + length + more.len() > WIDTH {
            text.push_str(&line);
            text.push_str(more);
            text.push('\n');
            line = " ".repeat(indent);
            width = indent;
        } else if !is_first {
            line.push(' ');
            width += 1;
        }
        line.push_str(word);
        width += length;
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::finding::Group;
    use super::*;

    fn findings() -> Vec<Finding> {
        vec![
            Finding::fine(Group::Key, "/k, fingerprint 0a1b2c3d"),
            Finding::fine(Group::Nodes, "one"),
            Finding::warning(
                Group::Nodes,
                "a sentence that is so long that it does not fit into one line of a terminal",
                "a command that is so long that it has to go on in a second line --option   # there",
            ),
            Finding::broken(Group::Nodes, "two", "first\nsecond"),
        ]
    }

    #[test]
    fn findings_are_lines_in_groups() {
        let expect = "\
key        ok       /k, fingerprint 0a1b2c3d
nodes      ok       one
           warning  a sentence that is so long that it does not fit into one
                    line of a terminal
               # there
               a command that is so long that it has to go on in a second line \\
               --option
           BROKEN   two
               first
               second
broken: 1; warnings: 1
";
        assert_eq!(as_text(&findings()), expect);
    }

    #[test]
    fn json_has_the_same_findings() {
        let value: serde_json::Value = serde_json::from_str(&as_json(&findings())).unwrap();
        assert_eq!(value["ok"], false);
        assert_eq!(value["findings"][2]["grade"], "warning");
        assert_eq!(value["findings"][3]["mend"], "first\nsecond");
        assert_eq!(value["findings"][0]["mend"], serde_json::Value::Null);
        let value: serde_json::Value = serde_json::from_str(&as_json(&findings()[..3])).unwrap();
        assert_eq!(value["ok"], true);
    }
}
