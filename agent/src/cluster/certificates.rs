//! The node's own certificates on disk.
//!
//! As a kubelet keeps them: `pki/kubelet-client-<time>.pem` with certificate and key in one file, and
//! `kubelet-client-current.pem`, a link to the newest, swapped at once. A key that waits for its
//! certificate is `kubelet-client.key.tmp`, so that a restart asks again with the same key.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::PrivateKeyDer;

use super::kubeconfig::certificates;
use crate::config::read_bounded;
use crate::{durable, x509};

/// Bytes of a certificate file.
const MAX_FILE: u64 = 256 * 1024;

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// This node proves itself to the API server.
    Client,
    /// The kubelet API proves itself to those who connect.
    Serving,
}

impl Purpose {
    fn stem(self) -> &'static str {
        match self {
            Purpose::Client => "kubelet-client",
            Purpose::Serving => "kubelet-server",
        }
    }
}

/// Why a certificate or key on disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file system.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in it.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file, or where the text came from.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Identity {
    /// Certificate chain, PEM.
    pub certificate: String,
    /// Private key, PEM.
    pub key: String,
    /// What its first certificate says.
    pub facts: Facts,
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Subject, common name.
    pub common_name: String,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid to.
    pub not_after: Timestamp,
    /// Subject alternative names that are host names.
    pub dns_names: Vec<String>,
    /// Subject alternative names that are addresses.
    pub addresses: Vec<IpAddr>,
}

impl Facts {
    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(pem: &str) -> Result<Facts, String> {
        let der = certificates(pem)?.into_iter().next().ok_or("there is no certificate")?;
        let x509::Certificate { not_before, not_after, subject, dns_names, addresses } =
            x509::Certificate::of(&der)?;
        let common_name = subject.into_iter().find(|(id, _)| id == x509::COMMON_NAME);
        let common_name = common_name.and_then(|(_, text)| text).unwrap_or_default();
        Ok(Facts { common_name, not_before, not_after, dns_names, addresses })
    }

    /// Whether the certificate can be used at this time.
    #[must_use]
    pub fn expired(&self, now: Timestamp) -> bool {
        now >= self.not_after
    }
}

/// The folder of keys and certificates.
#[derive(Clone, Debug)]
pub struct CertificateFolder {
    folder: PathBuf,
}

impl CertificateFolder {
    /// Opens (or makes) the folder, for the owner alone.
    ///
    /// # Errors
    /// What the file system says, with the path.
    pub fn open(folder: PathBuf) -> Result<CertificateFolder, CertificateError> {
        durable::ensure_private_dir(&folder)
            .map_err(|source| CertificateError::File { path: folder.clone(), source })?;
        Ok(CertificateFolder { folder })
    }

    /// The link to the newest certificate.
    #[must_use]
    pub fn current(&self, purpose: Purpose) -> PathBuf {
        self.folder.join(format!("{}-current.pem", purpose.stem()))
    }

    /// The newest certificate, if there is one.
    ///
    /// # Errors
    /// When there is a file that cannot be used.
    pub fn load(&self, purpose: Purpose) -> Result<Option<Identity>, CertificateError> {
        let path = self.current(purpose);
        let text = match read_bounded(&path, MAX_FILE) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CertificateError::File { path, source }),
        };
        let content = |problem| CertificateError::Content { path: path.clone(), problem };
        let facts = Facts::of(&text).map_err(content)?;
        PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|error| error.to_string())
            .and_then(|key| any_supported_type(&key).map_err(|error| error.to_string()))
            .map_err(|problem| content(format!("private key: {problem}")))?;
        Ok(Some(Identity { certificate: text.clone(), key: text, facts }))
    }

    /// The key that waits for a certificate, made if there is none. A broken one is replaced.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn pending_key(&self, purpose: Purpose) -> Result<KeyPair, CertificateError> {
        let path = self.pending_path(purpose);
        if let Ok(text) = read_bounded(&path, MAX_FILE) {
            match KeyPair::from_pem(&text) {
                Ok(key) => return Ok(key),
                Err(error) => log::warn!("{}: {error}; making a new key", path.display()),
            }
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|error| CertificateError::Content { path: path.clone(), problem: error.to_string() })?;
        durable::write_atomic(&path, key.serialize_pem().as_bytes(), 0o600)
            .map_err(|source| CertificateError::File { path, source })?;
        Ok(key)
    }

    /// Forgets the key that waits, so that the next request has a new one.
    ///
    /// # Errors
    /// What the file system says.
    pub fn forget_pending(&self, purpose: Purpose) -> Result<(), CertificateError> {
        let path = self.pending_path(purpose);
        durable::remove_if_exists(&path).map_err(|source| CertificateError::File { path, source })
    }

    /// Keeps a certificate with its key and makes it the current one; the key waits no longer.
    ///
    /// # Errors
    /// When the certificate cannot be read or the files cannot be written.
    pub fn store(
        &self,
        purpose: Purpose,
        certificate: &str,
        key: &KeyPair,
        now: Timestamp,
    ) -> Result<Identity, CertificateError> {
        // 2026-01-02T03:04:05Z as a kubelet writes it: 2026-01-02-03-04-05
        let stamp = format!("{now:.0}").replace(['T', ':'], "-").replace('Z', "");
        let path = self.folder.join(format!("{}-{stamp}.pem", purpose.stem()));
        let facts = Facts::of(certificate)
            .map_err(|problem| CertificateError::Content { path: path.clone(), problem })?;
        let key = key.serialize_pem();
        let text = format!("{}\n{key}", certificate.trim_end());
        let file = |path: &Path, source| CertificateError::File { path: path.to_owned(), source };
        durable::write_atomic(&path, text.as_bytes(), 0o600).map_err(|error| file(&path, error))?;
        self.point(purpose, &path)?;
        self.forget_pending(purpose)?;
        self.remove_older(purpose, &path);
        Ok(Identity { certificate: certificate.to_owned(), key, facts })
    }

    fn pending_path(&self, purpose: Purpose) -> PathBuf {
        self.folder.join(format!("{}.key.tmp", purpose.stem()))
    }

    fn point(&self, purpose: Purpose, target: &Path) -> Result<(), CertificateError> {
        let link = self.current(purpose);
        let temporary = self.folder.join(format!(".{}-current.tmp", purpose.stem()));
        let swap = || -> io::Result<()> {
            durable::remove_if_exists(&temporary)?;
            std::os::unix::fs::symlink(target.file_name().unwrap_or_default(), &temporary)?;
            fs::rename(&temporary, &link)?;
            fs::File::open(&self.folder)?.sync_all()
        };
        swap().map_err(|source| CertificateError::File { path: link.clone(), source })
    }

    /// Certificates before the current one are of no use; a full disk is no reason to stop.
    fn remove_older(&self, purpose: Purpose, current: &Path) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let dated = name.strip_prefix(purpose.stem()).is_some_and(|rest| rest.starts_with("-2"));
            if dated && path != current {
                let _ = fs::remove_file(&path);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn signed(key: &KeyPair, name: &str) -> String {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.subject_alt_names = vec![
            rcgen::SanType::DnsName("a.example".try_into().unwrap()),
            rcgen::SanType::IpAddress("192.168.11.5".parse().unwrap()),
        ];
        params.not_before = rcgen::date_time_ymd(2026, 1, 2);
        params.not_after = rcgen::date_time_ymd(2027, 1, 2);
        params.self_signed(key).unwrap().pem()
    }

    #[test]
    fn a_pending_key_survives_until_its_certificate_comes() {
        let path = std::env::temp_dir().join(format!("copepod-pki-{:x}", fastrand::u64(..)));
        let folder = CertificateFolder::open(path.clone()).unwrap();
        assert!(folder.load(Purpose::Client).unwrap().is_none());
        let key = folder.pending_key(Purpose::Client).unwrap();
        assert_eq!(folder.pending_key(Purpose::Client).unwrap().serialize_pem(), key.serialize_pem());
        let pending = fs::metadata(path.join("kubelet-client.key.tmp")).unwrap();
        assert_eq!(pending.permissions().mode() & 0o777, 0o600);

        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let first = at("2026-02-03T04:05:06Z");
        folder.store(Purpose::Client, &signed(&key, "system:node:a"), &key, first).unwrap();
        let loaded = folder.load(Purpose::Client).unwrap().unwrap();
        assert_eq!(loaded.facts.common_name, "system:node:a");
        assert_eq!(loaded.facts.dns_names, ["a.example"]);
        assert_eq!(loaded.facts.addresses, ["192.168.11.5".parse::<IpAddr>().unwrap()]);
        assert_eq!(loaded.facts.not_after, at("2027-01-02T00:00:00Z"));
        assert!(loaded.facts.expired(at("2027-01-02T00:00:00Z")));
        assert!(!loaded.facts.expired(at("2027-01-01T23:59:59Z")));
        assert!(!path.join("kubelet-client.key.tmp").exists());

        let next = folder.pending_key(Purpose::Client).unwrap();
        assert_ne!(next.serialize_pem(), key.serialize_pem());
        let second = at("2026-03-03T04:05:06Z");
        folder.store(Purpose::Client, &signed(&next, "system:node:b"), &next, second).unwrap();
        assert_eq!(folder.load(Purpose::Client).unwrap().unwrap().facts.common_name, "system:node:b");
        assert!(!path.join("kubelet-client-2026-02-03-04-05-06.pem").exists());
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_broken_file_is_an_error_that_names_it() {
        let path = std::env::temp_dir().join(format!("copepod-pki-{:x}", fastrand::u64(..)));
        let folder = CertificateFolder::open(path.clone()).unwrap();
        fs::write(folder.current(Purpose::Serving), "nothing").unwrap();
        let error = folder.load(Purpose::Serving).err().unwrap().to_string();
        assert!(error.contains("kubelet-server-current.pem"), "{error}");
        fs::remove_dir_all(&path).unwrap();
    }
}
