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
