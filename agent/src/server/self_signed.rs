//! A serving certificate that nobody has signed, until the cluster's own arrives.

use std::net::IpAddr;

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
    PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a self-signed serving certificate: {0}")]
pub struct SelfSignedError(#[from] rcgen::Error);

/// A new P-256 key and a certificate for these names and addresses, signed with it. It is valid at
/// every time that a board's clock may show, as it vouches for nothing.
///
/// # Errors
/// When a name is not one (not ASCII), or the system gives no random numbers.
pub fn make(
    names: &[String],
    addresses: &[IpAddr],
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), SelfSignedError> {
    let mut params = CertificateParams::default();
    let first = names.first().map_or("copepod", String::as_str);
    params.distinguished_name.push(DnType::CommonName, first);
    for name in names {
        params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
    params.not_before = rcgen::date_time_ymd(1970, 1, 1);
    params.is_ca = IsCa::NoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
}
