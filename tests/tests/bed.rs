//! The bed itself, without an agent: what every other test rests on.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tests::{guests::Guest, tools, Bed};

/// How long the kernel and process 1 of a bed may take to have ended everything.
const GONE: Duration = Duration::from_secs(15);

/// How many programs are started and ended, one after the other.
const PROGRAMS: u32 = 40;

/// The processes of a bed in which nothing runs: `unshare`, and process 1.
const HOLDERS: usize = 2;

#[test]
fn everything_ends_with_the_process_that_started_it() {
    let mut outer = Command::new(env!("CARGO_BIN_EXE_bed"))
        .args(["--registries", "--", "bash", "-c", "echo $BED_DIR; exec sleep 1000"])
        .current_dir(tools::root())
        .env_remove("COPEPOD_KEEP")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the bed's own binary runs");
    let mut line = String::new();
    BufReader::new(outer.stdout.take().expect("stdout is piped"))
        .read_line(&mut line)
        .expect("it prints its folder");
    let folder = PathBuf::from(line.trim());
    assert!(folder.join("logs").is_dir(), "{line:?} is the bed's folder");
    assert!(mentions(&folder) > 4, "the components of the control plane run");

    outer.kill().expect("it can be killed");
    outer.wait().expect("it can be waited for");
    let end = Instant::now() + GONE;
    while mentions(&folder) > 0 || folder.exists() {
        assert!(
            Instant::now() < end,
            "{} processes are left, and the folder: {}",
            mentions(&folder),
            folder.exists()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// How many processes have the folder in their command line.
fn mentions(folder: &Path) -> usize {
    let folder = folder.to_string_lossy();
    let processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(&*folder)).count()
}

#[test]
fn a_program_in_the_background_ends_with_its_value() {
    let bed = Bed::empty();
    for number in 0..PROGRAMS {
        let mut tail = bed.command("tail");
        tail.arg("-f").arg(bed.write("empty", ""));
        let process = bed.spawn("tail", tail);
        // Every other one ends before it can have done anything.
        if number % 2 == 0 {
            assert!(PathBuf::from(format!("/proc/{}", process.pid())).exists());
        }
    }
    bed.wait_for("every program to end", GONE, || (mentions(bed.folder()) == HOLDERS).then_some(()));
}

#[test]
fn two_beds_do_not_see_each_other() {
    let (one, two) = (Bed::start(), Bed::start());
    one.kubectl(&["create", "namespace", "only-in-one"]).expect();
    let unknown = two.kubectl(&["get", "namespace", "only-in-one"]).expect_failure();
    assert!(unknown.contains("not found"), "{unknown}");
}

#[test]
fn the_cluster_publishes_its_client_authority_and_knows_the_controllers_for_joining() {
    let bed = Bed::start();
    let published = bed.get(&["-n", "kube-system", "configmap", "extension-apiserver-authentication"]);
    let authority =
        fs::read_to_string(&bed.cluster().authority.certificate).expect("the authority is a file");
    assert_eq!(published["data"]["client-ca-file"], authority.as_str());
    // The token cleaner deletes what has expired; this shows that it runs.
    bed.apply(
        "{apiVersion: v1, kind: Secret, type: bootstrap.kubernetes.io/token, \
         metadata: {name: bootstrap-token-abcdef, namespace: kube-system}, \
         stringData: {token-id: abcdef, token-secret: 0123456789abcdef, expiration: '2020-01-01T00:00:00Z'}}\n",
    );
    bed.wait_for("the expired token to be deleted", Duration::from_secs(60), || {
        bed.get(&["-n", "kube-system", "secret", "bootstrap-token-abcdef"]).is_null().then_some(())
    });
}

#[test]
fn the_registry_takes_what_wasm_to_oci_pushes_from_those_who_know_the_password() {
    let bed = Bed::empty();
    let registry = bed.registry_tls();
    let image = registry.image("test/hello:v1");
    bed.wasm_to_oci(Guest::Hello, &image);
    bed.shell(&format!("wasm-to-oci pull {image} --out back.wasm")).expect();
    let (sent, back) = (fs::read(Guest::Hello.wasm()), fs::read(bed.folder().join("back.wasm")));
    assert_eq!(sent.expect("the guest is a file"), back.expect("it was pulled"));
    bed.shell(&format!("DOCKER_CONFIG=$HOME wasm-to-oci push back.wasm {image}")).expect_failure();
    let manifest = "curl -sSf -H 'Accept: application/vnd.oci.image.manifest.v1+json' --cacert $SSL_CERT_FILE https://registry.test:5000/v2/test/linux/manifests/v1";
    bed.shell(manifest).expect_failure();
    bed.push_linux_image(&registry, "test/linux", "v1");
    let known = format!("{manifest} -u '{}:{}'", registry.user, registry.password);
    assert!(bed.shell(&known).expect().contains("application/vnd.oci.image.config.v1+json"));
}

#[test]
fn every_guest_compiles_to_a_module() {
    for guest in Guest::ALL {
        let module = fs::read(guest.wasm()).expect("the guest is a file");
        assert!(module.starts_with(b"\0asm\x01\0\0\0"), "{guest:?} is a WebAssembly module");
    }
}
