//! Pulls and pushes with credentials: the token protocols of Distribution, Azure, Google and Harbor,
//! and who is never sent what.

use std::sync::{Arc, Mutex};

use base64::engine::general_purpose::STANDARD;
use base64::Engine;

use super::*;

const IDENTITY_USER: &str = "00000000-0000-0000-0000-000000000000";

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

/// One entry of a `.dockerconfigjson`.
fn keyring(entries: &[(&str, String)]) -> Keyring {
    let entries: Vec<String> =
        entries.iter().map(|(server, entry)| format!(r#""{server}":{entry}"#)).collect();
    let mut keyring = Keyring::default();
    keyring.add_docker_config_json(format!(r#"{{"auths":{{{}}}}}"#, entries.join(",")).as_bytes()).unwrap();
    keyring
}

fn password_entry(username: &str, password: &str) -> String {
    format!(r#"{{"auth":"{}"}}"#, STANDARD.encode(format!("{username}:{password}")))
}

/// A registry that lets in whoever sends `authorization`, and challenges all others.
fn guarded(repository: Repository, authorization: &str, challenge: &str) -> StandIn {
    let (authorization, challenge) = (authorization.to_owned(), challenge.to_owned());
    StandIn::start(move |request| {
        if request.header("authorization") == authorization {
            repository.answer(request)
        } else {
            Answer::status(401).with("WWW-Authenticate", challenge.clone())
        }
    })
}

/// A token service that answers to `authorization` with the token `granted`.
fn token_service(authorization: &str, answer: &'static str) -> StandIn {
    let authorization = authorization.to_owned();
    StandIn::start(move |request| match request.method.as_str() {
        "GET" if request.header("authorization") == authorization => Answer::ok(answer),
        "GET" => Answer::status(401),
        _ => Answer::status(405),
    })
}

fn bearer(service: &StandIn) -> String {
    format!(
        r#"Bearer realm="http://{}/token",service="the registry",scope="repository:a:pull""#,
        service.authority
    )
}

#[test]
fn a_password_is_sent_as_basic_where_that_is_asked_for() {
    let (repository, _) = repository();
    let registry = guarded(repository, &basic("u", "p:w"), "Basic realm=\"x\"");
    let bench = Bench::new();
    let reference = format!("{}/a:1", registry.authority);
    bench.pull(&reference, &keyring(&[(&registry.authority, password_entry("u", "p:w"))])).unwrap();
    assert!(bench.is_locked(&reference));
    // One challenge for the whole pull, and nothing before it.
    let authorizations: Vec<String> =
        registry.seen().iter().map(|s| s.header("authorization").into()).collect();
    assert_eq!(authorizations.iter().filter(|a| a.is_empty()).count(), 1);
}

#[test]
fn a_password_is_traded_for_a_token_as_google_harbor_and_distribution_have_it() {
    // Google: the whole JSON key is the password of `_json_key`; Harbor: robot accounts have a dollar.
    let key = r#"{"type":"service_account","private_key":"-----BEGIN\nKEY"}"#;
    for (username, password, answer) in [
        ("_json_key", key, r#"{"token":"granted","expires_in":3600}"#),
        ("robot$project+name", "secret", r#"{"token":"granted"}"#),
        ("u", "p", r#"{"access_token":"granted"}"#),
        (IDENTITY_USER, "refresh", r#"{"token":"granted","access_token":"other"}"#),
    ] {
        let service = token_service(&basic(username, password), answer);
        let (repository, _) = repository();
        let registry = guarded(repository, "Bearer granted", &bearer(&service));
        let bench = Bench::new();
        bench
            .pull(
                &format!("{}/a:1", registry.authority),
                &keyring(&[(&registry.authority, password_entry(username, password))]),
            )
            .unwrap();
        let asked: Vec<String> = service.seen().iter().map(|seen| seen.target.clone()).collect();
        assert_eq!(asked, ["/token?service=the%20registry&scope=repository%3Aa%3Apull"], "{username}");
        let leaked = registry.seen().iter().any(|seen| seen.header("authorization").starts_with("Basic"));
        assert!(!leaked, "the password is the token service's");
    }
}

#[test]
fn a_public_repository_behind_tokens_needs_no_credential() {
    let service = token_service("", r#"{"token":"granted"}"#);
    let (repository, _) = repository();
    let registry = guarded(repository, "Bearer granted", &bearer(&service));
    let bench = Bench::new();
    let reference = format!("{}/a:1", registry.authority);
    bench.pull_anonymously(&reference).unwrap();
    assert!(!bench.is_locked(&reference));
}

#[test]
fn an_identity_token_is_traded_by_oauth2_as_azure_has_it() {
    let service = StandIn::start(|request| {
        let form = String::from_utf8(request.body.clone()).unwrap();
        let expected = "grant_type=refresh_token&service=the%20registry&client_id=copepod&\
                        scope=repository%3Aa%3Apull&refresh_token=re%2Bfresh";
        match (request.method.as_str(), form == expected, request.header("content-type")) {
            ("POST", true, "application/x-www-form-urlencoded") => {
                Answer::ok(r#"{"access_token":"granted"}"#)
            }
            _ => Answer::status(400),
        }
    });
    let (repository, _) = repository();
    let registry = guarded(repository, "Bearer granted", &bearer(&service));
    let entry = format!(
        r#"{{"auth":"{}","identitytoken":"re+fresh"}}"#,
        STANDARD.encode(format!("{IDENTITY_USER}:"))
    );
    Bench::new()
        .pull(&format!("{}/a:1", registry.authority), &keyring(&[(&registry.authority, entry)]))
        .unwrap();
    assert_eq!(service.lines(), ["POST /token"]);
}

#[test]
fn where_oauth2_is_unknown_an_identity_token_is_a_password() {
    for status in [404, 405] {
        let service = StandIn::start(move |request| match request.method.as_str() {
            "GET" if request.header("authorization") == basic(IDENTITY_USER, "refresh") => {
                Answer::ok(r#"{"token":"granted"}"#)
            }
            _ => Answer::status(status),
        });
        let (repository, _) = repository();
        let registry = guarded(repository, "Bearer granted", &bearer(&service));
        let entry = format!(r#"{{"username":"{IDENTITY_USER}","identitytoken":"refresh"}}"#);
        Bench::new()
            .pull(&format!("{}/a:1", registry.authority), &keyring(&[(&registry.authority, entry)]))
            .unwrap();
        assert_eq!(service.lines(), ["POST /token", "GET /token"]);
    }
}

#[test]
fn a_registry_token_is_the_bearer_token_itself() {
    let (repository, _) = repository();
    let registry = guarded(repository, "Bearer mine", "Bearer realm=\"http://127.0.0.1:1/token\"");
    let entry = r#"{"registrytoken":"mine"}"#.to_owned();
    Bench::new()
        .pull(&format!("{}/a:1", registry.authority), &keyring(&[(&registry.authority, entry)]))
        .unwrap();
}

#[test]
fn every_fitting_credential_is_tried_and_nobody_last() {
    let (repository, _) = repository();
    let registry = guarded(repository.clone(), &basic("u", "right"), "Basic");
    let server = registry.authority.as_str();
    let path = format!("{server}/a");
    let both = keyring(&[(&path, password_entry("u", "wrong")), (server, password_entry("u", "right"))]);
    Bench::new().pull(&format!("{server}/a:1"), &both).unwrap();

    // A public image stays within reach of a pod whose secret is stale.
    let public = StandIn::start(move |request| match request.header("authorization") {
        "" => repository.answer(request),
        _ => Answer::status(401).with("WWW-Authenticate", "Basic"),
    });
    let server = public.authority.as_str();
    let stale = keyring(&[(server, password_entry("u", "stale"))]);
    let bench = Bench::new();
    bench.pull(&format!("{server}/a:1"), &stale).unwrap();

    // Harbor and others hide what one may not see.
    let hidden = StandIn::start(|request| match request.header("authorization") {
        "" => Answer::status(401).with("WWW-Authenticate", "Basic"),
        _ => Answer::status(404),
    });
    let error = bench
        .pull(
            &format!("{}/a:1", hidden.authority),
            &keyring(&[(&hidden.authority, password_entry("u", "right"))]),
        )
        .unwrap_err();
    assert!(matches!(error.cause, PullCause::Resolve { error: RegistryError::NotFound(_), .. }), "{error}");
}

#[test]
fn a_private_image_is_here_only_for_who_holds_a_login_that_it_was_pulled_with() {
    let (repository, _) = repository();
    let registry = StandIn::start(move |request| match request.header("authorization") {
        "" => Answer::status(401).with("WWW-Authenticate", "Basic"),
        held if held == basic("u", "wrong") => Answer::status(401).with("WWW-Authenticate", "Basic"),
        _ => repository.answer(request),
    });
    let bench = Bench::new();
    let reference = format!("{}/a:1", registry.authority);
    let held = |password: &str| keyring(&[(&registry.authority, password_entry("u", password))]);
    let here = |keys: &Keyring| {
        matches!(
            bench.store.find_for(&reference.parse().unwrap(), crate::image::Use::Module, keys),
            Found::Here(_)
        )
    };
    bench.pull(&reference, &held("one")).unwrap();
    assert!(here(&held("one")));
    for other in [
        Keyring::default(),
        held("two"),
        held("wrong"),
        keyring(&[("elsewhere.io", password_entry("u", "one"))]),
    ] {
        assert!(!here(&other), "{other:?}");
    }
    let asked = registry.seen().len();
    bench.pull(&reference, &held("two")).unwrap();
    assert!(here(&held("two")) && here(&held("one")) && !here(&held("wrong")));
    assert!(registry.lines().iter().skip(asked).all(|line| line.contains("/manifests/")), "the blob is here");
    bench.pull(&reference, &held("wrong")).unwrap_err();
    assert!(!here(&held("wrong")));
    let file = fs::read_dir(bench.folder.join("refs")).unwrap().next().unwrap().unwrap().path();
    assert!(!fs::read_to_string(file).unwrap().contains("one"), "no password is kept");
}

#[test]
fn an_image_that_anybody_may_pull_does_not_become_private_by_being_pulled_with_a_secret() {
    let (repository, _) = repository();
    let registry = serve(repository);
    let bench = Bench::new();
    let reference = format!("{}/a:1", registry.authority);
    let keys = keyring(&[(&registry.authority, password_entry("u", "p"))]);
    for (keyring, private) in [(&keys, true), (&Keyring::default(), false), (&keys, false)] {
        bench.pull(&reference, keyring).unwrap();
        assert_eq!(bench.is_locked(&reference), private);
    }
}

#[test]
fn a_refusal_reads_as_it_does_under_containerd_and_says_what_to_do() {
    let registry = guarded(Repository::default(), "never", "Basic");
    let reference = format!("{}/a:1", registry.authority);
    let error = Bench::new().pull_anonymously(&reference).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "failed to pull and unpack image \"{reference}\": failed to resolve reference \"{reference}\": pull \
             access denied, repository does not exist or may require authorization (no credentials for it: add \
             an imagePullSecret)"
        )
    );
    assert_eq!(error.reason(), "ErrImagePull");
}

#[test]
fn a_token_that_ran_out_during_a_pull_is_renewed_once() {
    let issued = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&issued);
    let service = StandIn::start(move |_| {
        let mut issued = counter.lock().unwrap();
        *issued += 1;
        Answer::ok(format!(r#"{{"token":"granted{issued}"}}"#))
    });
    let (repository, _) = repository();
    let challenge = bearer(&service);
    let registry = StandIn::start(move |request| {
        let wanted = if request.path().contains("/blobs/") { "Bearer granted2" } else { "Bearer granted1" };
        if request.header("authorization") == wanted {
            repository.answer(request)
        } else {
            Answer::status(401).with("WWW-Authenticate", challenge.clone())
        }
    });
    Bench::new().pull_anonymously(&format!("{}/a:1", registry.authority)).unwrap();
    assert_eq!(*issued.lock().unwrap(), 2);
}

#[test]
fn no_other_origin_is_sent_the_authorization() {
    let (repository, _) = repository();
    let store = serve(repository.clone());
    let (elsewhere, wanted) = (store.authority.clone(), basic("u", "secret"));
    let registry = StandIn::start(move |request| match request.path() {
        _ if request.header("authorization") != wanted => {
            Answer::status(401).with("WWW-Authenticate", "Basic")
        }
        path if path.contains("/blobs/") => {
            Answer::status(307).with("Location", format!("http://{elsewhere}{path}"))
        }
        _ => repository.answer(request),
    });
    let keys = keyring(&[(&registry.authority, password_entry("u", "secret"))]);
    Bench::new().pull(&format!("{}/a:1", registry.authority), &keys).unwrap();
    let seen = store.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("authorization"), "");

    // Nor does a store that answers with a challenge of its own get one.
    let greedy = StandIn::start(|_| Answer::status(401).with("WWW-Authenticate", "Basic"));
    let to = greedy.authority.clone();
    let registry =
        StandIn::start(move |r| Answer::status(307).with("Location", format!("http://{to}{}", r.path())));
    let keys = keyring(&[(&registry.authority, password_entry("u", "secret"))]);
    Bench::new().pull(&format!("{}/a:1", registry.authority), &keys).unwrap_err();
    assert!(greedy.seen().iter().chain(&registry.seen()).all(|seen| seen.header("authorization").is_empty()));
}

#[test]
fn a_refresh_token_is_not_carried_along_a_redirect() {
    let greedy = StandIn::start(|_| Answer::ok(r#"{"access_token":"granted"}"#));
    let to = greedy.authority.clone();
    let service = StandIn::start(move |_| Answer::status(307).with("Location", format!("http://{to}/token")));
    let registry = guarded(Repository::default(), "never", &bearer(&service));
    let entry = r#"{"identitytoken":"refresh"}"#.to_owned();
    let keys = keyring(&[(&registry.authority, entry)]);
    Bench::new().pull(&format!("{}/a:1", registry.authority), &keys).unwrap_err();
    assert!(greedy.seen().is_empty());
}

#[test]
fn no_secret_is_in_any_error_even_if_the_registry_echoes_it() {
    let secrets = ["hunter2-password", "hunter2-identity", "hunter2-registry", "hunter2-issued"];
    let entries = [
        password_entry("u", secrets[0]),
        format!(r#"{{"identitytoken":"{}"}}"#, secrets[1]),
        format!(r#"{{"registrytoken":"{}"}}"#, secrets[2]),
    ];
    for entry in entries {
        let service = StandIn::start(|_| Answer::ok(r#"{"token":"hunter2-issued"}"#));
        for challenge in ["Basic".to_owned(), bearer(&service)] {
            for status in [400, 403, 404, 500, 307] {
                let challenge = challenge.clone();
                let registry = StandIn::start(move |request| match request.header("authorization") {
                    "" => Answer::status(401).with("WWW-Authenticate", challenge.clone()),
                    echo => {
                        let plain = echo.strip_prefix("Basic ").and_then(|b| STANDARD.decode(b).ok());
                        let plain = String::from_utf8(plain.unwrap_or_default()).unwrap();
                        let mut answer = Answer::status(status)
                            .with("Location", format!("http://127.0.0.1:1/{plain}/{echo}").replace(' ', "/"));
                        answer.body = format!(
                            r#"{{"errors":[{{"code":"{plain}","message":"you sent {echo}, \u0007 {plain}"}}]}}"#
                        )
                        .into_bytes();
                        answer
                    }
                });
                let keys = keyring(&[(&registry.authority, entry.clone())]);
                let error = Bench::new().pull(&format!("{}/a:1", registry.authority), &keys).unwrap_err();
                let text = format!("{error} {error:?}");
                assert!(!text.contains("hunter2"), "{text}");
                assert!(!text.contains(&STANDARD.encode("u:hunter2-password")), "{text}");
                assert!(!error.to_string().contains('\u{7}'), "{text}");
            }
        }
    }
}

#[test]
fn a_token_service_that_answers_nonsense_is_an_error() {
    for answer in ["", "{}", r#"{"token":""}"#, r#"{"token":["hunter2"]}"#, r#"{"token":"a\nb"}"#] {
        let service = StandIn::start(move |_| Answer::ok(answer));
        let registry = guarded(Repository::default(), "never", &bearer(&service));
        let error = Bench::new().pull_anonymously(&format!("{}/a:1", registry.authority)).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert_eq!(error.reason(), "ErrImagePull");
    }
    let endless = StandIn::start(|_| Answer::ok(" ".repeat((64 << 10) + 1)));
    let registry = guarded(Repository::default(), "never", &bearer(&endless));
    let error = Bench::new().pull_anonymously(&format!("{}/a:1", registry.authority)).unwrap_err();
    assert!(error.to_string().contains("longer than 65536 bytes"), "{error}");
}
