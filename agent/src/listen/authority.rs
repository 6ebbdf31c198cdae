//! A certificate authority of one process for the names of one pod: made at the start, kept in memory, gone with the process.
//!
//! Apps trust its certificate, so it must be worth nothing to whoever would misuse it: its key is on no disk and leaves this room by no
//! function, its name constraints allow `localhost`, the loopback addresses and the `hosts` of the configuration and nothing else, and it may
//! make no further authority. A second agent, or this one after a restart, is another authority: apps read the file again when they start.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, SanType,
};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// An app reads the authority's certificate once, when it starts, and may run for as long as this process: an authority that ends before
/// either would cut the two apart, and renewing it helps nobody who has read the old one. A short life would protect nothing: the key ends
/// with the process, and after that the certificate vouches for no one.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// What is presented on the wire. A day: a key that was ever read out of memory is worth little tomorrow.
const LEAF_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// From this age on a handshake gets a new one, so that no connection begins with a certificate that is about to end.
const LEAF_RENEWAL: Duration = Duration::from_secs(12 * 60 * 60);

/// How far a certificate reaches back: clocks of containers on one machine agree, but for one that is being set.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// No certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate library refused.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// The TLS library refused the key that was just made.
    #[error("cannot use the certificate's key")]
    Key(#[from] rustls::Error),
}

/// The authority and the certificate in use.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    names: Vec<SanType>,
    current: RwLock<Leaf>,
}

struct Leaf {
    certified: Arc<CertifiedKey>,
    made: SystemTime,
}

impl Authority {
    /// A new authority for the pod's own names and `hosts`.
    ///
    /// # Errors
    /// [`AuthorityError`] when a host is no name, or the library fails.
    pub fn new(hosts: &[String], now: SystemTime) -> Result<Self, AuthorityError> {
        let names = names(hosts)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        validity(&mut params, now, AUTHORITY_LIFE);
        // With its process in the name, so that two authorities in one trust store are told apart.
        params.distinguished_name = name(&format!("tacit-agent {}", std::process::id()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: names.iter().filter_map(subtree).collect(),
            excluded_subtrees: Vec::new(),
        });
        let pem = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        let current = RwLock::new(leaf(&issuer, &names, now)?);
        Ok(Self {
            issuer,
            pem,
            names,
            current,
        })
    }

    /// The certificate that apps trust.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The certificate to present at `now`: renewed here, at the handshake that needs it, so that neither a suspended machine nor a clock
    /// that was set can leave an old one in place.
    fn present(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let fresh = |leaf: &Leaf| {
            now.duration_since(leaf.made)
                .is_ok_and(|age| age < LEAF_RENEWAL)
        };
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        if fresh(&current) {
            return Arc::clone(&current.certified);
        }
        drop(current);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if !fresh(&current) {
            match leaf(&self.issuer, &self.names, now) {
                Ok(leaf) => *current = leaf,
                // The old one is valid for another half of its life, and the next handshake tries again.
                Err(error) => tracing::error!(%error, "cannot renew the certificate for apps"),
            }
        }
        Arc::clone(&current.certified)
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Authority {
    /// The same for every name asked for: clients that call an address name none.
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.present(SystemTime::now()))
    }
}

fn names(hosts: &[String]) -> Result<Vec<SanType>, AuthorityError> {
    let mut names = vec![
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
        SanType::IpAddress(Ipv6Addr::LOCALHOST.into()),
    ];
    for host in hosts {
        let name = match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.as_str().try_into()?),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// What the authority may vouch for: exactly this address, or this name (and, as constraints go, what is below it).
fn subtree(name: &SanType) -> Option<GeneralSubtree> {
    match name {
        SanType::DnsName(name) => Some(GeneralSubtree::DnsName(name.to_string())),
        SanType::IpAddress(address) => {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            Some(GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(
                *address, bits,
            )))
        }
        _ => None,
    }
}

fn leaf(
    issuer: &Issuer<'static, KeyPair>,
    names: &[SanType],
    now: SystemTime,
) -> Result<Leaf, AuthorityError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    validity(&mut params, now, LEAF_LIFE);
    params.subject_alt_names = names.to_vec();
    params.distinguished_name = name("tacit-agent for apps");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, issuer)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&key)?;
    let certified = CertifiedKey::new(vec![certificate.der().clone()], key);
    Ok(Leaf {
        certified: Arc::new(certified),
        made: now,
    })
}

fn validity(params: &mut CertificateParams, now: SystemTime, life: Duration) {
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + life).into();
}

/// In the organisation and not the common name, which old verifiers take for a host name.
fn name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, text);
    name
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

    fn verify(
        authority: &Authority,
        chain: &CertificateDer<'_>,
        name: &str,
        at: SystemTime,
    ) -> bool {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let at = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap());
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier
            .verify_server_cert(chain, &[], &name, &[], at)
            .is_ok()
    }

    #[test]
    fn the_certificate_is_for_the_pods_own_names_and_no_other() {
        let now = SystemTime::now();
        let authority = Authority::new(&["agent.ns.svc".to_owned()], now).unwrap();
        let leaf = authority.present(now).cert[0].clone();
        for name in ["localhost", "127.0.0.1", "::1", "agent.ns.svc"] {
            assert!(verify(&authority, &leaf, name, now), "{name}");
        }
        for name in ["localhos", "127.0.0.2", "::2", "ns.svc", "api.openai.com"] {
            assert!(!verify(&authority, &leaf, name, now), "{name}");
        }
        let other = Authority::new(&[], now).unwrap();
        assert!(!verify(&other, &leaf, "localhost", now), "another process");
    }

    #[test]
    fn a_stolen_authority_can_vouch_for_nobody_else() {
        let now = SystemTime::now();
        let authority = Authority::new(&[], now).unwrap();
        for (name, good) in [
            ("localhost", true),
            ("api.openai.com", false),
            ("127.0.0.2", false),
        ] {
            let names = match name.parse::<IpAddr>() {
                Ok(address) => vec![SanType::IpAddress(address)],
                Err(_) => vec![SanType::DnsName(name.try_into().unwrap())],
            };
            let forged = leaf(&authority.issuer, &names, now).unwrap();
            assert_eq!(
                verify(&authority, &forged.certified.cert[0], name, now),
                good,
                "{name}"
            );
        }
    }

    #[test]
    fn a_certificate_is_renewed_at_half_of_its_life_and_under_the_same_authority() {
        let now = SystemTime::now();
        let authority = Authority::new(&[], now).unwrap();
        let first = authority.present(now);
        let young = authority.present(now + LEAF_RENEWAL - Duration::from_secs(1));
        assert_eq!(first.cert, young.cert);
        let later = now + LEAF_RENEWAL;
        let second = authority.present(later);
        assert_ne!(first.cert, second.cert);
        let days = |n: u32| now + n * LEAF_LIFE;
        assert!(verify(&authority, &first.cert[0], "localhost", later));
        assert!(!verify(&authority, &first.cert[0], "localhost", days(2)));
        // A machine that slept for a year, and a clock that went back.
        for moment in [days(365), now - LEAF_LIFE] {
            let leaf = authority.present(moment);
            assert!(verify(&authority, &leaf.cert[0], "localhost", moment) || moment < now);
            assert_ne!(leaf.cert, second.cert);
        }
    }
}
