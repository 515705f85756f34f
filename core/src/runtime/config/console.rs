//! `console.…`: the web page that shows what happens.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

use super::read::Reader;
use super::server::ServerTlsSettings;
use super::value;

/// The console, and who may use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConsoleSettings {
    /// `console.listen`: its address; off without one.
    pub listen: Option<SocketAddr>,
    /// `console.hosts`: names under which browsers reach it.
    pub hosts: Vec<String>,
    /// `console.tls.…`
    pub tls: ServerTlsSettings,
    /// `console.tokens.…`
    pub tokens: ConsoleTokens,
    /// `console.kubernetes.…`
    pub kubernetes: ConsoleKubernetes,
}

/// Whether users of the Kubernetes API may use the console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConsoleKubernetes {
    /// `console.kubernetes.enabled`: whether the API is asked.
    pub enabled: bool,
    /// `console.kubernetes.audiences`: a token must have one of them.
    pub audiences: Vec<String>,
}

/// Files or folders of bearer tokens, by role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConsoleTokens {
    /// `console.tokens.view`: tokens that may read.
    pub view: Option<PathBuf>,
    /// `console.tokens.operate`: tokens that may also change something.
    pub operate: Option<PathBuf>,
}

impl ConsoleSettings {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let console = Self {
            listen: reader.optional("console.listen", value::address),
            hosts: reader.list("console.hosts"),
            tls: ServerTlsSettings::read(reader, "console.tls.cert", "console.tls.key"),
            tokens: ConsoleTokens {
                view: reader.optional("console.tokens.view", value::path),
                operate: reader.optional("console.tokens.operate", value::path),
            },
            kubernetes: ConsoleKubernetes {
                enabled: reader.value("console.kubernetes.enabled", value::switch),
                audiences: reader.list("console.kubernetes.audiences"),
            },
        };
        let is_open = !console.needs_token();
        if console
            .listen
            .is_some_and(|listen| !listen.ip().is_loopback())
            && is_open
        {
            reader.mistake(
                "console.listen",
                "an address that is not loopback needs tokens: set console.tokens.view, \
                 console.tokens.operate or console.kubernetes.enabled",
            );
        }
        console
    }

    /// Whether requests need a token.
    pub fn needs_token(&self) -> bool {
        self.tokens.view.is_some() || self.tokens.operate.is_some() || self.kubernetes.enabled
    }
}
