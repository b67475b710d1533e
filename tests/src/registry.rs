//! Registries of a bed: Distribution, as Debian packages it.

use std::{fs, process::Command, time::Duration};

use base64::Engine;

use crate::{
    bed::{PLAIN_REGISTRY, REGISTRY},
    kubectl::Outcome,
    tools::tool,
    Bed,
};

/// How long a registry may take to answer.
const READY: Duration = Duration::from_secs(30);

/// A registry that runs in a bed, for as long as the bed does.
#[derive(Debug, Clone)]
pub struct Registry {
    /// `host:port`, by name.
    pub host: String,
    /// The user that it knows, if it asks for one.
    pub user: String,
    /// That user's password.
    pub password: String,
}

impl Bed {
    /// Starts the registry `registry.test:5000`, with TLS by the bed's authority and a password file,
    /// and logs the bed's `DOCKER_CONFIG` in to it.
    pub fn registry_tls(&self) -> Registry {
        let names = [
            "DNS:registry.test",
            &format!("IP:{REGISTRY}"),
            // By these, a user outside reaches it through the demo's relay.
            "DNS:localhost",
            "IP:127.0.0.1",
        ];
        let serving = self.certificates().server("registry", self.authority(), &names);
        let registry = Registry {
            host: "registry.test:5000".into(),
            user: "carrier".into(),
            password: "pass:word with spaces".into(),
        };
        let mut htpasswd = Command::new("htpasswd");
        htpasswd.args(["-Bbn", &registry.user, &registry.password]);
        let output = htpasswd.output().unwrap_or_else(|e| panic!("cannot run htpasswd: {e}"));
        let passwords = self.write("registry.htpasswd", &String::from_utf8_lossy(&output.stdout));
        let extra = format!(
            "  tls:\n    certificate: {}\n    key: {}\nauth:\n  htpasswd:\n    realm: test\n    path: {}\n",
            serving.certificate.display(),
            serving.key.display(),
            passwords.display()
        );
        self.serve("registry", &format!("{REGISTRY}:5000"), &extra);
        self.login(&registry);
        self.await_registry(&["--cacert", &self.registry_authority().to_string_lossy()], "https", &registry);
        registry
    }

    /// Starts the registry `plain.test:5000`, which knows neither TLS nor passwords.
    pub fn registry_plain(&self) -> Registry {
        let registry =
            Registry { host: "plain.test:5000".into(), user: String::new(), password: String::new() };
        self.serve("registry-plain", &format!("{PLAIN_REGISTRY}:5000"), "");
        self.await_registry(&[], "http", &registry);
        registry
    }

    /// Writes what `docker login` would: the user and password of `registry`, and of no other.
    pub fn login(&self, registry: &Registry) {
        fs::write(self.docker_config().join("config.json"), registry.docker_config())
            .expect("the bed's folder is writable");
    }

    fn serve(&self, name: &str, address: &str, extra: &str) {
        let storage = self.folder().join(name);
        fs::create_dir(&storage).unwrap_or_else(|e| panic!("the bed has a {name} already: {e}"));
        let configuration = format!(
            "version: 0.1
log:
  level: info
storage:
  filesystem:
    rootdirectory: {}
  delete:
    enabled: true
http:
  addr: {address}
{extra}",
            storage.display()
        );
        let configuration = self.write(&format!("{name}.yml"), &configuration);
        let mut command = self.command(tool("docker-registry"));
        command.arg("serve").arg(configuration);
        self.house(name, command);
    }

    fn await_registry(&self, options: &[&str], scheme: &str, registry: &Registry) {
        self.wait_for(&format!("{} to answer", registry.host), READY, || {
            let mut curl = self.command("curl");
            curl.args(["-sf", "-u", &format!("{}:{}", registry.user, registry.password)]).args(options);
            curl.arg(format!("{scheme}://{}/v2/", registry.host));
            Outcome::of("curl".into(), curl, "").success.then_some(())
        });
    }
}

impl Registry {
    /// A reference into this registry.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// The contents of a `config.json` with this registry's password.
    pub fn docker_config(&self) -> String {
        let word = format!("{}:{}", self.user, self.password);
        let auth = base64::engine::general_purpose::STANDARD.encode(word);
        format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, self.host)
    }
}
