//! Runs a target on its corpus, and then on mutated inputs until its time is over.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestError, TestRunner};
use sha2::{Digest, Sha256};

use crate::mutation::{edit, mutated};

/// What is fuzzed.
pub struct Target {
    /// The name of its folder in `tests/fuzz/corpus`.
    pub name: &'static str,
    /// Words that mean something to the code under test.
    pub dictionary: &'static [&'static str],
    /// Panics if the code under test breaks a promise for this input.
    pub check: fn(&[u8]),
}

impl Target {
    /// Checks the kept inputs, and random ones for `FUZZ_SECONDS`.
    ///
    /// A process that dies leaves its last input in `target/fuzz`.
    pub fn run(&self) {
        let kept = self.kept();
        let last = self.last_input();
        let check = |input: &[u8]| {
            fs::write(&last, input).expect("the last input is written");
            (self.check)(input);
        };
        kept.iter().for_each(|input| check(input));

        let end = Instant::now() + seconds();
        let mut cases = 0;
        while Instant::now() < end {
            let mut runner = TestRunner::new(Config {
                cases: 32,
                failure_persistence: None,
                ..Config::default()
            });
            let edits = prop::collection::vec(edit(), 1..12);
            let result = runner.run(&(any::<Index>(), edits), |(start, edits)| {
                check(&mutated(&kept, start, &edits, self.dictionary));
                Ok(())
            });
            if let Err(TestError::Fail(reason, (start, edits))) = result {
                let path = self.keep(&mutated(&kept, start, &edits, self.dictionary));
                panic!("{}: {reason}; the input is {}", self.name, path.display());
            }
            cases += 32;
        }
        println!(
            "{}: {} kept inputs, {cases} random ones",
            self.name,
            kept.len()
        );
        let _ = fs::remove_file(last);
    }

    fn folder(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fuzz/corpus")
            .join(self.name)
    }

    fn kept(&self) -> Vec<Vec<u8>> {
        let files = fs::read_dir(self.folder()).expect("the target has a corpus");
        let mut files: Vec<PathBuf> = files
            .map(|file| file.expect("the folder is readable").path())
            .collect();
        files.sort();
        let kept: Vec<_> = files
            .iter()
            .map(|file| fs::read(file).expect("the input is readable"))
            .collect();
        assert!(!kept.is_empty(), "the corpus of {} is empty", self.name);
        kept
    }

    fn keep(&self, input: &[u8]) -> PathBuf {
        let digest = hex::encode(&Sha256::digest(input)[..4]);
        let path = self.folder().join(format!("found-{digest}"));
        fs::write(&path, input).expect("the input is kept");
        path
    }

    fn last_input(&self) -> PathBuf {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz");
        fs::create_dir_all(&folder).expect("the folder is created");
        folder.join(self.name)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "it is a setting of this test, not of Tidings"
)]
fn seconds() -> Duration {
    let seconds = std::env::var("FUZZ_SECONDS").unwrap_or_else(|_| "10".to_owned());
    Duration::from_secs(seconds.parse().expect("FUZZ_SECONDS is a number"))
}

/// The text before the first line break, and the rest.
pub fn split(input: &[u8]) -> (String, String) {
    let text = String::from_utf8_lossy(input);
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    (first.to_owned(), rest.to_owned())
}
