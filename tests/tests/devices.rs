//! A device of the machine in a pod, by the likes of a serial port: a pseudo-terminal, at whose other end this test is.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    time::Duration,
};

use rustix::{
    pty::{grantpt, openpt, ptsname, unlockpt, OpenptFlags},
    termios::{tcgetattr, tcsetattr, OptionalActions},
};
use serde_json::json;
use tests::{
    cluster::{pod, pod_spec},
    guests::Guest,
    Cluster,
};

/// How long a state may take to show on a busy machine.
const SHOWN: Duration = Duration::from_secs(90);

#[test]
fn a_guest_speaks_through_a_serial_port() {
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("there are pseudo-terminals");
    grantpt(&near).and_then(|()| unlockpt(&near)).expect("it can be opened");
    let far = ptsname(&near, Vec::new()).expect("it has a name");
    let far = far.to_str().expect("of letters").to_owned();
    // A serial line without a terminal's manners.
    let mut attributes = tcgetattr(&near).expect("it is one");
    attributes.make_raw();
    tcsetattr(&near, OptionalActions::Now, &attributes).expect("it takes them");

    let cluster = Cluster::start_with(&["--host-paths", &far]);
    let bed = &cluster.bed;
    let mut spec = pod_spec("Always", &cluster.image(Guest::Look), &["ls=/dev", "echo=/dev/ttyS0"]);
    spec["volumes"] = json!([{"name": "port", "hostPath": {"path": far, "type": "CharDevice"}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "port", "mountPath": "/dev/ttyS0"}]);
    bed.apply_value(&pod("serial", spec));
    let wait_for_words = |words: &str| {
        bed.wait_for(&format!("{words:?} in the log"), SHOWN, || {
            bed.kubectl(&["logs", "serial"]).stdout.contains(words).then_some(())
        });
    };
    // WASI has no ioctl: what a serial port's speed needs is set on the machine.
    wait_for_words("ls /dev: termination-log ttyS0\nopen /dev/ttyS0, ioctl: ");
    assert!(!bed.kubectl(&["logs", "serial"]).stdout.contains("ioctl: done"));
    let mut near = File::from(near);
    let mut lines = BufReader::new(near.try_clone().expect("it can be shared"));
    for line in ["first\n", "second, after a while\n"] {
        near.write_all(line.as_bytes()).expect("it takes a line");
        wait_for_words(&format!("got {line}"));
        let mut answer = String::new();
        lines.read_line(&mut answer).expect("it answers");
        assert_eq!(answer, format!("echo {line}"));
    }
    bed.kubectl(&["delete", "pod", "serial"]).expect();
}
