//! Says that it is up, and sleeps for as long as it is let.

use std::{thread, time::Duration};

fn main() {
    println!("up");
    loop {
        thread::sleep(Duration::from_secs(1000));
    }
}
