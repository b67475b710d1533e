#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::fs;

use futures_lite::future::{block_on, poll_once, zip};
use jiff::Timestamp;

use super::line::MAX_CONTENT;
use super::*;

mod waiting;

/// What no test fills.
const MAX_FILE: u64 = 10 * 1024 * 1024;

struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        Folder(std::env::temp_dir().join(format!("copepod-log-{:x}", fastrand::u64(..))))
    }
    /// Logs that rotate at `max_file` bytes.
    fn logs(&self, max_file: u64) -> Logs {
        Logs::new(self.0.clone(), Settings { max_size: max_file, ..Settings::default() })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn pod() -> PodKey {
    PodKey { namespace: "default".into(), name: "hello".into(), uid: "u1".into() }
}

fn files(folder: &Folder) -> Vec<String> {
    let container = folder.0.join("default_hello_u1/main");
    let mut names: Vec<String> = fs::read_dir(container)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn current(folder: &Folder) -> PathBuf {
    folder.0.join("default_hello_u1/main/0.log")
}

/// Replaces a run's file by entries with chosen times.
fn put(folder: &Folder, entries: &str) {
    fs::create_dir_all(current(folder).parent().unwrap()).unwrap();
    fs::write(current(folder), entries).unwrap();
}

async fn all(reader: &mut Reader) -> Vec<u8> {
    let mut output = Vec::new();
    while let Some(piece) = reader.next().await {
        output.extend_from_slice(&piece.unwrap());
    }
    output
}

fn read(logs: &Logs, options: ReadOptions) -> String {
    let output = block_on(async { all(&mut logs.read(&pod(), "main", 0, options).await.unwrap()).await });
    String::from_utf8_lossy(&output).into_owned()
}

fn tail(lines: u64) -> ReadOptions {
    ReadOptions { tail: Some(lines), ..ReadOptions::default() }
}

fn follow() -> ReadOptions {
    ReadOptions { follow: true, ..ReadOptions::default() }
}

/// `P`/`F`, stream and content of each entry on disk.
fn entries(folder: &Folder) -> Vec<(bool, String, Vec<u8>)> {
    let file = fs::read(current(folder)).unwrap();
    let lines = file.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n');
    lines
        .map(|entry| {
            let read = line::parse(entry).expect("an entry");
            let stream = String::from_utf8(entry[31..37].to_vec()).unwrap();
            (read.partial, stream, read.content.to_vec())
        })
        .collect()
}

#[test]
fn lines_are_entries_and_partial_lines_wait_for_their_end_in_a_buffer_for_each_stream() {
    let folder = Folder::new();
    let writer = folder.logs(MAX_FILE).open(&pod(), "main", 0).unwrap();
    for (stream, bytes) in
        [(Stream::Stdout, "a"), (Stream::Stderr, "x"), (Stream::Stdout, "b\nc\n\nd"), (Stream::Stderr, "y\n")]
    {
        writer.write(stream, bytes.as_bytes()).unwrap();
    }
    let expected = [("stdout", "ab"), ("stdout", "c"), ("stdout", ""), ("stderr", "xy")];
    let full = expected.map(|(stream, content)| (false, stream.to_owned(), content.as_bytes().to_vec()));
    assert_eq!(entries(&folder), full);
    writer.close();
    assert_eq!(entries(&folder).last().unwrap(), &(true, "stdout".into(), b"d".to_vec()));
    assert!(writer.write(Stream::Stdout, b"late").is_err());
}

#[test]
fn lines_of_any_length_are_split_at_the_limit_and_come_back_byte_for_byte() {
    let binary: Vec<u8> = (0..100_000_u32).map(|i| (i.wrapping_mul(31) % 256) as u8).collect();
    let cases: Vec<(Vec<u8>, Vec<bool>)> = vec![
        (vec![b'a'; MAX_CONTENT], vec![true]),
        ([vec![b'a'; MAX_CONTENT], vec![b'\n']].concat(), vec![false]),
        ([vec![b'a'; MAX_CONTENT + 1], vec![b'\n']].concat(), vec![true, false]),
        ([vec![b'\xc3'; 5 * MAX_CONTENT], vec![b'\n']].concat(), vec![true, true, true, true, false]),
    ];
    for (bytes, tags) in cases {
        for piece in [1000, 16 * 1024, usize::MAX] {
            let folder = Folder::new();
            let logs = folder.logs(MAX_FILE);
            let writer = logs.open(&pod(), "main", 0).unwrap();
            bytes.chunks(piece.min(bytes.len())).for_each(|part| writer.write(Stream::Stdout, part).unwrap());
            writer.close();
            assert_eq!(entries(&folder).iter().map(|e| e.0).collect::<Vec<_>>(), tags, "pieces of {piece}");
            let read = block_on(async {
                all(&mut logs.read(&pod(), "main", 0, ReadOptions::default()).await.unwrap()).await
            });
            assert!(read == bytes, "{} bytes in pieces of {piece}", bytes.len());
        }
    }
    let folder = Folder::new();
    let logs = folder.logs(MAX_FILE);
    let writer = logs.open(&pod(), "main", 0).unwrap();
    writer.write(Stream::Stderr, &binary).unwrap();
    writer.close();
    let read = block_on(async {
        all(&mut logs.read(&pod(), "main", 0, ReadOptions::default()).await.unwrap()).await
    });
    assert!(read == binary);
}

#[test]
fn a_full_file_is_rotated_and_the_oldest_beyond_five_goes() {
    let folder = Folder::new();
    let logs = folder.logs(200);
    let writer = logs.open(&pod(), "main", 0).unwrap();
    // Four entries of 48 bytes fill a file.
    for i in 0..30 {
        writer.write(Stream::Stdout, format!("line {i:02}\n").as_bytes()).unwrap();
    }
    assert_eq!(files(&folder), ["0.log", "0.log.4", "0.log.5", "0.log.6", "0.log.7"]);
    let lines: String = (12..30).map(|i| format!("line {i:02}\n")).collect();
    assert_eq!(read(&logs, ReadOptions::default()), lines);
    for wanted in [0, 1, 2, 3, 7, 18, 19, u64::MAX] {
        let skip = 18_usize.saturating_sub(usize::try_from(wanted).unwrap_or(usize::MAX));
        let last: String = lines.split_inclusive('\n').skip(skip).collect();
        assert_eq!(read(&logs, tail(wanted)), last, "the last {wanted}");
    }
    drop(writer);
    // Another process goes on where this one ended.
    let writer = folder.logs(200).open(&pod(), "main", 0).unwrap();
    (30..33).for_each(|i| writer.write(Stream::Stdout, format!("line {i}\n").as_bytes()).unwrap());
    assert_eq!(files(&folder), ["0.log", "0.log.5", "0.log.6", "0.log.7", "0.log.8"]);
    assert_eq!(read(&folder.logs(200), tail(4)), "line 29\nline 30\nline 31\nline 32\n");
}

const TIMES: &str = "\
    2026-01-01T00:00:01.000000000Z stdout F one\n\
    2026-01-01T00:00:02.000000000Z stderr F two\n\
    2026-01-01T00:00:03.000000000Z stdout P thr\n\
    2026-01-01T00:00:03.500000000Z stdout F ee\n\
    2026-01-01T00:00:04.000000000Z stdout F four\n";

#[test]
fn since_tail_limit_and_timestamps_cut_in_the_kubelets_order() {
    let folder = Folder::new();
    put(&folder, TIMES);
    let since = |second: &str| Some(second.parse::<Timestamp>().unwrap());
    let none = ReadOptions::default;
    let four = "2026-01-01T00:00:04.000000000Z four\n";
    let cases = [
        (none(), "one\ntwo\nthree\nfour\n".to_owned()),
        (ReadOptions { since: since("2026-01-01T00:00:02Z"), ..none() }, "two\nthree\nfour\n".to_owned()),
        (ReadOptions { since: since("2026-01-01T00:00:02.1Z"), ..none() }, "three\nfour\n".to_owned()),
        (ReadOptions { since: since("2026-01-01T02:00:04+02:00"), ..none() }, "four\n".to_owned()),
        (ReadOptions { since: since("2027-01-01T00:00:00Z"), ..none() }, String::new()),
        (ReadOptions { since: since("-001000-01-01T00:00:00Z"), ..tail(1) }, "four\n".to_owned()),
        (tail(0), String::new()),
        (tail(2), "three\nfour\n".to_owned()),
        (tail(3), "two\nthree\nfour\n".to_owned()),
        (ReadOptions { since: since("2026-01-01T00:00:04Z"), ..tail(3) }, "four\n".to_owned()),
        (ReadOptions { limit: Some(6), ..none() }, "one\ntw".to_owned()),
        (ReadOptions { limit: Some(4), ..tail(2) }, "thre".to_owned()),
        (ReadOptions { limit: Some(0), ..none() }, String::new()),
        (ReadOptions { timestamps: true, ..tail(1) }, four.to_owned()),
        (ReadOptions { timestamps: true, limit: Some(33), ..tail(1) }, four[..33].to_owned()),
        // A line in two parts has one time, that of its first.
        (
            ReadOptions { timestamps: true, ..tail(2) },
            format!("2026-01-01T00:00:03.000000000Z three\n{four}"),
        ),
    ];
    for (options, expected) in cases {
        let text = format!("{options:?}");
        assert_eq!(read(&folder.logs(MAX_FILE), options), expected, "{text}");
    }
}

#[test]
fn what_a_power_cut_tore_is_left_out_and_spoils_nothing_after_it() {
    let folder = Folder::new();
    let entry = "2026-01-01T00:00:05.000000000Z stdout F five\n";
    for (torn, shown) in [
        ("2026-01-01T00:00:04.5", ""),
        ("\0\0\0\0", ""),
        ("2026-01-01T00:00:04.500000000Z stdout F fo", "fo"),
    ] {
        put(&folder, &format!("{TIMES}{torn}"));
        let logs = folder.logs(MAX_FILE);
        assert_eq!(read(&logs, ReadOptions::default()), format!("one\ntwo\nthree\nfour\n{shown}"));
        logs.open(&pod(), "main", 0).unwrap().write(Stream::Stdout, b"five\n").unwrap();
        assert!(read(&logs, tail(1)).ends_with("five\n"));
        assert!(read(&logs, ReadOptions::default()).starts_with("one\ntwo\nthree\nfour\n"));
    }
    // Longer than any entry: it is not one, and the next one is found all the same.
    let garbage = "x".repeat(3 * reader::CHUNK);
    put(&folder, &format!("{TIMES}{garbage}\n{entry}"));
    assert_eq!(read(&folder.logs(MAX_FILE), ReadOptions::default()), "one\ntwo\nthree\nfour\nfive\n");
    assert_eq!(read(&folder.logs(MAX_FILE), tail(2)), "four\nfive\n");
}

#[test]
fn a_tail_in_a_large_log_is_found_across_the_borders_of_chunks() {
    let folder = Folder::new();
    let logs = folder.logs(MAX_FILE);
    let writer = logs.open(&pod(), "main", 0).unwrap();
    let lines: Vec<String> = (0..4000).map(|i| format!("{i} {}\n", "y".repeat(i % 97))).collect();
    lines.chunks(100).for_each(|some| writer.write(Stream::Stdout, some.concat().as_bytes()).unwrap());
    for wanted in [1, 299, 700, 1234, 3999, 4000, 5000] {
        let last = lines[lines.len().saturating_sub(wanted)..].concat();
        assert!(read(&logs, tail(wanted as u64)) == last, "the last {wanted}");
    }
}

#[test]
fn a_follower_gets_each_line_as_it_comes_sees_rotation_through_and_ends_at_close() {
    let folder = Folder::new();
    let logs = folder.logs(200);
    let writer = logs.open(&pod(), "main", 0).unwrap();
    writer.write(Stream::Stdout, b"first\nsecond\n").unwrap();
    block_on(async {
        let mut reader = logs.read(&pod(), "main", 0, ReadOptions { follow: true, ..tail(1) }).await.unwrap();
        assert_eq!(reader.next().await.unwrap().unwrap(), "second\n");
        {
            let mut next = Box::pin(reader.next());
            for _ in 0..10 {
                assert!(poll_once(&mut next).await.is_none(), "nothing new: it waits");
            }
        }
        let mut expected = String::new();
        let mut seen = Vec::new();
        for i in 0..40 {
            let line = format!("line {i}\n");
            writer.write(Stream::Stderr, line.as_bytes()).unwrap();
            expected.push_str(&line);
            // Three lines at a time, so that it is at times one file behind.
            if i % 3 == 0 {
                while seen.len() < expected.len() {
                    seen.extend_from_slice(&reader.next().await.unwrap().unwrap());
                }
            }
        }
        writer.write(Stream::Stdout, b"no line feed").unwrap();
        writer.close();
        seen.extend(all(&mut reader).await);
        assert_eq!(String::from_utf8(seen).unwrap(), format!("{expected}no line feed"));
    });
}

#[test]
fn a_writer_on_another_thread_wakes_every_follower() {
    let folder = Folder::new();
    let logs = folder.logs(4096);
    let writer = logs.open(&pod(), "main", 0).unwrap();
    block_on(async {
        let mut one = logs.read(&pod(), "main", 0, follow()).await.unwrap();
        let mut two = logs.read(&pod(), "main", 0, follow()).await.unwrap();
        let thread = std::thread::spawn(move || {
            (0..200).for_each(|i| writer.write(Stream::Stdout, format!("{i}\n").as_bytes()).unwrap());
        });
        let (one, two) = zip(all(&mut one), all(&mut two)).await;
        thread.join().unwrap();
        let lines: String = (0..200).map(|i| format!("{i}\n")).collect();
        assert_eq!(String::from_utf8(one).unwrap(), lines);
        assert_eq!(two, lines.as_bytes());
    });
}

#[test]
fn following_a_run_that_nobody_writes_ends_after_its_content() {
    let folder = Folder::new();
    put(&folder, TIMES);
    assert_eq!(read(&folder.logs(MAX_FILE), follow()), "one\ntwo\nthree\nfour\n");
}

#[test]
fn a_follower_ends_when_the_pods_logs_are_removed() {
    let folder = Folder::new();
    let logs = folder.logs(MAX_FILE);
    let writer = logs.open(&pod(), "main", 0).unwrap();
    writer.write(Stream::Stdout, b"line\n").unwrap();
    block_on(async {
        let mut reader = logs.read(&pod(), "main", 0, follow()).await.unwrap();
        logs.remove(&pod()).unwrap();
        assert_eq!(all(&mut reader).await, b"line\n");
        let gone = logs.read(&pod(), "main", 0, follow()).await.err().unwrap();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    });
}

#[test]
fn a_full_disk_is_handed_back_and_what_was_accepted_before_is_kept() {
    let folder = Folder::new();
    let logs = folder.logs(MAX_FILE);
    fs::create_dir_all(current(&folder).parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/full", current(&folder)).unwrap();
    let writer = logs.open(&pod(), "main", 0).unwrap();
    writer.write(Stream::Stdout, b"begun").unwrap();
    for _ in 0..2 {
        let error = writer.write(Stream::Stdout, b" and ended\n").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(writer.unfinished_stdout(), b"begun");
    }
    writer.close();
}

#[test]
fn the_previous_runs_files_stay_and_older_ones_go() {
    let folder = Folder::new();
    let logs = folder.logs(60);
    for restart in [0, 1, 3] {
        let writer = logs.open(&pod(), "main", restart).unwrap();
        assert!(logs.open(&pod(), "main", restart).is_err(), "one writer a run");
        writer.write(Stream::Stdout, b"a line of this run\n").unwrap();
        writer.write(Stream::Stdout, b"and another\n").unwrap();
    }
    assert_eq!(files(&folder), ["1.log", "1.log.1", "3.log", "3.log.1"]);
    // What else is there is left alone.
    let others = ["lost+found", "a_b", "a_b_c_d", "lock"].map(|name| folder.0.join(name));
    others.iter().for_each(|path| fs::create_dir(path).unwrap());
    logs.remove_others(|uid| uid == "u1").unwrap();
    assert_eq!(files(&folder).len(), 4);
    logs.remove_others(|_| false).unwrap();
    assert!(!folder.0.join("default_hello_u1").exists());
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), others.len());
    logs.remove(&pod()).unwrap();
}

#[test]
fn names_lead_nowhere_else_and_long_ones_are_cut() {
    let folder = Folder::new();
    let logs = folder.logs(MAX_FILE);
    let named = |namespace: &str, name: &str, uid: &str| PodKey {
        namespace: namespace.into(),
        name: name.into(),
        uid: uid.into(),
    };
    for (pod, container) in [
        (named("..", "a", "u"), "c"),
        (named("n", "a/b", "u"), "c"),
        (named("n", "a", "u"), ".."),
        (pod(), ""),
    ] {
        assert!(logs.open(&pod, container, 0).is_err(), "{pod:?} {container:?}");
    }
    let long = named(&"n".repeat(63), &"é".repeat(126), "0b5e1c52-2f0c-4d3a-9a51-6f7f6e1f2a3b");
    logs.open(&long, "main", 0).unwrap();
    let name = fs::read_dir(&folder.0).unwrap().next().unwrap().unwrap().file_name();
    assert!(name.len() <= NAME_MAX && name.to_str().unwrap().ends_with(&format!("_{}", long.uid)));
}
