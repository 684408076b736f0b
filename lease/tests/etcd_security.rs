//! Certificates, users and tokens, against a real etcd that asks for them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests say what went wrong by failing")]

mod common;

use std::path::PathBuf;
use std::time::Duration;

use common::{PREFIX, options};
use lease::LeaseStore;
use lease::store::StoreError;
use lease::store::contract::{Events, key, record};
use lease::store::etcd::{EtcdOptions, EtcdStore, Secret};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use testkit::{Etcd, TlsFiles};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// An authority, and a certificate from it that serves both sides.
struct Authority {
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut ca = CertificateParams::new([]).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        let ca_cert = ca.self_signed(&ca_key).unwrap();
        let issuer = Issuer::new(ca, ca_key);
        let mut leaf = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf_key = KeyPair::generate().unwrap();
        let leaf_cert = leaf.signed_by(&leaf_key, &issuer).unwrap();
        for (name, text) in [("ca.pem", ca_cert.pem()), ("cert.pem", leaf_cert.pem()), ("key.pem", leaf_key.serialize_pem())] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self { folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn etcd(&self, ask_clients: bool) -> Etcd {
        let tls = TlsFiles { ca: self.file("ca.pem"), cert: self.file("cert.pem"), key: self.file("key.pem"), ask_clients };
        Etcd::alone(testkit::EtcdOptions { tls: Some(tls), ..testkit::EtcdOptions::default() }).unwrap_or_else(|error| panic!("{error:#}"))
    }
}

fn store(options: EtcdOptions) -> EtcdStore {
    EtcdStore::new(options).unwrap()
}

fn refused(options: EtcdOptions) -> String {
    EtcdStore::new(options).unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_alone_verifies_the_server() {
    let authority = Authority::new();
    let etcd = authority.etcd(false);
    let good = store(EtcdOptions { ca_file: Some(authority.file("ca.pem")), ..options(&etcd) });
    assert_eq!(good.config().await, Ok(None));
    let wrong = store(EtcdOptions { ca_file: Some(Authority::new().file("ca.pem")), ..options(&etcd) });
    let Err(StoreError::Unavailable(text)) = wrong.config().await else { panic!("the server was believed") };
    assert!(text.contains("certificate"), "{text}");
    let none = store(options(&etcd));
    assert!(matches!(none.config().await, Err(StoreError::Unavailable(_))), "the system's authorities do not know it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_ours_is_shown_where_it_is_asked_for() {
    let authority = Authority::new();
    let etcd = authority.etcd(true);
    let with = EtcdOptions {
        ca_file: Some(authority.file("ca.pem")),
        cert_file: Some(authority.file("cert.pem")),
        key_file: Some(authority.file("key.pem")),
        ..options(&etcd)
    };
    assert_eq!(store(with.clone()).config().await, Ok(None));
    let without = store(EtcdOptions { cert_file: None, key_file: None, ..with });
    assert!(matches!(without.config().await, Err(StoreError::Unavailable(_))));
}

#[test]
fn options_that_cannot_be_meant_are_refused_by_name() {
    let authority = Authority::new();
    let (ca, cert, key) = (authority.file("ca.pem"), authority.file("cert.pem"), authority.file("key.pem"));
    let rubbish = authority.file("rubbish.pem");
    let base = || EtcdOptions { endpoints: vec!["https://127.0.0.1:2379".to_owned()], prefix: PREFIX.to_owned(), ..EtcdOptions::default() };
    let pem = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
    for text in [String::new(), "hello".to_owned(), pem("AAAA"), pem("?"), std::fs::read_to_string(&key).unwrap()] {
        std::fs::write(&rubbish, &text).unwrap();
        let error = refused(EtcdOptions { ca_file: Some(rubbish.clone()), ..base() });
        assert!(error.starts_with(&format!("TLS file {}: ", rubbish.display())), "{text:?}: {error}");
    }
    let identity = |cert: &PathBuf, key: &PathBuf| EtcdOptions { cert_file: Some(cert.clone()), key_file: Some(key.clone()), ..base() };
    assert!(refused(identity(&cert, &ca)).contains("ca.pem: no private key in PEM form"));
    assert!(refused(identity(&key, &key)).contains("key.pem: no certificate in PEM form"));
    assert!(refused(identity(&authority.file("none.pem"), &key)).contains("none.pem: No such file"));
    let half = refused(EtcdOptions { cert_file: Some(cert.clone()), ..base() });
    assert_eq!(half, "the etcd client certificate file is given without the key file: both are needed");
    let endpoints = |list: &[&str]| list.iter().map(|endpoint| (*endpoint).to_owned()).collect();
    let plain = EtcdOptions { endpoints: endpoints(&["http://127.0.0.1:2379"]), ca_file: Some(ca.clone()), ..base() };
    assert!(EtcdStore::new(plain).is_ok(), "flanneld takes TLS files that are of no use");
    let mixed = refused(EtcdOptions { endpoints: endpoints(&["https://a:1", "http://b:1"]), ca_file: Some(ca), ..base() });
    assert!(mixed.starts_with("etcd endpoint \"http://b:1\" is not encrypted, but others are"), "{mixed}");
    for endpoint in ["ftp://x:1", "http://", "http://a b:1", "http://u@h:1", "http://h:1/path"] {
        assert!(
            refused(EtcdOptions { endpoints: vec![endpoint.to_owned()], ..base() }).starts_with(&format!("etcd endpoint {endpoint:?} "))
        );
    }
    assert!(refused(EtcdOptions { endpoints: vec![" ".to_owned()], ..base() }).starts_with("no etcd endpoint"));
    assert!(refused(EtcdOptions { password: Some(Secret::new("p".into())), ..base() }).contains("without a user"));
    assert!(refused(EtcdOptions { username: Some("u".into()), ..base() }).contains("without a password"));
}

#[test]
fn a_password_is_never_printed_and_comes_without_its_line_end() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hush\n").unwrap();
    let secret = Secret::from_file(file.path()).unwrap();
    assert_eq!((&secret, format!("{secret:?}").as_str()), (&Secret::new("hush".to_owned()), "…"));
    let options =
        EtcdOptions { endpoints: vec!["h:1".into()], username: Some("root".into()), password: Some(secret), ..EtcdOptions::default() };
    assert!(!format!("{options:?} {:?}", store(options.clone())).contains("hush"));
    let error = Secret::from_file(&PathBuf::from("/nonexistent/secret")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/secret"), "{error}");
}

fn with_users(args: &[&str]) -> Etcd {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let user = Some(("root".to_owned(), "hush".to_owned()));
    Etcd::alone(testkit::EtcdOptions { user, args, ..testkit::EtcdOptions::default() }).unwrap_or_else(|error| panic!("{error:#}"))
}

fn as_root(etcd: &Etcd, password: &str) -> EtcdOptions {
    EtcdOptions { username: Some("root".into()), password: Some(Secret::new(password.into())), ..options(etcd) }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_log_in_and_others_are_denied() {
    let etcd = with_users(&[]);
    let store = store(as_root(&etcd, "hush"));
    store.create(key("10.5.1.0-24"), &record("192.0.2.1"), Duration::from_secs(60)).await.unwrap();
    let wrong = self::store(as_root(&etcd, "rush")).config().await;
    assert!(matches!(&wrong, Err(StoreError::Denied(text)) if text.contains("authentication failed")), "{wrong:?}");
    let nobody = self::store(options(&etcd)).config().await;
    assert!(matches!(&nobody, Err(StoreError::Denied(text)) if text.contains("user name is empty")), "{nobody:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_an_etcd_without_users_does_not_want_is_no_harm() {
    let etcd = Etcd::alone(testkit::EtcdOptions::default()).unwrap();
    assert_eq!(store(as_root(&etcd, "hush")).config().await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_token_is_renewed_for_calls_and_watches() {
    // etcd looks for ended tokens once a second.
    let etcd = with_users(&["--auth-token-ttl", "1"]);
    let store = store(as_root(&etcd, "hush"));
    let entry = store.create(key("10.5.1.0-24"), &record("192.0.2.1"), Duration::from_secs(600)).await.unwrap();
    let end = Instant::now() + Duration::from_secs(8);
    while Instant::now() < end {
        // There is nothing to wait on: that time passes is the condition.
        sleep(Duration::from_millis(2_500)).await;
        let (sender, receiver) = mpsc::channel(8);
        let mut events = Events::new(receiver);
        let watching = store.clone();
        let mut task = JoinSet::new();
        task.spawn(async move { watching.watch(sender).await });
        assert_eq!(events.snapshot().await, [entry.key]);
        sleep(Duration::from_millis(2_500)).await;
        assert_eq!(store.get(entry.key).await, Ok(Some(entry.clone())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_were_rotated_are_shown_on_the_next_connection() {
    let (old, new) = (Authority::new(), Authority::new());
    let mut etcd = old.etcd(true);
    let store = store(EtcdOptions {
        ca_file: Some(old.file("ca.pem")),
        cert_file: Some(old.file("cert.pem")),
        key_file: Some(old.file("key.pem")),
        ..options(&etcd)
    });
    assert_eq!(store.config().await, Ok(None));
    // Another authority altogether, for both sides.
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        std::fs::copy(new.file(name), old.file(name)).unwrap();
    }
    etcd.restart().unwrap();
    assert_eq!(store.config().await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_key_leaves_the_one_before_in_force() {
    let authority = Authority::new();
    let ours = Authority::new();
    let mut etcd = authority.etcd(true);
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        std::fs::copy(authority.file(name), ours.file(name)).unwrap();
    }
    let store = store(EtcdOptions {
        ca_file: Some(ours.file("ca.pem")),
        cert_file: Some(ours.file("cert.pem")),
        key_file: Some(ours.file("key.pem")),
        ..options(&etcd)
    });
    assert_eq!(store.config().await, Ok(None));
    let whole = std::fs::read(ours.file("key.pem")).unwrap();
    std::fs::write(ours.file("key.pem"), &whole[..whole.len() / 2]).unwrap();
    etcd.restart().unwrap();
    assert_eq!(store.config().await, Ok(None), "the connection after the restart is a new one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_was_changed_is_read_from_its_file_for_the_next_login() {
    let etcd = with_users(&["--auth-token-ttl", "1"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "rush\n").unwrap();
    let options = EtcdOptions { password: Some(Secret::from_file(file.path()).unwrap()), ..as_root(&etcd, "") };
    let store = store(options);
    assert!(matches!(store.config().await, Err(StoreError::Denied(_))));
    std::fs::write(file.path(), "hush\n").unwrap();
    assert_eq!(store.config().await, Ok(None));
}
