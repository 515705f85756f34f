//! The task that follows a rules folder.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tidings_core::runtime::codes::log as codes;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::Folder;
use crate::live::{LiveRules, log_changes};

/// The interval of reads without a change event, because some file systems send none.
const POLL: Duration = Duration::from_secs(2);
/// The delay after a change event, to read files that change together at once.
const DELAY: Duration = Duration::from_millis(100);

/// Follows the folder until `stop` is canceled. Logs each problem when it appears and when it is
/// resolved.
///
/// # Guarantees
/// A change takes effect within about two seconds, usually within a few hundred milliseconds. While
/// the folder cannot be read, the last good rules stay in effect. Safe to cancel at each `.await`.
pub async fn follow(live: Arc<LiveRules>, mut folder: Folder, stop: CancellationToken) {
    let (sender, mut events) = mpsc::channel(1);
    let mut watcher = None;
    let mut logged = HashSet::new();
    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_event = tokio::select! {
            () = stop.cancelled() => return,
            _ = poll.tick() => false,
            Some(()) = events.recv() => true,
        };
        if is_event {
            sleep(DELAY).await;
            while events.try_recv().is_ok() {}
        }
        let Some(read) = refresh(&live, folder).await else {
            return;
        };
        folder = read;
        // A deleted folder invalidates its watcher.
        let is_missing = live.source_problem().is_some();
        watcher = if is_missing {
            None
        } else {
            watcher.or_else(|| watch_folder(&folder, sender.clone()))
        };
        logged = log_changes(logged, live.problems());
    }
}

/// Reads the folder on a blocking thread, and replaces the rules if it has changed.
async fn refresh(live: &Arc<LiveRules>, mut folder: Folder) -> Option<Folder> {
    let (live, span) = (live.clone(), tracing::Span::current());
    let read = tokio::task::spawn_blocking(move || {
        let _of_this_source = span.enter();
        let _reload = live.start_reload();
        match folder.read() {
            Ok(tree) => {
                live.set_source_problem(None);
                if !live.loaded() || !folder.is_compiled(&tree) {
                    live.replace(folder.compile(tree));
                }
            }
            Err(mut problem) => {
                problem
                    .message
                    .push_str("; the last good rules stay in effect");
                live.set_source_problem(Some(problem));
            }
        }
        folder
    });
    match read.await {
        Ok(folder) => Some(folder),
        Err(error) => {
            tracing::error!(
                code = codes::RULES_READER_PANICKED,
                %error,
                "reading rules panicked; rules stay unchanged until a restart"
            );
            None
        }
    }
}

/// Sends a message after each change. Without a watcher, changes are found by polling.
fn watch_folder(folder: &Folder, sender: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let send = move |event: notify::Result<notify::Event>| {
        // Reads are no changes. A second pending message is not needed.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            let _ = sender.try_send(());
        }
    };
    let mut watcher = notify::recommended_watcher(send).ok()?;
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
    use crate::kind::{Family, Kind, Kinds};
    use crate::options::Options;
    use crate::testing;

    const KINDS: Kinds = &[Kind::new("slack", Family::Message)];

    fn provider(address: &str) -> String {
        testing::provider("p", "slack")
            .with("address", address)
            .to_string()
    }

    /// Waits until the condition holds.
    async fn until(live: &LiveRules, condition: impl Fn(&LiveRules) -> bool) {
        let wait = async {
            while !condition(live) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait)
            .await
            .expect("the condition holds in time");
    }

    fn has(live: &LiveRules, address: &str) -> bool {
        live.current()
            .provider("apps", "p")
            .is_some_and(|provider| provider.address == address)
    }

    #[cfg(unix)]
    fn mount(directory: &Path, version: &str, address: &str) {
        fs::create_dir(directory.join(version)).unwrap();
        fs::write(directory.join(version).join("p.yaml"), provider(address)).unwrap();
        std::os::unix::fs::symlink(version, directory.join("..new")).unwrap();
        fs::rename(directory.join("..new"), directory.join("..data")).unwrap();
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn rules_follow_a_mounted_config_map_and_survive_the_deletion_of_the_folder() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("rules");
        let live = Arc::new(LiveRules::default());
        let stop = CancellationToken::new();
        let folder = Folder::new(&directory, KINDS, Options::default());
        let task = tokio::spawn(follow(live.clone(), folder, stop.clone()));
        until(&live, |live| live.problems().len() == 1).await;
        assert!(!live.loaded());

        fs::create_dir(&directory).unwrap();
        mount(&directory, "..1", "one");
        std::os::unix::fs::symlink("..data/p.yaml", directory.join("p.yaml")).unwrap();
        until(&live, |live| has(live, "one")).await;
        assert!(live.loaded());
        let mut changes = live.changes();
        changes.mark_unchanged();

        mount(&directory, "..2", "two");
        until(&live, |live| has(live, "two")).await;
        assert!(changes.has_changed().unwrap());

        fs::remove_dir_all(&directory).unwrap();
        until(&live, |live| live.problems().len() == 1).await;
        assert!(has(&live, "two"));
        stop.cancel();
        task.await.unwrap();
    }
}
