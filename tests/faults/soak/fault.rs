//! Random faults.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use tidings_rig::{Process, Rig, Role};

/// The time that a server hangs. Its clients would close the connection after a longer time.
const FROZEN_FOR: Duration = Duration::from_secs(4);

/// The processes under load: two routers, two workers, and one ingest, whose senders retry.
pub struct Roles {
    /// Accepts the events.
    pub ingest: Process,
    routers: [Process; 2],
    workers: [Process; 2],
}

/// A fault.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// A process is killed and restarted.
    Kill(Victim),
    /// A process is terminated and restarted, as in a rolling restart.
    Restart(Victim),
    /// nats-server is killed and restarted.
    KillServer,
    /// nats-server hangs for a while.
    FreezeServer,
}

/// The affected process.
#[derive(Clone, Copy, Debug)]
pub enum Victim {
    Ingest,
    Router(usize),
    Worker(usize),
}

impl Roles {
    /// Starts all processes and waits until they are ready.
    pub async fn start(rig: &Rig) -> Self {
        let routers = [rig.spawn(Role::router()), rig.spawn(Role::router())];
        let workers = [rig.spawn(Role::worker()), rig.spawn(Role::worker())];
        let roles = Self {
            ingest: rig.spawn(Role::ingest()),
            routers,
            workers,
        };
        for process in roles
            .routers
            .iter()
            .chain(&roles.workers)
            .chain([&roles.ingest])
        {
            process.ready().await;
        }
        roles
    }

    fn process(&mut self, victim: Victim) -> &mut Process {
        match victim {
            Victim::Ingest => &mut self.ingest,
            Victim::Router(number) => &mut self.routers[number],
            Victim::Worker(number) => &mut self.workers[number],
        }
    }
}

impl Fault {
    /// A random fault; workers, which hold the most state, are affected most often.
    pub fn random(random: &mut StdRng) -> Self {
        let victim = match random.random_range(0..6) {
            0 => Victim::Ingest,
            1 | 2 => Victim::Router(random.random_range(0..2)),
            _ => Victim::Worker(random.random_range(0..2)),
        };
        match random.random_range(0..8) {
            0 => Self::KillServer,
            1 => Self::FreezeServer,
            2..5 => Self::Restart(victim),
            _ => Self::Kill(victim),
        }
    }

    /// Injects the fault and repairs it.
    pub async fn inject(self, rig: &mut Rig, roles: &mut Roles) {
        match self {
            Self::Kill(victim) => {
                roles.process(victim).kill().await;
                roles.process(victim).restart().await;
            }
            Self::Restart(victim) => {
                let status = roles.process(victim).terminate().await;
                assert!(
                    status.success(),
                    "{victim:?} ends cleanly on SIGTERM: {status}"
                );
                roles.process(victim).restart().await;
            }
            Self::KillServer => {
                rig.nats().kill().await;
                rig.nats().restart().await;
            }
            Self::FreezeServer => {
                rig.nats().freeze();
                tokio::time::sleep(FROZEN_FOR).await;
                rig.nats().thaw();
            }
        }
    }
}
