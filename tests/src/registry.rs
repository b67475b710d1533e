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

    /// Puts an image for linux/amd64 into `registry`, a layer with nothing in it, and gives its reference.
    #[track_caller]
    pub fn push_linux_image(&self, registry: &Registry, name: &str, tag: &str) -> String {
        self.push_layers(registry, name, tag, &["true"])
    }

    /// Puts an image for linux/amd64 into `registry` by Distribution's API, a layer of what each of these shell
    /// commands leaves in its folder, and gives its reference.
    #[track_caller]
    pub fn push_layers(&self, registry: &Registry, name: &str, tag: &str, layers: &[&str]) -> String {
        let layers: String = layers.iter().map(|layer| format!("layer '{layer}'\n")).collect();
        let script = format!(
            r#"
url=https://{host}/v2/{name}
ask() {{ curl -sSf -u '{user}:{password}' --cacert "$SSL_CERT_FILE" "$@"; }}
blob() {{
    digest=sha256:$(sha256sum "$1" | cut -d' ' -f1)
    upload=$(ask -i -X POST "$url/blobs/uploads/" | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
    ask -X PUT -H 'Content-Type: application/octet-stream' --data-binary @"$1" "$upload&digest=$digest"
    echo "{{\"mediaType\":\"$2\",\"digest\":\"$digest\",\"size\":$(stat -c %s "$1")}}"
}}
folder=$(mktemp -d -p "$PWD")
layers= diffs=
layer() {{
    mkdir "$folder/files"
    (cd "$folder/files" && eval "$1")
    tar -cf "$folder/layer.tar" -C "$folder/files" .
    diffs="$diffs${{diffs:+,}}\"sha256:$(sha256sum "$folder/layer.tar" | cut -d' ' -f1)\""
    gzip -n "$folder/layer.tar"
    layers="$layers${{layers:+,}}$(blob "$folder/layer.tar.gz" application/vnd.oci.image.layer.v1.tar+gzip)"
    rm -r "$folder/files" "$folder/layer.tar.gz"
}}
{layers}
echo '{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/bin/sh"]}},"rootfs":{{"type":"layers","diff_ids":['$diffs']}}}}' >"$folder/config"
config=$(blob "$folder/config" application/vnd.oci.image.config.v1+json)
type=application/vnd.oci.image.manifest.v1+json
echo "{{\"schemaVersion\":2,\"mediaType\":\"$type\",\"config\":$config,\"layers\":[$layers]}}" >"$folder/manifest"
ask -X PUT -H "Content-Type: $type" --data-binary @"$folder/manifest" "$url/manifests/{tag}"
"#,
            host = registry.host,
            user = registry.user,
            password = registry.password
        );
        self.shell(&script).expect();
        registry.image(&format!("{name}:{tag}"))
    }

    fn serve(&self, name: &str, address: &str, extra: &str) {
        let storage = self.folder().join(name);
        fs::create_dir(&storage).unwrap_or_else(|e| panic!("the bed has a {name} already: {e}"));
        let configuration = format!(
            "version: 0.1
log:
  level: error
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
