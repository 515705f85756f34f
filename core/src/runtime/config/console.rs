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
        };
        let is_open = !console.tokens.are_required();
        if console
            .listen
            .is_some_and(|listen| !listen.ip().is_loopback())
            && is_open
        {
            reader.mistake(
                "console.listen",
                "an address that is not loopback needs tokens: set console.tokens.view or \
                 console.tokens.operate",
            );
        }
        console
    }
}

impl ConsoleTokens {
    /// Whether requests need a token.
    pub fn are_required(&self) -> bool {
        self.view.is_some() || self.operate.is_some()
    }
}
