//! Certificate authorities (RFC 5280 §6.1.1): whom a client of this gateway believes. Owns how a store of them is filled; to
//! what it is applied is for the client.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Those in the content of a PEM file.
///
/// # Errors
/// What is wrong with the content, to be put after the file's name.
pub fn in_pem(content: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(content) {
        let certificate = certificate.map_err(|_| "is malformed PEM; get the authority's certificate anew")?;
        roots.add(certificate).map_err(|error| format!("has a certificate that cannot be used: {error}"))?;
    }
    if roots.is_empty() {
        return Err("has no certificate; it needs a block that begins with -----BEGIN CERTIFICATE-----".into());
    }
    Ok(roots)
}

/// Those that the system trusts.
///
/// # Errors
/// There are none. `setting` is where one can be named instead.
pub fn of_system(setting: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(format!(
            "this system has no certificate authorities to trust; install them (ca-certificates), or name one in {setting}"
        ));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_authority_is_told() {
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert;
        assert_eq!(in_pem(certificate.pem().as_bytes()).map(|roots| roots.len()), Ok(1));
        let twice = format!("{0}{0}", certificate.pem());
        assert_eq!(in_pem(twice.as_bytes()).map(|roots| roots.len()), Ok(2));
        for (content, said) in [
            ("", "has no certificate"),
            ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "is malformed PEM"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "that cannot be used"),
        ] {
            let why = in_pem(content.as_bytes()).expect_err(content);
            assert!(why.contains(said), "{why}");
        }
    }
}
