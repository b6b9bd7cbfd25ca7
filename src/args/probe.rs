//! Recognises the small compiles by which autoconf, CMake and others learn about a machine.
//!
//! Thousands of them are made one after the other, each waited for, and many are expected to
//! fail: nothing is gained by sending one away. They are told by the names that these tools give
//! to files and directories.

/// Whether an input is no file: a question about options, or a few lines in a pipe.
pub(super) fn is_question(input: &[u8]) -> bool {
    matches!(input, b"-" | b"/dev/null" | b"/dev/stdin")
}

/// Whether a file is a probe: by its name, or by a directory on its way.
pub(super) fn is_probe(path: &[u8]) -> bool {
    let mut parts = path.rsplit(|&b| b == b'/');
    parts.next().is_some_and(is_probe_name) || parts.any(is_probe_directory)
}

/// Whether a directory, or one above it, is made for probes.
pub(super) fn is_probe_place(path: &[u8]) -> bool {
    path.split(|&b| b == b'/').any(is_probe_directory)
}

fn is_probe_name(name: &[u8]) -> bool {
    let stem = name.split(|&b| b == b'.').next().unwrap_or_default();
    match stem {
        // autoconf, and Python's distutils.
        b"conftest" | b"_configtest" => true,
        b"tmp" => name.starts_with(b"tmp.conftest."),
        b"CheckIncludeFile"
        | b"CheckIncludeFiles"
        | b"CheckFunctionExists"
        | b"CheckLibraryExists"
        | b"CheckSymbolExists"
        | b"CheckTypeSize"
        | b"CheckPrototypeDefinition"
        | b"CheckStructHasMember"
        | b"CheckVariableExists"
        | b"CheckCompilerVersion"
        | b"CheckForPthreads"
        | b"CheckFortranSource"
        | b"HAVE_FEATURE"
        | b"TestEndianess"
        | b"CMakeCCompilerId"
        | b"CMakeCXXCompilerId"
        | b"CMakeCCompilerABI"
        | b"CMakeCXXCompilerABI"
        | b"testCCompiler"
        | b"testCXXCompiler" => name.contains(&b'.'),
        _ => false,
    }
}

fn is_probe_directory(name: &[u8]) -> bool {
    let named = matches!(
        name,
        b"CMakeTmp"
            | b"CMakeScratch"
            | b"CompilerIdC"
            | b"CompilerIdCXX"
            | b"ShowIncludes"
            | b".sconf_temp"
            | b"meson-private"
            | b"config.tests"
            | b"config-temp"
    );
    named
        || name.starts_with(b"TryCompile-")
        || name.starts_with(b"_CMakeLTOTest-")
        // ffmpeg's configure.
        || name.starts_with(b"ffconf.")
        || (name.starts_with(b"cmTC_") && name.ends_with(b".dir"))
        || name.starts_with(b".conf_check_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_told_by_their_names() {
        for (path, expect) in [
            ("conftest.c", true),
            ("/tmp/x/conftest.cpp", true),
            ("tmp.conftest.c", true),
            ("tmp.c", false),
            ("conftest_more.c", false),
            ("CheckTypeSize.c", true),
            ("CheckTypeSizes.c", false),
            ("/b/CMakeFiles/CMakeTmp/src.c", true),
            ("/b/CMakeFiles/CMakeScratch/TryCompile-a1/src.cxx", true),
            ("CMakeFiles/cmTC_5ad2a.dir/x.c.o", true),
            ("CMakeFiles/app.dir/x.c.o", false),
            ("meson-private/tmpq/testfile.c", true),
            ("src/CMakeTmp.c", false),
            ("CMakeFiles/3.25.1/CompilerIdC/CMakeCCompilerId.c", true),
            ("/b/CMakeFiles/_CMakeLTOTest-C/src/foo.c", true),
            ("_configtest.c", true),
            ("/tmp/ffconf.x7Ab/test.c", true),
            ("config.tests/common/ssl/main.cpp", true),
        ] {
            assert_eq!(is_probe(path.as_bytes()), expect, "{path}");
        }
    }
}
