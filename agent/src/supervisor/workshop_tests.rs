//! The real workshop, as far as it can be tried without a registry that answers.

use std::net::TcpListener;
use std::path::PathBuf;

use super::*;
use crate::runtime::HELLO;

#[test]
fn a_panic_of_a_compiler_or_a_puller_is_an_error() {
    assert_eq!(caught(|| Ok::<_, String>(1)), Ok(1));
    assert_eq!(caught(|| Err::<(), _>("plain".to_owned())), Err("plain".to_owned()));
    let panicked = caught::<()>(|| panic!("at {}", 7));
    assert_eq!(panicked, Err("internal error, please report it: at 7".to_owned()));
}

/// A workshop in a folder that goes with it.
struct Bench {
    workshop: WasmWorkshop,
    folder: PathBuf,
}

impl Bench {
    fn new() -> Bench {
        let folder = std::env::temp_dir().join(format!("copepod-workshop-{:x}", fastrand::u64(..)));
        let config = crate::runtime::Config { threads: 1, default_memory: 1 << 20, guest_memory: u64::MAX };
        let workshop = WasmWorkshop {
            runtime: Runtime::start(config).unwrap(),
            store: Store::open(&folder.join("images")).unwrap(),
            registries: Arc::default(),
            volumes: Volumes::new(folder.join("pods"), folder.join("run"), Vec::new(), false),
            logs: Logs::new(folder.join("logs"), crate::log::Settings::default()),
            by_hand: ByHand::default(),
            ports: Ports::default(),
            pulling: Arc::default(),
            given: Default::default(),
        };
        Bench { workshop, folder }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn a_pull_that_was_given_up_keeps_its_turn_until_its_work_has_ended() {
    let bench = Bench::new();
    let registry = TcpListener::bind("127.0.0.1:0").unwrap();
    let reference: Reference = format!("{}/a:1", registry.local_addr().unwrap()).parse().unwrap();
    let (asked, connections) = async_channel::bounded(1);
    let silent = std::thread::spawn(move || {
        // Accepts, says nothing, and takes no more connections.
        let (connection, _) = registry.accept().unwrap();
        let _ = asked.send_blocking(connection);
    });
    let pulling = bench.workshop.pulling.clone();
    control::run(async {
        let pull = bench.workshop.pull(reference, crate::image::Use::Module, Keyring::default());
        let came = async { connections.recv().await.map_err(|error| error.to_string()) };
        let given_up = async { Err(format!("{:?}", pull.await)) };
        let connection = futures_lite::future::or(came, given_up).await.unwrap();
        assert!(pulling.try_lock_arc().is_none(), "its work goes on");
        drop(connection);
        pulling.lock_arc().await;
    });
    silent.join().unwrap();
}

impl Bench {
    fn compile(&self, image: &Image) -> Result<Module, StartFailure> {
        compile(&self.workshop.runtime, &self.workshop.store, image)
    }

    /// An image in a file of its own.
    fn image(&self, module: &[u8]) -> Image {
        let path = self.folder.join("module.wasm");
        std::fs::write(&path, module).unwrap();
        Image { id: "r/i@sha256:1".to_owned(), ..image::local(&path).unwrap() }
    }
}

#[test]
fn a_module_is_read_only_while_nobody_runs_it() {
    let bench = Bench::new();
    let image = bench.image(HELLO);
    let module = bench.compile(&image).unwrap_or_else(|failure| panic!("{failure:?}"));
    std::fs::remove_file(&image.module).unwrap();
    assert!(bench.compile(&image).is_ok());
    drop(module);
    let Err(StartFailure::Create(text)) = bench.compile(&image) else { panic!("it is gone") };
    assert!(text.starts_with("failed to read the module of image \"r/i@sha256:1\": No such file"), "{text}");
}

#[test]
fn a_module_that_is_damaged_or_too_large_is_said_with_its_image() {
    let bench = Bench::new();
    let image = bench.image(HELLO);
    std::fs::write(&image.module, &HELLO[..HELLO.len() - 1]).unwrap();
    let Err(StartFailure::Create(text)) = bench.compile(&image) else { panic!("it is damaged") };
    assert!(text.starts_with("the module of image \"r/i@sha256:1\" is damaged on disk"), "{text}");
    std::fs::File::options().write(true).open(&image.module).unwrap().set_len(MAX_MODULE + 1).unwrap();
    let Err(StartFailure::Create(text)) = bench.compile(&image) else { panic!("it is too large") };
    assert!(text.contains("\"r/i@sha256:1\": it is larger than 67108864 bytes"), "{text}");
}
