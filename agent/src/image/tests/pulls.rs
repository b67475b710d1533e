//! Pulls without credentials.

use super::*;

#[test]
fn both_layouts_are_pulled_by_tag_and_by_digest() {
    for (config_type, layer_type) in [(WASM_TO_OCI_CONFIG, WASM_TO_OCI_LAYER), (CNCF_CONFIG, CNCF_LAYER)] {
        let mut repository = Repository::default();
        let text = manifest(&mut repository, config_type, b"{}", layer_type, MODULE);
        let digest = repository.manifest("1", OCI_MANIFEST, &text);
        let registry = serve(repository);
        let bench = Bench::new();
        let name = format!("{}/a/b", registry.authority);
        for reference in [format!("{name}:1"), format!("{name}@{digest}")] {
            let image = bench.pull_anonymously(&reference).unwrap();
            assert_eq!(fs::read(&image.module).unwrap(), MODULE);
            assert_eq!(image.id, format!("{name}@{digest}"));
            assert_eq!(image.module_digest, Digest::of(MODULE).to_string());
            assert_eq!(image.size, MODULE.len() as u64);
            let parsed: Reference = reference.parse().unwrap();
            assert_eq!(bench.store.find(&parsed, Use::Module).unwrap().id, image.id);
            assert!(!bench.is_locked(&reference));
        }
        let blobs = registry.lines().iter().filter(|line| line.contains("/blobs/")).count();
        assert_eq!(blobs, 1, "what is in the store is not asked for again");
    }
}

#[test]
fn pulls_of_one_image_at_the_same_time_download_it_once() {
    let (repository, _) = repository();
    let registry = serve(repository);
    let bench = Bench::new();
    let reference = format!("{}/a:1", registry.authority);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| bench.pull_anonymously(&reference).unwrap());
        }
    });
    let blobs = registry.lines().iter().filter(|line| line.contains("/blobs/")).count();
    assert_eq!(blobs, 1);
}

#[test]
fn an_index_leads_to_the_manifest_for_this_node() {
    for (index_type, manifest_type) in [(OCI_INDEX, OCI_MANIFEST), (DOCKER_INDEX, DOCKER_MANIFEST)] {
        let mut repository = Repository::default();
        let text = manifest(&mut repository, CNCF_CONFIG, b"{}", CNCF_LAYER, MODULE);
        let inner = repository.manifest("inner", manifest_type, &text);
        let entry = descriptor(manifest_type, &inner, text.len());
        let with = |platform: &str| entry.replace('}', &format!(r#","platform":{platform}}}"#));
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#,
            with(r#"{"os":"linux","architecture":"amd64"}"#).replace(&inner.to_string(), "sha256:none"),
            with(r#"{"os":"wasi","architecture":"wasm"}"#)
        );
        let top = repository.manifest("1", index_type, &index);
        let registry = serve(repository);
        let bench = Bench::new();
        let image = bench.pull_anonymously(&format!("{}/a:1", registry.authority)).unwrap();
        assert_eq!(image.id, format!("{}/a@{top}", registry.authority));
        assert_eq!(fs::read(&image.module).unwrap(), MODULE);
    }
}

#[test]
fn an_image_config_gives_entrypoint_cmd_and_env() {
    let mut repository = Repository::default();
    let text = manifest(
        &mut repository,
        "application/vnd.oci.image.config.v1+json",
        br#"{"os":"wasip1","architecture":"wasm","config":{"Entrypoint":["/a"],"Cmd":["b"],"Env":["C=d"]}}"#,
        "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
        MODULE,
    );
    repository.manifest("1", OCI_MANIFEST, &text);
    let registry = serve(repository);
    let bench = Bench::new();
    let reference = format!("{}/a:1", registry.authority);
    bench.pull_anonymously(&reference).unwrap();
    let image = bench.store.find(&reference.parse().unwrap(), Use::Module).unwrap();
    assert_eq!((&image.entrypoint[0][..], &image.cmd[0][..], &image.env[0][..]), ("/a", "b", "C=d"));
}

#[test]
fn a_tag_that_has_moved_is_followed_and_the_old_digest_stays() {
    let (repository, old) = repository();
    let moved = std::sync::Arc::new(std::sync::Mutex::new(repository));
    let served = std::sync::Arc::clone(&moved);
    let registry = StandIn::start(move |request| served.lock().unwrap().answer(request));
    let bench = Bench::new();
    let reference = format!("{}/a:1", registry.authority);
    let first = bench.pull_anonymously(&reference).unwrap();
    {
        let mut repository = moved.lock().unwrap();
        let text = manifest(&mut repository, CNCF_CONFIG, b"{}", CNCF_LAYER, b"\0asm\x01\0\0\0 another");
        repository.manifest("1", OCI_MANIFEST, &text);
    }
    let second = bench.pull_anonymously(&reference).unwrap();
    assert_ne!(first.module_digest, second.module_digest);
    let by_digest: Reference = format!("{}/a@{old}", registry.authority).parse().unwrap();
    assert_eq!(bench.store.find(&by_digest, Use::Module).unwrap().module_digest, first.module_digest);
    assert_eq!(bench.store.list().len(), 2);
}

/// What becomes of a pull of tag `1`.
fn failure(repository: Repository) -> PullError {
    let registry = serve(repository);
    let bench = Bench::new();
    let error = bench.pull_anonymously(&format!("{}/a:1", registry.authority)).unwrap_err();
    assert_eq!(bench.leftovers(), 0, "{error}");
    error
}

#[test]
fn a_missing_image_reads_as_it_does_under_containerd() {
    let registry = serve(Repository::default());
    let reference = format!("{}/a:1", registry.authority);
    let error = Bench::new().pull_anonymously(&reference).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "failed to pull and unpack image \"{reference}\": failed to resolve reference \"{reference}\": \
             {reference}: not found: server message: manifest_unknown: manifest unknown"
        )
    );
    assert_eq!((error.reason(), error.is_permanent()), ("ErrImagePull", false));
}

#[test]
fn a_registry_that_is_down_or_overloaded_is_unavailable() {
    for status in [429, 500, 503] {
        let registry = StandIn::start(move |_| Answer::status(status));
        let error = Bench::new().pull_anonymously(&format!("{}/a:1", registry.authority)).unwrap_err();
        assert_eq!((error.reason(), error.is_permanent()), ("RegistryUnavailable", false), "{error}");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Bench::new().pull_anonymously(&format!("{closed}/a:1")).unwrap_err();
    assert_eq!(error.reason(), "RegistryUnavailable", "{error}");
}

#[test]
fn what_does_not_have_its_digest_is_never_stored() {
    let (right, digest) = repository();
    let module = Digest::of(MODULE).to_string();

    let mut wrong_blob = right.clone();
    let mut other = MODULE.to_vec();
    *other.last_mut().unwrap() ^= 1;
    wrong_blob.blobs.insert(module.clone(), Answer::ok(other));
    assert!(matches!(failure(wrong_blob).cause, PullCause::Corrupt(_)));

    let mut long_blob = right.clone();
    long_blob.blobs.insert(module, Answer::ok([MODULE, b"more"].concat()));
    assert!(matches!(failure(long_blob).cause, PullCause::Corrupt(_)));

    // By tag: the registry's own word for it.
    let mut wrong_header = right.clone();
    let text = wrong_header.manifests["1"].body.clone();
    let lie = Answer::ok(text.clone()).with("Docker-Content-Digest", Digest::of(b"x").to_string());
    wrong_header.manifests.insert("1".into(), lie);
    assert!(matches!(failure(wrong_header).cause, PullCause::Corrupt(_)));

    // By digest: whatever the registry says.
    let mut swapped = right;
    let text = [&text[..], b" "].concat();
    let lie = Answer::ok(text.clone()).with("Docker-Content-Digest", Digest::of(&text).to_string());
    swapped.manifests.insert(digest.to_string(), lie);
    let registry = serve(swapped);
    let error = Bench::new().pull_anonymously(&format!("{}/a@{digest}", registry.authority)).unwrap_err();
    assert!(matches!(error.cause, PullCause::Corrupt(_)), "{error}");
}

#[test]
fn a_registry_without_the_digest_header_is_served_by_what_was_hashed() {
    let (mut repository, digest) = repository();
    let text = repository.manifests["1"].body.clone();
    repository.manifests.insert("1".into(), Answer::ok(text));
    let registry = serve(repository);
    let image = Bench::new().pull_anonymously(&format!("{}/a:1", registry.authority)).unwrap();
    assert!(image.id.ends_with(&digest.to_string()));
}

#[test]
fn sizes_past_their_limits_are_errors() {
    let mut huge_manifest = Repository::default();
    huge_manifest.manifest("1", OCI_MANIFEST, &" ".repeat((4 << 20) + 1));
    let error = failure(huge_manifest);
    assert!(matches!(error.cause, PullCause::TooLarge(_)) && error.is_permanent(), "{error}");

    let (mut huge_module, _) = repository();
    let text = String::from_utf8(huge_module.manifests["1"].body.clone()).unwrap();
    let size = format!(r#""size":{}"#, MODULE.len());
    let text = text.replace(&size, &format!(r#""size":{}"#, super::super::MAX_MODULE + 1));
    huge_module.manifest("1", OCI_MANIFEST, &text);
    assert!(matches!(failure(huge_module).cause, PullCause::TooLarge(_)));

    let mut huge_config = Repository::default();
    let text = manifest(
        &mut huge_config,
        "application/vnd.oci.image.config.v1+json",
        &vec![b' '; (1 << 20) + 1],
        CNCF_LAYER,
        MODULE,
    );
    huge_config.manifest("1", OCI_MANIFEST, &text);
    assert!(matches!(failure(huge_config).cause, PullCause::TooLarge(_)));
}

#[test]
fn what_this_node_cannot_run_is_refused_for_good_and_in_plain_words() {
    let tar = "application/vnd.oci.image.layer.v1.tar+gzip";
    let image = "application/vnd.oci.image.config.v1+json";
    for (config_type, config, layer_type, layer, words) in [
        (
            image,
            &br#"{"os":"linux","architecture":"amd64"}"#[..],
            tar,
            &b"\x1f\x8b"[..],
            "Linux container image (linux/amd64)",
        ),
        (image, br#"{"os":"wasi","architecture":"wasm"}"#, tar, b"\x1f\x8b", "copepod push"),
        (CNCF_CONFIG, b"{}", CNCF_LAYER, b"\0asm\x0d\0\x01\0 component", "wasm32-wasip1"),
        (CNCF_CONFIG, b"{}", CNCF_LAYER, b"#!/bin/sh and so on", "not a WebAssembly module"),
        (CNCF_CONFIG, b"{}", CNCF_LAYER, b"\0as", "not a WebAssembly module"),
    ] {
        let mut repository = Repository::default();
        let text = manifest(&mut repository, config_type, config, layer_type, layer);
        repository.manifest("1", OCI_MANIFEST, &text);
        let error = failure(repository);
        assert!(matches!(error.cause, PullCause::Unrunnable(_)) && error.is_permanent(), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.reason(), "ErrImagePull");
    }
    let mut index = Repository::default();
    let platform = r#"{"os":"linux","architecture":"arm64"}"#;
    index.manifest(
        "1",
        OCI_INDEX,
        &format!(r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{OCI_MANIFEST}","digest":"sha256:0","size":1,"platform":{platform}}}]}}"#),
    );
    let error = failure(index);
    assert!(
        matches!(&error.cause, PullCause::Unrunnable(Unrunnable::LinuxImage(p)) if p == "linux/arm64"),
        "{error}"
    );
}

#[test]
fn a_document_that_makes_no_sense_is_refused() {
    for text in ["", "<html>", "{}", r#"{"schemaVersion":2,"manifests":[{"digest":"../x","size":1}]}"#] {
        let mut repository = Repository::default();
        repository.manifest("1", OCI_MANIFEST, text);
        assert!(failure(repository).is_permanent(), "{text}");
    }
}

/// Serves the module in pieces of 20 bytes, each ending in a broken connection.
fn breaking(request: &Seen, repository: &Repository, ranges: bool) -> Answer {
    let whole = repository.answer(request);
    if !request.path().contains("/blobs/") {
        return whole;
    }
    let start: usize = request
        .header("range")
        .strip_prefix("bytes=")
        .and_then(|range| range.trim_end_matches('-').parse().ok())
        .unwrap_or(0);
    if !ranges {
        return if start == 0 { Answer { cut: Some(20), ..whole } } else { whole };
    }
    let rest = whole.body[start..].to_vec();
    let range = format!("bytes {start}-{}/{}", MODULE.len() - 1, MODULE.len());
    let status = if start == 0 { 200 } else { 206 };
    Answer { status, body: rest, cut: Some(20), ..Answer::default() }.with("Content-Range", range)
}

#[test]
fn a_broken_download_is_taken_up_where_it_broke() {
    for ranges in [true, false] {
        let (repository, _) = repository();
        let registry = StandIn::start(move |request| breaking(request, &repository, ranges));
        let bench = Bench::new();
        let image = bench.pull_anonymously(&format!("{}/a:1", registry.authority)).unwrap();
        assert_eq!(fs::read(&image.module).unwrap(), MODULE);
        let asked: Vec<String> = registry
            .seen()
            .iter()
            .filter(|seen| seen.path().contains("/blobs/"))
            .map(|seen| seen.header("range").to_owned())
            .collect();
        let expected: &[&str] =
            if ranges { &["", "bytes=20-", "bytes=40-", "bytes=60-"] } else { &["", "bytes=20-"] };
        assert_eq!(asked, expected);
    }
}

#[test]
fn redirects_are_followed_to_another_origin_but_not_for_ever() {
    let (repository, _) = repository();
    let store = serve(repository.clone());
    let elsewhere = store.authority.clone();
    let registry = StandIn::start(move |request| match request.path() {
        path if path.contains("/blobs/") => {
            Answer::status(307).with("Location", format!("http://{elsewhere}{path}?signature=secret"))
        }
        _ => repository.answer(request),
    });
    let bench = Bench::new();
    bench.pull_anonymously(&format!("{}/a:1", registry.authority)).unwrap();
    assert_eq!(store.seen().len(), 1);

    let around = StandIn::start(|request| Answer::status(302).with("Location", request.target.clone()));
    let error = Bench::new().pull_anonymously(&format!("{}/a:1", around.authority)).unwrap_err();
    assert!(matches!(error.cause, PullCause::Resolve { error: RegistryError::Protocol(_), .. }), "{error}");
    assert_eq!(around.seen().len(), 11);
}

#[test]
fn a_pull_that_nobody_waits_for_asks_for_nothing_more() {
    let (repository, _) = repository();
    let cancelled = std::sync::Arc::new(AtomicBool::new(true));
    let registry = StandIn::start({
        let cancelled = std::sync::Arc::clone(&cancelled);
        move |request| {
            cancelled.store(true, Ordering::Relaxed);
            repository.answer(request)
        }
    });
    let reference = format!("{}/a:1", registry.authority);
    let bench = Bench::new();
    for asked in [0, 1] {
        let error = bench.pull_unless(&reference, &Keyring::default(), &cancelled).unwrap_err();
        assert!(matches!(error.cause, PullCause::GivenUp(_)), "{error}");
        assert_eq!((registry.seen().len(), bench.leftovers()), (asked, 0));
        cancelled.store(false, Ordering::Relaxed);
    }
}

#[test]
fn a_download_that_nobody_waits_for_is_not_taken_up_again() {
    let (repository, _) = repository();
    let cancelled = std::sync::Arc::new(AtomicBool::new(false));
    let registry = StandIn::start({
        let cancelled = std::sync::Arc::clone(&cancelled);
        move |request| {
            cancelled.store(request.path().contains("/blobs/"), Ordering::Relaxed);
            breaking(request, &repository, true)
        }
    });
    let bench = Bench::new();
    let reference = format!("{}/a:1", registry.authority);
    let error = bench.pull_unless(&reference, &Keyring::default(), &cancelled).unwrap_err();
    assert!(matches!(error.cause, PullCause::GivenUp(_)), "{error}");
    assert_eq!((registry.seen().len(), bench.leftovers()), (2, 0));
}
