//! autoconf, automake and libtool.

use std::path::Path;

use crate::build::{Build, write};
use crate::have;
use crate::world::World;

const PROJECT: &[(&str, &str)] = &[
    (
        "configure.ac",
        "AC_INIT([company], [1.0])
AM_INIT_AUTOMAKE([foreign subdir-objects])
AC_CONFIG_HEADERS([config.h])
AC_PROG_CC
AC_PROG_CXX
AM_PROG_AR
LT_INIT
AC_CHECK_HEADERS([stdint.h no_such_header.h])
AC_CHECK_FUNCS([snprintf no_such_function])
AC_C_BIGENDIAN
AC_CONFIG_FILES([Makefile])
AC_OUTPUT
",
    ),
    (
        "Makefile.am",
        "ACLOCAL_AMFLAGS = -I m4
lib_LTLIBRARIES = libwords.la
libwords_la_SOURCES = one.c sub/two.c three.cc
libwords_la_LDFLAGS = -version-info 3:1:2
noinst_LTLIBRARIES = libinner.la
libinner_la_SOURCES = inner.c
libwords_la_LIBADD = libinner.la
bin_PROGRAMS = program
program_SOURCES = main.c
program_CPPFLAGS = -DPROGRAM='\"a program\"'
program_LDADD = libwords.la
",
    ),
    ("m4/README", "macros\n"),
    (
        "words.h",
        "#ifdef __cplusplus\nextern \"C\" {\n#endif\nint one(void), two(void), three(void), inner(void);\n#ifdef __cplusplus\n}\n#endif\n",
    ),
    (
        "one.c",
        "#include \"config.h\"\n#include \"words.h\"\n#include <stdio.h>\nint one(void) { return puts(PACKAGE) + inner(); }\n",
    ),
    (
        "sub/two.c",
        "#include <config.h>\n#include \"words.h\"\nint two(void) {\n#ifdef HAVE_NO_SUCH_HEADER_H\n#error wrong\n#endif\nreturn sizeof(long); }\n",
    ),
    (
        "three.cc",
        "#include \"words.h\"\n#include <string>\nint three(void) { return std::string(\"three\").size(); }\n",
    ),
    (
        "inner.c",
        "#include \"words.h\"\nint inner(void) { return __LINE__; }\n",
    ),
    (
        "main.c",
        "#include \"words.h\"\n#include <stdio.h>\nint main(void) { return puts(PROGRAM) + one() + two() + three() == 0; }\n",
    ),
];

#[test]
fn a_project_of_autoconf_automake_and_libtool_is_built_elsewhere() {
    if !have(&["autoreconf", "automake", "libtoolize", "m4"]) {
        return;
    }
    let world = World::start();
    let sources = |directory: &Path| write(directory, PROJECT);
    let build = Build {
        name: "autotools",
        prepare: &sources,
        script: "autoreconf -i
            ./configure CC=\"$ICE gcc\" CXX=\"$ICE g++\"
            make -j8
            ./program",
        with: &[],
        // Four of the library's twice, with and without -fPIC, and the program's.
        compiles_min: 9,
    };
    let jobs = build.check(&world).jobs;
    let is_probe = |name: &&str| name.contains("conftest");
    let probes = jobs.iter().filter_map(|job| job.file.as_deref());
    // Nobody was asked about a probe, so nobody named its file.
    assert_eq!(probes.filter(is_probe).count(), 0, "{jobs:#?}");
    let at_once = jobs.iter().filter(|job| job.word() == "at-once").count();
    assert!(
        at_once >= 20,
        "configure has asked the compiler itself: {at_once}"
    );
}
