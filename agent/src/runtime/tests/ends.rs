//! How guests end, and what they are given.

use super::*;

/// Bytes of the one argument that every guest here has, its NUL counted.
const ARGUMENTS: u64 = 8;

#[test]
fn any_exit_code_is_passed_through() {
    for code in [0, 1, 125, 126, 200, 255, 256, u32::MAX] {
        assert_eq!(run(&guests::exit(code)).0, Exit::Code(code));
    }
}

#[test]
fn returning_from_start_is_code_0_and_stdout_is_what_was_written() {
    let (exit, out) = run(&guests::start("hello, world", "(call $print) (call $print)"));
    assert_eq!((exit, out.as_str()), (Exit::Code(0), "hello, worldhello, world"));
}

#[test]
fn traps_say_what_happened() {
    let cases = [
        ("unreachable", "unreachable"),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "divide by zero"),
        ("(drop (i32.load (i32.const 0x7fffffff)))", "out of bounds memory access"),
        ("(call $write (i32.const 0x7fffffff) (i32.const 8))", "outside the guest's memory"),
    ];
    for (body, text) in cases {
        match run(&guests::start("", body)).0 {
            Exit::Trap(said) => assert!(said.contains(text), "{said:?} does not say {text:?}"),
            other => panic!("{body}: {other:?}"),
        }
    }
}

#[test]
fn endless_recursion_is_a_trap() {
    let deep = guests::functions(
        "",
        r#"(func $deep (call $deep) (call $print)) (func (export "_start") (call $deep))"#,
    );
    assert!(matches!(run(&deep).0, Exit::Trap(text) if text.contains("stack")));
}

#[test]
fn recursion_of_nine_thousand_calls_is_allowed() {
    let deep = guests::functions(
        "",
        r#"(func $deep (param i32) (if (local.get 0) (then (call $deep (i32.sub (local.get 0) (i32.const 1))))) (drop (call $sched_yield)))
           (func (export "_start") (call $deep (i32.const 10)) (call $plain (i32.const 9000)))
           (func $plain (param i32) (if (local.get 0) (then (call $plain (i32.sub (local.get 0) (i32.const 1))))))"#,
    );
    assert_eq!(run(&deep).0, Exit::Code(0));
}

#[test]
fn raised_signals_end_a_guest_as_a_shell_tells_them() {
    let raise = |signal| {
        run(&guests::start("", &format!("(call $proc_exit (call $proc_raise (i32.const {signal})))"))).0
    };
    assert_eq!(raise(6), Exit::Code(128 + 6));
    assert_eq!(raise(15), Exit::Code(128 + 15));
    assert_eq!(raise(16), Exit::Code(0), "chld is ignored");
    assert_eq!(raise(31), Exit::Code(28), "no such signal: EINVAL");
}

#[test]
fn arguments_and_environment_arrive_in_order() {
    let body = "(drop (call $args_get (i32.const 200) (i32.const 2048)))
                (drop (call $environ_get (i32.const 240) (i32.const 2064)))
                (call $write (i32.load (i32.const 204)) (i32.const 4))
                (call $write (i32.load (i32.const 240)) (i32.const 13))";
    let runtime = runtime(1);
    let module = runtime.compile("", &guests::start("", body)).unwrap();
    let out = Collected::new();
    let mut spec = spec(&out);
    spec.args = vec!["a".into(), "bcd".into()];
    spec.env = Arc::new(["FIRST=1".into(), "B==2".into()]);
    let guest = runtime.spawn(&module, spec).unwrap();
    assert_eq!(block_on(guest.wait()), Exit::Code(0));
    assert_eq!(out.text(), "bcd\0FIRST=1\0B==2\0");
}

#[test]
fn what_cannot_be_passed_is_refused_by_name() {
    let runtime = runtime(1);
    let module = runtime.compile("", &guests::exit(0)).unwrap();
    let out = Collected::new();
    let refused = |change: fn(&mut GuestSpec)| {
        let mut spec = spec(&out);
        change(&mut spec);
        runtime.spawn(&module, spec).map(|_| ()).unwrap_err().to_string()
    };
    assert!(refused(|spec| spec.env = Arc::new(["A=\0".into()])).contains("A="));
    assert!(refused(|spec| spec.args = vec!["a\0b".into()]).contains("NUL"));
    assert!(refused(|spec| spec.args = vec!["a".repeat(MAX_ARGUMENTS)]).contains("262144"));
}

#[test]
fn stdin_is_at_its_end_and_no_socket() {
    let body = "(i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 8))
                (i32.store (i32.const 8) (i32.const 7))
                (if (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))
                (if (i32.load (i32.const 8)) (then unreachable))
                (call $proc_exit (call $sock_shutdown (i32.const 0) (i32.const 1)))";
    assert_eq!(run(&guests::start("", body)).0, Exit::Code(57), "ENOTSOCK");
}

#[test]
fn random_bytes_fill_more_than_one_chunk() {
    let body = "(drop (memory.grow (i32.const 9)))
                (if (call $random_get (i32.const 4096) (i32.const 300000)) (then unreachable))
                (if (i64.eqz (i64.load (i32.const 304080))) (then unreachable))
                (if (i32.eqz (i64.eqz (i64.load (i32.const 304096)))) (then unreachable))";
    assert_eq!(run(&guests::start("", body)).0, Exit::Code(0));
}

#[test]
fn growth_past_the_limit_fails_in_the_guest() {
    // The limit is 16 MiB, the module's own maximum 100 pages.
    let body = "(if (i32.ne (memory.grow (i32.const 99)) (i32.const 1)) (then unreachable))
                (if (i32.ne (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))";
    assert_eq!(run(&guests::start("", body)).0, Exit::Code(0));
}

#[test]
fn all_guests_together_stay_below_the_ceiling() {
    // A page each to begin with; the first takes four more, and waits until the second is at its end.
    let config = Config { threads: 2, default_memory: 16 << 20, guest_memory: 6 * 65536 + 2 * ARGUMENTS };
    let runtime = Runtime::start(config).unwrap();
    let run = |body: &str| {
        let module = runtime.compile(body, &guests::start("x", body)).unwrap();
        let output = Collected::new();
        (runtime.spawn(&module, spec(&output)).unwrap(), output)
    };
    let (first, output) = run("(if (i32.ne (memory.grow (i32.const 4)) (i32.const 1)) (then unreachable))
                              (call $print) (loop $again (br $again))");
    output.next();
    assert_eq!(runtime.memory(), 5 * 65536 + ARGUMENTS);
    let refused = "(if (i32.ne (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))";
    assert_eq!(block_on(run(refused).0.wait()), Exit::Code(0), "one page was left, for it to begin with");
    first.kill();
    assert_eq!(block_on(first.wait()), Exit::Killed);
    let granted = "(if (i32.ne (memory.grow (i32.const 5)) (i32.const 1)) (then unreachable))";
    assert_eq!(block_on(run(granted).0.wait()), Exit::Code(0));
    let too_large = "(if (memory.grow (i32.const 6)) (then unreachable))";
    assert_eq!(block_on(run(too_large).0.wait()), Exit::OutOfMemory);
}

fn run_with_memory(wasm: &[u8], pages: u64) -> Exit {
    let runtime = runtime(1);
    let module = runtime.compile("", wasm).unwrap();
    let mut spec = spec(&Collected::new());
    spec.memory = Some(pages * 65536 + ARGUMENTS);
    block_on(runtime.spawn(&module, spec).unwrap().wait())
}

#[test]
fn an_end_caused_by_a_refused_growth_is_out_of_memory() {
    let grow = "(drop (memory.grow (i32.const 20)))";
    let then = |end: &str| run_with_memory(&guests::start("", &format!("{grow} {end}")), 10);
    assert_eq!(then("unreachable"), Exit::OutOfMemory);
    assert_eq!(then("(call $proc_exit (i32.const 1))"), Exit::OutOfMemory);
    assert_eq!(then(""), Exit::Code(0), "it coped");
    assert_eq!(
        then("(drop (memory.grow (i32.const 1))) (call $proc_exit (i32.const 1))"),
        Exit::Code(1),
        "it coped and ended later"
    );
}

#[test]
fn starting_past_the_limit_is_refused_with_both_figures() {
    let runtime = runtime(1);
    let module = runtime.compile("", &guests::exit(0)).unwrap();
    let mut spec = spec(&Collected::new());
    spec.memory = Some(65536 + ARGUMENTS - 1);
    let error = runtime.spawn(&module, spec).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("65544") && error.contains("65543"), "{error}");
}

#[test]
fn memory_in_use_is_counted_and_given_back() {
    let runtime = runtime(1);
    let (guest, out) = spawn(
        &runtime,
        &guests::start(
            "x",
            "(drop (memory.grow (i32.const 2))) (call $print) (call $sleep (i64.const 0x0fffffffffffffff))",
        ),
    );
    out.next();
    assert_eq!(runtime.memory(), 3 * 65536 + ARGUMENTS);
    guest.kill();
    assert_eq!(block_on(guest.wait()), Exit::Killed);
    // Freed on the interpreter thread, in its turn.
    let begun = Instant::now();
    while runtime.memory() > 0 && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(runtime.memory(), 0);
    assert_eq!(guest.usage().memory, 0);
}

struct Panics;
impl Output for Panics {
    fn write(&self, _bytes: &[u8]) -> io::Result<()> {
        panic!("injected");
    }
}

#[test]
fn a_panic_of_the_host_ends_that_guest_only() {
    let runtime = runtime(1);
    let module = runtime.compile("", &guests::start("x", "(call $print)")).unwrap();
    let (neighbour, _) = spawn(&runtime, &guests::sleep());
    let mut spec = spec(&Collected::new());
    spec.stdio = Stdio::into_one(Arc::new(Panics));
    let guest = runtime.spawn(&module, spec).unwrap();
    assert_eq!(block_on(guest.wait()), Exit::Panic("injected".into()));
    let (after, out) = spawn(&runtime, &guests::start("x", "(call $print)"));
    assert_eq!((block_on(after.wait()), out.text().as_str()), (Exit::Code(0), "x"));
    neighbour.kill();
    assert_eq!(block_on(neighbour.wait()), Exit::Killed);
}

struct Full;
impl Output for Full {
    fn write(&self, _bytes: &[u8]) -> io::Result<()> {
        Err(rustix::io::Errno::NOSPC.into())
    }
}

#[test]
fn a_full_log_is_enospc_in_the_guest() {
    let runtime = runtime(1);
    let body = "(call $proc_exit (call $fd_write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 8)))";
    let module = runtime
        .compile("", &guests::start("", &format!("(i32.store (i32.const 20) (i32.const 1)) {body}")))
        .unwrap();
    let mut spec = spec(&Collected::new());
    spec.stdio = Stdio::into_one(Arc::new(Full));
    assert_eq!(block_on(runtime.spawn(&module, spec).unwrap().wait()), Exit::Code(51));
}

#[test]
fn tables_count_as_memory() {
    // A page, and 100,000 elements of four bytes.
    let wasm = |then: &str| {
        guests::bare(&format!(
            r#"(module (memory (export "memory") 1) (table $t 100000 funcref) (func (export "_start") {then}))"#
        ))
    };
    assert_eq!(run_with_memory(&wasm(""), 8), Exit::Code(0));
    assert_eq!(run_with_memory(&wasm(""), 7), Exit::OutOfMemory, "the table alone takes six pages and more");
    let grows = "(loop $again (drop (table.grow $t (ref.null func) (i32.const 1)))
                 (br_if $again (i32.lt_u (table.size $t) (i32.const 150000))))";
    assert_eq!(run_with_memory(&wasm(grows), 11), Exit::Code(0));
    let fails =
        "(loop $again (br_if $again (i32.ne (i32.const -1) (table.grow $t (ref.null func) (i32.const 1)))))
                 unreachable";
    assert_eq!(run_with_memory(&wasm(fails), 9), Exit::OutOfMemory);
}
