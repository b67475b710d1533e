//! Which certificate authorities a registry's certificate may come from.
//!
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` where they are set, as in OpenSSL and Go, else the system's
//! bundle; and for one registry more what lies in `certs.d/HOST[:PORT]/*.crt`, as in Docker and
//! containerd. They are read for one pull and freed after it: in memory they weigh more than an idle agent's heap.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::CertificateDer;
use ureq::tls::Certificate;

/// Where distributions keep their bundle: Debian, Alpine and Arch; Fedora and RHEL; Alpine and the BSDs.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
/// Largest bundle read; Mozilla's has 220 kB.
const MAX_BUNDLE: u64 = 4 << 20;
/// Files read of one folder; a hashed certificate folder has some 300 entries.
const MAX_FILES: usize = 1000;

/// Where the authorities for every registry are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Places {
    file: Option<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Places {
    /// As the environment says.
    pub(super) fn from_env() -> Places {
        Places::new(env::var_os("SSL_CERT_FILE"), env::var_os("SSL_CERT_DIR"))
    }

    fn new(file: Option<OsString>, folders: Option<OsString>) -> Places {
        let file = file.filter(|f| !f.is_empty()).map(PathBuf::from);
        let folders = folders.filter(|f| !f.is_empty());
        let folders = folders.map(|f| env::split_paths(&f).collect()).unwrap_or_default();
        Places { file, folders }
    }

    /// The authorities for every registry. What cannot be read is left out, and logged.
    pub(super) fn load(&self) -> Vec<Certificate<'static>> {
        let mut found = Vec::new();
        if self.file.is_none() && self.folders.is_empty() {
            if let Some(bundle) = BUNDLES.iter().map(Path::new).find(|path| path.exists()) {
                read(bundle, &mut found);
            }
            return found;
        }
        if let Some(file) = &self.file {
            read(file, &mut found);
        }
        for folder in &self.folders {
            read_folder(folder, |_| true, &mut found);
        }
        found
    }
}

/// The authorities of one registry more: `certs_dir/HOST[:PORT]/*.crt`.
pub(super) fn of_registry(certs_dir: &Path, authority: &str) -> Vec<Certificate<'static>> {
    let mut found = Vec::new();
    // `authority` comes from a checked reference or URL; still, it is about to be a path.
    if certs_dir.as_os_str().is_empty() || authority.contains('/') || authority.starts_with('.') {
        return found;
    }
    read_folder(&certs_dir.join(authority), |path| path.extension().is_some_and(|e| e == "crt"), &mut found);
    found
}

fn read_folder(folder: &Path, wanted: impl Fn(&Path) -> bool, found: &mut Vec<Certificate<'static>>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().take(MAX_FILES) {
        let path = entry.path();
        if wanted(&path) && path.is_file() {
            read(&path, found);
        }
    }
}

fn read(path: &Path, found: &mut Vec<Certificate<'static>>) {
    let mut pem = Vec::new();
    if let Err(error) = File::open(path).and_then(|file| file.take(MAX_BUNDLE).read_to_end(&mut pem)) {
        log::warn!("cannot read the CA certificates in {}: {error}", path.display());
        return;
    }
    found.extend(
        CertificateDer::pem_slice_iter(&pem).flatten().map(|der| Certificate::from_der(&der).to_owned()),
    );
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Folder {
            let path = env::temp_dir().join(format!("copepod-tls-{:x}", fastrand::u64(..)));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn certificate(&self, name: &str) -> Vec<u8> {
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
            fs::write(self.0.join(name), made.cert.pem()).unwrap();
            made.cert.der().to_vec()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_environment_names_files_and_folders() {
        let folder = Folder::new();
        let (one, two) = (folder.certificate("one"), folder.certificate("two"));
        fs::write(folder.0.join("notes"), "no certificate").unwrap();
        let file = Places::new(Some(folder.0.join("one").into()), None).load();
        assert_eq!(file.iter().map(|c| c.der()).collect::<Vec<_>>(), [&one]);
        let mut all: Vec<Vec<u8>> = Places::new(None, Some(folder.0.clone().into()))
            .load()
            .iter()
            .map(|c| c.der().to_vec())
            .collect();
        all.sort();
        let mut expected = vec![one, two];
        expected.sort();
        assert_eq!(all, expected);
        assert!(Places::new(Some("/no/such/file".into()), None).load().is_empty());
        assert_eq!(Places::new(Some("".into()), Some("".into())), Places::new(None, None));
    }

    #[test]
    fn a_registry_has_authorities_of_its_own() {
        let folder = Folder::new();
        fs::create_dir(folder.0.join("r.io:5000")).unwrap();
        let ca = folder.certificate("r.io:5000/ca.crt");
        folder.certificate("r.io:5000/client.cert");
        let found = of_registry(&folder.0, "r.io:5000");
        assert_eq!(found.iter().map(|c| c.der()).collect::<Vec<_>>(), [&ca]);
        assert!(of_registry(&folder.0, "r.io").is_empty());
        assert!(of_registry(&folder.0.join("r.io:5000"), "../r.io:5000").is_empty());
    }
}
