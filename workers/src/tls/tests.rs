use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;

const NAME: &str = "hooks.example.com";

fn params(name: &str, is_ca: IsCa) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = is_ca;
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2027, 1, 1);
    params
}

fn authority() -> IsCa {
    IsCa::Ca(BasicConstraints::Unconstrained)
}

fn self_signed(is_ca: IsCa) -> rcgen::Certificate {
    let key = KeyPair::generate().unwrap();
    params(NAME, is_ca).self_signed(&key).unwrap()
}

/// The result for a server's certificate, in the middle of 2026 unless `year` is another one.
fn verified(configured: &str, server: &rcgen::Certificate, name: &str, year: i32) -> String {
    let verifier = Configured::new(configured.as_bytes()).unwrap();
    let now = rcgen::date_time_ymd(year, 6, 1).unix_timestamp();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.unsigned_abs()));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    match verifier.verify_server_cert(server.der(), &[], &name, &[], now) {
        Ok(_) => "trusted".to_owned(),
        Err(Error::InvalidCertificate(why)) => {
            let why = format!("{why:?}");
            let end = why.find(|letter: char| !letter.is_alphanumeric());
            why[..end.unwrap_or(why.len())]
                .trim_end_matches("Context")
                .to_owned()
        }
        Err(other) => format!("{other:?}"),
    }
}

#[test]
fn a_configured_certificate_is_trusted_for_its_name_and_dates() {
    for is_ca in [authority(), IsCa::NoCa, IsCa::ExplicitNoCa] {
        let server = self_signed(is_ca);
        let check = |name, year| verified(&server.pem(), &server, name, year);
        assert_eq!(check(NAME, 2026), "trusted", "{is_ca:?}");
        assert_eq!(
            check("other.example.com", 2026),
            "NotValidForName",
            "{is_ca:?}"
        );
        assert_eq!(check(NAME, 2025), "NotValidYet", "{is_ca:?}");
        assert_eq!(check(NAME, 2027), "Expired", "{is_ca:?}");
    }
}

#[test]
fn only_the_same_bytes_are_the_configured_certificate() {
    let (configured, server) = (self_signed(authority()), self_signed(authority()));
    assert_ne!(verified(&configured.pem(), &server, NAME, 2026), "trusted");
    let both = configured.pem() + &server.pem();
    assert_eq!(verified(&both, &server, NAME, 2026), "trusted");
}

#[test]
fn the_certificate_of_an_unknown_authority_is_trusted_only_if_it_is_configured_itself() {
    let key = KeyPair::generate().unwrap();
    let issuer = CertifiedIssuer::self_signed(params("ca", authority()), key).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = params(NAME, IsCa::NoCa).signed_by(&key, &issuer).unwrap();
    assert_eq!(verified(&issuer.pem(), &server, NAME, 2026), "trusted");
    assert_eq!(verified(&server.pem(), &server, NAME, 2026), "trusted");
    let other = self_signed(authority()).pem();
    assert_ne!(verified(&other, &server, NAME, 2026), "trusted");
}

#[test]
fn text_without_certificates_is_invalid() {
    for pem in [
        "",
        "no certificate",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        assert!(Configured::new(pem.as_bytes()).is_err(), "{pem}");
    }
}

#[test]
fn the_cause_of_a_failed_handshake_is_found_within_other_errors() {
    let cause = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
    let nested = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, cause()));
    let failures = [untrusted("h", &cause()), untrusted("h", &nested)];
    for failure in failures {
        let failure = failure.unwrap();
        assert_eq!(failure.reason, Reason::UntrustedCertificate);
        assert!(failure.detail.contains("certSecretRef"), "{failure:?}");
    }
    assert_eq!(untrusted("h", &io::Error::other("refused")), None);
    assert_eq!(untrusted("h", &Error::DecryptError), None);
}
