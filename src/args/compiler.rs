//! What a compiler's name tells: whose rules its command line follows, and its default language.
//!
//! Only the name is looked at. `cc` and `c++` count as gcc; who knows better (because they are
//! links to clang) passes the name they lead to. Languages live here because the name and the
//! suffix of a file decide them together.

/// Whose rules a command line follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// GNU's.
    Gcc,
    /// LLVM's, with gcc's kind of command line.
    Clang,
}

/// A driver for C or C++.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compiler {
    /// Whose rules its command line follows.
    pub family: Family,
    /// Whether it takes C for C++, as `g++` does.
    pub plus: bool,
}

impl Compiler {
    /// The compiler that is called by this name, with or without directory: `gcc`, `g++-12`,
    /// `x86_64-w64-mingw32-gcc-posix`, `clang++-14`. None for all that is not such a driver
    /// (`cpp`, `gfortran`, `clang-cl`, and `c99-gcc`, which is a script).
    pub fn named(program: &[u8]) -> Option<Self> {
        let name = program.rsplit(|&b| b == b'/').next()?;
        let mut parts: Vec<&[u8]> = name.split(|&b| b == b'-').collect();
        while parts.len() > 1 && is_version(parts[parts.len() - 1]) {
            parts.pop();
        }
        let (last, target) = parts.split_last()?;
        if matches!(target, [b"c89" | b"c99"]) {
            return None;
        }
        let (family, plus) = match *last {
            b"gcc" | b"cc" => (Family::Gcc, false),
            b"g++" | b"c++" => (Family::Gcc, true),
            b"clang" => (Family::Clang, false),
            b"clang++" => (Family::Clang, true),
            _ => return None,
        };
        Some(Self { family, plus })
    }
}

/// Whether a part of a name is a version, or mingw's model of threads.
fn is_version(part: &[u8]) -> bool {
    let digits = part.first().is_some_and(u8::is_ascii_digit)
        && part.iter().all(|b| b.is_ascii_digit() || *b == b'.');
    digits || matches!(part, b"posix" | b"win32")
}

/// A language that is compiled remotely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Language {
    /// C.
    C,
    /// C++.
    Cxx,
    /// Objective-C.
    ObjC,
    /// Objective-C++.
    ObjCxx,
    /// Assembler, preprocessed or not.
    Assembler,
}

impl Language {
    /// Its name for `-x`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Cxx => "c++",
            Self::ObjC => "objective-c",
            Self::ObjCxx => "objective-c++",
            Self::Assembler => "assembler-with-cpp",
        }
    }

    /// The name for `-x` of its preprocessed text.
    pub const fn preprocessed_name(self) -> &'static str {
        match self {
            Self::Assembler => "assembler",
            Self::C => "cpp-output",
            Self::Cxx => "c++-cpp-output",
            Self::ObjC => "objective-c-cpp-output",
            Self::ObjCxx => "objective-c++-cpp-output",
        }
    }
}

/// What a file holds, as far as the driver can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Source of this language.
    Source(Language),
    /// Source of this language that went through the preprocessor, or never needs to.
    Preprocessed(Language),
    /// A header, which would be precompiled.
    Header,
    /// Anything else, objects included.
    Other,
}

impl Content {
    /// By the operand of `-x`; none for `none`, after which suffixes decide again.
    pub(super) fn of_language(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"none" => return None,
            b"c" => Self::Source(Language::C),
            b"c++" => Self::Source(Language::Cxx),
            b"objective-c" => Self::Source(Language::ObjC),
            b"objective-c++" => Self::Source(Language::ObjCxx),
            b"cpp-output" => Self::Preprocessed(Language::C),
            b"c++-cpp-output" => Self::Preprocessed(Language::Cxx),
            b"objective-c-cpp-output" | b"objc-cpp-output" => Self::Preprocessed(Language::ObjC),
            b"objective-c++-cpp-output" | b"objc++-cpp-output" => {
                Self::Preprocessed(Language::ObjCxx)
            }
            b"assembler" => Self::Preprocessed(Language::Assembler),
            b"assembler-with-cpp" => Self::Source(Language::Assembler),
            name if name.ends_with(b"-header") => Self::Header,
            _ => Self::Other,
        })
    }

    /// By the suffix of a file's name.
    pub(super) fn of_file(compiler: Compiler, path: &[u8]) -> Self {
        let name = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
        let Some(dot) = name.iter().rposition(|&b| b == b'.') else {
            return Self::Other;
        };
        let clang = compiler.family == Family::Clang;
        match &name[dot + 1..] {
            b"c" if compiler.plus => Self::Source(Language::Cxx),
            b"c" => Self::Source(Language::C),
            b"cc" | b"cp" | b"cxx" | b"cpp" | b"CPP" | b"c++" | b"C" => Self::Source(Language::Cxx),
            b"CC" | b"CXX" | b"C++" if clang => Self::Source(Language::Cxx),
            b"m" => Self::Source(Language::ObjC),
            b"mm" | b"M" => Self::Source(Language::ObjCxx),
            b"i" if compiler.plus => Self::Preprocessed(Language::Cxx),
            b"i" => Self::Preprocessed(Language::C),
            b"ii" => Self::Preprocessed(Language::Cxx),
            b"mi" => Self::Preprocessed(Language::ObjC),
            b"mii" => Self::Preprocessed(Language::ObjCxx),
            b"h" | b"hh" | b"H" | b"hp" | b"hxx" | b"hpp" | b"HPP" | b"h++" | b"tcc" => {
                Self::Header
            }
            b"s" => Self::Preprocessed(Language::Assembler),
            b"S" => Self::Source(Language::Assembler),
            b"sx" if !clang => Self::Source(Language::Assembler),
            b"asm" if clang => Self::Preprocessed(Language::Assembler),
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_the_compiler() {
        for (name, expect) in [
            ("gcc", Some((Family::Gcc, false))),
            ("/usr/bin/cc", Some((Family::Gcc, false))),
            ("c++", Some((Family::Gcc, true))),
            ("g++-12", Some((Family::Gcc, true))),
            ("gcc-12.2", Some((Family::Gcc, false))),
            ("x86_64-linux-gnu-gcc-12", Some((Family::Gcc, false))),
            ("x86_64-w64-mingw32-g++-posix", Some((Family::Gcc, true))),
            (
                "x86_64-w64-mingw32-gcc-12-win32",
                Some((Family::Gcc, false)),
            ),
            ("arm-linux-gnueabihf-gcc", Some((Family::Gcc, false))),
            ("clang", Some((Family::Clang, false))),
            ("clang++-14", Some((Family::Clang, true))),
            (
                "aarch64-linux-android30-clang++",
                Some((Family::Clang, true)),
            ),
            ("c99-gcc", None),
            ("clang-cl", None),
            ("cpp", None),
            ("gfortran", None),
            ("ice", None),
            ("12", None),
            ("", None),
        ] {
            let found = Compiler::named(name.as_bytes()).map(|c| (c.family, c.plus));
            assert_eq!(found, expect, "{name}");
        }
    }
}
