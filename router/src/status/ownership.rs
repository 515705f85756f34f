//! Selects what is about the rules of one source, and gives it the namespaces of that source. Pure.

use tidings_core::model::origin;
use tidings_core::wire::{Circuit, DeadLetter, Outcome};
use tidings_core::{AlertReference, ProviderReference};
use tidings_rules::RulesOrigin;

/// Removes the Alert and the Provider of an outcome if they are of another source.
pub(super) fn keep_own_of_outcome(of: &RulesOrigin, outcome: &mut Outcome) {
    outcome.alert = outcome.alert.take().and_then(|it| own_alert(of, it));
    outcome.provider = outcome.provider.take().and_then(|it| own_provider(of, it));
}

/// Removes the Alert and the Provider of a dead letter if they are of another source.
pub(super) fn keep_own_of_dead_letter(of: &RulesOrigin, dead_letter: &mut DeadLetter) {
    if let Some(delivery) = &mut dead_letter.delivery {
        delivery.alert = delivery.alert.take().and_then(|it| own_alert(of, it));
        delivery.provider = delivery.provider.take().and_then(|it| own_provider(of, it));
    }
}

/// Whether a circuit is that of a Provider of the source.
pub(super) fn keep_own_circuit(of: &RulesOrigin, circuit: &mut Circuit) -> bool {
    let namespace = own(of, &circuit.namespace);
    let is_own = namespace.is_some();
    circuit.namespace = namespace.unwrap_or_default();
    is_own
}

fn own(of: &RulesOrigin, namespace: &str) -> Option<String> {
    origin::plain_of(of.qualifier(), namespace).map(str::to_owned)
}

fn own_alert(of: &RulesOrigin, alert: AlertReference) -> Option<AlertReference> {
    let namespace = own(of, &alert.namespace)?;
    Some(AlertReference { namespace, ..alert })
}

fn own_provider(of: &RulesOrigin, provider: ProviderReference) -> Option<ProviderReference> {
    let namespace = own(of, &provider.namespace)?;
    Some(ProviderReference {
        namespace,
        ..provider
    })
}

#[cfg(test)]
mod tests {
    use tidings_core::Delivery;

    use super::*;

    fn alert(namespace: &str) -> AlertReference {
        AlertReference {
            namespace: namespace.into(),
            name: "a".into(),
            ..Default::default()
        }
    }

    #[test]
    fn each_api_server_sees_only_what_is_about_its_rules() {
        let origins = [
            RulesOrigin::Hub,
            RulesOrigin::Folder,
            RulesOrigin::Member("eu".into()),
            RulesOrigin::Member("us".into()),
        ];
        for (namespace, owner) in [
            ("apps", 0),
            ("folder:apps", 1),
            ("eu:apps", 2),
            ("us:apps", 3),
        ] {
            for (position, origin) in origins.iter().enumerate() {
                let provider = ProviderReference {
                    namespace: namespace.into(),
                    ..Default::default()
                };
                let mut outcome = Outcome {
                    alert: Some(alert(namespace)),
                    provider: Some(provider.clone()),
                    ..Outcome::default()
                };
                let mut dead_letter = DeadLetter {
                    delivery: Some(Delivery {
                        alert: Some(alert(namespace)),
                        provider: Some(provider),
                        ..Delivery::default()
                    }),
                    ..DeadLetter::default()
                };
                let mut circuit = Circuit {
                    namespace: namespace.into(),
                    ..Circuit::default()
                };
                keep_own_of_outcome(origin, &mut outcome);
                keep_own_of_dead_letter(origin, &mut dead_letter);
                let is_own = keep_own_circuit(origin, &mut circuit);
                let own = (position == owner).then(|| "apps".to_owned());
                let delivery = dead_letter.delivery.unwrap();
                assert_eq!(outcome.alert.map(|it| it.namespace), own, "{origin:?}");
                assert_eq!(outcome.provider.map(|it| it.namespace), own);
                assert_eq!(delivery.alert.map(|it| it.namespace), own);
                assert_eq!(delivery.provider.map(|it| it.namespace), own);
                assert_eq!(is_own.then_some(circuit.namespace), own);
            }
        }
    }
}
