//! Certificates that change while the server runs, and those that cannot be used.

use super::*;
use rustls::SupportedProtocolVersion;

#[test]
fn the_client_ca_can_be_withdrawn_from_open_connections() {
    control::run(async {
        let bed = Bed::start();
        let admin = bed.admin();
        let mut client = Client::new(bed.tunnel(Some(&admin)).await.unwrap()).await;
        assert_eq!(text(client.send(Method::GET, "/healthz", None).await).await.0, StatusCode::OK);
        let other = Authority::new();
        bed.tls.set_client_ca_pem(other.pem.as_bytes()).unwrap();
        assert_eq!(text(client.send(Method::GET, "/healthz", None).await).await.0, StatusCode::UNAUTHORIZED);
        assert_eq!(bed.get(&other.client("admin", |_| ()), "/healthz").await.0, StatusCode::OK);
        // Two at a time, as when a cluster changes its CA.
        bed.tls.set_client_ca_pem(format!("{}{}", other.pem, bed.authority.pem).as_bytes()).unwrap();
        assert_eq!(bed.get(&admin, "/healthz").await.0, StatusCode::OK);
    });
}

#[test]
fn another_serving_certificate_serves_from_the_next_handshake_on() {
    control::run(async {
        let mut bed = Bed::start();
        let admin = bed.admin();
        let (certificate, key) = self_signed::make(&[NODE.to_owned()], &[]).unwrap();
        bed.tls.set_serving(vec![certificate.clone()], key).unwrap();
        assert!(bed.tunnel(Some(&admin)).await.is_err(), "the client trusts the old one only");
        bed.serving = certificate;
        assert_eq!(bed.get(&admin, "/healthz").await.0, StatusCode::OK);
    });
}

#[test]
fn what_cannot_be_used_is_refused_and_the_old_ones_stay() {
    control::run(async {
        let bed = Bed::start();
        let admin = bed.admin();
        let (chain, _) = bed.authority.client("a", |_| ());
        let (_, key) = bed.authority.client("b", |_| ());
        let many = bed.authority.pem.repeat(65);
        assert!(matches!(bed.tls.set_serving(chain, key), Err(TlsError::Serving(_))));
        assert!(matches!(bed.tls.set_client_ca_pem(b""), Err(TlsError::Count { count: 0, .. })));
        assert!(matches!(bed.tls.set_client_ca_pem(many.as_bytes()), Err(TlsError::Count { .. })));
        let broken = b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        assert!(matches!(bed.tls.set_client_ca_pem(broken), Err(TlsError::Pem { .. })));
        let no_certificate = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(bed.tls.set_client_ca_pem(no_certificate), Err(TlsError::ClientCa(_))));
        assert!(matches!(bed.tls.set_serving_pem(b"", b""), Err(TlsError::Pem { .. })));
        assert_eq!(bed.get(&admin, "/healthz").await.0, StatusCode::OK);
    });
}

#[test]
fn a_pair_in_pem_can_be_served() {
    control::run(async {
        let mut bed = Bed::start();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([NODE.to_owned()]).unwrap().self_signed(&key).unwrap();
        bed.tls.set_serving_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        bed.serving = certificate.der().clone();
        assert_eq!(bed.get(&bed.admin(), "/healthz").await.0, StatusCode::OK);
    });
}

#[test]
fn a_name_that_no_certificate_can_hold_is_an_error() {
    assert!(self_signed::make(&["pi\u{e9}".to_owned()], &[]).is_err());
}

/// What a client that shows `chain` and signs with `key` gets over this version of TLS.
async fn answer(
    bed: &Bed,
    version: &'static SupportedProtocolVersion,
    chain: Identity,
) -> io::Result<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (chain, key) = chain;
    let pair = rustls::sign::CertifiedKey::new(chain, provider.key_provider.load_private_key(key).unwrap());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(RootCertStore { roots: vec![root(&bed.serving)] })
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair)));
    let name = ServerName::try_from(NODE).unwrap();
    let mut tunnel = TlsConnector::from(Arc::new(config)).connect(name, bed.stream().await).await?;
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {NODE}\r\nConnection: close\r\n\r\n");
    futures_lite::AsyncWriteExt::write_all(&mut tunnel, request.as_bytes()).await?;
    let mut answer = Vec::new();
    futures_lite::AsyncReadExt::read_to_end(&mut tunnel, &mut answer).await?;
    Ok(answer)
}

#[test]
fn with_both_versions_of_tls_a_certificate_counts_and_without_its_key_breaks_the_handshake() {
    control::run(async {
        let bed = Bed::start();
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let served = answer(&bed, version, bed.admin()).await.unwrap();
            assert!(served.starts_with(b"HTTP/1.1 200 OK\r\n"), "{version:?}");
            let stolen = (bed.admin().0, bed.authority.client("thief", |_| ()).1);
            assert!(answer(&bed, version, stolen).await.is_err(), "{version:?}");
        }
        assert_eq!(bed.cluster.asked(), ["admin get nodes/healthz"]);
    });
}

fn root(certificate: &CertificateDer<'static>) -> rustls::pki_types::TrustAnchor<'static> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    roots.roots.remove(0)
}
