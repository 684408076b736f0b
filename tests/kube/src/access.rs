//! Who is who in a cluster: certificates, keys, tokens, and the kubeconfigs that are made of them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

/// Whoever has this token may do anything.
const ADMIN: &str = "admin";

/// A folder with what the control plane is given.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    folder: PathBuf,
    server: String,
}

impl Access {
    /// Writes all of it: for an API server at `server`, known by these names, and these nodes.
    pub(crate) fn new(folder: &Path, server: &str, names: &[String], nodes: impl Iterator<Item = String>) -> Result<Self> {
        let access = Self { folder: folder.to_owned(), server: server.to_owned() };
        let authority = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "loden-test");
        access.write("ca.pem", &params.self_signed(&authority)?.pem())?;
        let issuer = Issuer::new(params, authority);
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        access.write("server.pem", &params.signed_by(&key, &issuer)?.pem())?;
        access.write("server.key", &key.serialize_pem())?;
        // Service accounts' tokens are signed with this.
        let key = KeyPair::generate()?;
        access.write("accounts.key", &key.serialize_pem())?;
        access.write("accounts.pub", &key.public_key_pem())?;
        let mut tokens = format!("{ADMIN},{ADMIN},{ADMIN},\"system:masters\"\nkube-proxy,system:kube-proxy,kube-proxy\n");
        for node in nodes {
            tokens += &format!("{node},system:node:{node},{node},\"system:nodes\"\n");
        }
        access.write("tokens.csv", &tokens)?;
        access.kubeconfig(ADMIN, &access.folder)?;
        Ok(access)
    }

    /// One of its files.
    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Writes the kubeconfig `NAME.conf` to a folder, for whoever has the token of that name.
    pub(crate) fn kubeconfig(&self, name: &str, folder: &Path) -> Result<()> {
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": self.server, "certificate-authority": "ca.pem"}}],
            "users": [{"name": "u", "user": {"token": name}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        fs::write(folder.join(format!("{name}.conf")), serde_json::to_string(&config)?)?;
        if folder != self.folder {
            // Where a path in a kubeconfig is relative, it is relative to that.
            fs::copy(self.folder.join("ca.pem"), folder.join("ca.pem"))?;
        }
        Ok(())
    }

    fn write(&self, name: &str, content: &str) -> Result<()> {
        Ok(fs::write(self.folder.join(name), content)?)
    }
}
