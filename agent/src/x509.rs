//! What a certificate says of itself (RFC 5280, section 4.1), as far as anybody here asks: names and times.
//!
//! Read with ring's own DER reader. A library of X.509 types would be 75 kB of binary for these four fields. Whom to
//! believe is not decided here: webpki verifies chains.

use std::net::IpAddr;

use jiff::Timestamp;
use ring::error::Unspecified;
use ring::io::der::{expect_tag_and_get_value, read_tag_and_get_value, Tag};
use untrusted::{Input, Reader};

/// `id-at-commonName`, 2.5.4.3
pub const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// `id-at-organizationName`, 2.5.4.10
pub const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];
/// `id-ce-subjectAltName`, 2.5.29.17
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];

/// Tags of a `GeneralName`: `dNSName` and `iPAddress`.
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
/// Tags of strings that are ASCII or UTF-8: `UTF8String`, `PrintableString`, `IA5String`.
const TEXTS: [u8; 3] = [0x0c, 0x13, 0x16];

/// A set of attributes of a subject, and extensions, at most.
const MAX_PARTS: usize = 64;

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid to.
    pub not_after: Timestamp,
    /// The attributes of its subject, in order.
    pub subject: Vec<Attribute>,
    /// Subject alternative names that are host names.
    pub dns_names: Vec<String>,
    /// Subject alternative names that are addresses.
    pub addresses: Vec<IpAddr>,
}

/// An attribute of a subject: its OID, and its text where it is one that can be read.
pub type Attribute = (Vec<u8>, Option<String>);

impl Certificate {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// That it is none.
    pub fn of(der: &[u8]) -> Result<Certificate, String> {
        read(der).map_err(|_| "not a certificate".to_owned())
    }
}

/// What a certificate signing request asks for (PKCS #10, `CertificationRequestInfo`), without the signature, which
/// differs each time.
#[must_use]
pub fn request_info(der: &[u8]) -> Option<&[u8]> {
    let request = Input::from(der).read_all(Unspecified, |input| sequence(input)).ok()?;
    let mut rest = Reader::new(request);
    Some(sequence(&mut rest).ok()?.as_slice_less_safe())
}

fn sequence<'a>(input: &mut Reader<'a>) -> Result<Input<'a>, Unspecified> {
    expect_tag_and_get_value(input, Tag::Sequence)
}

fn read(der: &[u8]) -> Result<Certificate, Unspecified> {
    let whole = Input::from(der).read_all(Unspecified, |input| sequence(input))?;
    let mut tbs = Reader::new(sequence(&mut Reader::new(whole))?);
    if tbs.peek(Tag::ContextSpecificConstructed0.into()) {
        read_tag_and_get_value(&mut tbs)?; // version
    }
    expect_tag_and_get_value(&mut tbs, Tag::Integer)?; // serial number
    sequence(&mut tbs)?; // signature algorithm
    sequence(&mut tbs)?; // issuer
    let mut validity = Reader::new(sequence(&mut tbs)?);
    let (not_before, not_after) = (time(&mut validity)?, time(&mut validity)?);
    let subject = subject(sequence(&mut tbs)?)?;
    sequence(&mut tbs)?; // public key
    let (mut dns_names, mut addresses) = (Vec::new(), Vec::new());
    while !tbs.at_end() {
        let (tag, value) = read_tag_and_get_value(&mut tbs)?;
        if tag != u8::from(Tag::ContextSpecificConstructed3) {
            continue; // unique identifiers
        }
        let mut extensions = Reader::new(value.read_all(Unspecified, |input| sequence(input))?);
        for _ in 0..MAX_PARTS {
            if extensions.at_end() {
                break;
            }
            let mut extension = Reader::new(sequence(&mut extensions)?);
            let id = expect_tag_and_get_value(&mut extension, Tag::OID)?;
            if id.as_slice_less_safe() == ALTERNATIVE_NAMES {
                if extension.peek(Tag::Boolean.into()) {
                    read_tag_and_get_value(&mut extension)?; // critical
                }
                let names = expect_tag_and_get_value(&mut extension, Tag::OctetString)?;
                alternative_names(names, &mut dns_names, &mut addresses)?;
            }
        }
    }
    Ok(Certificate { not_before, not_after, subject, dns_names, addresses })
}

/// `UTCTime` (two digits of the year, of 1950 to 2049) or `GeneralizedTime`, both to the second and in UTC.
fn time(input: &mut Reader<'_>) -> Result<Timestamp, Unspecified> {
    let (tag, value) = read_tag_and_get_value(input)?;
    let digits = std::str::from_utf8(value.as_slice_less_safe()).map_err(|_| Unspecified)?;
    let digits = match tag {
        tag if tag == u8::from(Tag::UTCTime) => {
            let century = if digits < "50" { "20" } else { "19" };
            format!("{century}{digits}")
        }
        tag if tag == u8::from(Tag::GeneralizedTime) => digits.to_owned(),
        _ => return Err(Unspecified),
    };
    let part = |from: usize, to: usize| digits.get(from..to).ok_or(Unspecified);
    let text = format!(
        "{}-{}-{}T{}:{}:{}{}",
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(8, 10)?,
        part(10, 12)?,
        part(12, 14)?,
        part(14, digits.len())?
    );
    text.parse().map_err(|_| Unspecified)
}

fn subject(names: Input<'_>) -> Result<Vec<Attribute>, Unspecified> {
    const SET: u8 = 0x31;
    let mut found = Vec::new();
    let mut names = Reader::new(names);
    while !names.at_end() {
        let (tag, set) = read_tag_and_get_value(&mut names)?;
        let mut set = Reader::new(set);
        while tag == SET && !set.at_end() {
            let mut attribute = Reader::new(sequence(&mut set)?);
            let id = expect_tag_and_get_value(&mut attribute, Tag::OID)?;
            let (kind, value) = read_tag_and_get_value(&mut attribute)?;
            let text = std::str::from_utf8(value.as_slice_less_safe()).ok();
            let text = text.filter(|_| TEXTS.contains(&kind)).map(str::to_owned);
            if found.len() >= MAX_PARTS {
                return Err(Unspecified);
            }
            found.push((id.as_slice_less_safe().to_vec(), text));
        }
    }
    Ok(found)
}

fn alternative_names(
    names: Input<'_>,
    dns_names: &mut Vec<String>,
    addresses: &mut Vec<IpAddr>,
) -> Result<(), Unspecified> {
    let mut names = Reader::new(names.read_all(Unspecified, |input| sequence(input))?);
    while !names.at_end() {
        let (tag, value) = read_tag_and_get_value(&mut names)?;
        let value = value.as_slice_less_safe();
        match tag {
            DNS_NAME => dns_names.push(String::from_utf8_lossy(value).into_owned()),
            IP_ADDRESS => {
                let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
                addresses.extend(v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, "system:node:pi");
        params.subject_alt_names = vec![
            SanType::Rfc822Name("a@b.example".try_into().unwrap()),
            SanType::DnsName("pi.example".try_into().unwrap()),
            SanType::IpAddress("192.168.11.5".parse().unwrap()),
            SanType::IpAddress("fd00::5".parse().unwrap()),
        ];
        params
    }

    #[test]
    fn names_and_times_are_read_from_either_century() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        for (from, to) in
            [((1975, 3, 4), (2049, 12, 31)), ((2026, 1, 2), (2050, 1, 1)), ((2051, 2, 3), (2999, 1, 1))]
        {
            let mut params = params();
            params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
            params.not_after = rcgen::date_time_ymd(to.0, to.1, to.2);
            let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let found = Certificate::of(der.der()).unwrap();
            let text = |(y, m, d): (i32, u8, u8)| at(&format!("{y}-{m:02}-{d:02}T00:00:00Z"));
            assert_eq!((found.not_before, found.not_after), (text(from), text(to)));
            assert_eq!(found.dns_names, ["pi.example"]);
            assert_eq!(found.addresses, ["192.168.11.5", "fd00::5"].map(|ip| ip.parse::<IpAddr>().unwrap()));
            let attribute = |id: &[u8], text: &str| (id.to_vec(), Some(text.to_owned()));
            let subject = [attribute(ORGANIZATION, "system:nodes"), attribute(COMMON_NAME, "system:node:pi")];
            assert_eq!(found.subject, subject);
        }
    }

    #[test]
    fn no_part_of_a_certificate_and_no_flipped_bit_does_harm() {
        let der = params().self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        for length in 0..der.len() {
            assert!(Certificate::of(&der[..length]).is_err(), "{length}");
        }
        for at in 0..der.len() {
            for bit in 0..8 {
                let mut broken = der.clone();
                broken[at] ^= 1 << bit;
                // An error, or what it says then; it ends.
                let _ = Certificate::of(&broken);
            }
        }
        assert!(Certificate::of(&[]).is_err());
    }

    #[test]
    fn a_request_is_what_it_asks_for_whatever_its_signature() {
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let der = |key| params().serialize_request(key).unwrap().der().to_vec();
        let (one, again, others) = (der(&key), der(&key), der(&other));
        assert_ne!(one, again, "ECDSA signatures are random");
        assert_eq!(request_info(&one).unwrap(), request_info(&again).unwrap());
        assert_ne!(request_info(&one), request_info(&others));
        assert_eq!(request_info(&one[..20]), None);
    }
}
