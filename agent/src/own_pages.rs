//! The pages of the agent's own program: those that its start needed, a pull, a compilation, and nobody since, are
//! let go. The kernel would take them back when memory is short; on a board where it always is, it need not look for
//! them, and what the agent holds is what it works with.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs;
use std::time::Duration;

use async_io::Timer;
use rustix::mm::{madvise, Advice};

/// Between two times that they are let go. What is in use comes back from the page cache at once, at some
/// microseconds for 64 KiB.
const PERIOD: Duration = Duration::from_secs(5 * 60);
/// The first time: the node has joined by then, or waits.
const START: Duration = Duration::from_secs(30);

/// Lets them go, again and again.
pub async fn keep_few() {
    Timer::after(START).await;
    loop {
        let maps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        let program = fs::read_link("/proc/self/exe").unwrap_or_default();
        for mapping in unwritten(&maps, program.to_str().unwrap_or_default()) {
            release(mapping);
        }
        Timer::after(PERIOD).await;
    }
}

/// A range of addresses.
type Range = (usize, usize);

/// The mappings of a file in which nothing can be written, and nothing was (proc_pid_smaps(5)): the read-only data that
/// the loader has relocated is not among them.
fn unwritten(maps: &str, file: &str) -> Vec<Range> {
    let mut found = Vec::new();
    let mut at = None;
    for line in maps.lines() {
        if let Some(pages) = line.strip_prefix("Anonymous:") {
            if let (Some(range), "0 kB") = (at.take(), pages.trim()) {
                found.push(range);
            }
        } else if let Some(range) = mapping(line, file) {
            at = range;
        }
    }
    found
}

/// The first line of a mapping: none, if it is no such line; its range, if it is the file's and is not to be written.
fn mapping(line: &str, file: &str) -> Option<Option<Range>> {
    let mut fields = line.splitn(6, ' ');
    let (from, to) = fields.next()?.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let (from, to) = (address(from)?, address(to)?);
    let rights = fields.next()?;
    let path = fields.nth(3).unwrap_or_default().trim();
    Some((!file.is_empty() && path == file && matches!(rights, "r--p" | "r-xp")).then_some((from, to)))
}

fn release((from, to): Range) {
    // SAFETY: MADV_DONTNEED drops the pages of this private mapping of a file, and the next access reads them from the
    // file again: the same bytes, so nothing that anybody can see changes.
    // - It is a whole mapping as the kernel just told it, one of the running program's own file, which is mapped as
    //   long as it runs: the addresses stay what they are.
    // - None of its pages was written ("Anonymous: 0 kB"), and none can be: it has no right to be, and the program
    //   changes no rights after its start.
    // - The file stays what it was: one that is executed cannot be written (ETXTBSY), and one that is replaced is
    //   another. A disk that cannot be read is no new danger: the kernel may drop such pages at any time.
    let _refused = unsafe { madvise(from as *mut c_void, to.saturating_sub(from), Advice::LinuxDontNeed) };
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_or_can_be_is_kept() {
        let maps = "\
00400000-00410000 r--p 00000000 00:1a 42                                 /usr/bin/copepod
Size:                 64 kB
Anonymous:             0 kB
00410000-00800000 r-xp 00010000 00:1a 42                                 /usr/bin/copepod
Rss:                2048 kB
Anonymous:             0 kB
00800000-00820000 r--p 00400000 00:1a 42                                 /usr/bin/copepod
Anonymous:           128 kB
00820000-00830000 rw-p 00420000 00:1a 42                                 /usr/bin/copepod
Anonymous:             0 kB
00830000-00840000 r--p 00000000 00:1a 43                                 /usr/lib/libc.so
Anonymous:             0 kB
00840000-00850000 rw-p 00000000 00:00 0
Anonymous:             0 kB
00850000-00860000 r--s 00000000 00:1a 42                                 /usr/bin/copepod
Anonymous:             0 kB
VmFlags: rd mr
";
        assert_eq!(unwritten(maps, "/usr/bin/copepod"), [(0x40_0000, 0x41_0000), (0x41_0000, 0x80_0000)]);
        assert_eq!(unwritten(maps, ""), []);
        assert_eq!(unwritten("no such thing\n00-zz r--p\n", "/usr/bin/copepod"), []);
    }

    #[test]
    fn a_program_goes_on_without_its_pages() {
        let program = fs::read_link("/proc/self/exe").unwrap();
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        let found = unwritten(&maps, program.to_str().unwrap());
        assert!(!found.is_empty(), "{maps}");
        let resident = || -> u64 {
            let maps = fs::read_to_string("/proc/self/smaps").unwrap();
            let mut ours = false;
            let mut sum = 0;
            for line in maps.lines() {
                match (mapping(line, program.to_str().unwrap()), line.strip_prefix("Rss:")) {
                    (Some(found), _) => ours = found.is_some(),
                    (None, Some(kib)) if ours => {
                        sum += kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
                    }
                    _ => {}
                }
            }
            sum
        };
        let before = resident();
        found.into_iter().for_each(release);
        // What runs now, here and in other tests, is back already.
        assert!(resident() < before, "{before} {}", resident());
    }
}
