//! CMake: the launcher, detection of compilers, Ninja and make, precompiled headers, unity builds.

use std::path::Path;

use crate::build::{Build, write};
use crate::have;
use crate::world::World;

const PROJECT: &[(&str, &str)] = &[
    (
        "src/CMakeLists.txt",
        "cmake_minimum_required(VERSION 3.16)
project(company C CXX)
include(CheckIncludeFile)
include(CheckFunctionExists)
include(CheckCXXSourceCompiles)
check_include_file(stdint.h HAVE_STDINT)
check_function_exists(nothing_has_this_name HAVE_NOTHING)
check_cxx_source_compiles(\"int main() { return 0; }\" CXX_WORKS)
configure_file(config.h.in config.h)
include_directories(${CMAKE_CURRENT_BINARY_DIR})
add_custom_command(OUTPUT made.h COMMAND ${CMAKE_COMMAND} -E copy
  ${CMAKE_CURRENT_SOURCE_DIR}/made.in made.h DEPENDS made.in)
add_library(words STATIC one.c two.c three.c made.h)
add_library(shared SHARED one.c two.c made.h)
add_dependencies(shared words)
add_library(heavy OBJECT h1.cc h2.cc h3.cc h4.cc)
target_precompile_headers(heavy PRIVATE <vector> <string> \"heavy.h\")
add_library(unity OBJECT u1.cc u2.cc u3.cc u4.cc u5.cc)
set_target_properties(unity PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 2)
add_executable(program main.cc $<TARGET_OBJECTS:heavy> $<TARGET_OBJECTS:unity>)
target_link_libraries(program words)
",
    ),
    (
        "src/config.h.in",
        "#cmakedefine HAVE_STDINT\n#cmakedefine HAVE_NOTHING\n",
    ),
    ("src/made.in", "#define MADE 7\n"),
    (
        "src/one.c",
        "#include \"config.h\"\n#include \"made.h\"\nint one(void) { return MADE; }\n",
    ),
    (
        "src/two.c",
        "#include <stdio.h>\nint two(void) { return printf(\"two\\n\"); }\n",
    ),
    (
        "src/three.c",
        "#include \"made.h\"\nint three(void) { return __LINE__; }\n",
    ),
    (
        "src/heavy.h",
        "#pragma once\ninline int heavy(int x) { return x + 1; }\n",
    ),
    (
        "src/h1.cc",
        "int h1() { std::vector<int> v(3); return heavy(v[0]); }\n",
    ),
    ("src/h2.cc", "std::string h2() { return \"h\"; }\n"),
    (
        "src/h3.cc",
        "int h3(std::string s) { return heavy(s.size()); }\n",
    ),
    (
        "src/h4.cc",
        "#include <map>\nint h4(std::map<int, int> m) { return m[1]; }\n",
    ),
    (
        "src/u1.cc",
        "#include <algorithm>\nint u1() { return std::max(1, 2); }\n",
    ),
    (
        "src/u2.cc",
        "static int helper2() { return 2; }\nint u2() { return helper2(); }\n",
    ),
    ("src/u3.cc", "int u3() { return 3; }\n"),
    ("src/u4.cc", "int u4() { return 4; }\n"),
    ("src/u5.cc", "int u5() { return 5; }\n"),
    (
        "src/main.cc",
        "extern \"C\" { int one(void); int two(void); int three(void); }\nint h1(); int u1();\n\
         int main() { return one() + two() + three() + h1() + u1() == 0; }\n",
    ),
];

fn sources(directory: &Path) {
    write(directory, PROJECT);
}

fn check(tools: &[&str], name: &str, script: &str, with_links: bool) {
    if !have(tools) {
        return;
    }
    let world = World::start();
    let path = format!("{}:/usr/bin:/bin", world.text("links"));
    let links = [("PATH", &path[..]), ("ICE", "")];
    let build = Build {
        name,
        prepare: &sources,
        script,
        with: if with_links { &links } else { &[] },
        // 3 + 2 + 4 + 3 + 1, and the precompiled header.
        compiles_min: 13,
    };
    let jobs = build.check(&world).jobs;
    let is_probe = |file: &str| file.contains("CMakeC") || file.contains("Check");
    let probes = jobs
        .iter()
        .filter(|job| job.file.as_deref().is_some_and(is_probe));
    let asked: Vec<_> = probes.filter(|job| job.word() != "at-once").collect();
    assert!(asked.is_empty(), "probes asked the daemon: {asked:#?}");
}

const LAUNCHER: &str = "-DCMAKE_C_COMPILER_LAUNCHER=$ICE -DCMAKE_CXX_COMPILER_LAUNCHER=$ICE";

#[test]
fn cmake_with_ninja_takes_ice_as_its_launcher() {
    let script = format!(
        "cmake -S src -B build -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo {LAUNCHER}
         ninja -C build -j8
         ./build/program"
    );
    check(&["cmake", "ninja"], "ninja", &script, false);
}

#[test]
fn cmake_with_make_finds_links_to_ice() {
    let script = "cmake -S src -B build -G 'Unix Makefiles' -DCMAKE_BUILD_TYPE=Debug
         make -C build -j8
         ./build/program";
    check(&["cmake"], "make", script, true);
}
