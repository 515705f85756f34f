//! Files of an API server and its clients: certificate, keys, tokens, kubeconfigs.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::json;

/// The kubeconfig of the administrator.
pub const ADMIN: &str = "admin.kubeconfig";

/// The token of the administrator.
const ADMIN_TOKEN: &str = "the-admin-of-this-test";

/// The folder of one API server.
pub struct Files {
    folder: PathBuf,
}

impl Files {
    /// Writes the files of the API server, and the kubeconfig of the administrator.
    pub fn write(folder: &Path, url: &str) -> Self {
        let files = Self {
            folder: folder.to_owned(),
        };
        let mut params =
            CertificateParams::new(["127.0.0.1".to_owned()]).expect("the name is valid");
        params
            .distinguished_name
            .push(DnType::CommonName, "kube-apiserver of a test");
        let key = KeyPair::generate().expect("keys can be generated");
        files.put(
            "tls.crt",
            &params
                .self_signed(&key)
                .expect("the certificate can be signed")
                .pem(),
        );
        files.put("tls.key", &key.serialize_pem());
        let accounts = KeyPair::generate().expect("keys can be generated");
        files.put("accounts.key", &accounts.serialize_pem());
        files.put("accounts.pub", &accounts.public_key_pem());
        files.put(
            "tokens.csv",
            &format!("{ADMIN_TOKEN},admin,admin,system:masters\n"),
        );
        files.kubeconfig("admin", url, ADMIN_TOKEN);
        files
    }

    /// The path of a file.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a kubeconfig.
    pub fn kubeconfig(&self, name: &str, url: &str, token: &str) -> PathBuf {
        let cluster = json!({"server": url, "certificate-authority": self.path("tls.crt")});
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": "test", "user": name}}],
        });
        self.put(&format!("{name}.kubeconfig"), &config.to_string())
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("the rig's folder is writable");
        path
    }
}
