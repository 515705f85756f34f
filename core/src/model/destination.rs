//! A destination: one channel of a Provider, or the whole Provider. Each destination has its own
//! limits and its own circuit.

use sha2::{Digest, Sha256};
use tidings_proto::v1::Circuit;

use crate::model::token::{Token, hex};

/// The prefix of the keys of circuits in the bucket `limits`.
pub const PREFIX: &str = "circuit.";

/// The beginning of the fingerprint of a secret channel.
const FINGERPRINT: &str = "sha256:";
/// The number of bytes of the hash in a fingerprint.
const FINGERPRINT_BYTES: usize = 4;

/// Stands for a channel that is a credential: `sha256:` and the first eight digits of its SHA-256.
/// Empty for the empty channel. Keys of services have far more than 32 random bits, so it does not
/// reveal them.
pub fn fingerprint(channel: &str) -> String {
    if channel.is_empty() {
        return String::new();
    }
    let hash = Sha256::digest(channel);
    format!("{FINGERPRINT}{}", hex(&hash[..FINGERPRINT_BYTES]))
}

/// Whether a channel has the form of a fingerprint.
pub fn is_fingerprint(channel: &str) -> bool {
    channel.strip_prefix(FINGERPRINT).is_some_and(|hash| {
        hash.len() == 2 * FINGERPRINT_BYTES && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// One channel of a Provider, or the whole Provider.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// The namespace of the Provider.
    pub namespace: String,
    /// The name of the Provider.
    pub provider: String,
    /// The channel, empty if the type has none; the fingerprint of a secret one. `None` means the
    /// whole Provider.
    pub channel: Option<String>,
}

impl Destination {
    /// The whole Provider.
    pub fn whole(namespace: &str, provider: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            provider: provider.to_owned(),
            channel: None,
        }
    }

    /// One channel of a Provider. The channel is empty if the type has none.
    pub fn channel(namespace: &str, provider: &str, channel: &str) -> Self {
        Self {
            channel: Some(channel.to_owned()),
            ..Self::whole(namespace, provider)
        }
    }

    /// Whether deliveries to this channel belong to the destination.
    pub fn includes(&self, channel: &str) -> bool {
        let is_it = |own: &str| own == channel || own == fingerprint(channel);
        self.channel.as_deref().is_none_or(is_it)
    }

    /// The destination of a circuit.
    pub fn of(circuit: &Circuit) -> Self {
        Self {
            channel: circuit.channel.clone(),
            ..Self::whole(&circuit.namespace, &circuit.provider)
        }
    }

    /// The key of the destination's circuit.
    pub fn key(&self) -> String {
        format!("{PREFIX}{}", self.tokens())
    }

    /// Namespace, Provider and, unless `None`, channel as tokens.
    pub fn tokens(&self) -> String {
        let provider = format!(
            "{}.{}",
            Token::new(&self.namespace),
            Token::new(&self.provider)
        );
        match &self.channel {
            Some(channel) => format!("{provider}.{}", Token::new(channel)),
            None => provider,
        }
    }

    /// The circuit of a destination that has never failed.
    pub fn closed(&self) -> Circuit {
        Circuit {
            namespace: self.namespace.clone(),
            provider: self.provider.clone(),
            channel: self.channel.clone(),
            ..Circuit::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_distinguishes_channels_and_does_not_show_them() {
        assert_eq!(fingerprint("abc"), "sha256:ba7816bf");
        assert_eq!(fingerprint(""), "");
        assert!(is_fingerprint(&fingerprint("key")));
        for channel in [
            "",
            "sha256:",
            "sha256:ba7816bg",
            "sha256:ba7816bf0",
            "#general",
        ] {
            assert!(!is_fingerprint(channel), "{channel}");
        }
        let hidden = Destination::channel("apps", "on-call", &fingerprint("key"));
        assert!(hidden.includes("key") && hidden.includes(&fingerprint("key")));
        assert!(!hidden.includes("other") && Destination::whole("apps", "on-call").includes("x"));
    }

    #[test]
    fn a_provider_and_its_empty_channel_have_different_keys() {
        let [whole, channel] = [
            Destination::whole("apps", "on-call"),
            Destination::channel("apps", "on-call", ""),
        ];
        assert_eq!(
            (whole.key().as_str(), channel.key().as_str()),
            ("circuit.apps.on-call", "circuit.apps.on-call.=")
        );
        assert_eq!(
            Destination::channel("apps", "slack", "#a.b").key(),
            "circuit.apps.slack.=23a=2Eb"
        );
        for destination in [whole, channel] {
            assert_eq!(Destination::of(&destination.closed()), destination);
        }
    }
}
