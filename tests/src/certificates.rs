//! A certificate authority for one test, with a server, a client, and a stranger signed by somebody else.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// Files of one authority.
#[derive(Debug)]
pub struct Certificates {
    /// The authority.
    pub ca: PathBuf,
    /// An authority that signed nothing here.
    pub other_ca: PathBuf,
    /// Certificate and key for `localhost` and 127.0.0.1.
    pub server: (PathBuf, PathBuf),
    /// Certificate and key of a client.
    pub client: (PathBuf, PathBuf),
}

impl Certificates {
    /// Makes all files in `dir`.
    ///
    /// # Panics
    /// When the files cannot be written.
    #[must_use]
    pub fn make(dir: &Path) -> Self {
        let issuer = authority("Busbar test authority");
        let other = authority("Somebody else");
        let ca = write(dir, "ca.crt", &issuer.pem());
        let other_ca = write(dir, "other-ca.crt", &other.pem());
        let server = signed(dir, "server", &issuer);
        let client = signed(dir, "client", &issuer);
        Self { ca, other_ca, server, client }
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn signed(dir: &Path, name: &str, issuer: &CertifiedIssuer<'static, KeyPair>) -> (PathBuf, PathBuf) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    (
        write(dir, &format!("{name}.crt"), &certificate.pem()),
        write(dir, &format!("{name}.key"), &key.serialize_pem()),
    )
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}
