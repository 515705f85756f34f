//! The program under test and its endpoint.

use std::str::FromStr;

use anyhow::{Context, ensure};
use url::Url;

/// A program that accepts events.
pub struct Program {
    /// Its name in the report.
    pub name: &'static str,
    /// Its endpoint for events.
    pub endpoint: Endpoint,
    /// The processes whose CPU time and memory are reported, by name.
    pub processes: Vec<(&'static str, u32)>,
}

/// An address for plain HTTP.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Host and port.
    pub authority: String,
    /// The path, with its slash.
    pub path: String,
}

impl FromStr for Endpoint {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let url =
            Url::parse(text).context("the target is not a URL, such as http://127.0.0.1:9090/")?;
        ensure!(
            url.scheme() == "http",
            "the target's scheme is {:?}; only http can be measured",
            url.scheme()
        );
        let host = url.host_str().context("the target's URL has no host")?;
        let port = url
            .port_or_known_default()
            .context("the target's URL has no port")?;
        Ok(Self {
            authority: format!("{host}:{port}"),
            path: url.path().to_owned(),
        })
    }
}
