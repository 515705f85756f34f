//! Who does something by hand: with a tool, or on the console.

use std::collections::BTreeSet;

use rustix::process::getuid;
use tidings_core::Destination;
use tidings_core::bus::Bus;
use tidings_core::bus::audit::StoredAction;
use tidings_core::model::text::visible;
use tidings_core::model::time::to_proto;
use tidings_core::wire::{AuditRecord, ObjectNamespace};

use crate::command::tool::time;

/// The most bytes of /etc/passwd that are read.
const MOST_USERS: usize = 1 << 20;

/// What is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManualAction {
    /// Such as `dead-replay`.
    pub name: &'static str,
    /// What it is done to.
    pub target: String,
    /// How many are selected; 0 if nothing is counted.
    pub count: usize,
    /// What else was asked for.
    pub detail: String,
    /// The namespaces of the rules that the target names.
    pub namespaces: BTreeSet<String>,
    /// Cluster and namespace of the objects whose events the target names.
    pub objects: BTreeSet<(String, String)>,
}

/// Who does it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// A name.
    pub who: String,
    /// An address, or the name of a machine.
    pub from: String,
    /// `console` or `tool`.
    pub via: &'static str,
}

impl ManualAction {
    /// An action on one Provider.
    pub fn on_provider(name: &'static str, destination: &Destination) -> Self {
        let Destination {
            namespace,
            provider,
            ..
        } = destination;
        Self {
            namespaces: [namespace.clone()].into(),
            ..Self::on(name, format!("{namespace}/{provider}"))
        }
    }

    /// An action on one thing.
    pub fn on(name: &'static str, target: impl Into<String>) -> Self {
        Self {
            name,
            target: target.into(),
            ..Self::default()
        }
    }
}

impl Actor {
    /// The user of this machine who runs a tool. The machine says it, so it proves nothing.
    fn of_tool() -> Self {
        let id = getuid().as_raw();
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let users = (users.len() <= MOST_USERS).then_some(users);
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self {
            who: user(&users.unwrap_or_default(), id).unwrap_or_else(|| format!("uid {id}")),
            from: host.trim().to_owned(),
            via: "tool",
        }
    }
}

/// The name of a user in the text of /etc/passwd.
fn user(users: &str, id: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, user) = (fields.next()?, fields.next()?, fields.next()?);
        (user.parse() == Ok(id)).then(|| name.to_owned())
    })
}

/// Stores who asks for what, before it is done.
///
/// # Errors
/// It might not be stored.
pub async fn record(bus: &Bus, actor: Actor, action: &ManualAction) -> anyhow::Result<()> {
    bus.record_action(AuditRecord {
        action: action.name.to_owned(),
        target: action.target.clone(),
        count: action.count as u64,
        who: actor.who,
        from: actor.from,
        via: actor.via.to_owned(),
        at: Some(to_proto(bus.clock().now())),
        detail: action.detail.clone(),
        namespaces: action.namespaces.iter().cloned().collect(),
        objects: action.objects.iter().map(object_namespace).collect(),
    })
    .await?;
    Ok(())
}

fn object_namespace((cluster, namespace): &(String, String)) -> ObjectNamespace {
    ObjectNamespace {
        cluster: cluster.clone(),
        namespace: namespace.clone(),
    }
}

/// Records what a tool does. A full disk or an older hub must not keep an operator from acting, so
/// a failure is only printed.
pub async fn record_of_tool(bus: &Bus, action: ManualAction) {
    if let Err(error) = record(bus, Actor::of_tool(), &action).await {
        let name = action.name;
        let error = format!("{error:#}");
        eprintln!(
            "{name} is not recorded in the stream AUDIT: {}",
            visible(&error)
        );
    }
}

/// A record as JSON.
pub fn json(stored: &StoredAction) -> serde_json::Value {
    let record = &stored.record;
    serde_json::json!({
        "sequence": stored.sequence,
        "storedAt": time(Some(to_proto(stored.stored_at))),
        "action": record.action,
        "target": record.target,
        "count": record.count,
        "who": record.who,
        "from": record.from,
        "via": record.via,
        "detail": record.detail,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_name_of_its_id() {
        let users = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbad\n";
        assert_eq!(user(users, 1000).as_deref(), Some("ann"));
        assert_eq!(user(users, 7), None);
    }
}
