//! Values that never show.

use std::fmt;

use async_nats::ServerAddr;
use percent_encoding::percent_decode_str;
use serde::{Serialize, Serializer};

const HIDDEN: &str = "***";

/// A text that shows in no output.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

/// The servers of the bus, without the login that an address may hold before `@`: the client would
/// log it, and not use it.
#[derive(Clone, PartialEq, Eq)]
pub struct Servers {
    addresses: Vec<ServerAddr>,
    login: Option<Login>,
}

/// What an address holds before `@`.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Login {
    /// `user:password@`
    Password(String, Secret),
    /// `token@`
    Token(Secret),
}

impl Servers {
    /// Takes the login out of the addresses; the first one's counts. Nothing where an address can't
    /// be one.
    pub(super) fn new(addresses: Vec<ServerAddr>) -> Option<Self> {
        let login = addresses.iter().find_map(Login::of);
        let without_login = |address: ServerAddr| {
            let mut url = address.into_inner();
            // An address with a host takes them.
            let _ = (url.set_username(""), url.set_password(None));
            ServerAddr::from_url(url).ok()
        };
        Some(Self {
            addresses: addresses
                .into_iter()
                .map(without_login)
                .collect::<Option<_>>()?,
            login,
        })
    }

    /// The addresses.
    pub fn addresses(&self) -> &[ServerAddr] {
        &self.addresses
    }

    pub(super) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }
}

impl Login {
    fn of(address: &ServerAddr) -> Option<Self> {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let first = decoded(address.username()?);
        Some(match address.password() {
            Some(password) => Self::Password(first, Secret::new(decoded(password))),
            None => Self::Token(Secret::new(first)),
        })
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, server) in self.addresses.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(
                formatter,
                "{comma}{}://{}:{}",
                server.scheme(),
                server.host(),
                server.port()
            )?;
        }
        Ok(())
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for Servers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
