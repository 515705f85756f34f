//! How much memory a process may use, and how it is shared out.
//!
//! The limit is a setting, else that of the cgroup. What holds foreign bytes gets a share of it:
//! bodies that arrive, events that are routed, deliveries that are attempted, messages that wait to
//! be sent to NATS. The rest is for the executable, rules and caches.

mod cgroup;

use std::fs;

use crate::runtime::config::Role;

/// Without a limit of the cgroup, this part of the machine's memory is the limit.
const PART_OF_MACHINE: u64 = 4;
/// The largest limit that is derived from the machine's memory.
const MOST_OF_MACHINE: u64 = 2 << 30;
/// The limit where nothing else is known.
const FALLBACK: u64 = 512 << 20;
/// Messages that wait to be sent to NATS need no more than this.
const MOST_UNSENT: u64 = 256 << 20;
/// Events that an edge forwards need no more than this.
const MOST_FORWARDING: u64 = 16 << 20;
/// The ids that an edge remembers need no more than this: see `core/src/bus/edge/known.rs`.
pub const KNOWN_IDS: u64 = 3 << 20;
/// Copies of events need room for the largest event, and no more than this.
const LEAST_TEE: u64 = 4 << 20;
const MOST_TEE: u64 = 16 << 20;
/// What a connection to ingest may need, in bytes: its buffer and its task.
const CONNECTION: u64 = 24 << 10;
/// The most connections to ingest.
const MOST_CONNECTIONS: u64 = 1024;

/// The limit, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    /// The limit in bytes.
    pub bytes: u64,
    /// `memory.limit`, `cgroup` or `machine`.
    pub from: &'static str,
}

/// The shares of the memory limit, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The limit.
    pub limit: MemoryLimit,
    /// For the nats-server that `up` or an edge runs, as a goal of its garbage collector.
    pub nats_server: u64,
    /// For bodies that ingest receives.
    pub bodies: u64,
    /// For events that ingest decodes and stores.
    pub ingesting: u64,
    /// For copies of events that wait for `ingest.tee.url`, if that is set.
    pub tee: u64,
    /// For messages that wait to be sent to NATS.
    pub unsent: u64,
    /// For events that an edge forwards.
    pub forwarding: u64,
    /// For the ids of events that the hub has, on an edge.
    pub known_ids: u64,
    /// For events that the router or a bridge pulled.
    pub routing: u64,
    /// For messages that the worker pulled and has not begun to attempt.
    pub pulled: u64,
    /// For compiled patterns of Alerts.
    pub patterns: u64,
    /// For deliveries that the worker attempts.
    pub deliveries: u64,
    /// The most connections to ingest.
    pub connections: usize,
}

impl MemoryLimit {
    /// The limit of the settings, else that of the cgroup, else a part of the machine's memory.
    pub fn find(setting: Option<u64>) -> Self {
        let machine = || {
            let bytes = fs::read_to_string("/proc/meminfo").ok();
            let bytes = bytes.as_deref().and_then(total_memory);
            bytes.map_or(FALLBACK, |bytes| {
                (bytes / PART_OF_MACHINE).min(MOST_OF_MACHINE)
            })
        };
        let (bytes, from) = match (setting, cgroup::limit()) {
            (Some(bytes), _) => (bytes, "memory.limit"),
            (None, Some(bytes)) => (bytes, "cgroup"),
            (None, None) => (machine(), "machine"),
        };
        Self { bytes, from }
    }
}

/// What a role needs at least, in bytes: its shares then hold the largest event.
pub fn least(role: Role) -> u64 {
    match role {
        Role::Up => 256 << 20,
        _ => 128 << 20,
    }
}

impl MemoryPlan {
    /// The shares of a role.
    pub fn new(limit: MemoryLimit, role: Role) -> Self {
        let part = |divisor: u64| limit.bytes / divisor;
        let only = |of: Role, divisor: u64, in_up: u64| match role {
            Role::Up => part(in_up),
            role if role == of => part(divisor),
            _ => 0,
        };
        let connections = (part(16) / CONNECTION).clamp(16, MOST_CONNECTIONS);
        Self {
            limit,
            nats_server: if role == Role::Up { part(4) } else { 0 },
            bodies: only(Role::Ingest, 4, 12),
            ingesting: only(Role::Ingest, 4, 16),
            tee: match role {
                Role::Ingest => part(32).clamp(LEAST_TEE, MOST_TEE),
                Role::Up => part(128).clamp(LEAST_TEE, MOST_TEE),
                _ => 0,
            },
            unsent: part(16).min(MOST_UNSENT),
            forwarding: 0,
            known_ids: 0,
            routing: match role {
                Role::Bridge => part(3),
                _ => only(Role::Router, 3, 16),
            },
            patterns: match role {
                Role::Ingest | Role::Bridge => 0,
                Role::Up => part(16),
                _ => part(10),
            },
            pulled: only(Role::Worker, 8, 24),
            deliveries: only(Role::Worker, 2, 6),
            connections: usize::try_from(connections).unwrap_or(usize::MAX),
        }
    }
}

impl MemoryPlan {
    /// The shares of an ingest with a nats-server of its own.
    pub fn of_edge(limit: MemoryLimit) -> Self {
        Self {
            nats_server: limit.bytes / 4,
            bodies: limit.bytes / 6,
            ingesting: limit.bytes / 6,
            forwarding: (limit.bytes / 12).min(MOST_FORWARDING),
            known_ids: KNOWN_IDS,
            ..Self::new(limit, Role::Ingest)
        }
    }
}

/// The machine's memory, from `/proc/meminfo`.
fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: MemoryLimit = MemoryLimit {
        bytes: 512 << 20,
        from: "memory.limit",
    };

    #[test]
    fn a_setting_takes_precedence() {
        assert_eq!(MemoryLimit::find(Some(512 << 20)), LIMIT);
        assert!(MemoryLimit::find(None).bytes > 0);
    }

    #[test]
    fn the_shares_leave_a_part_of_the_limit() {
        for role in [
            Role::Up,
            Role::Ingest,
            Role::Router,
            Role::Worker,
            Role::Bridge,
        ] {
            let plan = MemoryPlan::new(LIMIT, role);
            let shares = plan.nats_server
                + plan.bodies
                + plan.ingesting
                + plan.tee
                + plan.unsent
                + plan.routing
                + plan.patterns
                + plan.pulled
                + plan.deliveries;
            assert!(shares <= LIMIT.bytes * 4 / 5, "{role:?}: {plan:?}");
        }
        for bytes in [least(Role::Ingest), LIMIT.bytes] {
            let edge = MemoryPlan::of_edge(MemoryLimit { bytes, ..LIMIT });
            let parts = [
                edge.nats_server,
                edge.bodies,
                edge.ingesting,
                edge.tee,
                edge.unsent,
                edge.forwarding,
                edge.known_ids,
            ];
            let shares: u64 = parts.iter().sum();
            assert!(shares <= bytes * 4 / 5, "{edge:?}");
        }
        let worker = MemoryPlan::new(LIMIT, Role::Worker);
        assert_eq!(
            (worker.bodies, worker.routing, worker.nats_server),
            (0, 0, 0)
        );
        assert_eq!(worker.deliveries, 256 << 20);
    }

    #[test]
    fn the_memory_of_the_machine_is_read() {
        let meminfo = "MemFree:  1 kB\nMemTotal:       24684384 kB\n";
        assert_eq!(total_memory(meminfo), Some(24_684_384 << 10));
        assert_eq!(total_memory("MemFree: 1 kB\n"), None);
    }
}
