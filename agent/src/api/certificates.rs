//! `certificates.k8s.io/v1 CertificateSigningRequest`.

use super::{object, ByteString, ObjectMeta, Time};

object! {
    /// A request for a certificate.
    CertificateSigningRequest {
        metadata: ObjectMeta,
        spec: CertificateSigningRequestSpec,
        status: CertificateSigningRequestStatus,
    }
}

object! {
    /// `spec` of a request: a PEM `CERTIFICATE REQUEST` and what for.
    CertificateSigningRequestSpec {
        request: ByteString,
        signer_name: String,
        expiration_seconds: Option<i32>,
        usages: Vec<String>,
        username: String,
    }
}

object! {
    /// `status` of a request: the decision and the PEM certificate.
    CertificateSigningRequestStatus {
        conditions: Vec<CertificateSigningRequestCondition>,
        certificate: ByteString,
    }
}

object! {
    /// `Approved`, `Denied` or `Failed`.
    CertificateSigningRequestCondition {
        kind as "type": String,
        status: String,
        reason: String,
        message: String,
        last_update_time: Option<Time>,
        last_transition_time: Option<Time>,
    }
}
