//! The task that keeps the rules as a folder has them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tidings_core::runtime::codes::log as codes;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::Folder;
use crate::live::{Live, log_changes};

/// How often the folder is read although nothing was told: not every file system tells.
const POLL: Duration = Duration::from_secs(2);
/// Files that change together are read together.
const SETTLE: Duration = Duration::from_millis(100);

/// Keeps the rules as the folder has them, until it is told to stop. Logs each problem once when it
/// appears, and once when it is mended.
///
/// # Guarantees
/// A change is in force within about two seconds, mostly within a few hundred milliseconds. While
/// the folder can't be read, what was in force stays in force. Safe to cancel at each `.await`.
pub async fn follow(live: Arc<Live>, mut folder: Folder, stop: CancellationToken) {
    let (hint, mut hints) = mpsc::channel(1);
    let mut watcher = None;
    let mut known = HashSet::new();
    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let told = tokio::select! {
            () = stop.cancelled() => return,
            _ = poll.tick() => false,
            Some(()) = hints.recv() => true,
        };
        if told {
            sleep(SETTLE).await;
            while hints.try_recv().is_ok() {}
        }
        let Some(read) = refresh(&live, folder).await else {
            return;
        };
        folder = read;
        // A folder that goes takes its watcher along.
        let gone = live.source_problem().is_some();
        watcher = if gone {
            None
        } else {
            watcher.or_else(|| watch_folder(&folder, hint.clone()))
        };
        known = log_changes(known, live.problems());
    }
}

/// Reads the folder off the runtime, and puts what it holds in force if that has changed.
async fn refresh(live: &Arc<Live>, mut folder: Folder) -> Option<Folder> {
    let live = live.clone();
    let read = tokio::task::spawn_blocking(move || {
        match folder.read() {
            Ok(tree) => {
                live.set_source_problem(None);
                if !live.loaded() || !folder.is_compiled(&tree) {
                    live.replace(folder.compile(tree));
                }
            }
            Err(problem) => live.set_source_problem(Some(problem)),
        }
        folder
    });
    match read.await {
        Ok(folder) => Some(folder),
        Err(error) => {
            tracing::error!(code = codes::RULES_READER_PANICKED, %error, "reading rules panicked; rules stay unchanged until a restart");
            None
        }
    }
}

/// A watcher that hints at changes; without one, the poll finds them.
fn watch_folder(folder: &Folder, hint: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let tell = move |event: notify::Result<notify::Event>| {
        // Our own reading is no change. A hint that finds one waiting is not needed.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            let _ = hint.try_send(());
        }
    };
    let mut watcher = notify::recommended_watcher(tell).ok()?;
    watcher
        .watch(folder.path(), RecursiveMode::Recursive)
        .ok()?;
    Some(watcher)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::check::Options;
    use crate::kind::{Family, Kind, Kinds};

    const KINDS: Kinds = &[Kind {
        name: "slack",
        family: Family::Message,
    }];

    fn provider(address: &str) -> String {
        format!(
            "apiVersion: notification.toolkit.fluxcd.io/v1beta3\nkind: Provider\nmetadata: {{name: p}}\nspec: {{type: slack, \
             address: {address}}}\n"
        )
    }

    /// The next state for which the condition holds.
    async fn until(live: &Live, condition: impl Fn(&Live) -> bool) {
        let wait = async {
            while !condition(live) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait)
            .await
            .expect("the rules become what was waited for");
    }

    fn has(live: &Live, address: &str) -> bool {
        live.current()
            .provider("default", "p")
            .is_some_and(|provider| provider.address == address)
    }

    #[cfg(unix)]
    fn mount(place: &Path, version: &str, address: &str) {
        fs::create_dir(place.join(version)).unwrap();
        fs::write(place.join(version).join("p.yaml"), provider(address)).unwrap();
        std::os::unix::fs::symlink(version, place.join("..new")).unwrap();
        fs::rename(place.join("..new"), place.join("..data")).unwrap();
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn rules_follow_a_mounted_config_map_and_outlive_its_folder() {
        let parent = tempfile::tempdir().unwrap();
        let place = parent.path().join("rules");
        let live = Arc::new(Live::default());
        let stop = CancellationToken::new();
        let folder = Folder::new(&place, KINDS, Options::default());
        let task = tokio::spawn(follow(live.clone(), folder, stop.clone()));
        until(&live, |live| live.problems().len() == 1).await;
        assert!(!live.loaded());

        fs::create_dir(&place).unwrap();
        mount(&place, "..1", "one");
        std::os::unix::fs::symlink("..data/p.yaml", place.join("p.yaml")).unwrap();
        until(&live, |live| has(live, "one")).await;
        assert!(live.loaded());
        let mut changes = live.changes();
        changes.mark_unchanged();

        mount(&place, "..2", "two");
        until(&live, |live| has(live, "two")).await;
        assert!(changes.has_changed().unwrap());

        fs::remove_dir_all(&place).unwrap();
        until(&live, |live| live.problems().len() == 1).await;
        assert!(has(&live, "two"));
        stop.cancel();
        task.await.unwrap();
    }
}
