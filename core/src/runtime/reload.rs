//! Values that are read from files, and read again when the files change.
//!
//! Files are compared by their content, twice in five seconds. So it does not matter how they are
//! replaced: in place, by a rename, or by the symbolic links of a mounted Secret. A new content is
//! used when two readings in a row are equal: the first can be half written, and a list that ends
//! early can be valid.

use std::fs;
use std::io::Read as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

/// How often the files are read.
const INTERVAL: Duration = Duration::from_millis(2500);

/// The contents of files, by name.
pub type Contents = Vec<(String, Vec<u8>)>;

/// Reads the files. An error names the file and the problem, and never quotes the content.
type ReadFiles = Box<dyn Fn() -> Result<Contents, String> + Send + Sync>;
/// Makes the value. An error says what is wrong, and never quotes the content.
type Parse<T> = Box<dyn Fn(&Contents) -> Result<T, String> + Send + Sync>;

/// A value from files that may change.
pub struct Reloading<T> {
    read: ReadFiles,
    parse: Parse<T>,
    current: Arc<ArcSwap<T>>,
    seen: Seen,
}

/// What a reading of the files means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The files changed, and the new value is in use.
    Loaded,
    /// The files changed and cannot be used. The former value stays in use.
    Broken(String),
}

/// The contents that were read before.
#[derive(Debug)]
struct Seen {
    used: Fingerprint,
    /// Read once or more, and not used.
    other: Option<Fingerprint>,
    is_reported: bool,
}

type Fingerprint = [u8; 32];

impl<T: Send + Sync + 'static> Reloading<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// The files cannot be read or used.
    pub fn new(
        read: impl Fn() -> Result<Contents, String> + Send + Sync + 'static,
        parse: impl Fn(&Contents) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let contents = read()?;
        let value = parse(&contents)?;
        Ok(Self {
            read: Box::new(read),
            parse: Box::new(parse),
            current: Arc::new(ArcSwap::from_pointee(value)),
            seen: Seen::new(fingerprint(&contents)),
        })
    }

    /// The value, as of the last usable content.
    pub fn current(&self) -> Arc<ArcSwap<T>> {
        self.current.clone()
    }

    /// Reads the files again and again until `stop`. `report` gets each change.
    ///
    /// # Guarantees
    /// New content is used, and broken content is reported once, only if it stays for two readings:
    /// files may be half written, and a pair of files may be replaced one by one. A panic while the
    /// files are read or parsed is reported as broken content.
    pub async fn follow(mut self, stop: CancellationToken, report: impl Fn(Change, &T)) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            // In its own thread, because a network file system may block.
            let polled = tokio::task::spawn_blocking(move || {
                let change = self.poll();
                (self, change)
            });
            let Ok((reloading, change)) = polled.await else {
                return;
            };
            self = reloading;
            if let Some(change) = change {
                report(change, &self.current.load());
            }
        }
    }

    fn poll(&mut self) -> Option<Change> {
        let (found, value) = match guarded(|| (self.read)()) {
            Ok(contents) => (fingerprint(&contents), guarded(|| (self.parse)(&contents))),
            Err(problem) => {
                let unread = vec![(problem.clone(), Vec::new())];
                (fingerprint(&unread), Err(problem))
            }
        };
        let change = self.seen.next(found, value.as_ref().err().cloned());
        if let (Some(Change::Loaded), Ok(value)) = (&change, value) {
            self.current.store(Arc::new(value));
        }
        change
    }
}

/// A panic would end the following in silence.
fn guarded<V>(work: impl FnOnce() -> Result<V, String>) -> Result<V, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err("Tidings has an error: it panicked while it read the files; report it".to_owned())
    })
}

impl Seen {
    fn new(used: Fingerprint) -> Self {
        Self {
            used,
            other: None,
            is_reported: false,
        }
    }

    /// Decides what a content means.
    fn next(&mut self, found: Fingerprint, problem: Option<String>) -> Option<Change> {
        if found == self.used {
            self.other = None;
            return None;
        }
        if self.other != Some(found) {
            (self.other, self.is_reported) = (Some(found), false);
            return None;
        }
        let Some(problem) = problem else {
            *self = Self::new(found);
            return Some(Change::Loaded);
        };
        if self.is_reported {
            return None;
        }
        self.is_reported = true;
        Some(Change::Broken(problem))
    }
}

fn fingerprint(contents: &Contents) -> Fingerprint {
    let mut hash = Sha256::new();
    for (name, content) in contents {
        hash.update((name.len() as u64).to_be_bytes());
        hash.update(name);
        hash.update((content.len() as u64).to_be_bytes());
        hash.update(content);
    }
    hash.finalize().into()
}

/// Reads a file of at most `most` bytes.
///
/// # Errors
/// The path names no file, the file is larger, or cannot be read.
pub fn read_file(path: &Path, most: usize) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| format!("{shown} cannot be read: {error}");
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(format!("{shown} is not a file"));
    }
    let file = fs::File::open(path).map_err(unreadable)?;
    let mut content = Vec::new();
    let limit = most as u64 + 1;
    file.take(limit)
        .read_to_end(&mut content)
        .map_err(unreadable)?;
    if content.len() > most {
        return Err(format!("{shown} is larger than {most} bytes"));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_content_is_used_and_broken_content_is_reported_once_if_they_stay() {
        let problem = || Some("no key".to_owned());
        let mut seen = Seen::new([0; 32]);
        assert_eq!(seen.next([0; 32], None), None);
        assert_eq!(seen.next([9; 32], None), None, "it may be half written");
        assert_eq!(seen.next([1; 32], None), None);
        assert_eq!(seen.next([1; 32], None), Some(Change::Loaded));
        assert_eq!(seen.next([1; 32], None), None);
        assert_eq!(seen.next([2; 32], problem()), None);
        let broken = Some(Change::Broken("no key".to_owned()));
        assert_eq!(seen.next([2; 32], problem()), broken);
        assert_eq!(seen.next([2; 32], problem()), None);
        assert_eq!(seen.next([3; 32], problem()), None);
        assert_eq!(seen.next([1; 32], None), None, "the former content is back");
        assert_eq!(seen.next([3; 32], problem()), None);
        assert_eq!(seen.next([4; 32], None), None);
        assert_eq!(seen.next([4; 32], None), Some(Change::Loaded));
    }

    #[test]
    fn a_changed_file_changes_the_value_and_a_broken_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        fs::write(&path, "1").unwrap();
        let from = path.clone();
        let read = move || Ok(vec![("number".to_owned(), read_file(&from, 8)?)]);
        let parse = |contents: &Contents| {
            let text = String::from_utf8_lossy(&contents[0].1);
            text.parse::<u32>().map_err(|_| "not a number".to_owned())
        };
        let mut reloading = Reloading::new(read, parse).unwrap();
        let current = reloading.current();
        // A number that is being written: its first digit is a number, too.
        for half in ["2", "25"] {
            fs::write(&path, half).unwrap();
            assert_eq!(reloading.poll(), None);
            assert_eq!(**current.load(), 1);
        }
        assert_eq!(reloading.poll(), Some(Change::Loaded));
        assert_eq!(**current.load(), 25);
        for (content, problem) in [("x", "not a number"), ("123456789", "is larger than 8")] {
            fs::write(&path, content).unwrap();
            assert_eq!(reloading.poll(), None);
            let Some(Change::Broken(reported)) = reloading.poll() else {
                panic!("{content} is not reported");
            };
            assert!(reported.contains(problem), "{reported}");
            assert_eq!(**current.load(), 25);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_reported_and_the_files_are_followed_further() {
        let (folder, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let path = folder.path().join("text");
        let write = |text: &str| fs::write(&path, text).unwrap();
        write("first");
        let from = path.clone();
        let read = move || {
            let content = read_file(&from, 20)?;
            assert_ne!(content, b"panic in read");
            Ok(vec![("text".to_owned(), content)])
        };
        let parse = |contents: &Contents| {
            assert_ne!(contents[0].1, b"panic in parse");
            Ok(contents[0].1.clone())
        };
        let reloading = Reloading::new(read, parse).unwrap();
        let (changes, mut reported) = tokio::sync::mpsc::unbounded_channel();
        let report = move |change, _: &Vec<u8>| changes.send(change).unwrap();
        let following = tokio::spawn(reloading.follow(stop.clone(), report));
        for text in ["panic in read", "panic in parse"] {
            write(text);
            let change = reported.recv().await;
            assert!(
                matches!(change, Some(Change::Broken(_))),
                "{text}: {change:?}"
            );
        }
        write("second");
        assert_eq!(reported.recv().await, Some(Change::Loaded));
        stop.cancel();
        following.await.unwrap();
    }
}
