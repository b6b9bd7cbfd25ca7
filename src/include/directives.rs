//! Reads from one file's bytes everything that could make a compiler open another file.
//!
//! It knows no other file, no search path and no condition: text in a skipped branch counts. It
//! must not miss anything in adversarial text, so comments, literals, raw strings, spliced lines
//! and trigraphs are followed exactly; where the dialect decides (raw strings in C, trigraphs, a
//! lone carriage return as a line's end) the file is read each way and the findings are united.

use memchr::memmem;

use super::assembly::{assembly, line_at};
use super::definitions::Definitions;
use super::reader::Reader;
use super::splices::clean;

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
    /// Hashes of all words in conditions but the operands of `defined`, as
    /// [`name_hash`](super::words::name_hash) makes them; sorted.
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

/// What an operator or directive of this name does with a file.
pub fn asks(callee: &[u8]) -> Option<Use> {
    match callee {
        b"__has_include" | b"__has_include__" => Some(Use::Probe),
        b"__has_include_next" | b"__has_include_next__" => Some(Use::ProbeNext),
        b"__has_embed" => Some(Use::Embed),
        _ => None,
    }
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
