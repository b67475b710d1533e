//! The tutorial's program as anyone would write it: `hello 0`, `hello 1`, … once a second.

use std::{thread, time::Duration};

fn main() {
    let mut n: u64 = 0;
    loop {
        println!("hello {}", n);
        n += 1;
        thread::sleep(Duration::from_secs(1));
    }
}
