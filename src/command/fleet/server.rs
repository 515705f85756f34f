//! The configuration of the NATS server of a fleet, and how accounts are pushed to it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use serde_json::Value;

/// The largest message, which the largest event fits into.
const MAX_PAYLOAD: &str = "8MB";

/// What the configuration is made of. All paths are absolute.
pub struct Server<'a> {
    pub listen: &'a str,
    pub store: &'a Path,
    /// The most bytes that the server stores; default: as nats-server finds them on the disk.
    pub storage: Option<u64>,
    pub tls: Option<&'a Tls>,
    pub operator: &'a str,
    pub system: (&'a str, &'a str),
    pub hub: (&'a str, &'a str),
    pub accounts: &'a Path,
}

/// Files in PEM format.
#[derive(Clone, Debug)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Server<'_> {
    /// The text of `nats.conf`.
    pub fn configuration(&self) -> String {
        let tls = self.tls.map_or_else(String::new, |tls| {
            format!(
                "tls {{ cert_file: {:?}, key_file: {:?} }}\n",
                tls.certificate, tls.key
            )
        });
        let max = self
            .storage
            .map_or_else(String::new, |bytes| format!(", max_file_store: {bytes}"));
        format!(
            "# Written by `tidings fleet init`.\n\
             listen: {:?}\n\
             max_payload: {MAX_PAYLOAD}\n\
             # The permissions of the roles are part of what they send to log in.\n\
             max_control_line: 32KB\n\
             {tls}\
             jetstream {{ store_dir: {:?}{max} }}\n\
             operator: {}\n\
             system_account: {}\n\
             resolver {{ type: full, dir: {:?} }}\n\
             resolver_preload {{\n  {}: {}\n  {}: {}\n}}\n",
            self.listen,
            self.store,
            self.operator,
            self.system.0,
            self.accounts,
            self.system.0,
            self.system.1,
            self.hub.0,
            self.hub.1,
        )
    }
}

/// Pushes the claim of an account to the server, where it takes effect at once: connections of
/// revoked users are closed.
///
/// # Errors
/// The server refuses, or does not answer.
pub async fn push(system: &async_nats::Client, claim: String) -> anyhow::Result<()> {
    let answer = system.request("$SYS.REQ.CLAIMS.UPDATE", Bytes::from(claim));
    let answer = answer.await.context("the NATS server does not answer")?;
    let answer: Value = serde_json::from_slice(&answer.payload)?;
    ensure!(
        answer["error"].is_null() && answer["data"]["code"] == 200,
        "the NATS server refuses the account: {answer}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_the_certificate_only_with_tls() {
        let tls = Tls {
            certificate: "/etc/hub.pem".into(),
            key: "/etc/hub-key.pem".into(),
        };
        let server = |tls| Server {
            listen: "127.0.0.1:4222",
            store: Path::new("/fleet/jetstream"),
            storage: Some(1024),
            tls,
            operator: "OPERATOR",
            system: ("ASYS", "SYSTEM"),
            hub: ("AHUB", "HUB"),
            accounts: Path::new("/fleet/accounts"),
        };
        assert!(!server(None).configuration().contains("tls {"));
        let secured = server(Some(&tls)).configuration();
        assert!(secured.contains("cert_file: \"/etc/hub.pem\""), "{secured}");
    }
}
