//! A destination: one channel of a Provider, or the whole Provider. Each destination has its own
//! limits and its own circuit.

use tidings_proto::v1::Circuit;

use crate::model::token::Token;

/// The prefix of the keys of circuits in the bucket `limits`.
pub const PREFIX: &str = "circuit.";

/// One channel of a Provider, or the whole Provider.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// The namespace of the Provider.
    pub namespace: String,
    /// The name of the Provider.
    pub provider: String,
    /// The channel, empty if the type has none. `None` means the whole Provider.
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
