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
        ("fd_allocate", "i32 i64 i64"),
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
    let imports: String = imports.iter().map(|(name, params)| import(name, params)).collect();
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

/// A program that makes calls on its only listener, descriptor 3, and ends with the errno of the last.
pub fn sockets(body: &str) -> Vec<u8> {
    let imports = [
        ("sock_accept", "i32 i32 i32"),
        ("sock_recv", "i32 i32 i32 i32 i32 i32"),
        ("sock_send", "i32 i32 i32 i32 i32"),
        ("sock_shutdown", "i32 i32"),
        ("fd_fdstat_get", "i32 i32"),
        ("fd_fdstat_set_flags", "i32 i32"),
        ("fd_tell", "i32 i32"),
        ("fd_close", "i32"),
        ("poll_oneoff", "i32 i32 i32 i32"),
    ];
    let imports: String = imports.iter().map(|(name, params)| import(name, params)).collect();
    bare(&format!(
        r#"(module {imports}
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 64)
  ;; The one buffer of every call lies at 8192; counts go to 16, the accepted descriptor to 512.
  (func $buffer (param $len i32)
    (i32.store (i32.const 0) (i32.const 8192))
    (i32.store (i32.const 4) (local.get $len)))
  (func $fd (result i32) (i32.load (i32.const 512)))
  (func $accept (param $flags i32) (result i32)
    (call $sock_accept (i32.const 3) (local.get $flags) (i32.const 512)))
  (func $recv (param $len i32) (param $flags i32) (result i32)
    (call $buffer (local.get $len))
    (call $sock_recv (call $fd) (i32.const 0) (i32.const 1) (local.get $flags) (i32.const 16) (i32.const 24)))
  (func $send (param $len i32) (result i32)
    (call $buffer (local.get $len))
    (call $sock_send (call $fd) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 16)))
  ;; Waits until `fd` can be read from; the event goes to 128.
  (func $poll (param $fd i32) (result i32)
    (i32.store8 (i32.const 72) (i32.const 1))
    (i32.store (i32.const 80) (local.get $fd))
    (call $poll_oneoff (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 16)))
  (func $must (param i32) (if (local.get 0) (then (call $proc_exit (local.get 0)))))
  (func (export "_start") (local $errno i32) (call $proc_exit {})))"#,
        body_result(body)
    ))
}

/// Statements of which the last is a value, as one expression.
fn body_result(body: &str) -> String {
    format!("(block (result i32) {body})")
}

/// Prints its environment as it lies in memory; `opens_files`: imports `path_open` as well.
pub fn environment(opens_files: bool) -> Vec<u8> {
    let opens = import("path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32");
    bare(&format!(
        r#"(module {} {} {} {}
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (call $environ_sizes_get (i32.const 0) (i32.const 12)))
    (drop (call $environ_get (i32.const 4096) (i32.const 8192)))
    (i32.store (i32.const 8) (i32.const 8192))
    (drop (call $fd_write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16)))))"#,
        import("environ_sizes_get", "i32 i32"),
        import("environ_get", "i32 i32"),
        import("fd_write", "i32 i32 i32 i32"),
        if opens_files { &opens } else { "" },
    ))
}

fn import(name: &str, params: &str) -> String {
    format!("(import \"wasi_snapshot_preview1\" \"{name}\" (func ${name} (param {params}) (result i32)))\n")
}

/// A program that makes calls of the extension for connections, and ends with the errno of the last.
pub fn connections(body: &str) -> Vec<u8> {
    let imports = [
        ("sock_open", "i32 i32 i32"),
        ("sock_connect", "i32 i32 i32"),
        ("sock_bind", "i32 i32 i32"),
        ("sock_listen", "i32 i32"),
        ("sock_getpeeraddr", "i32 i32 i32 i32"),
        ("sock_getsockopt", "i32 i32 i32 i32 i32"),
        ("sock_setsockopt", "i32 i32 i32 i32 i32"),
        ("sock_getaddrinfo", "i32 i32 i32 i32 i32 i32 i32 i32"),
    ];
    let imports: String = imports.iter().map(|(name, params)| import(name, params)).collect();
    bare(&format!(
        r#"(module {imports}
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 4096) "other.test\00localhost\00192.0.2.7\001883\00")
  ;; The opened descriptor goes to 512. An address: its bytes lie at 1040, and what points to them at 1024.
  (func $fd (result i32) (i32.load (i32.const 512)))
  (func $open (result i32)
    (call $must (call $sock_open (i32.const 1) (i32.const 2) (i32.const 512)))
    (call $fd))
  (func $connect (param $ip i32) (param $port i32) (result i32)
    (i32.store (i32.const 1040) (local.get $ip))
    (i32.store (i32.const 1024) (i32.const 1040))
    (i32.store (i32.const 1028) (i32.const 4))
    (call $sock_connect (call $fd) (i32.const 1024) (local.get $port)))
  ;; One addrinfo at 1536, whose sockaddr is at 1600, whose data is at 2048; asks for IPv4 only.
  (func $lookup (param $name i32) (param $len i32) (result i32)
    (i32.store8 (i32.const 1794) (i32.const 1))
    (i32.store (i32.const 1548) (i32.const 1600))
    (i32.store (i32.const 1608) (i32.const 2048))
    (i32.store (i32.const 1532) (i32.const 1536))
    (call $sock_getaddrinfo (local.get $name) (local.get $len) (i32.const 4127) (i32.const 5)
      (i32.const 1792) (i32.const 1532) (i32.const 1) (i32.const 1528)))
  (func $lookup_other (result i32) (call $lookup (i32.const 4096) (i32.const 11)))
  (func $lookup_localhost (result i32) (call $lookup (i32.const 4107) (i32.const 10)))
  (func $lookup_address (result i32) (call $lookup (i32.const 4117) (i32.const 10)))
  (func $must (param i32) (if (local.get 0) (then (call $proc_exit (local.get 0)))))
  (func (export "_start") (call $proc_exit {})))"#,
        body_result(body)
    ))
}
