;; Prints `hello 0`, `hello 1`, ... once a second, for ever: enough to see a node work before any
;; registry does. Compiled by `wat::parse_str`, whose output is beside it; a test compares the two.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))

  ;; 0   iovec: address, length             8   what fd_write has written
  ;; 16  subscription (48 bytes)            64  event (32 bytes), 96 their number
  ;; 128 the line; its digits end at 160
  (memory (export "memory") 1)
  (data (i32.const 128) "hello ")

  ;; Writes `n` in decimal, after "hello ", and a newline. Returns the length of the line.
  (func $line (param $n i64) (result i32)
    (local $at i32) (local $digits i32)
    (local.set $at (i32.const 160))
    (loop $digit
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at)
        (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $n) (i64.const 10)))))
      (local.set $n (i64.div_u (local.get $n) (i64.const 10)))
      (br_if $digit (i64.ne (local.get $n) (i64.const 0))))
    (local.set $digits (i32.sub (i32.const 160) (local.get $at)))
    (memory.copy (i32.const 134) (local.get $at) (local.get $digits))
    (i32.store8 (i32.add (i32.const 134) (local.get $digits)) (i32.const 10))
    (i32.add (local.get $digits) (i32.const 7)))

  (func (export "_start")
    (local $n i64)
    ;; The subscription: clock (tag 0), monotonic (1), a second from now.
    (i32.store (i32.const 32) (i32.const 1))
    (i64.store (i32.const 40) (i64.const 1000000000))
    (i32.store (i32.const 0) (i32.const 128))
    (loop $again
      (i32.store (i32.const 4) (call $line (local.get $n)))
      (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (drop (call $poll_oneoff (i32.const 16) (i32.const 64) (i32.const 1) (i32.const 96)))
      (local.set $n (i64.add (local.get $n) (i64.const 1)))
      (br $again))))
