//! The tutorial's cluster for a person to play with: see tests/demo.
//!
//! Everything runs in a bed. What a person's own shell must reach, the API server and the registry, is
//! relayed: inside, socat listens on a socket in the bed's folder; outside, this program listens on a
//! loopback port and copies bytes.

use std::{
    io,
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
    thread,
    time::Duration,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};
use tests::{
    bed::{
        control_plane::{kubeconfig, PORT},
        CONTROL_PLANE, REGISTRY,
    },
    cluster::TUTORIAL_POD,
    guests::Guest,
    tools, Cluster,
};

/// How long socat may take to have made its socket.
const RELAY: Duration = Duration::from_secs(10);
/// How often it is looked whether Ctrl-C was pressed.
const LOOK: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // Whoever asks twice is in a hurry: the bed falls with this process.
        let twice = flag::register_conditional_shutdown(signal, 1, Arc::clone(&interrupted));
        if let Err(e) = twice.and_then(|_| flag::register(signal, Arc::clone(&interrupted))) {
            eprintln!("cannot wait for Ctrl-C: {e}");
            return ExitCode::FAILURE;
        }
    }

    eprintln!("starting a cluster, a registry and a node …");
    let cluster = Cluster::start();
    cluster.bed.wasm_to_oci(Guest::Hello, &cluster.registry.image("test/hello:v1"));
    let api = relay(&cluster, "api", &format!("{CONTROL_PLANE}:{PORT}"));
    let registry = relay(&cluster, "registry", &format!("{REGISTRY}:5000"));
    println!("{}", instructions(&cluster, api, registry));

    while !interrupted.load(Ordering::Relaxed) {
        thread::sleep(LOOK);
    }
    eprintln!("\nstopping …");
    let Cluster { agent, bed, .. } = cluster;
    let status = agent.stop();
    drop(bed);
    eprintln!("the agent ended with {}; nothing is left", status.code().unwrap_or(-1));
    ExitCode::from(u8::from(!status.success()))
}

/// Makes `address` of the bed a port of loopback outside, and gives that.
fn relay(cluster: &Cluster, name: &str, address: &str) -> u16 {
    let socket = cluster.bed.folder().join(format!("{name}.sock"));
    let mut socat = cluster.bed.command("socat");
    socat.arg(format!("UNIX-LISTEN:{},fork", socket.display())).arg(format!("TCP:{address}"));
    cluster.bed.house(&format!("socat-{name}"), socat);
    cluster.bed.wait_for("socat to listen", RELAY, || socket.exists().then_some(()));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port is free");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let socket = socket.clone();
            thread::spawn(move || carry(connection, &socket));
        }
    });
    port
}

/// Copies both ways until both have ended.
fn carry(outside: TcpStream, socket: &Path) {
    let both = || -> io::Result<()> {
        let inside = UnixStream::connect(socket)?;
        let (mut from_inside, mut to_outside) = (inside.try_clone()?, outside.try_clone()?);
        let back = thread::spawn(move || {
            let _ = io::copy(&mut from_inside, &mut to_outside);
            let _ = to_outside.shutdown(Shutdown::Write);
        });
        let _ = io::copy(&mut &outside, &mut &inside);
        let _ = inside.shutdown(Shutdown::Write);
        let _ = back.join();
        Ok(())
    };
    // A connection that cannot be made ends at once, which the caller sees.
    let _ = both();
}

fn instructions(cluster: &Cluster, api: u16, registry: u16) -> String {
    let bed = &cluster.bed;
    let admin = bed.folder().join("certificates");
    let pair = |name: &str| tests::bed::certificates::Pair {
        certificate: admin.join(format!("{name}.crt")),
        key: admin.join(format!("{name}.key")),
    };
    let outside = format!("https://127.0.0.1:{api}");
    let config = bed.write("kubeconfig", &kubeconfig(&outside, &bed.cluster().authority, &pair("admin")));
    let docker: PathBuf = bed.folder().join("docker-outside");
    std::fs::create_dir_all(&docker).expect("the bed's folder is writable");
    let mut outside = cluster.registry.clone();
    outside.host = format!("localhost:{registry}");
    std::fs::write(docker.join("config.json"), outside.docker_config())
        .expect("the bed's folder is writable");
    let pod = bed.write("pod.yaml", TUTORIAL_POD);
    format!(
        "
A cluster is up, and a Copepod node has joined it. In another shell:

  export KUBECONFIG={config}
  export PATH={tools}:{agent}:$PATH
  kubectl get nodes -o wide

test/hello:v1 is in the registry already. Run it:

  kubectl apply -f {pod}
  kubectl get pods -w
  kubectl logs hello -f
  kubectl delete pod hello

A module of your own goes into the registry (which the cluster calls registry.test:5000) by

  SSL_CERT_FILE={authority} DOCKER_CONFIG={docker} \\
    copepod push YOUR.wasm localhost:{registry}/test/yours:v1

and into a pod as image: registry.test:5000/test/yours:v1 .
The logs of everything are in {logs}.
Ctrl-C here ends all of it.
",
        config = config.display(),
        tools = tools::folder().display(),
        agent = tools::copepod().parent().unwrap_or(Path::new(".")).display(),
        pod = pod.display(),
        authority = bed.registry_authority().display(),
        docker = docker.display(),
        logs = bed.folder().join("logs").display(),
    )
}
