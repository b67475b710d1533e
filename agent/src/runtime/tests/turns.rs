//! Guests beside each other: slices, waits, kills.

use super::*;

#[test]
fn a_spinning_guest_is_killed() {
    let runtime = runtime(1);
    let (guest, _) = spawn(&runtime, &guests::spin());
    let (other, out) = spawn(&runtime, &guests::sleep());
    out.next();
    guest.kill();
    guest.kill();
    assert_eq!(block_on(guest.wait()), Exit::Killed);
    other.kill();
    assert_eq!(block_on(other.wait()), Exit::Killed);
}

#[test]
fn a_guest_that_spins_in_its_start_function_is_killed() {
    let wasm = guests::bare(
        r#"(module (func $forever (loop $again (br $again))) (start $forever) (func (export "_start")))"#,
    );
    let runtime = runtime(1);
    let (guest, _) = spawn(&runtime, &wasm);
    let (other, _) = spawn(&runtime, &guests::exit(3));
    assert_eq!(block_on(other.wait()), Exit::Code(3), "the thread is not taken");
    guest.kill();
    assert_eq!(block_on(guest.wait()), Exit::Killed);
}

#[test]
fn a_sleeping_guest_is_killed() {
    let runtime = runtime(1);
    let (guest, out) = spawn(&runtime, &guests::sleep());
    out.next();
    guest.kill();
    assert_eq!(block_on(guest.wait()), Exit::Killed);
    assert_eq!(out.text(), "up");
}

#[test]
fn two_spinners_and_a_yielder_share_one_thread() {
    let runtime = runtime(1);
    let spinner = guests::start("x", "(loop $again (call $print) (br $again))");
    let (first, first_out) = spawn(&runtime, &spinner);
    let (second, second_out) = spawn(&runtime, &spinner);
    let (third, third_out) = spawn(
        &runtime,
        &guests::start("y", "(loop $again (call $print) (drop (call $sched_yield)) (br $again))"),
    );
    for _ in 0..3 {
        first_out.next();
        second_out.next();
        third_out.next();
    }
    for guest in [&first, &second, &third] {
        guest.kill();
        assert_eq!(block_on(guest.wait()), Exit::Killed);
        assert!(guest.usage().cpu > Duration::ZERO);
    }
}

#[test]
fn a_sleep_ends() {
    let body = "(call $sleep (i64.const 1000000)) (call $print)
                (if (i32.ne (i32.load (i32.const 96)) (i32.const 1)) (then unreachable))";
    assert_eq!(run(&guests::start("done", body)), (Exit::Code(0), "done".into()));
}

#[test]
fn many_sleepers_wait_on_one_thread() {
    let runtime = runtime(1);
    let guests: Vec<_> = (0..50).map(|_| spawn(&runtime, &guests::sleep())).collect();
    for (_, out) in &guests {
        out.next();
    }
    for (guest, _) in &guests {
        guest.kill();
        assert_eq!(block_on(guest.wait()), Exit::Killed);
    }
}

#[test]
fn a_poll_of_nothing_is_einval() {
    let body =
        "(call $proc_exit (call $poll_oneoff (i32.const 16) (i32.const 64) (i32.const 0) (i32.const 96)))";
    assert_eq!(run(&guests::start("", body)).0, Exit::Code(28));
}

/// Standard streams are ready at once: the hour beside them is not waited for.
#[test]
fn a_poll_of_the_standard_streams_answers_for_each() {
    // Subscriptions from 2048 on, 48 bytes each: an hour, stdin to read, stdout and stderr to write.
    let subscriptions = [(0, 1, 3_600_000_000_000_u64), (1, 0, 0), (2, 1, 0), (2, 2, 0)];
    let set = |(index, (tag, what, time)): (usize, (u32, u32, u64))| {
        let at = 2048 + 48 * index;
        format!(
            "(i64.store (i32.const {at}) (i64.const {index})) (i32.store8 (i32.const {}) (i32.const {tag}))
             (i32.store (i32.const {}) (i32.const {what})) (i64.store (i32.const {}) (i64.const {time}))",
            at + 8,
            at + 16,
            at + 24
        )
    };
    let set: String = subscriptions.into_iter().enumerate().map(set).collect();
    // Each event's place is its userdata's digit in the code: errno 0 and its own tag, or it traps.
    let body = format!(
        "(local $at i32) (local $code i32)
         {set}
         (if (call $poll_oneoff (i32.const 2048) (i32.const 4096) (i32.const 4) (i32.const 96)) (then unreachable))
         (local.set $at (i32.const 4096))
         (loop $next
           (if (i32.load16_u (i32.add (local.get $at) (i32.const 8))) (then unreachable))
           (local.set $code (i32.or (local.get $code)
             (i32.shl (i32.load8_u (i32.add (local.get $at) (i32.const 10)))
               (i32.mul (i32.wrap_i64 (i64.load (local.get $at))) (i32.const 4)))))
           (local.set $at (i32.add (local.get $at) (i32.const 32)))
           (br_if $next (i32.lt_u (local.get $at)
             (i32.add (i32.const 4096) (i32.mul (i32.load (i32.const 96)) (i32.const 32))))))
         (call $proc_exit (local.get $code))"
    );
    assert_eq!(run(&guests::start("", &body)).0, Exit::Code(0x2210), "read 0, write 1, write 2, no hour");
}

#[test]
fn the_result_of_a_long_run_does_not_depend_on_its_slices() {
    // The sum of 0..20,000,000, in many slices, with memory filled beside it.
    let body = r#"(local $i i64) (local $sum i64)
        (loop $again
          (local.set $sum (i64.add (local.get $sum) (local.get $i)))
          (local.set $i (i64.add (local.get $i) (i64.const 1)))
          (if (i64.eqz (i64.and (local.get $i) (i64.const 0xfffff)))
            (then (memory.fill (i32.const 4096) (i32.const 1) (i32.const 60000))))
          (br_if $again (i64.lt_u (local.get $i) (i64.const 20000000))))
        (if (i64.ne (local.get $sum) (i64.const 199999990000000)) (then unreachable))"#;
    assert_eq!(run(&guests::start("", body)).0, Exit::Code(0));
}

#[test]
fn a_table_grows_by_one_and_not_at_once_by_many() {
    // wasmi would execute the block again if fuel ended in a large growth: such a growth answers -1.
    let wasm = guests::bare(
        r#"(module
          (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
          (table $table 1 funcref)
          (func (export "_start") (local $i i32)
            (if (i32.ne (table.grow $table (ref.null func) (i32.const 1000)) (i32.const -1)) (then unreachable))
            (loop $again
              (local.set $i (i32.add (local.get $i) (i32.const 1)))
              (if (i32.ne (table.grow $table (ref.null func) (i32.const 1)) (local.get $i)) (then unreachable))
              (br_if $again (i32.lt_u (local.get $i) (i32.const 50000))))
            (call $proc_exit (local.get $i))))"#,
    );
    assert_eq!(run(&wasm).0, Exit::Code(50000));
}

#[test]
fn a_guest_ends_with_its_runtime() {
    let runtime = runtime(1);
    let (guest, out) = spawn(&runtime, &guests::start("x", "(loop $again (call $print) (br $again))"));
    out.next();
    drop(runtime);
    assert_eq!(block_on(guest.wait()), Exit::Killed);
}

#[test]
fn growing_in_a_loop_or_after_deep_recursion_does_not_use_up_the_native_stack() {
    // wasmi's memory.grow and table.grow keep a native frame until the slice ends.
    // By a zero that the translator does not see: one that it sees becomes memory.size.
    let grow = "(drop (memory.grow (i32.load (i32.const 900))))";
    let in_a_loop = format!(
        "(local $i i32) (loop $again {grow} (local.set $i (i32.add (local.get $i) (i32.const 1)))
         (br_if $again (i32.lt_u (local.get $i) (i32.const 1000000))))"
    );
    assert_eq!(run(&guests::start("", &in_a_loop)).0, Exit::Code(0));
    let after_recursion = format!(
        r#"(func $deep (param i32) (if (local.get 0) (then
             (call $deep (i32.sub (local.get 0) (i32.const 1))) {}))) 
           (func (export "_start") (call $deep (i32.const 9990)))"#,
        grow.repeat(8)
    );
    assert_eq!(run(&guests::functions("", &after_recursion)).0, Exit::Code(0));
}

/// A loop of `turns`, with a call now and then, then the end with code 7.
fn counts(turns: u32) -> Vec<u8> {
    guests::start(
        "",
        &format!(
            "(local $i i32) (loop $again (local.set $i (i32.add (local.get $i) (i32.const 1)))
             (if (i32.eqz (i32.and (local.get $i) (i32.const 0xfff))) (then (drop (call $sched_yield))))
             (br_if $again (i32.lt_u (local.get $i) (i32.const {turns})))) (call $proc_exit (i32.const 7))"
        ),
    )
}

fn run_with(runtime: &Runtime, wasm: &[u8], change: impl FnOnce(&mut GuestSpec)) -> Exit {
    let module = runtime.compile(&format!("{wasm:x?}"), wasm).unwrap();
    let mut spec = spec(&Collected::new());
    change(&mut spec);
    let guest = runtime.spawn(&module, spec).unwrap();
    block_on(guest.wait())
}

#[test]
fn fuel_is_counted_to_the_unit_whatever_the_slices() {
    let runtime = runtime(1);
    let wasm = counts(1_000_000);
    let ends = |fuel| match run_with(&runtime, &wasm, |spec| spec.fuel = Some(fuel)) {
        Exit::Code(7) => true,
        Exit::Trap(text) if text.contains(&format!("fuel of {fuel}")) => false,
        other => panic!("{other:?}"),
    };
    // The least that is enough, by halving.
    let (mut too_little, mut enough) = (0, 100_000_000);
    assert!(!ends(too_little) && ends(enough));
    while enough - too_little > 1 {
        let middle = u64::midpoint(too_little, enough);
        if ends(middle) {
            enough = middle;
        } else {
            too_little = middle;
        }
    }
    for _ in 0..5 {
        assert!(ends(enough) && !ends(too_little), "{enough} is enough once, and another time not");
    }
}

#[test]
fn a_limit_of_cpu_time_changes_no_result_and_stops_no_kill() {
    let runtime = runtime(2);
    assert_eq!(run_with(&runtime, &counts(2_000_000), |spec| spec.cpu_limit = Some(100)), Exit::Code(7));
    let module = runtime.compile("spin", &guests::spin()).unwrap();
    let mut spec = spec(&Collected::new());
    spec.cpu_limit = Some(10);
    let guest = runtime.spawn(&module, spec).unwrap();
    // It has had its first period's share: most of the time it waits from now on.
    while guest.usage().cpu == Duration::ZERO {
        std::thread::yield_now();
    }
    guest.kill();
    assert_eq!(block_on(guest.wait()), Exit::Killed);
}

#[test]
fn a_guest_that_has_slept_for_long_finds_its_data_as_it_left_it() {
    // Twelve pages of data, of which it changes one byte; the sum of all before and after.
    let data: String = (0..12 * 4096).map(|index| char::from(b'a' + (index / 7 % 26) as u8)).collect();
    let wasm = guests::bare(&format!(
        r#"(module
          (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
          (memory (export "memory") 2)
          (data (i32.const 8192) "{data}")
          (func $sum (result i32) (local $at i32) (local $sum i32)
            (loop $again
              (local.set $sum (i32.add (i32.mul (local.get $sum) (i32.const 31)) (i32.load8_u (local.get $at))))
              (local.set $at (i32.add (local.get $at) (i32.const 1)))
              (br_if $again (i32.lt_u (local.get $at) (i32.const 131000))))
            (local.get $sum))
          (func (export "_start") (local $before i32)
            (i32.store8 (i32.const 20000) (i32.const 1))
            ;; A clock subscription at 64: monotonic, 600 ms from now.
            (i32.store (i32.const 80) (i32.const 1))
            (i64.store (i32.const 88) (i64.const 600000000))
            (local.set $before (call $sum))
            (drop (call $poll (i32.const 64) (i32.const 120000) (i32.const 1) (i32.const 131008)))
            (memory.fill (i32.const 120000) (i32.const 0) (i32.const 32))
            (call $proc_exit (i32.sub (local.get $before) (call $sum)))))"#
    ));
    assert_eq!(run(&wasm).0, Exit::Code(0));
}

#[test]
fn what_others_have_used_is_not_on_a_guests_account() {
    // Two threads with much CPU time behind them, then guests with a limit of a hundredth that come and go between
    // them. Were a thread's time theirs, they would owe it for minutes.
    let runtime = runtime(2);
    let spinners: Vec<_> = (0..2).map(|_| spawn(&runtime, &guests::spin()).0).collect();
    while spinners.iter().any(|guest| guest.usage().cpu < Duration::from_millis(300)) {
        std::thread::sleep(Duration::from_millis(10));
    }
    for guest in &spinners {
        guest.kill();
        block_on(guest.wait());
    }
    let (first, _) = spawn(&runtime, &guests::sleep());
    let module = runtime.compile("counts", &counts(20_000)).unwrap();
    let limited: Vec<Guest> = (0..4)
        .map(|_| {
            let mut spec = spec(&Collected::new());
            spec.cpu_limit = Some(10);
            runtime.spawn(&module, spec).unwrap()
        })
        .collect();
    let all = async {
        for guest in &limited {
            assert_eq!(guest.wait().await, Exit::Code(7));
        }
        true
    };
    let late = async {
        async_io::Timer::after(Duration::from_secs(15)).await;
        false
    };
    assert!(block_on(futures_lite::future::or(all, late)), "they wait for what they never used");
    for guest in &limited {
        assert!(guest.usage().cpu < Duration::from_millis(300), "{:?}", guest.usage());
    }
    first.kill();
}
