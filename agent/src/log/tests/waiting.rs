//! Entries that wait, and lines beyond the rate.

use std::sync::atomic::{AtomicBool, Ordering};

use super::super::split::Moment;
use super::super::waiting::{ALL_BUFFERS, LOG_BUFFER};
use super::*;
use crate::control;
use crate::durable::clock::Now;

/// Longer than any test: what is written out is written out for another reason.
const NEVER: Duration = Duration::from_secs(100_000);

impl Folder {
    fn waiting(&self, max_size: u64) -> Logs {
        Logs::new(self.0.clone(), Settings { max_size, flush_interval: NEVER, ..Settings::default() })
    }

    fn limited(&self, rate: u64) -> Logs {
        Logs::new(self.0.clone(), Settings { rate, ..Settings::default() })
    }

    fn on_disk(&self) -> String {
        fs::read_to_string(current(self)).unwrap()
    }
}

/// So many milliseconds after a start that is later than what this machine shows.
fn moment(milliseconds: i64) -> Moment {
    let wall = Timestamp::from_millisecond(1_700_000_000_000 + milliseconds).unwrap();
    let mono = Duration::from_secs(1_000_000_000) + Duration::from_millis(milliseconds.unsigned_abs());
    Moment::from(&Now { wall, mono })
}

#[test]
fn what_waits_is_written_out_for_a_reader_by_a_flush_and_at_the_end() {
    type Step = fn(&Logs, &Writer);
    let steps: [(&str, Step); 4] = [
        ("a reader", |logs, _| assert_eq!(read(logs, ReadOptions::default()), "one\ntwo\n")),
        ("the last line", |logs, _| assert_eq!(read(logs, tail(1)), "two\n")),
        ("a flush", |logs, _| logs.flush()),
        ("the end", |_, writer| writer.close()),
    ];
    for (name, step) in steps {
        let folder = Folder::new();
        let logs = folder.waiting(MAX_FILE);
        let writer = logs.open(&pod(), "main", 0).unwrap();
        writer.write(Stream::Stdout, b"one\ntw").unwrap();
        writer.write(Stream::Stdout, b"o\n").unwrap();
        assert_eq!(folder.on_disk(), "", "{name}");
        assert_eq!(logs.waiting.state(), (88, 1, true), "{name}");
        step(&logs, &writer);
        assert_eq!(folder.on_disk().lines().count(), 2, "{name}");
        assert_eq!(writer.held(), (0, 0), "{name}: its memory is given back");
        assert_eq!(logs.waiting.state().0, 0, "{name}");
    }
}

#[test]
fn a_buffer_is_written_out_when_it_is_full_and_all_together_have_a_limit() {
    let folder = Folder::new();
    let logs = folder.waiting(MAX_FILE);
    let line = format!("{}\n", "x".repeat(1000 - line::HEADER - 1));
    let writer = logs.open(&pod(), "main", 0).unwrap();
    for i in 1..=16 {
        writer.write(Stream::Stdout, line.as_bytes()).unwrap();
        assert_eq!((writer.held().0, folder.on_disk().len()), (i * 1000, 0));
    }
    writer.write(Stream::Stdout, line.as_bytes()).unwrap();
    assert_eq!((writer.held().0, folder.on_disk().len()), (1000, 16_000));
    // More than a buffer in one call goes to the file as it comes, after what waited.
    writer.write(Stream::Stdout, line.repeat(20).as_bytes()).unwrap();
    assert_eq!((writer.held().0, folder.on_disk().len()), (0, 37_000));
    drop(writer);

    let others: Vec<_> = (0..40).map(|i| logs.open(&pod(), &format!("other-{i}"), 0).unwrap()).collect();
    for round in 0..20 {
        for writer in &others {
            writer.write(Stream::Stdout, line.as_bytes()).unwrap();
            let (length, capacity) = writer.held();
            assert!(length <= LOG_BUFFER && capacity <= LOG_BUFFER, "{length} of {capacity}");
        }
        let all: usize = others.iter().map(|writer| writer.held().0).sum();
        assert_eq!(logs.waiting.state().0, all);
        assert!(all <= ALL_BUFFERS && (round < 7 || all > ALL_BUFFERS / 2), "{all} in round {round}");
    }
    drop(others);
    assert_eq!(logs.waiting.state().0, 0);
    for i in 0..40 {
        let path = folder.0.join(format!("default_hello_u1/other-{i}/0.log"));
        assert_eq!(fs::metadata(path).unwrap().len(), 20_000);
    }
}

#[test]
fn nothing_waits_while_somebody_follows() {
    let folder = Folder::new();
    let logs = folder.waiting(200);
    let writer = logs.open(&pod(), "main", 0).unwrap();
    writer.write(Stream::Stdout, b"before\n").unwrap();
    block_on(async {
        let mut reader = logs.read(&pod(), "main", 0, follow()).await.unwrap();
        assert_eq!(reader.next().await.unwrap().unwrap(), "before\n");
        for i in 0..20 {
            let line = format!("line {i}\n");
            writer.write(Stream::Stderr, line.as_bytes()).unwrap();
            assert_eq!(writer.held().0, 0);
            assert_eq!(reader.next().await.unwrap().unwrap(), line);
        }
        let mut other = logs.read(&pod(), "main", 0, ReadOptions { follow: true, ..tail(0) }).await.unwrap();
        drop(reader);
        writer.write(Stream::Stdout, b"still\n").unwrap();
        assert_eq!(writer.held().0, 0);
        assert_eq!(other.next().await.unwrap().unwrap(), "still\n");
    });
    writer.write(Stream::Stdout, b"nobody\n").unwrap();
    assert_eq!(writer.held().0, line::HEADER + 7, "the last of them has gone");
    // A run that has ended, as --previous reads it.
    drop(writer);
    let next = logs.open(&pod(), "main", 1).unwrap();
    next.write(Stream::Stdout, b"next\n").unwrap();
    assert!(read(&logs, ReadOptions::default()).ends_with("still\nnobody\n"));
}

#[test]
fn the_deadline_is_for_all_writers_and_there_is_none_when_nothing_waits() {
    let folder = Folder::new();
    let settings = Settings { flush_interval: Duration::from_millis(1), ..Settings::default() };
    let logs = Logs::new(folder.0.clone(), settings);
    let writers = [0, 1, 2].map(|run| logs.open(&pod(), "main", run).unwrap());
    assert_eq!(logs.waiting.state(), (0, 0, false));
    for round in 1..=3 {
        writers.iter().for_each(|writer| writer.write(Stream::Stdout, b"line\n").unwrap());
        control::run(async {
            while logs.waiting.state().2 {
                async_io::Timer::after(Duration::from_millis(1)).await;
            }
        });
        assert_eq!(logs.waiting.state(), (0, 0, false));
        // Run 0 is older than the previous one: its file went when run 2 was opened.
        for run in [1, 2] {
            let text = fs::read_to_string(current(&folder).with_file_name(format!("{run}.log"))).unwrap();
            assert_eq!(text.lines().count(), round, "run {run}");
        }
    }
}

#[test]
fn what_cannot_be_written_waits_on_and_every_write_says_so_until_it_can() {
    let folder = Folder::new();
    let logs = folder.waiting(MAX_FILE);
    fs::create_dir_all(current(&folder).parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/full", current(&folder)).unwrap();
    let writer = logs.open(&pod(), "main", 0).unwrap();
    writer.write(Stream::Stdout, b"one\nbegun").unwrap();
    for _ in 0..2 {
        logs.flush();
        assert_eq!(logs.waiting.state(), (line::HEADER + 4, 1, true), "it waits for the next deadline");
    }
    for _ in 0..2 {
        let error = writer.write(Stream::Stdout, b" and ended\n").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(writer.unfinished_stdout(), b"begun");
        assert_eq!(writer.held().0, line::HEADER + 4);
    }
    fs::remove_file(current(&folder)).unwrap();
    writer.reopen();
    writer.write(Stream::Stdout, b" and ended\n").unwrap();
    assert_eq!(folder.on_disk().lines().count(), 1, "what waited goes first; then they wait again");
    writer.close();
    assert_eq!(read(&logs, ReadOptions::default()), "one\nbegun and ended\n");
}

#[test]
fn lines_beyond_the_rate_are_dropped_and_the_log_says_how_many() {
    let folder = Folder::new();
    // Entries of 100 bytes, 100 bytes a second: ten at once.
    let logs = folder.limited(100);
    let writer = logs.open(&pod(), "main", 0).unwrap();
    let line = |i: i32| format!("{i:059}\n");
    for i in 0..15 {
        writer.write_at(&moment(0), Stream::Stdout, line(i).as_bytes()).unwrap();
    }
    let first: String = (0..10).map(line).collect();
    assert_eq!(read(&logs, ReadOptions::default()), first, "no room yet to tell it");
    writer.write_at(&moment(6_000), Stream::Stderr, line(15).as_bytes()).unwrap();
    let missing = |lines, bytes| {
        format!(
            "copepod: {lines} line(s), {bytes} byte(s) are missing here: more than 100 bytes a second \
             (--log-rate)\n"
        )
    };
    let second = format!("{first}{}{}", missing(5, 300), line(15));
    assert_eq!(read(&logs, ReadOptions::default()), second);
    // At the end what is missing is told, and the last words are taken, at any rate.
    for i in 0..9 {
        writer.write_at(&moment(6_000), Stream::Stdout, line(i).as_bytes()).unwrap();
    }
    writer.write_at(&moment(6_000), Stream::Stdout, b"panicked at").unwrap();
    writer.close();
    let end = read(&logs, ReadOptions::default());
    assert!(end.starts_with(&second) && end.ends_with("panicked at"), "{end}");
    assert!(end.contains(&missing(5, 300)), "{end}");
}

#[test]
fn a_line_without_end_does_not_get_around_the_rate() {
    let folder = Folder::new();
    let logs = folder.limited(2048);
    let writer = logs.open(&pod(), "main", 0).unwrap();
    let endless = vec![b'e'; 10 * MAX_CONTENT];
    writer.write_at(&moment(0), Stream::Stdout, &endless).unwrap();
    writer.write_at(&moment(0), Stream::Stdout, b"its end\nlost\n").unwrap();
    writer.write_at(&moment(60_000), Stream::Stdout, b"next\n").unwrap();
    writer.close();
    let output = read(&logs, ReadOptions::default());
    let lines: Vec<&str> = output.lines().collect();
    // 20480 bytes at once: one entry, and one that is paid for later.
    assert_eq!(lines[0].len(), 2 * MAX_CONTENT);
    let bytes = 8 * MAX_CONTENT + "its end\nlost\n".len();
    assert!(lines[1].starts_with(&format!("copepod: 2 line(s), {bytes} byte(s) are")), "{}", lines[1]);
    assert_eq!(&lines[2..], ["next"]);
}

#[test]
fn what_a_full_disk_refuses_is_not_charged_to_the_rate() {
    let folder = Folder::new();
    let logs = folder.limited(100);
    fs::create_dir_all(current(&folder).parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/full", current(&folder)).unwrap();
    let writer = logs.open(&pod(), "main", 0).unwrap();
    writer.write_at(&moment(0), Stream::Stdout, b"be").unwrap();
    for _ in 0..50 {
        writer.write_at(&moment(0), Stream::Stdout, b"gun and ended\n").unwrap_err();
    }
    fs::remove_file(current(&folder)).unwrap();
    writer.reopen();
    writer.write_at(&moment(0), Stream::Stdout, b"gun and ended\n").unwrap();
    writer.close();
    assert_eq!(read(&logs, ReadOptions::default()), "begun and ended\n");
}

/// The files of a container with what is in them, times left out.
fn contents(folder: &Folder) -> Vec<(String, String)> {
    let read = |name: String| {
        let text = fs::read(current(folder).with_file_name(&name)).unwrap();
        let entries = text.split(|byte| *byte == b'\n').map(|entry| entry.get(line::STAMP..).unwrap_or(b""));
        let text = entries.map(|entry| String::from_utf8_lossy(entry).into_owned() + "\n").collect();
        (name, text)
    };
    files(folder).into_iter().map(read).collect()
}

#[test]
fn whatever_happens_in_whichever_order_a_log_that_waits_is_the_same_log() {
    let words = b"the quick brown fox jumps over the lazy dog ".repeat(800);
    for seed in 0..30 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (plain, waiting) = (Folder::new(), Folder::new());
        let max_size = random.u64(100..20_000);
        let rate = if seed % 3 == 0 { random.u64(50..20_000) } else { 0 };
        let settings = Settings { max_size, max_files: random.u32(2..5), rate, flush_interval: NEVER };
        let open = |run| {
            let at_once = Settings { flush_interval: Duration::ZERO, ..settings.clone() };
            let logs = [(&plain, at_once), (&waiting, settings.clone())]
                .map(|(folder, settings)| Logs::new(folder.0.clone(), settings));
            let writers = [&logs[0], &logs[1]].map(|logs| logs.open(&pod(), "main", run).unwrap());
            (logs, writers)
        };
        let (mut logs, mut writers) = open(0);
        let mut follower = None;
        let mut milliseconds = 0;
        for step in 0..200 {
            let text = format!("seed {seed}, step {step}");
            // With a rate, when a reader comes decides where what is missing is told.
            match if rate > 0 { 0 } else { random.u32(0..40) } {
                0..=33 => {
                    milliseconds += random.i64(0..1500);
                    let long = if random.u32(0..10) == 0 { words.len() } else { 300 };
                    let length = random.usize(0..long);
                    let mut bytes = words[random.usize(0..words.len() - length)..][..length].to_vec();
                    bytes.iter_mut().filter(|_| random.u32(0..60) == 0).for_each(|byte| *byte = b'\n');
                    let stream = if random.bool() { Stream::Stdout } else { Stream::Stderr };
                    for writer in &writers {
                        writer.write_at(&moment(milliseconds), stream, &bytes).unwrap();
                    }
                }
                34 => logs[1].flush(),
                35 => {
                    let options = || if step % 2 == 0 { tail(7) } else { ReadOptions::default() };
                    assert!(read(&logs[0], options()) == read(&logs[1], options()), "{text}");
                }
                36 | 37 => {
                    follower = block_on(logs[1].read(&pod(), "main", 0, follow())).ok();
                    assert!(contents(&plain) == contents(&waiting), "{text}");
                }
                38 => follower = None,
                // Another process goes on.
                _ => {
                    follower = None;
                    drop((logs, writers));
                    assert!(contents(&plain) == contents(&waiting), "{text}");
                    (logs, writers) = open(0);
                }
            }
            if follower.is_some() {
                assert!(contents(&plain) == contents(&waiting), "{text}");
            }
        }
        drop((follower, writers));
        assert!(contents(&plain) == contents(&waiting), "seed {seed}");
        assert_eq!(logs[1].waiting.state().0, 0, "seed {seed}");
    }
}

#[test]
fn writers_flushes_and_followers_on_many_threads_lose_and_double_nothing() {
    let folder = Folder::new();
    let settings = Settings { max_files: 1000, max_size: 10_000, ..Settings::default() };
    let logs = Logs::new(folder.0.clone(), Settings { flush_interval: NEVER, ..settings });
    let writer = logs.open(&pod(), "main", 0).unwrap();
    let done = AtomicBool::new(false);
    let lines = |name: char| (0..2000).map(move |i| format!("{name}{i}\n"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                logs.flush();
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let reader = block_on(logs.read(&pod(), "main", 0, follow()));
                drop(reader.unwrap());
            }
        });
        let follower = scope.spawn(|| {
            block_on(async { all(&mut logs.read(&pod(), "main", 0, follow()).await.unwrap()).await })
        });
        let writers = [('a', Stream::Stdout), ('b', Stream::Stderr)].map(|(name, stream)| {
            let writer = &writer;
            scope.spawn(move || {
                lines(name).for_each(|line| writer.write(stream, line.as_bytes()).unwrap());
            })
        });
        writers.into_iter().for_each(|thread| thread.join().unwrap());
        done.store(true, Ordering::Relaxed);
        writer.close();
        let followed = String::from_utf8(follower.join().unwrap()).unwrap();
        assert!(followed == read(&logs, ReadOptions::default()));
        for name in ['a', 'b'] {
            let seen: String = followed.split_inclusive('\n').filter(|l| l.starts_with(name)).collect();
            assert!(seen == lines(name).collect::<String>(), "{name}");
        }
    });
}

#[test]
fn what_is_missing_is_never_told_in_the_middle_of_a_line() {
    // Room for one part of a line, and no more.
    let rate = MAX_CONTENT as u64 / 10;
    for ends in [false, true] {
        let folder = Folder::new();
        let logs = folder.limited(rate);
        let writer = logs.open(&pod(), "main", 0).unwrap();
        // A line of stderr begins, and its first part is taken; then lines of stdout are dropped.
        writer.write_at(&moment(0), Stream::Stderr, &vec![b'e'; MAX_CONTENT + 1]).unwrap();
        writer.write_at(&moment(0), Stream::Stdout, b"lost\nlost\n").unwrap();
        if !ends {
            writer.write_at(&moment(60_000), Stream::Stdout, b"taken\n").unwrap();
        }
        writer.write_at(&moment(90_000), Stream::Stderr, b"nd\n").unwrap();
        writer.close();
        let disk = folder.on_disk();
        // Without the long part, for the messages.
        let run: Vec<&str> = disk.lines().map(|line| line.get(..120).unwrap_or(line)).collect();
        let stderr: Vec<&&str> = run.iter().filter(|line| line.contains(" stderr ")).collect();
        assert!(stderr.len() >= 2 && stderr[0].contains(" stderr P eee"), "{run:?}");
        assert!(!stderr[1].contains("missing"), "the second part comes next: {run:?}");
        assert!(run.iter().any(|line| line.contains("are missing here")), "{run:?}");
    }
}

#[test]
fn a_log_that_is_closed_is_forgotten_at_once() {
    let folder = Folder::new();
    let logs = folder.waiting(MAX_FILE);
    for run in 0..50 {
        let writer = logs.open(&pod(), "main", run).unwrap();
        writer.write(Stream::Stdout, b"a line that waits\n").unwrap();
        assert_eq!(logs.waiting.state().1, 1);
        writer.close();
        let (held, listed, _) = logs.waiting.state();
        assert_eq!((held, listed), (0, 0));
    }
}
