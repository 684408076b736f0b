//! Who is not believed to be etcd: TLS below 1.2, another's name, a certificate that has expired or that nobody vouches for.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests say what went wrong by failing")]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use lease::LeaseStore;
use lease::store::StoreError;
use lease::store::etcd::{EtcdOptions, EtcdStore};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;

/// An authority, and the certificates that it made.
struct Authority {
    files: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let mut ca = CertificateParams::new([]).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        std::fs::write(files.path().join("ca.pem"), ca.self_signed(&key).unwrap().pem()).unwrap();
        Self { files, issuer: Issuer::new(ca, key) }
    }

    fn ca(&self) -> PathBuf {
        self.files.path().join("ca.pem")
    }

    /// A server's certificate and key for this name, valid until this year.
    fn certificate(&self, name: &str, until: i32) -> [PathBuf; 2] {
        let mut leaf = CertificateParams::new([name.to_owned()]).unwrap();
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.not_before = date_time_ymd(2019, 1, 1);
        leaf.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let paths = ["cert", "key"].map(|kind| self.files.path().join(format!("{name}-{until}-{kind}.pem")));
        std::fs::write(&paths[0], leaf.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        std::fs::write(&paths[1], key.serialize_pem()).unwrap();
        paths
    }
}

/// Something that speaks TLS, and no etcd behind it.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start([cert, key]: [PathBuf; 2], version: &str) -> Self {
        // Security level 0: OpenSSL itself has TLS 1.1 no more above that.
        let mut process = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-alpn", "h2", "-cipher", "ALL:@SECLEVEL=0", version, "-cert"])
            .arg(cert)
            .arg("-key")
            .arg(key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("openssl is needed (apt-get install openssl): {error}"));
        let said = BufReader::new(process.stdout.as_mut().unwrap()).lines().map(Result::unwrap).find(|line| line.starts_with("ACCEPT"));
        let port = said.unwrap_or_else(|| panic!("openssl s_server does not start")).rsplit(':').next().unwrap().parse().unwrap();
        Self { process, port }
    }

    /// Whether another client gets through the handshake: what is refused here is refused by us.
    fn speaks(&self, version: &str) -> bool {
        let client = Command::new("openssl")
            .args(["s_client", "-connect", &format!("127.0.0.1:{}", self.port), "-cipher", "ALL:@SECLEVEL=0", version])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8_lossy(&client.stdout).contains("Cipher is ECDHE")
    }

    async fn asked(&self, ca: PathBuf) -> String {
        let options = EtcdOptions {
            endpoints: vec![format!("https://127.0.0.1:{}", self.port)],
            prefix: "/coreos.com/network".to_owned(),
            ca_file: Some(ca),
            cert_file: None,
            key_file: None,
            username: None,
            password: None,
        };
        match EtcdStore::new(options).unwrap().config().await {
            Err(StoreError::Unavailable(text)) => text,
            other => panic!("the server was believed: {other:?}"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_knows_no_tls_above_1_1_is_refused_by_name() {
    let authority = Authority::new("the authority");
    let server = Server::start(authority.certificate("127.0.0.1", 2099), "-tls1_1");
    assert!(server.speaks("-tls1_1"), "the server itself does not speak TLS 1.1");
    let text = server.asked(authority.ca()).await;
    assert!(text.contains("ProtocolVersion"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_name_or_expired_or_of_an_unknown_authority_is_refused_with_the_reason() {
    let authority = Authority::new("the authority");
    for (name, until, ca, reason) in [
        ("elsewhere.example", 2099, authority.ca(), "not valid for name"),
        ("127.0.0.1", 2020, authority.ca(), "expired"),
        ("127.0.0.1", 2099, Authority::new("another authority").files.keep().join("ca.pem"), "UnknownIssuer"),
    ] {
        let server = Server::start(authority.certificate(name, until), "-tls1_2");
        let text = server.asked(ca).await;
        assert!(text.contains(reason), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_is_spoken() {
    let authority = Authority::new("the authority");
    let server = Server::start(authority.certificate("127.0.0.1", 2099), "-tls1_2");
    // What fails is not the handshake: there is no etcd behind it.
    let text = server.asked(authority.ca()).await;
    assert!(!text.contains("certificate") && !text.contains("ProtocolVersion"), "{text}");
}
