//! Guests from start to end, on interpreter threads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod connections;
mod ends;
mod guests;
mod modules;
mod quotas;
mod sockets;
mod turns;
mod volumes;

use std::io;
use std::sync::{Arc, Mutex};

use futures_lite::future::block_on;

use super::*;

/// Collects what a guest prints, and tells when there is more.
struct Collected {
    bytes: Mutex<Vec<u8>>,
    more: async_channel::Sender<()>,
    arrived: async_channel::Receiver<()>,
}

impl Collected {
    fn new() -> Arc<Collected> {
        let (more, arrived) = async_channel::unbounded();
        Arc::new(Collected { bytes: Mutex::default(), more, arrived })
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    /// Waits for the next write.
    fn next(&self) {
        block_on(self.arrived.recv()).unwrap();
    }
}

impl Output for Collected {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.lock().unwrap().extend_from_slice(bytes);
        let _ = self.more.try_send(());
        Ok(())
    }
}

fn runtime(threads: usize) -> Runtime {
    Runtime::start(Config { threads, default_memory: 16 << 20, guest_memory: u64::MAX }).unwrap()
}

fn spec(stdout: &Arc<Collected>) -> GuestSpec {
    GuestSpec {
        name: "default/test/guest".into(),
        args: vec!["program".into()],
        env: Arc::new([]),
        listeners: Vec::new(),
        destinations: Vec::new(),
        preopens: Arc::new([]),
        files: Arc::new([]),
        stdio: Stdio {
            stdin: None,
            stdout: Outlet::Taken(Arc::clone(stdout) as Arc<dyn Output>),
            stderr: Outlet::Taken(Collected::new()),
        },
        memory: None,
        cpu_request: 0,
        cpu_limit: None,
        fuel: None,
    }
}

fn spawn(runtime: &Runtime, wasm: &[u8]) -> (Guest, Arc<Collected>) {
    let out = Collected::new();
    let module = runtime.compile(&format!("{wasm:x?}"), wasm).unwrap();
    (runtime.spawn(&module, spec(&out)).unwrap(), out)
}

/// Runs a guest to its end.
fn run(wasm: &[u8]) -> (Exit, String) {
    let runtime = runtime(1);
    let (guest, out) = spawn(&runtime, wasm);
    (block_on(guest.wait()), out.text())
}
