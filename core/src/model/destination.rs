//! What is called, limited and isolated on its own.

use tidings_proto::v1::Circuit;

use crate::model::token::Token;

/// The keys of circuits in the bucket `limits` begin so.
pub const PREFIX: &str = "circuit.";

/// A Provider's channel; or the whole Provider.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// The Provider's namespace.
    pub namespace: String,
    /// The Provider's name.
    pub provider: String,
    /// The channel, empty where there is none; nothing where the whole Provider is meant.
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

    /// One channel of a Provider; the empty one where the type has none.
    pub fn channel(namespace: &str, provider: &str, channel: &str) -> Self {
        Self {
            channel: Some(channel.to_owned()),
            ..Self::whole(namespace, provider)
        }
    }

    /// The destination that a record is of.
    pub fn of(circuit: &Circuit) -> Self {
        Self {
            channel: circuit.channel.clone(),
            ..Self::whole(&circuit.namespace, &circuit.provider)
        }
    }

    /// The key of its circuit.
    pub fn key(&self) -> String {
        format!("{PREFIX}{}", self.tokens())
    }

    /// Namespace, Provider and, where it is one, channel as tokens.
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

    /// Its circuit before anything has failed.
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
    fn a_provider_and_its_empty_channel_have_keys_of_their_own() {
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
