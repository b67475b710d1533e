//! The guests of the tests, as text.

/// The imports and the memory that most of them have: `text` at 1024 is what [`print()`] prints.
fn program(text: &str, body: &str) -> Vec<u8> {
    let source = format!(
        r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (import "wasi_snapshot_preview1" "proc_raise" (func $proc_raise (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "sched_yield" (func $sched_yield (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_shutdown" (func $sock_shutdown (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1 100)
  (data (i32.const 1024) "{text}")
  (func $write (param $at i32) (param $len i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $len))
    (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))
      (then (call $proc_exit (i32.const 99)))))
  (func $print (call $write (i32.const 1024) (i32.const {len})))
  ;; Waits for `ns` of the monotonic clock.
  (func $sleep (param $ns i64)
    (i32.store8 (i32.const 24) (i32.const 0))
    (i32.store (i32.const 32) (i32.const 1))
    (i64.store (i32.const 40) (local.get $ns))
    (i32.store16 (i32.const 56) (i32.const 0))
    (drop (call $poll_oneoff (i32.const 16) (i32.const 64) (i32.const 1) (i32.const 96))))
  {body})"#,
        len = text.len()
    );
    wat::parse_str(source).unwrap()
}

/// A program whose `_start` is `body`.
pub fn start(text: &str, body: &str) -> Vec<u8> {
    program(text, &format!(r#"(func (export "_start") {body})"#))
}

/// A program of several functions.
pub fn functions(text: &str, functions: &str) -> Vec<u8> {
    program(text, functions)
}

/// A module with nothing around it.
pub fn bare(source: &str) -> Vec<u8> {
    wat::parse_str(source).unwrap()
}

/// Ends at once with a code.
pub fn exit(code: u32) -> Vec<u8> {
    start("", &format!("(call $proc_exit (i32.const {}))", i32::from_ne_bytes(code.to_ne_bytes())))
}

/// Never ends, and calls nothing.
pub fn spin() -> Vec<u8> {
    start("", "(loop $again (br $again))")
}

/// Prints and waits, for ever.
pub fn sleep() -> Vec<u8> {
    start("up", "(call $print) (call $sleep (i64.const 0x0fffffffffffffff))")
}
