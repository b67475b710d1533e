//! The certificates of a bed, made by the `openssl` command.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What `openssl ca` wants to be told.
const BOOKS: &str = "[ca]
default_ca = books
[books]
database = index.txt
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
copy_extensions = copyall
[any]
organizationName = optional
commonName = supplied
";

/// A certificate with its key, as PEM files.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A folder of certificates.
#[derive(Debug)]
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// An empty folder of certificates at `folder`.
    pub fn new(folder: PathBuf) -> Certificates {
        fs::create_dir(&folder).expect("the bed's folder is writable");
        // Without this, the machine's own openssl.cnf would add extensions of its liking.
        fs::write(folder.join("openssl.cnf"), "[req]\ndistinguished_name = dn\n[dn]\n")
            .expect("the bed's folder is writable");
        Certificates { folder }
    }

    /// A certificate authority of its own.
    pub fn authority(&self, name: &str) -> Pair {
        let extensions =
            ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"];
        self.make(name, &format!("/CN={name}"), &extensions, None)
    }

    /// A server's certificate for `names`, each with its kind before it (`DNS:registry.test`).
    pub fn server(&self, name: &str, issuer: &Pair, names: &[&str]) -> Pair {
        let names = format!("subjectAltName={}", names.join(","));
        let extensions = ["basicConstraints=critical,CA:FALSE", "extendedKeyUsage=serverAuth", &names];
        self.make(name, &format!("/CN={name}"), &extensions, Some(issuer))
    }

    /// A client's certificate for Kubernetes' user `user`, a member of `groups`.
    pub fn client(&self, name: &str, issuer: &Pair, user: &str, groups: &[&str]) -> Pair {
        let groups: String = groups.iter().map(|group| format!("/O={group}")).collect();
        let extensions = ["basicConstraints=critical,CA:FALSE", "extendedKeyUsage=clientAuth"];
        self.make(name, &format!("{groups}/CN={user}"), &extensions, Some(issuer))
    }

    /// The same, of one that has expired.
    pub fn expired_client(&self, name: &str, issuer: &Pair, user: &str, groups: &[&str]) -> Pair {
        // Only `openssl ca` signs for days gone by, and it keeps books.
        let books = self.folder.join(format!("{name}-books"));
        fs::create_dir(&books).expect("the bed's folder is writable");
        for (file, contents) in [("index.txt", ""), ("serial", "01\n"), ("ca.cnf", BOOKS)] {
            fs::write(books.join(file), contents).expect("the bed's folder is writable");
        }
        let pair = Pair { certificate: books.join("signed.pem"), key: books.join("key.pem") };
        let groups: String = groups.iter().map(|group| format!("/O={group}")).collect();
        let openssl = |arguments: &[&str]| {
            let mut command = Command::new("openssl");
            command.current_dir(&books).args(arguments);
            command
        };
        let mut request =
            openssl(&["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        request.args(["-keyout", "key.pem", "-out", "request.pem", "-addext", "extendedKeyUsage=clientAuth"]);
        request.arg("-config").arg(self.folder.join("openssl.cnf"));
        run(request.args(["-subj", &format!("{groups}/CN={user}")]));
        let mut sign = openssl(&["ca", "-batch", "-notext", "-config", "ca.cnf", "-in", "request.pem"]);
        sign.args(["-startdate", "20200101000000Z", "-enddate", "20200102000000Z", "-out", "signed.pem"]);
        run(sign.arg("-cert").arg(&issuer.certificate).arg("-keyfile").arg(&issuer.key));
        assert!(pair.certificate.exists(), "openssl ca ended well and has signed nothing");
        pair
    }

    fn make(&self, name: &str, subject: &str, extensions: &[&str], issuer: Option<&Pair>) -> Pair {
        let pair = Pair {
            certificate: self.folder.join(format!("{name}.crt")),
            key: self.folder.join(format!("{name}.key")),
        };
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        command.args(["-days", "365", "-subj", subject, "-config"]).arg(self.folder.join("openssl.cnf"));
        command.arg("-keyout").arg(&pair.key).arg("-out").arg(&pair.certificate);
        for extension in extensions {
            command.args(["-addext", extension]);
        }
        if let Some(issuer) = issuer {
            command.arg("-CA").arg(&issuer.certificate).arg("-CAkey").arg(&issuer.key);
        }
        run(&mut command);
        pair
    }
}

/// The file's contents as Kubernetes writes them in its own files.
pub fn base64(file: &Path) -> String {
    use base64::Engine;
    let contents = fs::read(file).unwrap_or_else(|e| panic!("cannot read {}: {e}", file.display()));
    base64::engine::general_purpose::STANDARD.encode(contents)
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("cannot run openssl: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
