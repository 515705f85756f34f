//! Values that are never printed.

use std::fmt;

use async_nats::ServerAddr;
use percent_encoding::percent_decode_str;
use serde::{Serialize, Serializer};

const HIDDEN: &str = "***";

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the code that sends it.
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

/// The servers of the bus. A login in an address is stored separately, because the client would
/// log it and not use it.
#[derive(Clone, PartialEq, Eq)]
pub struct Servers {
    addresses: Vec<ServerAddr>,
    login: Option<Login>,
}

/// The login in an address, before `@`.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Login {
    /// `user:password@`
    Password(String, Secret),
    /// `token@`
    Token(Secret),
}

impl Servers {
    /// Removes the logins from the addresses and keeps the first. `None` if an address is invalid.
    pub(super) fn new(addresses: Vec<ServerAddr>) -> Option<Self> {
        let login = addresses.iter().find_map(Login::of);
        let without_login = |address: ServerAddr| {
            let mut url = address.into_inner();
            // Both succeed for an address with a host.
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

    /// The addresses without logins.
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
