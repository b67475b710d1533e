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

/// A program that makes calls on its folders, descriptors 3 and 4, and ends with the errno of the last. What
/// `body` refers to by number are the paths, each at its number times 64, and their lengths `$0`, `$1`, …
pub fn files(paths: &[&str], body: &str) -> Vec<u8> {
    let mut data = String::new();
    let mut body = body.to_owned();
    for (index, path) in paths.iter().enumerate() {
        data.push_str(&format!("(data (i32.const {}) \"{path}\")\n", 4096 + index * 64));
        let place = format!("(i32.const {}) (i32.const {})", 4096 + index * 64, path.len());
        body = body.replace(&format!("${index}"), &place);
    }
    let imports = [
        ("path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32"),
        ("path_create_directory", "i32 i32 i32"),
        ("path_remove_directory", "i32 i32 i32"),
        ("path_unlink_file", "i32 i32 i32"),
        ("path_rename", "i32 i32 i32 i32 i32 i32"),
        ("path_link", "i32 i32 i32 i32 i32 i32 i32"),
        ("path_symlink", "i32 i32 i32 i32 i32"),
        ("path_readlink", "i32 i32 i32 i32 i32 i32"),
        ("path_filestat_get", "i32 i32 i32 i32 i32"),
        ("path_filestat_set_times", "i32 i32 i32 i32 i64 i64 i32"),
        ("fd_fdstat_set_rights", "i32 i64 i64"),
        ("fd_filestat_set_size", "i32 i64"),
        ("fd_readdir", "i32 i32 i32 i64 i32"),
        ("fd_sync", "i32"),
        ("fd_tell", "i32 i32"),
        ("fd_pread", "i32 i32 i32 i64 i32"),
        ("fd_pwrite", "i32 i32 i32 i64 i32"),
        ("fd_read", "i32 i32 i32 i32"),
        ("fd_write", "i32 i32 i32 i32"),
        ("fd_close", "i32"),
        ("fd_renumber", "i32 i32"),
        ("poll_oneoff", "i32 i32 i32 i32"),
    ];
    let imports: String = imports
        .iter()
        .map(|(name, params)| {
            format!(
                "(import \"wasi_snapshot_preview1\" \"{name}\" (func ${name} (param {params}) (result i32)))\n"
            )
        })
        .collect();
    bare(&format!(
        r#"(module {imports}
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 4)
  {data}
  ;; Opens a path of folder 3, following links, for reading and writing if `$write`; the descriptor goes to 512.
  (func $open (param $at i32) (param $len i32) (param $flags i32) (param $write i32) (result i32)
    (call $path_open (i32.const 3) (i32.const 1) (local.get $at) (local.get $len) (local.get $flags)
      (if (result i64) (local.get $write) (then (i64.const -1)) (else (i64.const 0x3ffebf)))
      (i64.const -1) (i32.const 0) (i32.const 512)))
  (func $fd (result i32) (i32.load (i32.const 512)))
  ;; The one buffer of every read and write: 64 bytes of a path or of what is read at 8192.
  (func $buffer (param $at i32) (param $len i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $len)))
  (func $must (param i32) (if (local.get 0) (then (call $proc_exit (local.get 0)))))
  (func (export "_start") (call $proc_exit {body})))"#
    ))
}
