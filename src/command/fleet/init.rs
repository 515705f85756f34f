//! `tidings fleet init`: creates the keys, credentials and server configuration of a fleet.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;
use nkeys::{KeyPair, KeyPairType};

use super::claims::{self, Seconds};
use super::folder::{Description, Folder};
use super::permissions::{User, exports};
use super::server::{Server, Tls};
use crate::command::tool::print_line;

/// Arguments of `tidings fleet init`.
#[derive(Args, Debug)]
pub struct InitArguments {
    /// Folder to create
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Address that the NATS server listens on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4222")]
    listen: String,
    /// Address for clients, such as tls://hub.example.com:4222 [default: the address of --listen]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Folder for the data of the streams [default: jetstream in the folder of the fleet]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// What the server may store, in GiB; its disk must have it free [default: three quarters of
    /// the free space when it starts]
    #[arg(long, value_name = "GIB")]
    storage: Option<u64>,
    /// PEM file with the certificate of the NATS server
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file with the key of the certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// PEM file with the certificate authority, for the commands of `tidings fleet`
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
}

impl InitArguments {
    /// The storage limit in bytes.
    fn storage(&self) -> Option<u64> {
        self.storage.map(|gib| gib.saturating_mul(1 << 30))
    }
}

/// The keys of a new fleet.
struct Keys {
    operator: KeyPair,
    system: KeyPair,
    hub: KeyPair,
}

/// Creates a fleet.
///
/// # Errors
/// The folder is not empty or cannot be written, or a file of TLS does not exist.
pub fn run(arguments: &InitArguments) -> anyhow::Result<()> {
    let tls = tls(arguments)?;
    check_address(arguments, tls.is_some())?;
    let folder = Folder::create(&arguments.folder)?;
    let keys = Keys {
        operator: folder.key("operator", KeyPairType::Operator)?,
        system: folder.key("system", KeyPairType::Account)?,
        hub: folder.key("hub", KeyPairType::Account)?,
    };
    let at = jiff::Timestamp::now().as_second();
    write_configuration(arguments, &folder, &keys, tls.as_ref(), at)?;
    for (name, user) in User::HUB {
        let key = KeyPair::new_user();
        let jwt = claims::user(&keys.hub, &key.public_key(), name, &user, at)?;
        write_credentials(&folder, name, &jwt, &key)?;
    }
    let key = KeyPair::new_user();
    let jwt = claims::system_user(&keys.system, &key.public_key(), at)?;
    write_credentials(&folder, "system", &jwt, &key)?;
    let scheme = if tls.is_some() { "tls" } else { "nats" };
    folder.describe(&Description {
        url: arguments
            .url
            .clone()
            .unwrap_or_else(|| format!("{scheme}://{}", arguments.listen)),
        ca: arguments
            .tls_ca
            .as_ref()
            .map(std::path::absolute)
            .transpose()?,
        hub: keys.hub.public_key(),
        system: keys.system.public_key(),
        storage: arguments.storage(),
        ..Description::default()
    })?;
    print_line(&format!(
        "start the server with `nats-server -c {}`",
        folder.path("nats.conf")?.display()
    ))?;
    Ok(())
}

fn tls(arguments: &InitArguments) -> anyhow::Result<Option<Tls>> {
    let files = [&arguments.tls_cert, &arguments.tls_key, &arguments.tls_ca];
    for file in files.into_iter().flatten() {
        ensure!(file.is_file(), "{}: no such file", file.display());
    }
    let (Some(certificate), Some(key)) = (&arguments.tls_cert, &arguments.tls_key) else {
        return Ok(None);
    };
    Ok(Some(Tls {
        certificate: std::path::absolute(certificate)?,
        key: std::path::absolute(key)?,
    }))
}

/// Members get the address for clients, so it must be one that they can use.
fn check_address(arguments: &InitArguments, has_tls: bool) -> anyhow::Result<()> {
    let listen = &arguments.listen;
    let Some(url) = &arguments.url else {
        let is_any = [":", "0.0.0.0:", "[::]:"]
            .iter()
            .any(|any| listen.starts_with(any));
        ensure!(
            !is_any,
            "--listen {listen}: clients cannot connect to this address; pass --url with the name \
             of the hub"
        );
        return Ok(());
    };
    ensure!(
        has_tls || !(url.starts_with("tls://") || url.starts_with("wss://")),
        "--url {url}: the server needs --tls-cert and --tls-key for TLS"
    );
    Ok(())
}

fn write_configuration(
    arguments: &InitArguments,
    folder: &Folder,
    keys: &Keys,
    tls: Option<&Tls>,
    at: Seconds,
) -> anyhow::Result<()> {
    let [system, hub] = [&keys.system, &keys.hub].map(KeyPair::public_key);
    let operator_claim = claims::operator(&keys.operator, &system, at)?;
    let system_claim = claims::system(&keys.operator, &system, at)?;
    let hub_claim = claims::hub(
        &keys.operator,
        &hub,
        &exports(),
        arguments.storage(),
        &claims::Revocations::new(),
        at,
    )?;
    let store = match &arguments.store {
        Some(store) => std::path::absolute(store)?,
        None => folder.path("jetstream")?,
    };
    let server = Server {
        listen: &arguments.listen,
        store: &store,
        storage: arguments.storage(),
        tls,
        operator: &operator_claim,
        system: (&system, &system_claim),
        hub: (&hub, &hub_claim),
        accounts: &folder.path("accounts")?,
    };
    folder.write("nats.conf", &server.configuration())
}

fn write_credentials(folder: &Folder, name: &str, jwt: &str, key: &KeyPair) -> anyhow::Result<()> {
    let text = claims::credentials(jwt, &key.seed()?);
    folder.write(&format!("creds/{name}.creds"), &text)
}
