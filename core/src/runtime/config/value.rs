//! Parses values. An error is the description of what is expected.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use async_nats::ServerAddr;
use ipnet::IpNet;
use jiff::SignedDuration;
use serde::{Serialize, Serializer};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use url::Url;

use super::secret::Servers;
use crate::runtime::kubernetes::kind::ObjectKind;
use crate::runtime::telemetry::LogFormat;

/// The severity of Events with a reason or type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Severity {
    /// A reason or a type.
    pub of: String,
    /// trace, info, warn or error.
    pub severity: String,
}

/// A value, or what is expected instead.
pub(super) type Parsed<T> = Result<T, &'static str>;

pub(super) fn text(text: &str) -> Parsed<String> {
    if text.is_empty() {
        Err("a text that is not empty, such as prod")
    } else {
        Ok(text.to_owned())
    }
}

pub(super) fn path(text: &str) -> Parsed<PathBuf> {
    if text.is_empty() {
        Err("a path, such as /etc/tidings")
    } else {
        Ok(PathBuf::from(text))
    }
}

pub(super) fn switch(text: &str) -> Parsed<bool> {
    text.parse().map_err(|_| "true or false")
}

pub(super) fn count(text: &str) -> Parsed<usize> {
    text.parse()
        .ok()
        .filter(|count| *count > 0)
        .ok_or("a whole number above 0, such as 256")
}

/// `:9090` means every interface.
pub(super) fn address(text: &str) -> Parsed<SocketAddr> {
    let every_interface = text.strip_prefix(':').and_then(|port| port.parse().ok());
    match every_interface {
        Some(port) => Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
        None => text
            .parse()
            .map_err(|_| "an address and a port, such as 127.0.0.1:9090 or :9090"),
    }
}

/// `10.0.0.0/8`, or a single address.
pub(super) fn network(text: &str) -> Parsed<IpNet> {
    let network = text
        .parse()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| "a network or address, such as 10.0.0.0/8 or 10.1.2.3")
}

pub(super) fn duration(text: &str) -> Parsed<Duration> {
    let parsed = text
        .parse::<SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok());
    parsed.ok_or("a duration with its unit, such as 30s or 5m")
}

/// A duration above zero.
pub(super) fn interval(text: &str) -> Parsed<Duration> {
    duration(text)
        .ok()
        .filter(|interval| !interval.is_zero())
        .ok_or("a duration above 0 with its unit, such as 30s or 5m")
}

/// Bytes: `512MB`, `10GiB`, `1048576`.
pub(super) fn size(text: &str) -> Parsed<u64> {
    let digits = text.len()
        - text
            .trim_start_matches(|character: char| character.is_ascii_digit())
            .len();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1000 * 1000,
        "GB" => 1000 * 1000 * 1000,
        "TB" => 1000 * 1000 * 1000 * 1000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => 0,
    };
    let bytes = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor));
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or("a size above 0, such as 10GiB, 512MB or a number of bytes")
}

/// A memory limit. With less, the largest event does not fit into the shares of the roles.
pub(super) fn memory(text: &str) -> Parsed<u64> {
    size(text)
        .ok()
        .filter(|bytes| *bytes >= 128 << 20)
        .ok_or("a size of at least 128MiB, such as 512MiB")
}

pub(super) fn servers(text: &str) -> Parsed<Servers> {
    let parse = |server: &str| {
        server
            .trim()
            .parse::<ServerAddr>()
            .ok()
            .filter(|server| !server.host().is_empty())
    };
    let servers: Option<Vec<ServerAddr>> = text.split(',').map(parse).collect();
    servers
        .and_then(Servers::new)
        .ok_or("addresses of NATS servers separated by commas, such as nats://host:4222")
}

/// The error does not repeat the URL, which may hold a secret.
pub(super) fn http_url(text: &str) -> Parsed<Url> {
    let is_plain = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    };
    text.parse()
        .ok()
        .filter(is_plain)
        .ok_or("an http or https URL without credentials and query, such as http://host:9090/")
}

pub(super) fn object_kind(text: &str) -> Parsed<ObjectKind> {
    text.parse().map_err(|_| ObjectKind::EXPECTED)
}

/// The severity of Kubernetes Events with a reason or type: `BackOff=warn`.
pub(super) fn severity(text: &str) -> Parsed<Severity> {
    let (of, severity) = text.split_once('=').unwrap_or_default();
    let is_severity = matches!(severity, "trace" | "info" | "warn" | "error");
    if of.is_empty() || !is_severity {
        return Err(
            "REASON=SEVERITY or TYPE=SEVERITY with trace, info, warn or error, such as \
             BackOff=warn",
        );
    }
    Ok(Severity {
        of: of.to_owned(),
        severity: severity.to_owned(),
    })
}

pub(super) fn log_filter(text: &str) -> Parsed<String> {
    // A word that is no level would be the name of a module, and silence all others.
    let is_level_or_pair =
        |part: &str| part.contains(['=', '[']) || part.trim().parse::<LevelFilter>().is_ok();
    let is_filter = text.split(',').all(is_level_or_pair);
    if !text.is_empty() && is_filter && EnvFilter::builder().parse(text).is_ok() {
        Ok(text.to_owned())
    } else {
        Err("a level (error, warn, info, debug, trace) or pairs such as info,tidings_workers=debug")
    }
}

pub(super) fn log_format(text: &str) -> Parsed<LogFormat> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("text or json"),
    }
}

/// Writes a duration as settings have it, such as `5m`.
pub(super) fn write_duration<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match SignedDuration::try_from(*duration) {
        Ok(duration) => serializer.collect_str(&format_args!("{duration:#}")),
        Err(_) => serializer.collect_str(&format_args!("{}s", duration.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (written, bytes) in [
            ("1048576", Some(1_048_576)),
            ("10GiB", Some(10 << 30)),
            ("512MB", Some(512_000_000)),
            ("1 KiB", Some(1024)),
            ("0", None),
            ("", None),
            ("GiB", None),
            ("1.5GiB", None),
            ("5 apples", None),
            ("99999999TiB", None),
        ] {
            assert_eq!(size(written).ok(), bytes, "{written}");
        }
    }

    #[test]
    fn durations_have_units() {
        for (written, seconds) in [
            ("5m", Some(300)),
            ("1h30m", Some(5400)),
            ("0s", Some(0)),
            ("5", None),
            ("-5s", None),
            ("", None),
        ] {
            assert_eq!(
                duration(written).ok(),
                seconds.map(Duration::from_secs),
                "{written}"
            );
        }
        assert!(interval("0s").is_err());
    }

    #[test]
    fn a_url_of_a_copy_has_no_secrets() {
        for (written, is_valid) in [
            (
                "http://notification-controller.flux-system.svc.cluster.local./",
                true,
            ),
            ("https://10.1.2.3:9443/events", true),
            ("http://user:pass@host/", false),
            ("http://host/?token=1", false),
            ("nats://host:4222", false),
            ("host:9090", false),
            ("", false),
        ] {
            assert_eq!(http_url(written).is_ok(), is_valid, "{written}");
        }
    }

    #[test]
    fn a_log_filter_has_levels() {
        for (written, is_valid) in [
            ("info", true),
            ("WARN", true),
            ("off", true),
            ("info,tidings_workers=debug", true),
            ("tidings_workers=debug", true),
            ("verbose", false),
            ("inof,tidings_workers=debug", false),
            ("info,tidings_workers=loud", false),
            ("info,", true),
            ("", false),
        ] {
            assert_eq!(log_filter(written).is_ok(), is_valid, "{written}");
        }
    }

    #[test]
    fn an_address_has_a_port() {
        for (written, meant) in [
            ("127.0.0.1:0", Some("127.0.0.1:0")),
            (":9090", Some("0.0.0.0:9090")),
            ("[::1]:1", Some("[::1]:1")),
            ("9090", None),
        ] {
            assert_eq!(
                address(written)
                    .ok()
                    .map(|address| address.to_string())
                    .as_deref(),
                meant,
                "{written}"
            );
        }
    }

    #[test]
    fn an_address_is_a_network_of_one() {
        for (written, meant) in [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("10.1.2.3", Some("10.1.2.3/32")),
            ("::1", Some("::1/128")),
            ("localhost", None),
        ] {
            assert_eq!(
                network(written)
                    .ok()
                    .map(|network| network.to_string())
                    .as_deref(),
                meant,
                "{written}"
            );
        }
    }

    #[test]
    fn servers_show_without_their_passwords() {
        let shown = |written: &str| {
            servers(written)
                .ok()
                .map(|servers| format!("{servers} {servers:?}"))
        };
        assert_eq!(
            shown("nats://me:pass@a:1, b"),
            Some("nats://a:1,nats://b:4222 nats://a:1,nats://b:4222".to_owned())
        );
        assert_eq!(
            shown("tls://[::1]:4222"),
            Some("tls://::1:4222 tls://::1:4222".to_owned())
        );
        for wrong in ["", "http://a", "nats://", "a,,b"] {
            assert_eq!(shown(wrong), None, "{wrong}");
        }
    }
}
