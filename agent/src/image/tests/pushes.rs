//! Pushes, into a stand-in that keeps what it is sent.

use std::cell::RefCell;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::super::push::{push, Format, PushError};
use super::*;

/// A registry that takes uploads.
struct Taking {
    registry: StandIn,
    held: Arc<Mutex<Repository>>,
}

impl Taking {
    fn new() -> Taking {
        let held = Arc::new(Mutex::new(Repository::default()));
        let kept = Arc::clone(&held);
        let registry = StandIn::start(move |request| take(&mut kept.lock().unwrap(), request));
        Taking { registry, held }
    }
}

fn take(held: &mut Repository, request: &Seen) -> Answer {
    let name = request.path().rsplit('/').next().unwrap_or_default().to_owned();
    match request.method.as_str() {
        "POST" => Answer::status(202).with("Location", "/v2/a/blobs/uploads/1?_state=x"),
        "PUT" if request.path().contains("/uploads/") => {
            let digest = request.target.split("_state=x&digest=").nth(1).unwrap().replace("%3A", ":");
            assert_eq!(Digest::of(&request.body).to_string(), digest);
            held.blobs.insert(digest, Answer::ok(request.body.clone()));
            Answer::status(201)
        }
        "PUT" => {
            let text = String::from_utf8(request.body.clone()).unwrap();
            let digest = held.manifest(&name, OCI_MANIFEST, &text);
            assert_eq!(request.header("content-type"), OCI_MANIFEST);
            Answer::status(201).with("Docker-Content-Digest", digest.to_string())
        }
        _ => held.answer(request),
    }
}

fn file(bench: &Bench, bytes: &[u8]) -> PathBuf {
    let path = bench.folder.join("hello.wasm");
    fs::write(&path, bytes).unwrap();
    let stamp = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    fs::File::options().write(true).open(&path).unwrap().set_modified(stamp).unwrap();
    path
}

fn send(reference: &str, path: &Path, format: Format) -> Result<Digest, PushError> {
    let keyring = Keyring::default();
    push(&Registries::default(), &reference.parse().unwrap(), &keyring, path, format, &|_, _| ())
        .map(|pushed| pushed.digest)
}

#[test]
fn both_layouts_are_written_to_the_letter_and_pulled_again() {
    let module = Digest::of(MODULE);
    let size = MODULE.len();
    let cncf = format!(
        r#"{{"created":"2023-11-14T22:13:20Z","architecture":"wasm","os":"wasip1","layerDigests":["{module}"]}}"#
    );
    let (empty, config) = (Digest::of(b"{}"), Digest::of(cncf.as_bytes()));
    for (format, config_text, manifest) in [
        (
            Format::WasmToOci,
            "{}",
            format!(
                r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.wasm.config.v1+json","digest":"{empty}","size":2}},"layers":[{{"mediaType":"application/vnd.wasm.content.layer.v1+wasm","digest":"{module}","size":{size},"annotations":{{"org.opencontainers.image.title":"hello.wasm"}}}}]}}"#
            ),
        ),
        (
            Format::Cncf,
            cncf.as_str(),
            format!(
                r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{{"mediaType":"application/vnd.wasm.config.v0+json","digest":"{config}","size":{}}},"layers":[{{"mediaType":"application/wasm","digest":"{module}","size":{size}}}]}}"#,
                cncf.len()
            ),
        ),
    ] {
        let bench = Bench::new();
        let taking = Taking::new();
        let reference = format!("{}/a:1", taking.registry.authority);
        let digest = send(&reference, &file(&bench, MODULE), format).unwrap();
        {
            let held = taking.held.lock().unwrap();
            assert_eq!(String::from_utf8(held.manifests["1"].body.clone()).unwrap(), manifest);
            assert!(held.blobs.values().any(|blob| blob.body == config_text.as_bytes()));
            serde_json::from_str::<oci_spec::image::ImageManifest>(&manifest).unwrap();
        }
        let image = bench.pull_anonymously(&reference).unwrap();
        assert!(image.id.ends_with(&digest.to_string()));
        assert_eq!(fs::read(image.module).unwrap(), MODULE);
    }
}

#[test]
fn what_the_registry_has_is_not_sent_again() {
    let bench = Bench::new();
    let taking = Taking::new();
    let path = file(&bench, MODULE);
    for tag in ["1", "2"] {
        send(&format!("{}/a:{tag}", taking.registry.authority), &path, Format::WasmToOci).unwrap();
    }
    let uploads = taking.registry.lines().iter().filter(|line| line.contains("PUT /v2/a/blobs/")).count();
    assert_eq!(uploads, 2, "the module and its config, once each");
}

#[test]
fn progress_ends_at_the_modules_size() {
    let bench = Bench::new();
    let taking = Taking::new();
    let module = [MODULE, &vec![7; 300_000]].concat();
    let path = file(&bench, &module);
    let told = RefCell::new(Vec::new());
    push(
        &Registries::default(),
        &format!("{}/a:1", taking.registry.authority).parse().unwrap(),
        &Keyring::default(),
        &path,
        Format::Cncf,
        &|sent, total| told.borrow_mut().push((sent, total)),
    )
    .unwrap();
    let told = told.into_inner();
    assert!(told.len() > 3 && told.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{told:?}");
    assert_eq!(*told.last().unwrap(), (module.len() as u64, module.len() as u64));
}

#[test]
fn the_right_to_push_is_asked_for_and_the_upload_is_not_repeated() {
    let scopes = Arc::new(Mutex::new(Vec::new()));
    let asked = Arc::clone(&scopes);
    let service = StandIn::start(move |request| {
        asked.lock().unwrap().push(request.target.clone());
        Answer::ok(r#"{"token":"granted"}"#)
    });
    let held = Mutex::new(Repository::default());
    let challenge = format!(r#"Bearer realm="http://{}/token",scope="repository:a:pull""#, service.authority);
    let registry = StandIn::start(move |request| match request.header("authorization") {
        "Bearer granted" => take(&mut held.lock().unwrap(), request),
        _ => Answer::status(401).with("WWW-Authenticate", challenge.clone()),
    });
    let bench = Bench::new();
    send(&format!("{}/a:1", registry.authority), &file(&bench, MODULE), Format::Cncf).unwrap();
    assert_eq!(*scopes.lock().unwrap(), ["/token?scope=repository%3Aa%3Apull%2Cpush"]);
}

#[test]
fn an_upload_address_elsewhere_is_sent_the_blob_without_the_authorization() {
    let elsewhere = StandIn::start(|_| Answer::status(201));
    let to = elsewhere.authority.clone();
    let held = Mutex::new(Repository::default());
    let registry = StandIn::start(move |request| match request.header("authorization") {
        "" => Answer::status(401).with("WWW-Authenticate", "Basic"),
        _ if request.method == "POST" => Answer::status(202).with("Location", format!("http://{to}/up")),
        _ => take(&mut held.lock().unwrap(), request),
    });
    let mut keyring = Keyring::default();
    let entry = format!(r#"{{"{}":{{"username":"u","password":"p"}}}}"#, registry.authority);
    keyring.add_dockercfg(entry.as_bytes()).unwrap();
    let bench = Bench::new();
    let path = file(&bench, MODULE);
    let reference = format!("{}/a:1", registry.authority).parse().unwrap();
    push(&Registries::default(), &reference, &keyring, &path, Format::Cncf, &|_, _| ()).unwrap();
    let seen = elsewhere.seen();
    assert!(seen.len() == 2 && seen.iter().all(|seen| seen.header("authorization").is_empty()));
    assert_eq!(seen[0].body, MODULE);
}

#[test]
fn a_push_that_is_refused_is_said_to_be_a_push() {
    for status in [401, 403] {
        let registry = StandIn::start(move |_| Answer::status(status));
        let bench = Bench::new();
        let reference = format!("{}/a:1", registry.authority);
        let error = send(&reference, &file(&bench, MODULE), Format::Cncf).unwrap_err().to_string();
        assert!(error.contains("push access denied") && !error.contains("pull"), "{error}");
    }
}

#[test]
fn what_no_node_runs_is_not_pushed() {
    let bench = Bench::new();
    let taking = Taking::new();
    let reference = format!("{}/a:1", taking.registry.authority);
    for (bytes, words) in [
        (&b"#!/bin/sh"[..], "not a WebAssembly module"),
        (b"", "not a WebAssembly module"),
        (b"\0asm\x0d\0\x01\0", "component"),
    ] {
        let error = send(&reference, &file(&bench, bytes), Format::Cncf).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    let path = file(&bench, MODULE);
    fs::File::options().write(true).open(&path).unwrap().set_len(super::super::MAX_MODULE + 1).unwrap();
    assert!(matches!(send(&reference, &path, Format::Cncf), Err(PushError::TooLarge { .. })));
    assert!(matches!(send(&reference, &bench.folder, Format::Cncf), Err(PushError::File { .. })));
    assert!(matches!(send(&reference, Path::new("/no/such"), Format::Cncf), Err(PushError::File { .. })));
    let digest = format!("{reference}@{}", Digest::of(b""));
    assert!(matches!(send(&digest, &path, Format::Cncf), Err(PushError::ToDigest(_))));
    assert!(taking.registry.seen().is_empty());
}

#[test]
fn a_registry_that_stores_something_else_is_caught() {
    let registry = StandIn::start(|request| match (request.method.as_str(), request.path()) {
        ("PUT", path) if path.contains("/manifests/") => {
            Answer::status(201).with("Docker-Content-Digest", Digest::of(b"else").to_string())
        }
        ("HEAD", _) => Answer::status(200),
        _ => Answer::status(500),
    });
    let bench = Bench::new();
    let error =
        send(&format!("{}/a:1", registry.authority), &file(&bench, MODULE), Format::Cncf).unwrap_err();
    assert!(error.to_string().contains("the registry stored"), "{error}");
}
