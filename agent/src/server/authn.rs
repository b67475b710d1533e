//! Who asks: by client certificate, else by bearer token. There are no anonymous requests.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_io::Timer;
use async_lock::Semaphore;
use futures_lite::future;
use http::header::{HeaderMap, AUTHORIZATION};
use rustls::pki_types::CertificateDer;

use super::cache::{self, Cache};
use super::review::{Reviewer, User};
use super::tls::ClientCa;
use crate::durable::clock::Now;
use crate::x509::{Certificate, COMMON_NAME, ORGANIZATION};

/// How long a token that was somebody's is believed without asking again: the kubelet's default
/// `authentication.webhook.cacheTTL`.
const TOKEN_TIME: Duration = Duration::from_secs(120);
/// How long a token that was nobody's is refused without asking again. Shorter than a kubelet's, as a
/// fresh token may be younger than the API server's own caches.
const BAD_TOKEN_TIME: Duration = Duration::from_secs(10);
/// Tokens remembered.
const MAX_TOKENS: usize = 256;
/// TokenReviews at one time: strangers with random tokens cannot make more of them.
const MAX_REVIEWS: usize = 4;
/// How long a TokenReview may take, waiting for its turn included.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);
/// Shortest time between two warnings that tokens cannot be reviewed.
const LOG_PAUSE: Duration = Duration::from_secs(60);
/// Everybody who is somebody is in this group.
const AUTHENTICATED: &str = "system:authenticated";

pub(super) struct Authenticator {
    client_ca: Arc<ClientCa>,
    reviewer: Arc<dyn Reviewer>,
    tokens: Mutex<Cache<Option<Arc<User>>>>,
    reviews: Semaphore,
    failing: Mutex<Failing>,
}

/// Whether tokens can be reviewed, and when it was last said that they cannot.
#[derive(Default)]
struct Failing {
    now: bool,
    said: Option<Duration>,
}

impl Failing {
    /// Whether another failure is worth a line: the first in a row is, unless one was just written. Anybody
    /// can send a token, and nobody shall fill the journal with them.
    fn is_news(&mut self, now: Duration) -> bool {
        let first = !std::mem::replace(&mut self.now, true);
        let quiet = self.said.is_none_or(|said| now.saturating_sub(said) >= LOG_PAUSE);
        let news = first && quiet;
        if news {
            self.said = Some(now);
        }
        news
    }
}

impl Authenticator {
    pub fn new(client_ca: Arc<ClientCa>, reviewer: Arc<dyn Reviewer>) -> Authenticator {
        let tokens = Mutex::new(Cache::new(MAX_TOKENS));
        Authenticator {
            client_ca,
            reviewer,
            tokens,
            reviews: Semaphore::new(MAX_REVIEWS),
            failing: Mutex::default(),
        }
    }

    /// Who asks; nothing when that is not known, for whatever reason (which goes to the agent's log only).
    pub async fn authenticate(&self, chain: &[CertificateDer<'_>], headers: &HeaderMap) -> Option<Arc<User>> {
        if !chain.is_empty() {
            match self.by_certificate(chain) {
                Ok(user) => return Some(Arc::new(user)),
                Err(reason) => log::debug!("a client certificate does not count: {reason}"),
            }
        }
        self.by_token(bearer(headers)?).await
    }

    fn by_certificate(&self, chain: &[CertificateDer<'_>]) -> Result<User, String> {
        self.client_ca.verify(chain).map_err(|error| error.to_string())?;
        // Nothing in a certificate is read before somebody has vouched for it.
        let der = chain.first().ok_or("there is none")?;
        subject(Certificate::of(der)?)
    }

    async fn by_token(&self, token: &str) -> Option<Arc<User>> {
        let key = cache::key([token]);
        if let Some(known) = lock(&self.tokens).get(&key, Now::read().mono) {
            return known;
        }
        let review = async {
            let _turn = self.reviews.acquire().await;
            self.reviewer.review_token(token).await.map_err(|error| error.to_string())
        };
        let late = async {
            Timer::after(REVIEW_TIMEOUT).await;
            Err(format!("no answer within {} s", REVIEW_TIMEOUT.as_secs()))
        };
        match future::or(review, late).await {
            Ok(user) => {
                lock(&self.failing).now = false;
                let user =
                    user.filter(|user| !user.name.is_empty()).map(|user| Arc::new(authenticated(user)));
                let time = if user.is_some() { TOKEN_TIME } else { BAD_TOKEN_TIME };
                lock(&self.tokens).put(key, user.clone(), Now::read().mono, time);
                user
            }
            Err(error) => {
                let news = lock(&self.failing).is_news(Now::read().mono);
                let level = if news { log::Level::Warn } else { log::Level::Debug };
                log::log!(level, "a bearer token could not be reviewed, so its request is refused: {error}");
                None
            }
        }
    }
}

/// The token of `Authorization: Bearer …`, as Go's server reads it.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let token = token.split(' ').next().unwrap_or_default();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The user that a certificate names: the (last) common name, and every organization as a group.
fn subject(certificate: Certificate) -> Result<User, String> {
    let mut user = User::default();
    for (id, text) in certificate.subject {
        if id != COMMON_NAME && id != ORGANIZATION {
            continue;
        }
        let text = text.ok_or("its subject has a text that is neither UTF-8 nor ASCII")?;
        if id == COMMON_NAME {
            user.name = text;
        } else {
            user.groups.push(text);
        }
    }
    if user.name.is_empty() {
        return Err("its subject has no common name".to_owned());
    }
    Ok(authenticated(user))
}

fn authenticated(mut user: User) -> User {
    if !user.groups.iter().any(|group| group == AUTHENTICATED) {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    user
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair};

    #[test]
    fn only_the_first_failure_in_a_row_is_news_and_not_more_than_once_a_minute() {
        let mut failing = Failing::default();
        let mut fails = |second| failing.is_news(Duration::from_secs(second));
        assert!(fails(5));
        assert!(!fails(6) && !fails(500), "in a row");
        failing.now = false;
        assert!(failing.is_news(Duration::from_secs(501)));
        failing.now = false;
        assert!(!failing.is_news(Duration::from_secs(560)), "just said");
        failing.now = false;
        assert!(failing.is_news(Duration::from_secs(561)));
    }

    #[test]
    fn a_bearer_token_is_read_as_gos_server_reads_it() {
        for (header, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("BEARER abc def", Some("abc")),
            (" Bearer abc ", Some("abc")),
            ("Bearer  abc", None),
            ("Bearer", None),
            ("Bearer ", None),
            ("Basic abc", None),
            ("abc", None),
        ] {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, header.parse().unwrap())]);
            assert_eq!(bearer(&headers), token, "{header:?}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[test]
    fn a_subject_gives_the_name_and_the_groups_or_nothing() {
        let user = |parts: &[(DnType, DnValue)]| {
            let mut params = CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            parts
                .iter()
                .for_each(|(kind, value)| params.distinguished_name.push(kind.clone(), value.clone()));
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            subject(Certificate::of(certificate.der()).unwrap())
        };
        let utf8 = |text: &str| DnValue::Utf8String(text.to_owned());
        let printable =
            DnValue::PrintableString("system:masters".replace(':', "-").as_str().try_into().unwrap());
        let both = user(&[
            (DnType::OrganizationName, printable),
            (DnType::CountryName, utf8("DE")),
            (DnType::CommonName, utf8("kube-apiserver-kubelet-client")),
        ]);
        let expected = User {
            name: "kube-apiserver-kubelet-client".to_owned(),
            groups: vec!["system-masters".to_owned(), AUTHENTICATED.to_owned()],
            ..User::default()
        };
        assert_eq!(both, Ok(expected));
        assert!(user(&[(DnType::OrganizationName, utf8("a"))]).is_err());
        assert!(user(&[(DnType::CommonName, utf8(""))]).is_err());
        let bmp = DnValue::BmpString("a".try_into().unwrap());
        assert!(user(&[(DnType::CommonName, bmp)]).is_err());
    }
}
