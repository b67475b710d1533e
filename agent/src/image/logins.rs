//! The logins of a person: Docker's `config.json`, and the credential helpers that it names.

use std::collections::BTreeMap;
use std::env;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::credentials::{Credential, Keyring};
use super::reference::Reference;

/// Largest configuration file, and largest answer of a helper.
const MAX_FILE: u64 = 1 << 20;
const MAX_ANSWER: u64 = 64 << 10;
/// How long a helper may take; it may ask the person for a password.
const HELPER: Duration = Duration::from_secs(60);
/// The user name under which helpers give identity tokens.
const TOKEN_USER: &str = "<token>";
/// What Docker's helpers call docker.io.
const DOCKER_IO: &str = "https://index.docker.io/v1/";

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: Option<BTreeMap<String, String>>,
}

/// The logins for an image, as `docker push` would find them: what the registry's helper gives, then
/// what the file itself holds. No file is no error.
///
/// # Errors
/// A file or a helper that cannot be used, without any secret in the text.
pub fn of_docker(reference: &Reference) -> Result<Keyring, String> {
    let Some(path) = config_file() else { return Ok(Keyring::default()) };
    let mut json = Vec::new();
    match File::open(&path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut json)) {
        Ok(_) => from_config(&json, reference.registry(), &Helpers::default())
            .map_err(|why| format!("{}: {why}", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Keyring::default()),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`.
fn config_file() -> Option<PathBuf> {
    let given = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = given("DOCKER_CONFIG").or_else(|| given("HOME").map(|home| home.join(".docker")))?;
    Some(folder.join("config.json"))
}

/// Where helpers are found, and how long they are waited for.
struct Helpers {
    /// A folder, else PATH.
    folder: Option<PathBuf>,
    limit: Duration,
}

impl Default for Helpers {
    fn default() -> Helpers {
        Helpers { folder: None, limit: HELPER }
    }
}

fn from_config(json: &[u8], registry: &str, helpers: &Helpers) -> Result<Keyring, String> {
    let mut keyring = Keyring::default();
    let config: Config = serde_json::from_slice(json).map_err(|error| {
        format!("not the JSON of a Docker configuration (line {}, column {})", error.line(), error.column())
    })?;
    let server = if registry == "docker.io" { DOCKER_IO } else { registry };
    let named = config.cred_helpers.unwrap_or_default();
    let helper = named.get(server).or_else(|| named.get(registry)).or(config.creds_store.as_ref());
    if let Some(helper) = helper.filter(|name| !name.is_empty()) {
        if let Some(credential) = helpers.ask(helper, server)? {
            keyring.add_credential(server, credential)?;
        }
    }
    keyring.add_docker_config_json(json)?;
    Ok(keyring)
}

impl Helpers {
    /// `docker-credential-NAME get` (docker/docker-credential-helpers): the server on stdin, JSON on
    /// stdout; "credentials not found" and an exit code other than 0 when it has none.
    fn ask(&self, name: &str, server: &str) -> Result<Option<Credential>, String> {
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            return Err(
                "the name of its credential helper has other characters than letters, digits, - _ .".into()
            );
        }
        let program = format!("docker-credential-{name}");
        let path = self.folder.as_ref().map_or_else(|| PathBuf::from(&program), |f| f.join(&program));
        let failed = |error: io::Error| format!("the credential helper {program}: {error}");
        let mut child = Command::new(path)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that has all it needs may not read it.
            let _ = stdin.write_all(server.as_bytes());
        }
        let (sender, answers) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                let mut answer = Vec::new();
                let read = stdout.take(MAX_ANSWER).read_to_end(&mut answer);
                let _ = sender.send(read.map(|_| answer));
            });
        }
        let answer = answers.recv_timeout(self.limit);
        let status = if answer.is_ok() { wait(&mut child, self.limit) } else { Ok(None) };
        if !matches!(status, Ok(Some(_))) {
            let _ = child.kill();
            let _ = child.wait();
        }
        let late = || format!("the credential helper {program} was not done after {:?}", self.limit);
        let answer = answer.map_err(|_| late())?.map_err(failed)?;
        let status = status.map_err(failed)?.ok_or_else(late)?;
        if !status.success() {
            let said = String::from_utf8_lossy(&answer);
            let said = said.trim();
            if said.contains("credentials not found") {
                return Ok(None);
            }
            let said: String = said.chars().filter(|c| !c.is_control()).take(200).collect();
            return Err(format!("the credential helper {program} failed: {said}"));
        }
        credential(&answer).map_err(|why| format!("the credential helper {program} {why}"))
    }
}

/// Waits for the end of a helper that has closed its stdout.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait()? {
            None if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            status => return Ok(status),
        }
    }
}

fn credential(answer: &[u8]) -> Result<Option<Credential>, &'static str> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let answer: Answer = serde_json::from_slice(answer).map_err(|_| "answered no JSON of a login")?;
    Ok(match answer {
        Answer { secret, .. } if secret.is_empty() => None,
        Answer { username, secret } if username == TOKEN_USER => {
            Some(Credential::Identity { username: String::new(), token: secret })
        }
        Answer { username, secret } => Some(Credential::Password { username, password: secret }),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    /// A folder of helpers written in shell.
    struct Folder(PathBuf);

    impl Folder {
        fn new(helpers: &[(&str, &str)]) -> Folder {
            let path = env::temp_dir().join(format!("copepod-logins-{:x}", fastrand::u64(..)));
            fs::create_dir_all(&path).unwrap();
            for (name, script) in helpers {
                let file = path.join(format!("docker-credential-{name}"));
                // Written by another process: this one, having forked meanwhile for another test,
                // would be told that the file is still open for writing.
                let mut shell = Command::new("/bin/sh")
                    .args(["-c", "cat > \"$0\"", &file.to_string_lossy()])
                    .stdin(Stdio::piped())
                    .spawn()
                    .unwrap();
                shell.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
                shell.wait().unwrap();
                fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
            }
            Folder(path)
        }

        fn helpers(&self, limit: Duration) -> Helpers {
            Helpers { folder: Some(Path::to_owned(&self.0)), limit }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn password(username: &str, password: &str) -> Credential {
        Credential::Password { username: username.into(), password: password.into() }
    }

    #[test]
    fn the_registrys_helper_is_asked_before_the_store_and_the_file() {
        let echo =
            r#"test "$1" = get && printf '{"ServerURL":"x","Username":"%s","Secret":"from-NAME"}' "$(cat)""#;
        let folder = Folder::new(&[
            ("one", &echo.replace("NAME", "one")),
            ("store", &echo.replace("NAME", "store")),
            ("token", r#"echo '{"Username":"<token>","Secret":"refresh"}'"#),
            ("none", "echo credentials not found in native keychain; exit 1"),
        ]);
        let helpers = folder.helpers(HELPER);
        let config = br#"{"credsStore":"store",
            "credHelpers":{"one.io:5000":"one","token.io":"token","none.io":"none"},
            "auths":{"one.io:5000":{},"none.io":{"username":"u","password":"from-file"}}}"#;
        for (registry, expected) in [
            ("one.io:5000", password("one.io:5000", "from-one")),
            ("other.io", password("other.io", "from-store")),
            ("docker.io", password(DOCKER_IO, "from-store")),
            ("token.io", Credential::Identity { username: String::new(), token: "refresh".into() }),
            ("none.io", password("u", "from-file")),
        ] {
            let found = from_config(config, registry, &helpers).unwrap().lookup(&format!("{registry}/a"));
            assert!(found == [expected], "{registry}");
        }
    }

    #[test]
    fn a_helper_that_fails_hangs_or_floods_is_an_error() {
        let folder = Folder::new(&[
            ("broken", "echo no keychain here; exit 2"),
            ("garbage", "echo hunter2"),
            ("hangs", "exec sleep 600"),
            ("floods", "exec cat /dev/zero"),
            ("lingers", "echo; exec >&-; exec sleep 600"),
        ]);
        for (name, limit, words) in [
            ("broken", HELPER, "no keychain here"),
            ("garbage", HELPER, "no JSON"),
            ("hangs", Duration::ZERO, "was not done"),
            ("lingers", Duration::from_millis(50), "was not done"),
            ("floods", HELPER, "docker-credential-floods"),
            ("missing", HELPER, "docker-credential-missing"),
            ("../../bin/sh", HELPER, "other characters"),
        ] {
            let config = format!(r#"{{"credsStore":"{name}"}}"#);
            let error = from_config(config.as_bytes(), "r.io", &folder.helpers(limit)).err().unwrap();
            assert!(error.contains(words) && !error.contains("hunter2"), "{name}: {error}");
        }
    }
}
