//! What guests' files take: counted as it is, refused past the limit, given back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use super::super::quota::{Account, Amount, Excess, Quota, BLOCK};
use super::volumes::Disk;
use super::*;

const NOSPC: u32 = 51;

/// A counted folder of the host, which its guests have as descriptor 3.
struct Counted {
    disk: Disk,
    quota: Arc<Quota>,
    refused: Arc<Mutex<Vec<Excess>>>,
    account: Arc<Account>,
    runtime: Runtime,
}

impl Counted {
    fn new(bytes: u64, files: u64) -> Counted {
        let (quota, refused) = quota(Amount { bytes, files });
        let account = Account::new(vec![Arc::clone(&quota)], Amount::default());
        Counted { disk: Disk::new(), quota, refused, account, runtime: runtime(2) }
    }

    fn start(&self, paths: &[&str], body: &str) -> Guest {
        let module = self.runtime.compile(body, &guests::files(paths, body)).unwrap();
        let mut spec = spec(&Collected::new());
        let account = Some(Arc::clone(&self.account));
        spec.preopens = Arc::new([Preopen { account, ..self.disk.preopen("/data", "other", false) }]);
        self.runtime.spawn(&module, spec).unwrap()
    }

    /// What the last of these calls answered, and what is counted once the guest has ended.
    fn errno(&self, paths: &[&str], body: &str) -> (u32, u64, u64) {
        let exit = block_on(self.start(paths, body).wait());
        let Exit::Code(errno) = exit else { panic!("{body}: {exit:?}") };
        let Amount { bytes, files } = self.quota.used();
        (errno, bytes, files)
    }

    /// What there is, by what the file system says.
    fn measured(&self) -> Amount {
        let entries = fs::read_dir(self.disk.0.join("other")).unwrap();
        let metas: Vec<fs::Metadata> = entries.map(|entry| entry.unwrap().metadata().unwrap()).collect();
        let bytes: BTreeMap<u64, u64> = metas
            .iter()
            .map(|meta| (meta.ino(), if meta.is_file() { meta.len().next_multiple_of(BLOCK) } else { 0 }))
            .collect();
        Amount { bytes: bytes.values().sum(), files: metas.len() as u64 }
    }
}

/// A quota, and what it told of.
fn quota(limit: Amount) -> (Arc<Quota>, Arc<Mutex<Vec<Excess>>>) {
    let refused = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&refused);
    (Arc::new(Quota::new(limit, move |excess| told.lock().unwrap().push(excess))), refused)
}

/// Opens or makes `$0`, and writes `$1`, ten bytes, at `at`.
fn written(at: u32) -> String {
    format!(
        "(call $must (call $open $0 (i32.const 1) (i32.const 1)))
         (call $buffer (i32.const 4160) (i32.const 10))
         (call $must (call $fd_pwrite (call $fd) (i32.const 0) (i32.const 1) (i64.const {at}) (i32.const 8)))"
    )
}

const TEN: &str = "0123456789";

#[test]
fn files_count_as_what_they_take_and_nothing_once_they_are_gone() {
    let close = "(call $fd_close (call $fd))";
    let unlink = "(call $path_unlink_file (i32.const 3) $0)";
    let link = "(call $path_link (i32.const 3) (i32.const 0) $0 (i32.const 3) $2)";
    let rename = "(call $path_rename (i32.const 3) $0 (i32.const 3) $2)";
    let must = |call: &str| format!("(call $must {call})");
    let appended = "(call $must (call $path_open (i32.const 3) (i32.const 1) $0 (i32.const 1) (i64.const -1) (i64.const -1)
          (i32.const 1) (i32.const 512)))
        (call $buffer (i32.const 4160) (i32.const 10))
        (call $must (call $fd_write (call $fd) (i32.const 0) (i32.const 1) (i32.const 8)))";
    for (what, calls, bytes, files) in [
        ("made", must("(call $open $0 (i32.const 1) (i32.const 1))") + close, 0, 1),
        ("written", written(0) + close, 4096, 1),
        ("written twice in one block", written(0) + &written(4000) + close, 4096, 1),
        ("written over a block's end", written(4090) + close, 8192, 1),
        ("a hole counts", written(40_000) + close, 40_960, 1),
        ("appended", appended.to_owned() + appended + close, 4096, 1),
        ("a folder", "(call $path_create_directory (i32.const 3) $0)".into(), 0, 1),
        ("a link", "(call $path_symlink $1 (i32.const 3) $0)".into(), 0, 1),
        (
            "allocated",
            written(0) + "(call $fd_allocate (call $fd) (i64.const 0) (i64.const 10000))",
            12_288,
            1,
        ),
        ("cut", written(9000) + "(call $fd_filestat_set_size (call $fd) (i64.const 1))", 4096, 1),
        ("cut as it is opened", written(9000) + "(call $open $0 (i32.const 8) (i32.const 1))", 0, 1),
        ("removed", written(0) + &must(close) + unlink, 0, 0),
        ("removed while it is open", written(0) + unlink, 0, 0),
        ("two names", written(0) + link, 4096, 2),
        ("two names, and one removed", written(0) + &must(link) + unlink, 4096, 1),
        ("renamed", written(0) + rename, 4096, 1),
        (
            "a folder, removed",
            must("(call $path_create_directory (i32.const 3) $0)")
                + "(call $path_remove_directory (i32.const 3) $0)",
            0,
            0,
        ),
    ] {
        let counted = Counted::new(1 << 20, 10);
        let body = format!("(block (result i32) {calls})");
        assert_eq!(counted.errno(&["a", TEN, "b"], &body), (0, bytes, files), "{what}");
        assert_eq!(counted.measured(), Amount { bytes, files }, "{what}, on the disk");
    }
}

#[test]
fn what_is_replaced_is_given_back() {
    let counted = Counted::new(1 << 20, 10);
    let both = format!(
        "(block (result i32) {} {} (call $path_rename (i32.const 3) $2 (i32.const 3) $0))",
        written(9000),
        written(0).replace("$0", "$2")
    );
    assert_eq!(counted.errno(&["a", TEN, "b"], &both), (0, 4096, 1));
    assert_eq!(counted.measured(), Amount { bytes: 4096, files: 1 });
    // Two names of one file: a rename from one to the other leaves both.
    let counted = Counted::new(1 << 20, 10);
    let linked = format!(
        "(block (result i32) {} (call $must (call $path_link (i32.const 3) (i32.const 0) $0 (i32.const 3) $2))
           (call $path_rename (i32.const 3) $2 (i32.const 3) $0))",
        written(0)
    );
    assert_eq!(counted.errno(&["a", TEN, "b"], &linked), (0, 4096, 2));
    assert_eq!(counted.measured(), Amount { bytes: 4096, files: 2 });
}

#[test]
fn what_is_there_already_needs_no_place() {
    let counted = Counted::new(4096, 2);
    let make = "(call $path_create_directory (i32.const 3) $2)";
    let body = format!("(block (result i32) {} (call $must {make}) {make})", written(0));
    assert_eq!(counted.errno(&["a", TEN, "b"], &body), (20, 4096, 2), "EEXIST");
    let again = format!("(block (result i32) {} (i32.const 0))", written(0));
    assert_eq!(counted.errno(&["a", TEN, "b"], &again), (0, 4096, 2));
    assert_eq!(*counted.refused.lock().unwrap(), [], "nothing was refused");
}

#[test]
fn past_the_limit_is_enospc_and_loses_nothing() {
    for (what, last) in [
        (
            "a write",
            "(call $fd_pwrite (call $fd) (i32.const 0) (i32.const 1) (i64.const 8190) (i32.const 8))",
        ),
        ("a size", "(call $fd_filestat_set_size (call $fd) (i64.const 1000000000000))"),
        ("an allocation", "(call $fd_allocate (call $fd) (i64.const 0) (i64.const 8193))"),
    ] {
        let counted = Counted::new(8192, 10);
        let body = format!("(block (result i32) {} {last})", written(8000));
        assert_eq!(counted.errno(&["a", TEN], &body), (NOSPC, 8192, 1), "{what}");
        assert_eq!(*counted.refused.lock().unwrap(), [Excess::Bytes], "{what}");
        assert_eq!(fs::read(counted.disk.0.join("other/a")).unwrap().len(), 8010, "{what}");
    }
    for (what, last) in [
        ("a file", "(call $open $2 (i32.const 1) (i32.const 1))"),
        ("a folder", "(call $path_create_directory (i32.const 3) $2)"),
        ("a link", "(call $path_symlink $0 (i32.const 3) $2)"),
        ("another name", "(call $path_link (i32.const 3) (i32.const 0) $0 (i32.const 3) $2)"),
    ] {
        let counted = Counted::new(8192, 1);
        let body = format!("(block (result i32) {} {last})", written(0));
        assert_eq!(counted.errno(&["a", TEN, "b"], &body), (NOSPC, 4096, 1), "{what}");
        assert_eq!(*counted.refused.lock().unwrap(), [Excess::Files], "{what}");
        assert!(!counted.disk.0.join("other/b").exists(), "{what}");
    }
}

#[test]
fn of_two_quotas_both_hold() {
    let (own, pods) = (Amount { bytes: 8192, files: 10 }, Amount { bytes: 4096, files: 10 });
    let [(own, _), (pods, refused)] = [own, pods].map(quota);
    let mut counted = Counted::new(0, 0);
    counted.account = Account::new(vec![own.clone(), pods.clone()], Amount { bytes: 0, files: 3 });
    let body = format!("(block (result i32) {} {} (i32.const 0))", written(0), written(8000));
    assert_eq!(counted.errno(&["a", TEN], &body).0, NOSPC);
    for quota in [own, pods] {
        assert_eq!(quota.used(), Amount { bytes: 4096, files: 4 }, "what one refused, the other has back");
    }
    assert_eq!(*refused.lock().unwrap(), [Excess::Bytes]);
}

/// Two guests make, write, rename, cut and remove the same two names at the same time: some calls fail, since the
/// other was faster, and in the end what is counted is what is there.
#[test]
fn two_guests_at_the_same_names_are_counted_right() {
    let counted = Counted::new(1 << 20, 100);
    let ignore = |call: &str| format!("(drop {call})");
    let calls = [
        "(call $open $0 (i32.const 1) (i32.const 1))",
        "(call $fd_pwrite (call $fd) (i32.const 0) (i32.const 1) (i64.const 20000) (i32.const 8))",
        "(call $path_link (i32.const 3) (i32.const 0) $0 (i32.const 3) $2)",
        "(call $path_rename (i32.const 3) $0 (i32.const 3) $2)",
        "(call $fd_filestat_set_size (call $fd) (i64.const 5000))",
        "(call $fd_close (call $fd))",
        "(call $open $2 (i32.const 9) (i32.const 1))",
        "(call $fd_pwrite (call $fd) (i32.const 0) (i32.const 1) (i64.const 4090) (i32.const 8))",
        "(call $path_unlink_file (i32.const 3) $2)",
        "(call $fd_close (call $fd))",
        "(call $path_create_directory (i32.const 3) $0)",
        "(call $path_remove_directory (i32.const 3) $0)",
    ];
    let body = format!(
        "(block (result i32)
           (call $buffer (i32.const 4160) (i32.const 10))
           (loop $next
             {}
             (i32.store (i32.const 600) (i32.add (i32.load (i32.const 600)) (i32.const 1)))
             (br_if $next (i32.lt_u (i32.load (i32.const 600)) (i32.const 400))))
           (i32.const 0))",
        calls.map(ignore).concat()
    );
    let guests = [counted.start(&["a", TEN, "b"], &body), counted.start(&["b", TEN, "a"], &body)];
    for guest in guests {
        assert_eq!(block_on(guest.wait()), Exit::Code(0));
    }
    assert_eq!(counted.quota.used(), counted.measured());
}
