//! The tutorial's program as Krustlet's users have it: a `cdylib` whose only function is `_start`.
#![crate_type = "cdylib"]

use std::{thread, time::Duration};

#[no_mangle]
pub extern "C" fn _start() {
    let mut n: u64 = 0;
    loop {
        println!("hello {}", n);
        n += 1;
        thread::sleep(Duration::from_secs(1));
    }
}
