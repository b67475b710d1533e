//! What is taken as a module, and what is said of the rest.

use super::super::sections::{MAX_BODY, MAX_MODULE};
use super::*;

fn refused(wasm: &[u8]) -> String {
    runtime(1).compile("", wasm).map(|_| ()).unwrap_err().to_string()
}

fn not_started(wasm: &[u8]) -> String {
    let runtime = runtime(1);
    let module = runtime.compile("", wasm).unwrap();
    runtime.spawn(&module, spec(&Collected::new())).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn the_built_in_hello_is_what_its_text_says() {
    let text = wat::parse_str(include_str!("../hello.wat")).unwrap();
    assert!(text == HELLO, "hello.wat was changed: write what `wat::parse_str` makes of it to hello.wasm");
    let runtime = runtime(1);
    let (guest, out) = spawn(&runtime, HELLO);
    out.next();
    assert_eq!(out.text(), "hello 0\n");
    guest.kill();
    assert_eq!(block_on(guest.wait()), Exit::Killed);
}

#[test]
fn a_component_is_refused_with_what_to_build_instead() {
    let error = refused(b"\0asm\x0d\0\x01\0rest");
    assert!(error.contains("component") && error.contains("wasm32-wasip1"), "{error}");
}

#[test]
fn what_is_no_module_is_refused() {
    for bytes in [&b""[..], b"\0asm", b"#!/bin/sh\n", b"\x7fELF\x02\x01\x01\0\0\0\0\0"] {
        assert!(refused(bytes).contains("not a WebAssembly module"));
    }
}

/// Where a section ends: a file cut there is a module of its own, which lacks what came after.
fn is_section_end(wasm: &[u8], at: usize) -> bool {
    let mut next = 8;
    while next < at {
        let (mut len, mut shift, mut size) = (0, 0, 1);
        loop {
            let byte = wasm[next + size];
            len |= usize::from(byte & 0x7f) << shift;
            (shift, size) = (shift + 7, size + 1);
            if byte & 0x80 == 0 {
                break;
            }
        }
        next += size + len;
    }
    next == at
}

#[test]
fn every_truncation_is_refused() {
    let whole = guests::start("hello", "(call $print)");
    let runtime = runtime(1);
    for len in (0..whole.len()).filter(|len| !is_section_end(&whole, *len)) {
        assert!(runtime.compile(&format!("{len}"), &whole[..len]).is_err(), "{len} bytes are taken");
    }
}

#[test]
fn a_missing_import_is_named() {
    let error = not_started(&guests::bare(
        r#"(module (import "wasi:http/types" "send" (func)) (func (export "_start")))"#,
    ));
    assert!(error.contains("wasi:http/types.send"), "{error}");
    let error =
        not_started(&guests::bare(r#"(module (import "env" "memory" (memory 1)) (func (export "_start")))"#));
    assert!(error.contains("env.memory"), "{error}");
}

#[test]
fn an_import_of_another_type_is_named() {
    let error = not_started(&guests::bare(
        r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param i64))) (func (export "_start")))"#,
    ));
    assert!(error.contains("fd_write") && error.contains("type"), "{error}");
}

#[test]
fn a_library_is_not_started() {
    assert!(not_started(&guests::bare(r#"(module (func (export "run")))"#)).contains("_start"));
    let error = not_started(&guests::bare(r#"(module (func (export "_start") (param i32)))"#));
    assert!(error.contains("without parameters"), "{error}");
}

#[test]
fn a_library_with_a_start_runs_and_is_initialized_first() {
    let wasm = guests::functions(
        "x",
        r#"(global $ready (mut i32) (i32.const 0))
           (func $begin (global.set $ready (i32.const 20)))
           (start $begin)
           (func (export "_initialize") (global.set $ready (i32.add (global.get $ready) (i32.const 3))))
           (func (export "_start") (call $proc_exit (global.get $ready)))"#,
    );
    assert_eq!(run(&wasm).0, Exit::Code(23));
}

#[test]
fn a_start_function_without_any_export_section_is_still_found() {
    let error = not_started(&guests::bare("(module (func $begin) (start $begin))"));
    assert!(error.contains("_start"), "{error}");
}

#[test]
fn too_much_of_anything_is_refused_with_its_limit() {
    let mut large = b"\0asm\x01\0\0\0".to_vec();
    large.resize(MAX_MODULE + 1, 0);
    assert!(refused(&large).contains(&MAX_MODULE.to_string()));
    // Sections that say they hold more than they do: id, length, count.
    for (id, what) in [(1, "types"), (2, "imports"), (3, "functions"), (6, "globals"), (11, "data segments")]
    {
        let lying = [b"\0asm\x01\0\0\0", &[id, 4, 0xff, 0xff, 0xff, 0x7f][..]].concat();
        let error = refused(&lying);
        assert!(error.contains(what), "{error}");
    }
    assert!(refused(&guests::bare("(module (memory 1) (memory 1))")).contains("memories"));
    assert!(
        refused(&guests::start("", &"nop ".repeat(MAX_BODY as usize + 1))).contains("one function's body")
    );
    let grow = "(drop (memory.grow (i32.const 0)))";
    assert!(refused(&guests::start("", &grow.repeat(9))).contains("memory.grow"));
}

#[test]
fn a_digest_is_compiled_once_while_it_is_used() {
    let runtime = runtime(1);
    let first = runtime.compile("sha256:a", &guests::exit(0)).unwrap();
    let again = runtime.compile("sha256:a", b"not looked at").unwrap();
    assert!(Arc::ptr_eq(&first.compiled, &again.compiled));
    drop((first, again));
    assert!(runtime.compile("sha256:a", b"looked at again").is_err());
}

#[test]
fn a_table_past_its_limit_ends_the_guest_with_its_reason() {
    let wasm = guests::bare(r#"(module (table 9000000 funcref) (func (export "_start")))"#);
    assert!(matches!(run(&wasm).0, Exit::Trap(text) if text.contains("table")));
}

#[test]
fn deep_nesting_within_the_limit_runs() {
    let depth = 40_000;
    // As bytes: the text's own parser would recurse.
    let code = [&[0x02, 0x40].repeat(depth)[..], &[0x0b].repeat(depth + 1)].concat();
    let leb = |mut value: usize| {
        let mut bytes = Vec::new();
        loop {
            let low = u8::try_from(value & 0x7f).unwrap();
            value >>= 7;
            bytes.push(if value == 0 { low } else { low | 0x80 });
            if value == 0 {
                return bytes;
            }
        }
    };
    let body = [leb(code.len() + 1), vec![0], code].concat();
    let wasm = [
        &b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a"[..],
        &leb(body.len() + 1),
        &[1],
        &body,
    ]
    .concat();
    assert_eq!(run(&wasm).0, Exit::Code(0));
}
