//! Command lines and what [`super::classify`] makes of them, one row each.

use super::*;
use crate::id::{AbsPath, Bytes};

/// A verdict in one line: `local WORD SUBJECT`, or `LANGUAGE INPUT -> OUTPUT` and whatever is not
/// the usual.
fn verdict(line: &str) -> String {
    verdict_in("/home/u/src", &[], line)
}

fn verdict_in(cwd: &str, env: &[(&str, &str)], line: &str) -> String {
    let argv = words(line);
    let cwd = AbsPath::parse(cwd).unwrap();
    let env: Vec<(Bytes, Bytes)> = env.iter().map(|&(k, v)| (k.into(), v.into())).collect();
    let invocation = Invocation {
        program: &argv[0],
        argv: &argv,
        cwd: &cwd,
        env: &env,
    };
    let mut read = |name: &[u8]| match name {
        b"r" => Some(b"-c a.c -DX=\"1 2\"".to_vec()),
        b"nested" => Some(b"@r -O2".to_vec()),
        b"loop" => Some(b"@loop".to_vec()),
        _ => None,
    };
    match classify(&invocation, &mut read) {
        Verdict::Local(reason) => {
            let subject = reason.subject.to_string();
            format!("local {} {subject}", reason.word())
                .trim_end()
                .to_owned()
        }
        Verdict::Distribute(plan) => describe(&plan, &argv),
    }
}

fn words(line: &str) -> Vec<Bytes> {
    line.split_whitespace()
        .map(|word| Bytes::from(if word == "''" { "" } else { word }))
        .collect()
}

fn describe(plan: &Plan, argv: &[Bytes]) -> String {
    assert_eq!(plan.argv, argv);
    let mut units = Vec::new();
    for unit in &plan.units {
        if let Some(index) = unit.index {
            assert_eq!(plan.argv[index], unit.input);
        }
        let text = if unit.is_text { "preprocessed " } else { "" };
        let language = unit.language.name();
        units.push(format!(
            "{text}{language} {} -> {}",
            unit.input, unit.output
        ));
    }
    if let Some(steps) = &plan.preprocessed {
        assert_eq!(steps.compile[steps.compile_input], *plan.name());
    }
    let mut text = units.join(", ");
    let mut add = |name: &str, list: &[Bytes]| {
        if !list.is_empty() {
            let list: Vec<_> = list.iter().map(ToString::to_string).collect();
            text += &format!(" {name}({})", list.join(" "));
        }
    };
    add("in", &plan.writable);
    add("defines", &plan.defines);
    add("reads", &plan.extra_inputs);
    let forced: Vec<_> = plan.forced.iter().map(|file| file.name.clone()).collect();
    add("forced", &forced);
    let deps = plan
        .units
        .iter()
        .filter_map(|unit| unit.dependencies.as_ref());
    add(
        "deps",
        &deps.map(|file| file.path.clone()).collect::<Vec<_>>(),
    );
    add("assembler", &plan.assembler_search);
    let profiles = plan.profiles.iter();
    let profiles = profiles.map(|one| Bytes([&one.directory[..], b"/*", &one.suffix].concat()));
    add("profiles", &profiles.collect::<Vec<_>>());
    add("prefixes", &plan.prefixes);
    if plan.debug {
        text += " debug";
    }
    if plan.native.is_some() {
        text += " native";
    }
    if plan.preprocessed.as_ref().is_some_and(|steps| !steps.exact) && !plan.debug {
        text += " inexact";
    }
    text
}

fn hold(rows: &[(&str, &str)]) {
    for (line, expect) in rows {
        assert_eq!(verdict(line), *expect, "{line}");
    }
}

#[test]
fn one_input_to_one_object_or_assembly_may_go() {
    hold(&[
        ("gcc -c a.c", "c a.c -> a.o in(.)"),
        ("gcc -S a.c", "c a.c -> a.s in(.)"),
        ("gcc -c -S a.c", "c a.c -> a.s in(.)"),
        ("gcc -S -c a.c", "c a.c -> a.s in(.)"),
        ("gcc --compile a.c", "c a.c -> a.o in(.)"),
        ("g++ -c a.cc -o b/a.o", "c++ a.cc -> b/a.o in(b)"),
        ("gcc -ofoo -c ../x/a.c", "c ../x/a.c -> foo in(.)"),
        ("gcc -c a.c --output=b/c.o", "c a.c -> b/c.o in(b)"),
        ("gcc -c a.c --output b/c.o", "c a.c -> b/c.o in(b)"),
        ("gcc -c a.c -o /x.o", "c a.c -> /x.o in(/)"),
        ("gcc -c a.c -o d//x.o", "c a.c -> d//x.o in(d)"),
        ("gcc -c sub.d/a.b.c", "c sub.d/a.b.c -> a.b.o in(.)"),
        ("gcc -x c -c plain", "c plain -> plain.o in(.)"),
        ("gcc -c -xc++ ./plain", "c++ ./plain -> plain.o in(.)"),
        ("gcc -x c++ -c a.c", "c++ a.c -> a.o in(.)"),
        ("gcc -c a.c -x c++", "c a.c -> a.o in(.)"),
        ("gcc -x c++ -x none -c a.c", "c a.c -> a.o in(.)"),
        ("gcc --language=c++ -c a.c", "c++ a.c -> a.o in(.)"),
        ("g++ -c a.c", "c++ a.c -> a.o in(.)"),
        ("clang++ -c a.c", "c++ a.c -> a.o in(.)"),
        ("gcc -c a.m", "objective-c a.m -> a.o in(.)"),
        ("gcc -c a.mm", "objective-c++ a.mm -> a.o in(.)"),
        ("gcc -c a.C", "c++ a.C -> a.o in(.)"),
        ("clang -c a.CC", "c++ a.CC -> a.o in(.)"),
        ("gcc -c a.CC", "local unknown-language a.CC"),
        ("clang -c -- -a.c", "c -a.c -> -a.o in(.)"),
        ("clang -c -emit-llvm a.c", "c a.c -> a.bc in(.)"),
        ("clang -S -emit-llvm a.c", "c a.c -> a.ll in(.)"),
        ("x86_64-w64-mingw32-gcc-posix -c a.c", "c a.c -> a.o in(.)"),
        (
            "gcc -pipe -O2 -fPIC -Wall -Wextra -std=gnu11 -m64 -pthread -c a.c",
            "c a.c -> a.o in(.)",
        ),
        (
            "gcc -c a.c -lm -Llib -Wl,-z,now -Xlinker x.o",
            "c a.c -> a.o in(.)",
        ),
        (
            "clang -target arm-linux-gnueabihf -c a.c",
            "c a.c -> a.o in(.)",
        ),
        (
            "gcc --param max-inline-insns-single=1 -c a.c",
            "c a.c -> a.o in(.)",
        ),
    ]);
}

#[test]
fn what_compiles_nothing_or_more_than_one_file_stays() {
    hold(&[
        ("gcc", "local no-input"),
        ("gcc -c", "local no-input"),
        ("gcc -v", "local no-input"),
        ("gcc --version", "local information --version"),
        ("gcc -c a.c -dumpmachine", "local information -dumpmachine"),
        (
            "gcc -print-file-name=x",
            "local information -print-file-name=x",
        ),
        ("gcc -### -c a.c", "local information -###"),
        ("gcc -march=help -c a.c", "local information -march=help"),
        ("gcc -E a.c", "local preprocess-only -E"),
        ("gcc -c -E a.c", "local preprocess-only -E"),
        ("gcc -M a.c", "local preprocess-only -M"),
        ("gcc -MM -c a.c", "local preprocess-only -MM"),
        ("gcc a.c", "local link"),
        ("gcc a.o b.o -o p", "local link"),
        ("gcc -c a.c b.c", "c a.c -> a.o, c b.c -> b.o in(.)"),
        ("gcc -c a.c b.o", "local unknown-language b.o"),
        ("gcc -c a.c x/a.cc", "local several-inputs"),
        ("gcc -c a.c b.c -o c", "local several-inputs"),
        ("gcc -MD -MF d -c a.c b.c", "local several-inputs"),
        ("gcc -Wp,-MD,d -c a.c b.c", "local several-inputs"),
        (
            "gcc -MD -c a.c -x c++ x/b b.S b.s -x none c.c",
            "local several-inputs",
        ),
        (
            "gcc -MD -c a.c -x c++ x/b -x none d.S e.s",
            "c a.c -> a.o, c++ x/b -> b.o, assembler-with-cpp d.S -> d.o, \
             preprocessed assembler-with-cpp e.s -> e.o in(.) deps(a.d b.d d.d)",
        ),
        ("gcc -S a.c b.S", "local assembler b.S"),
        ("gcc -fsyntax-only a.c", "local syntax-only"),
        (
            "gcc -fsyntax-only -c a.c",
            "local syntax-only -fsyntax-only",
        ),
        ("gcc -v -c a.c", "local verbose -v"),
        ("gcc -time -c a.c", "local timing -time"),
        ("gcc -ftime-report -c a.c", "local timing -ftime-report"),
        ("clang --analyze -c a.c", "local other-output --analyze"),
        ("clang -cc1 -c a.c", "local compiler-lookup -cc1"),
    ]);
}

#[test]
fn inputs_and_outputs_that_are_not_plain_files_stay() {
    hold(&[
        ("gcc -x c -c -", "local standard-input -"),
        ("gcc -x c -c /dev/stdin", "local device-file /dev/stdin"),
        ("gcc -x c -c /dev/fd/63", "local device-file /dev/fd/63"),
        (
            "gcc -x c -c //proc/self/fd/0",
            "local device-file //proc/self/fd/0",
        ),
        ("gcc -c a.c -o -", "local standard-output"),
        ("gcc -c a.c -o /dev/null", "local device-file /dev/null"),
        ("gcc -c a.c -o x/", "local unclear-output x/"),
        ("gcc -c a.c -o ''", "local unclear-output"),
        ("gcc -c a.c -o a -o b", "local unclear-output b"),
        ("gcc -c .c", "local unclear-output .c"),
        ("gcc -c ''", "local no-input"),
        ("gcc -c a.c -o", "local missing-value -o"),
        (
            "gcc -c a.c -MD -MF /dev/stdout",
            "local device-file /dev/stdout",
        ),
        ("gcc -c a.c -MD -MF -", "local standard-output"),
        (
            "gcc -c a.c -include /dev/stdin",
            "local device-file /dev/stdin",
        ),
    ]);
}

#[test]
fn languages_that_do_not_travel_stay() {
    hold(&[
        (
            "gcc -c a.s",
            "preprocessed assembler-with-cpp a.s -> a.o in(.)",
        ),
        ("gcc -c a.S", "assembler-with-cpp a.S -> a.o in(.)"),
        (
            "gcc -x assembler-with-cpp -c a.c",
            "assembler-with-cpp a.c -> a.o in(.)",
        ),
        ("gcc -c a.i", "preprocessed c a.i -> a.o in(.)"),
        ("g++ -c a.ii", "preprocessed c++ a.ii -> a.o in(.)"),
        (
            "gcc -x cpp-output -c a.c",
            "preprocessed c a.c -> a.o in(.)",
        ),
        (
            "gcc -fpreprocessed -c a.c",
            "local preprocessed-input -fpreprocessed",
        ),
        ("gcc -c a.h", "local precompiled-header a.h"),
        (
            "gcc -x c++-header -c a.hpp -o a.gch",
            "local precompiled-header a.hpp",
        ),
        (
            "clang -include-pch a.pch -c a.c",
            "c a.c -> a.o in(.) reads(a.pch) forced(a) inexact",
        ),
        ("gcc -fmodules-ts -c a.cc", "local modules -fmodules-ts"),
        (
            "clang -fmodule-file=x=y -c a.cc",
            "local modules -fmodule-file=x=y",
        ),
        ("clang -c a.cppm", "local unknown-language a.cppm"),
        ("gcc -c a.f90", "local unknown-language a.f90"),
        ("clang -x cuda -c a.cu", "local unknown-language a.cu"),
        ("gcc -c a", "local unknown-language a"),
        ("gcc -c a.o", "local unknown-language a.o"),
        ("gfortran -c a.c", "local unknown-compiler gfortran"),
    ]);
}

#[test]
fn dependency_files_are_known() {
    hold(&[
        ("gcc -MD -c a.c", "c a.c -> a.o in(.) deps(a.d)"),
        (
            "gcc -MMD -c x/a.c -o o/b.o",
            "c x/a.c -> o/b.o in(o) deps(o/b.d)",
        ),
        (
            "gcc -MD -c a.c -o o.x/b",
            "c a.c -> o.x/b in(o.x) deps(o.x/b.d)",
        ),
        (
            "gcc -MD -MF d/x.d -c a.c",
            "c a.c -> a.o in(. d) deps(d/x.d)",
        ),
        (
            "gcc -MD -MFd/x.d -MTy -MP -c a.c",
            "c a.c -> a.o in(. d) deps(d/x.d)",
        ),
        (
            "gcc -Wp,-MMD,d/x.d -c a.c -o o/a.o",
            "c a.c -> o/a.o in(o d) deps(d/x.d)",
        ),
        (
            "gcc -Wp,-MD,x.d,-MT,y -MF z -c a.c",
            "local dependency-form",
        ),
        (
            "gcc -Xpreprocessor -MD -Xpreprocessor x.d -c a.c",
            "c a.c -> a.o in(.) deps(x.d)",
        ),
        ("gcc -Wp,-MD -c a.c", "local missing-value -MD"),
        (
            "gcc -Wp,-MD,/dev/null -c a.c",
            "local device-file /dev/null",
        ),
        ("gcc -MD -Wp,-MD,x -c a.c", "local dependency-form"),
        ("gcc -MD -MF a -MF b -c a.c", "local dependency-form"),
        ("gcc -MF a -c a.c", "local dependency-form"),
        ("gcc -MD -MG -c a.c", "local dependency-form -MG"),
        ("clang -MJ x.json -c a.c", "local dependency-form -MJ"),
        ("gcc -Mfoo -c a.c", "local unknown-option -Mfoo"),
    ]);
}

#[test]
fn macros_and_forced_files_are_told_in_order() {
    hold(&[
        (
            "gcc -DA -D B=1 -UA -Wp,-D_F=2,-UQ -DC -c a.c",
            "c a.c -> a.o in(.) defines(-DA -DB=1 -UA -DC -D_F=2 -UQ)",
        ),
        (
            "gcc --define-macro A --undefine-macro=B -c a.c",
            "c a.c -> a.o in(.) defines(-DA -UB)",
        ),
        (
            "gcc -include config.h -imacros m.h --include=n.h -c a.c",
            "c a.c -> a.o in(.) forced(config.h m.h n.h)",
        ),
        (
            "gcc -Wp,-include,x.h -c a.c",
            "c a.c -> a.o in(.) forced(x.h)",
        ),
        ("gcc -Xpreprocessor -x -c a.c", "local inner-option -x"),
    ]);
}

#[test]
fn side_files_fall_into_writable_directories() {
    hold(&[
        (
            "gcc --coverage -c a.c -o o/a.o",
            "c a.c -> o/a.o in(o .) inexact",
        ),
        ("gcc -fprofile-arcs -c a.c", "c a.c -> a.o in(.) inexact"),
        (
            "gcc -save-temps -c a.c -o o/a.o",
            "c a.c -> o/a.o in(o .) inexact",
        ),
        (
            "gcc -save-temps=obj -c a.c -o o/a.o",
            "c a.c -> o/a.o in(o .) inexact",
        ),
        (
            "gcc -g -gsplit-dwarf -c a.c -o o/a.o",
            "c a.c -> o/a.o in(o .) debug",
        ),
        (
            "gcc -fstack-usage -c a.c -o o/a.o",
            "c a.c -> o/a.o in(o .) inexact",
        ),
        ("gcc -fdump-tree-all -c a.c", "c a.c -> a.o in(.) inexact"),
        ("gcc -fdump-tree-all=x -c a.c", "c a.c -> a.o in(.) inexact"),
        (
            "gcc -fopt-info-vec=x.txt -c a.c",
            "c a.c -> a.o in(.) inexact",
        ),
        ("gcc -da -c a.c", "c a.c -> a.o in(.) inexact"),
        ("gcc -aux-info p/a.X -c a.c", "c a.c -> a.o in(. p) inexact"),
        ("gcc -dumpdir d/ -c a.c", "c a.c -> a.o in(. d) inexact"),
        (
            "clang -ftime-trace -c a.c -o o/a.o",
            "c a.c -> o/a.o in(o .) inexact",
        ),
        ("gcc -fdiagnostics-format=json -c a.c", "c a.c -> a.o in(.)"),
        ("gcc -s -c a.c", "c a.c -> a.o in(.)"),
        (
            "gcc -dumpbase x/y -dumpdir z/w- -c a.c",
            "c a.c -> a.o in(. x z) inexact",
        ),
        (
            "gcc -fdump-tree-all=/dev/null -c a.c",
            "local device-file /dev/null",
        ),
        (
            "gcc -fdump-tree-all=d/x -fdump-rtl-all=stderr -c a.c",
            "c a.c -> a.o in(. d) inexact",
        ),
        ("gcc -Wa,-a=l/x -c a.c", "c a.c -> a.o in(. l)"),
        ("gcc -Wa,-a=/dev/null -c a.c", "local device-file /dev/null"),
    ]);
}

#[test]
fn debug_information_is_known() {
    hold(&[
        ("gcc -g -c a.c", "c a.c -> a.o in(.) debug"),
        ("gcc -ggdb3 -c a.c", "c a.c -> a.o in(.) debug"),
        ("gcc -gdwarf-5 -c a.c", "c a.c -> a.o in(.) debug"),
        (
            "clang -gline-tables-only -c a.c",
            "c a.c -> a.o in(.) debug",
        ),
        ("gcc -g -g0 -c a.c", "c a.c -> a.o in(.)"),
        ("gcc -g0 -g2 -c a.c", "c a.c -> a.o in(.) debug"),
        (
            "gcc -gz -grecord-gcc-switches -gno-column-info -c a.c",
            "c a.c -> a.o in(.)",
        ),
        ("gcc -Wa,-g -c a.c", "c a.c -> a.o in(.) debug"),
        ("gcc -flto -c a.c", "c a.c -> a.o in(.) inexact"),
        (
            "gcc -fsanitize=undefined -c a.c",
            "c a.c -> a.o in(.) inexact",
        ),
    ]);
}

#[test]
fn files_that_options_name_travel_or_keep_the_compile() {
    hold(&[
        (
            "clang -fsanitize=address -fsanitize-ignorelist=l.txt -c a.c",
            "c a.c -> a.o in(.) reads(l.txt) inexact",
        ),
        (
            "clang -fprofile-instr-use=p.data -c a.c",
            "c a.c -> a.o in(.) reads(p.data/default.profdata p.data/code.prof p.data) inexact",
        ),
        (
            "clang -fprofile-use=p.data -c a.c",
            "c a.c -> a.o in(.) reads(p.data/default.profdata p.data/code.prof p.data) inexact",
        ),
        (
            "gcc -fauto-profile=p.afdo -c a.c",
            "c a.c -> a.o in(.) reads(p.afdo)",
        ),
        (
            "gcc -fprofile-use=dir -c a.c",
            "c a.c -> a.o in(.) reads(dir) profiles(./*a.gcda dir/*a.gcda) inexact",
        ),
        (
            "gcc -fprofile-use -c a.c",
            "c a.c -> a.o in(.) reads(fbdata.afdo) profiles(./*a.gcda) inexact",
        ),
        (
            "gcc -fprofile-new=x -c a.c",
            "local profile -fprofile-new=x",
        ),
        (
            "gcc -fprofile-generate=dir -c a.c",
            "c a.c -> a.o in(.) inexact",
        ),
        ("gcc -fplugin=p.so -c a.c", "local plugin -fplugin=p.so"),
        (
            "clang -fpass-plugin=p.so -c a.c",
            "local plugin -fpass-plugin=p.so",
        ),
        ("gcc -specs=x.specs -c a.c", "c a.c -> a.o in(.) inexact"),
        ("gcc -B dir -c a.c", "c a.c -> a.o in(.) prefixes(dir)"),
        ("gcc -Bdir -c a.c", "c a.c -> a.o in(.) prefixes(dir)"),
        ("gcc -B /dev/fd -c a.c", "local device-file /dev/fd"),
        ("gcc -Wa,@r,-L -c a.c", "local assembler-option -c"),
        ("gcc -Wa,@none -c a.c", "local response-file @none"),
        ("clang -Wa,@r -c a.c", "local assembler-option @r"),
        (
            "gcc -wrapper valgrind -c a.c",
            "local compiler-lookup -wrapper",
        ),
        (
            "gcc -resource-dir d -c a.c",
            "local unknown-option -resource-dir",
        ),
        ("clang --config x.cfg -c a.c", "c a.c -> a.o in(.) inexact"),
        (
            "clang -resource-dir d -c a.c",
            "c a.c -> a.o in(.) profiles(d/share/*.txt)",
        ),
        (
            "clang -ivfsoverlay o.yaml -c a.c",
            "local virtual-files -ivfsoverlay",
        ),
        ("clang -I x.hmap -c a.c", "local virtual-files x.hmap"),
        (
            "clang -working-directory d -c a.c",
            "local working-directory -working-directory",
        ),
        (
            "clang -fno-integrated-as -c a.c",
            "c a.c -> a.o in(.) inexact",
        ),
        (
            "clang -fopenmp-targets=nvptx64 -c a.c",
            "local offload -fopenmp-targets=nvptx64",
        ),
        (
            "gcc -fpre-include=x.h -c a.c",
            "local unknown-option -fpre-include=x.h",
        ),
        (
            "gcc -ffuture=some/file -c a.c",
            "local unknown-option -ffuture=some/file",
        ),
        (
            "gcc -ffuture-ignorelist=x -c a.c",
            "local unknown-option -ffuture-ignorelist=x",
        ),
        ("gcc -mindirect-branch=keep -c a.c", "c a.c -> a.o in(.)"),
        (
            "clang -fsanitize-ignorelist= -c a.c",
            "local missing-value -fsanitize-ignorelist=",
        ),
        ("gcc -fversion -c a.c", "local information -fversion"),
        (
            "gcc -ffuture=file.txt -c a.c",
            "local unknown-option -ffuture=file.txt",
        ),
        (
            "gcc -ffuture=12.5 -mfuture=x -Wfuture=3 -c a.c",
            "c a.c -> a.o in(.)",
        ),
        ("gcc -qfuture -c a.c", "local unknown-option -qfuture"),
        ("gcc --future=x -c a.c", "local unknown-option --future=x"),
        ("gcc -- a.c -c", "local unknown-option --"),
        ("gcc -march=native -c a.c", "c a.c -> a.o in(.) native"),
        ("gcc -mtune=native -c a.c", "c a.c -> a.o in(.) native"),
        ("gcc -march=x86-64-v3 -c a.c", "c a.c -> a.o in(.)"),
        (
            "gcc -finput-charset=latin1 -c a.c",
            "local charset -finput-charset=latin1",
        ),
        ("gcc -finput-charset=UTF-8 -c a.c", "c a.c -> a.o in(.)"),
        (
            "gcc -fdebug-prefix-map=/a/b=. -frandom-seed=x/a.c -c a.c",
            "c a.c -> a.o in(.)",
        ),
    ]);
}

#[test]
fn what_is_handed_on_is_looked_at_piece_by_piece() {
    hold(&[
        ("gcc -Wa,--noexecstack -c a.c", "c a.c -> a.o in(.)"),
        ("gcc -Wa,-al=list.txt,-L -c a.c", "c a.c -> a.o in(.)"),
        ("gcc -Wa,-L,-al=list.txt -c a.c", "c a.c -> a.o in(.)"),
        (
            "gcc -Xassembler -Idir -c a.c",
            "c a.c -> a.o in(.) assembler(dir)",
        ),
        (
            "clang -Xclang -disable-O0-optnone -c a.c",
            "c a.c -> a.o in(.) inexact",
        ),
        (
            "clang -Xclang -load -Xclang p.so -c a.c",
            "local plugin -load",
        ),
        (
            "clang -Xclang -include-pch -Xclang x.pch -c a.c",
            "c a.c -> a.o in(.) reads(x.pch) forced(x) inexact",
        ),
        (
            "clang -mllvm -inline-threshold=9 -c a.c",
            "c a.c -> a.o in(.) inexact",
        ),
        ("clang -mllvm -x=file -c a.c", "local inner-option -x=file"),
        (
            "gcc -Xclang -disable-O0-optnone -c a.c",
            "local unknown-option -Xclang",
        ),
    ]);
}

#[test]
fn response_files_travel_with_the_unchanged_command() {
    hold(&[
        (
            "gcc @r -o a.o",
            "c a.c -> a.o in(.) defines(-DX=1 2) reads(r)",
        ),
        (
            "gcc @nested",
            "c a.c -> a.o in(.) defines(-DX=1 2) reads(nested r)",
        ),
        ("gcc @loop", "local response-file @loop"),
        ("gcc -c a.c @none", "local response-file @none"),
    ]);
}

#[test]
fn probes_of_build_systems_stay() {
    hold(&[
        ("gcc -c conftest.c", "local configure-probe conftest.c"),
        (
            "gcc -o conftest conftest.c",
            "local configure-probe conftest.c",
        ),
        (
            "cc -o CMakeFiles/cmTC_1.dir/a.c.o -c /usr/share/a.c",
            "local configure-probe CMakeFiles/cmTC_1.dir/a.c.o",
        ),
    ]);
    for (cwd, expect) in [
        (
            "/b/CMakeFiles/CMakeScratch/TryCompile-x",
            "local configure-probe",
        ),
        ("/b/CMakeFiles", "c src.c -> src.o in(.)"),
    ] {
        assert!(
            verdict_in(cwd, &[], "gcc -c src.c").starts_with(expect),
            "{cwd}"
        );
    }
}

#[test]
fn some_variables_keep_the_compile() {
    for (name, line, expect) in [
        ("CPATH", "gcc -c a.c", "c a.c -> a.o in(.)"),
        (
            "GCC_EXEC_PREFIX",
            "gcc -c a.c",
            "local environment GCC_EXEC_PREFIX",
        ),
        (
            "COMPILER_PATH",
            "gcc -c a.c",
            "local environment COMPILER_PATH",
        ),
        (
            "DEPENDENCIES_OUTPUT",
            "gcc -c a.c",
            "local environment DEPENDENCIES_OUTPUT",
        ),
        ("LD_PRELOAD", "gcc -c a.c", "local environment LD_PRELOAD"),
        (
            "LLVM_OVERRIDE_PRODUCER",
            "clang -c a.c",
            "local environment LLVM_OVERRIDE_PRODUCER",
        ),
        ("LIBRARY_PATH", "gcc -c a.c", "c a.c -> a.o in(.)"),
        (
            "SUNPRO_DEPENDENCIES",
            "gcc -c a.c",
            "local environment SUNPRO_DEPENDENCIES",
        ),
        ("CCC_OVERRIDE_OPTIONS", "gcc -c a.c", "c a.c -> a.o in(.)"),
        (
            "CCC_OVERRIDE_OPTIONS",
            "clang -c a.c",
            "local environment CCC_OVERRIDE_OPTIONS",
        ),
        (
            "CC_PRINT_HEADERS",
            "clang -c a.c",
            "local environment CC_PRINT_HEADERS",
        ),
    ] {
        assert_eq!(
            verdict_in("/", &[(name, "x")], line),
            expect,
            "{name} {line}"
        );
    }
}

#[test]
fn libraries_that_change_nothing_may_be_loaded() {
    for (value, goes) in [
        ("", true),
        ("libsandbox.so", true),
        (
            "/usr/lib/libfakeroot/libfakeroot-sysv.so:/usr/lib/libeatmydata.so.1",
            true,
        ),
        ("/usr/lib/faketime/libfaketime.so.1", false),
        ("libsandbox.so /opt/x.so", false),
        ("libsandbox.sox", false),
    ] {
        let said = verdict_in("/", &[("LD_PRELOAD", value)], "gcc -c a.c");
        assert_eq!(!said.starts_with("local"), goes, "{value}");
    }
}

#[test]
fn calls_that_compile_nothing_run_at_once() {
    for (line, expect) in [
        ("gcc --version", true),
        ("gcc -v", true),
        ("gcc", true),
        ("gcc -dumpmachine", true),
        ("gcc -print-search-dirs", true),
        ("gcc -E a.c", true),
        ("gcc -MM a.c", true),
        ("gcc -### -c a.c", true),
        ("gcc -c", true),
        ("gcc -march=help", true),
        ("gcc -c conftest.c", true),
        ("gcc -o conftest conftest.c -lm", true),
        ("cc -c /b/CMakeFiles/CMakeTmp/src.c", true),
        ("gcc -Werror -x c -c - -o x.o", true),
        ("gcc -Wfoo -c -x c /dev/null -o tmp.o", true),
        ("gcc -c a.c -o /dev/null", false),
        ("gcc -c a.c", false),
        ("gcc a.o -o b", false),
        ("gcc -o -E a.c", false),
        ("gcc -I -E -c a.c", false),
        ("gcc -MD -c a.c", false),
        ("gcc -v -c a.c", false),
        ("gcc -fsyntax-only a.c", false),
        ("gcc -quite-unknown", false),
        ("gcc @r", false),
        ("gcc @r --version", false),
        ("tar -c x", false),
    ] {
        assert_eq!(runs_at_once(&words(line)), expect, "{line}");
    }
}

/// The plan of a line that may go.
fn plan(line: &str) -> Plan {
    let argv = words(line);
    let invocation = Invocation {
        program: &argv[0],
        argv: &argv,
        cwd: &AbsPath::parse("/w").unwrap(),
        env: &[],
    };
    match classify(&invocation, &mut |_| None) {
        Verdict::Distribute(plan) => *plan,
        Verdict::Local(reason) => panic!("{line}: {}", reason.sentence()),
    }
}

fn joined(words: &[Bytes]) -> String {
    let words: Vec<_> = words.iter().map(ToString::to_string).collect();
    words.join(" ")
}

#[test]
fn the_search_list_depends_on_these_arguments_alone() {
    for (line, expect) in [
        (
            "gcc -Iinc -I a -isystem s -iquote q -O2 -g -Wall -DX -std=c99 -c a.c -o b.o -MD",
            "-Iinc -I a -isystem s -iquote q -O2 -std=c99",
        ),
        (
            "clang --sysroot=/s -target arm -stdlib=libc++ -nostdinc++ -x c++ -c a.c",
            "--sysroot=/s -target arm -stdlib=libc++ -nostdinc++",
        ),
        (
            "gcc -pthread -m32 -march=i686 -fopenmp -frandom-seed=1 -fdiagnostics-color -c a.c",
            "-pthread -m32 -march=i686 -fopenmp",
        ),
    ] {
        assert_eq!(joined(&plan(line).search), expect, "{line}");
    }
}

#[test]
fn a_compile_splits_into_two_steps() {
    for (line, preprocess, compile) in [
        (
            "gcc -Iinc -DX -O2 -Wall -c a.c -o o/a.o -MD",
            "gcc -E -MF o/a.d -MQ o/a.o -Iinc -DX -O2 -Wall a.c -MD",
            "gcc -x cpp-output -O2 -Wall -c a.c -o o/a.o",
        ),
        (
            "g++ -MMD -c x/a.cc",
            "g++ -E -MF a.d -MMD x/a.cc",
            "g++ -x c++-cpp-output -o a.o -c x/a.cc",
        ),
        (
            "gcc -MD -MF x.d -MT t -c a.c -o a.o",
            "gcc -E -MD -MF x.d -MT t a.c",
            "gcc -x cpp-output -c a.c -o a.o",
        ),
        (
            "gcc -Wp,-MMD,x.d -Wa,-L -x c -include i.h -S a.q -o a.s",
            "gcc -E -Wp,-MMD,x.d -x c -include i.h a.q",
            "gcc -x cpp-output -Wa,-L -S a.q -o a.s",
        ),
        (
            "clang -MD -c a.c -o a.o -fPIC",
            "clang -E -Qunused-arguments -MF a.d -MQ a.o -MD a.c -fPIC",
            "clang -x cpp-output -c a.c -o a.o -fPIC",
        ),
    ] {
        let steps = plan(line).preprocessed.expect(line);
        assert_eq!(joined(&steps.preprocess), preprocess, "{line}");
        assert_eq!(joined(&steps.compile), compile, "{line}");
    }
}

#[test]
fn arguments_are_bytes() {
    let argv: Vec<Bytes> = [
        &b"gcc"[..],
        b"-c",
        b"dir with\nblank/\xff.c",
        b"-o",
        b"\xfe/\xff.o",
    ]
    .map(Bytes::from)
    .into();
    let invocation = Invocation {
        program: b"gcc",
        argv: &argv,
        cwd: &AbsPath::parse("/").unwrap(),
        env: &[],
    };
    let Verdict::Distribute(plan) = classify(&invocation, &mut |_| None) else {
        panic!("a plain compile");
    };
    assert_eq!(*plan.name(), argv[2]);
    assert_eq!(plan.writable, [Bytes::from(&b"\xfe"[..])]);
}
