//! Rules from a folder of manifests. While a file or an object is invalid, its last good state
//! stays in effect.

mod follow;
mod walk;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::check::check;
use crate::document::{self, Documents};
use crate::kind::Kinds;
use crate::last_good::LastGood;
use crate::object::{Identity, Object};
use crate::options::Options;
use crate::problem::{Problem, Severity};
use crate::snapshot::Rules;
use crate::stored_object::StoredObject;
use crate::verify::TypeChecks;

pub use follow::follow;
use walk::{Limits, WalkError, walk};

/// The maximum size of all objects in bytes, as [`Documents::bytes`] counts. An Alert takes about
/// 3 KiB.
const MAX_BYTES: usize = 128 << 20;

/// Reads a folder once.
///
/// # Errors
/// The folder itself cannot be read. Problems of files and objects are in [`Rules::problems`].
pub fn load(path: &Path, kinds: Kinds, options: &Options) -> Result<Rules, Problem> {
    let mut folder = Folder::new(path, kinds, options.clone());
    let tree = folder.read()?;
    Ok(folder.compile(tree))
}

/// A folder that is read repeatedly.
pub struct Folder {
    path: PathBuf,
    kinds: Kinds,
    options: Options,
    checks: Option<Arc<dyn TypeChecks>>,
    /// The files at the last read.
    files: BTreeMap<Arc<str>, File>,
    last_good: LastGood,
}

/// The files of a folder by path: the contents, or why a file cannot be read.
pub(crate) type Tree = BTreeMap<Arc<str>, Result<Vec<u8>, String>>;

/// A file at the last read.
struct File {
    content: Result<Vec<u8>, String>,
    documents: Documents,
    /// The objects of the documents.
    objects: Vec<StoredObject>,
    /// The last good objects, while the file is invalid.
    retained: Vec<StoredObject>,
}

impl Folder {
    /// Creates a folder without reading it.
    pub fn new(path: &Path, kinds: Kinds, options: Options) -> Self {
        Self {
            path: path.to_owned(),
            kinds,
            options,
            checks: None,
            files: BTreeMap::new(),
            last_good: LastGood::default(),
        }
    }

    /// Adds the findings of the provider types to the problems of each snapshot.
    #[must_use]
    pub fn with_checks(self, checks: Arc<dyn TypeChecks>) -> Self {
        Self {
            checks: Some(checks),
            ..self
        }
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads all files, changed or not.
    pub(crate) fn read(&self) -> Result<Tree, Problem> {
        walk(&self.path, Limits::default()).map_err(|WalkError { path, message }| Problem {
            file: Some(path.display().to_string()),
            line: None,
            object: None,
            field: None,
            message: format!("the rules folder cannot be read: {message}"),
            severity: Severity::Error,
        })
    }

    /// Whether this tree was the last one to be compiled.
    pub(crate) fn is_compiled(&self, tree: &Tree) -> bool {
        self.files.len() == tree.len()
            && tree.iter().all(|(path, content)| {
                self.files
                    .get(path)
                    .is_some_and(|file| file.content == *content)
            })
    }

    /// Compiles a tree. Invalid files and objects keep their last good state.
    pub(crate) fn compile(&mut self, tree: Tree) -> Rules {
        let mut earlier = std::mem::take(&mut self.files);
        let mut left = MAX_BYTES;
        for (path, content) in tree {
            let last = earlier.remove(&path);
            let file = match last {
                Some(last) if last.content == content && last.fits(left) => last,
                last => File::read(&path, content, last, left),
            };
            left = left.saturating_sub(file.documents.bytes);
            self.files.insert(path, file);
        }
        let mut problems: Vec<_> = self
            .files
            .values()
            .flat_map(|file| &file.documents.problems)
            .cloned()
            .collect();
        let (mut checked, unused) = check(self.objects(), self.kinds, &self.options);
        problems.extend(unused);
        let automata = self.last_good.restore(&mut checked, &self.options);
        let rules = Rules::new(checked, problems, &self.options).with_automata(automata);
        match &self.checks {
            Some(checks) => rules.verified(checks.as_ref()),
            None => rules,
        }
    }

    /// The objects of all files, and the last good objects of invalid files that no other file
    /// contains.
    fn objects(&self) -> impl Iterator<Item = Object> {
        let of_files = |stored: fn(&File) -> &Vec<StoredObject>| {
            let stored = self.files.values().flat_map(stored);
            stored.map(StoredObject::object)
        };
        let objects = of_files(|file| &file.objects);
        let mut retained = of_files(|file| &file.retained).peekable();
        let mut found: HashSet<Identity> = match retained.peek() {
            Some(_) => objects.clone().map(|object| object.identity()).collect(),
            None => HashSet::new(),
        };
        objects.chain(retained.filter(move |object| found.insert(object.identity())))
    }
}

impl File {
    /// Whether the objects, and those that did not fit at the last read, can be kept as they are.
    fn fits(&self, left: usize) -> bool {
        self.documents.bytes <= left && !self.documents.is_cut
    }

    /// Reads a file. If it is invalid, its former objects are retained.
    fn read(
        path: &Arc<str>,
        content: Result<Vec<u8>, String>,
        last: Option<Self>,
        max_bytes: usize,
    ) -> Self {
        let mut documents = match &content {
            Ok(bytes) => document::read(path, bytes, max_bytes),
            Err(reason) => Documents::unread(unreadable(path, reason)),
        };
        let is_invalid = documents
            .problems
            .iter()
            .any(|problem| problem.severity == Severity::Error);
        let retained = match last.filter(|_| is_invalid) {
            Some(last) => last.objects.into_iter().chain(last.retained).collect(),
            None => Vec::new(),
        };
        if !retained.is_empty() {
            let errors = documents.problems.iter_mut();
            for problem in errors.filter(|problem| problem.severity == Severity::Error) {
                problem
                    .message
                    .push_str("; the last good state stays in effect");
            }
        }
        let objects = std::mem::take(&mut documents.objects);
        Self {
            content,
            objects: objects.iter().map(StoredObject::new).collect(),
            documents,
            retained,
        }
    }
}

fn unreadable(path: &str, reason: &str) -> Problem {
    Problem {
        file: Some(path.to_owned()),
        line: None,
        object: None,
        field: None,
        message: format!("cannot be read: {reason}"),
        severity: Severity::Error,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::kind::{Family, Kind};
    use crate::testing;

    const KINDS: Kinds = &[Kind::new("slack", Family::Message)];

    struct Sample {
        directory: tempfile::TempDir,
        folder: Folder,
    }

    impl Sample {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let folder = Folder::new(directory.path(), KINDS, Options::default());
            Self { directory, folder }
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        /// The Providers with their addresses, and the number of problems.
        fn compile(&mut self) -> (Vec<(String, String)>, usize) {
            let tree = self.folder.read().unwrap();
            assert!(!self.folder.is_compiled(&tree));
            let rules = self.folder.compile(tree);
            assert!(self.folder.is_compiled(&self.folder.read().unwrap()));
            let mut providers: Vec<_> = rules
                .providers()
                .map(|it| (it.name.clone(), it.address.clone()))
                .collect();
            providers.sort();
            (providers, rules.problems().len())
        }
    }

    fn provider(name: &str, kind: &str, address: &str) -> String {
        format!(
            "---\n{}\n",
            testing::provider(name, kind).with("address", address)
        )
    }

    fn found(providers: &[(&str, &str)]) -> Vec<(String, String)> {
        providers
            .iter()
            .map(|(name, address)| ((*name).to_owned(), (*address).to_owned()))
            .collect()
    }

    #[test]
    fn files_in_subfolders_are_read_and_hidden_files_are_ignored() {
        let mut sample = Sample::new();
        sample.write("a.yaml", &provider("a", "slack", "1"));
        sample.write("below/b.yml", &provider("b", "slack", "1"));
        sample.write("..data/c.yaml", &provider("c", "slack", "1"));
        sample.write("d.txt", &provider("d", "slack", "1"));
        assert_eq!(sample.compile(), (found(&[("a", "1"), ("b", "1")]), 0));
    }

    #[test]
    fn files_whose_objects_are_too_large_together_are_reported_until_others_are_removed() {
        let mut sample = Sample::new();
        let text = "x".repeat(36_000);
        let fields: String = (0..95).map(|n| format!("  k{n}: *text\n")).collect();
        let secret = |name: &str| {
            format!(
                "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\n\
                 stringData:\n  first: &text {text}\n{fields}"
            )
        };
        let names: Vec<_> = (0..45).map(|n| format!("s{n:02}")).collect();
        for name in &names {
            sample.write(&format!("{name}.yaml"), &secret(name));
        }
        sample.write("z.yaml", &provider("z", "slack", "1"));
        let (_, problems) = sample.compile();
        assert!((3..12).contains(&problems), "{problems}");
        for name in &names[..12] {
            fs::remove_file(sample.directory.path().join(format!("{name}.yaml"))).unwrap();
        }
        assert_eq!(sample.compile(), (found(&[("z", "1")]), 0));
    }

    #[test]
    fn the_last_good_state_stays_until_an_invalid_object_is_corrected_or_removed() {
        let mut sample = Sample::new();
        sample.write(
            "a.yaml",
            &(provider("a", "slack", "1") + &provider("b", "slack", "1")),
        );
        assert_eq!(sample.compile(), (found(&[("a", "1"), ("b", "1")]), 0));
        sample.write(
            "a.yaml",
            &(provider("a", "pigeon", "2") + &provider("b", "slack", "2")),
        );
        assert_eq!(
            sample.compile(),
            (found(&[("a", "1"), ("b", "2")]), 1),
            "a rejected object keeps its last good state"
        );
        sample.write("a.yaml", &(provider("a", "slack", "3") + "---\nkind: [\n"));
        assert_eq!(
            sample.compile(),
            (found(&[("a", "3"), ("b", "2")]), 1),
            "objects of an invalid file stay"
        );
        sample.write("a.yaml", &provider("a", "slack", "4"));
        assert_eq!(
            sample.compile(),
            (found(&[("a", "4")]), 0),
            "a removed object is gone"
        );
        sample.write("a.yaml", &provider("b", "pigeon", "5"));
        assert_eq!(
            sample.compile(),
            (found(&[]), 1),
            "a removed object has no last good state"
        );
    }

    #[test]
    fn a_renamed_file_retains_its_objects() {
        let mut sample = Sample::new();
        sample.write("a.yaml", &provider("a", "slack", "1"));
        sample.compile();
        sample.write("b.yaml", &provider("a", "slack", "2"));
        fs::remove_file(sample.directory.path().join("a.yaml")).unwrap();
        assert_eq!(sample.compile(), (found(&[("a", "2")]), 0));
        sample.write("b.yaml", "kind: [\n");
        assert_eq!(sample.compile(), (found(&[("a", "2")]), 1));
        sample.write("b.yaml", "kind: {\n");
        assert_eq!(sample.compile(), (found(&[("a", "2")]), 1));
        sample.write("c.yaml", &provider("a", "slack", "3"));
        assert_eq!(
            sample.compile(),
            (found(&[("a", "3")]), 1),
            "an object in another file replaces the retained one"
        );
    }

    #[test]
    fn a_missing_folder_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let problem = load(&directory.path().join("no"), KINDS, &Options::default()).unwrap_err();
        assert!(
            problem
                .to_string()
                .contains("the rules folder cannot be read"),
            "{problem}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_mounted_config_map_is_read_once() {
        let mut sample = Sample::new();
        sample.write("..2026_1/a.yaml", &provider("a", "slack", "1"));
        let link = |from: &str, to: &str| {
            std::os::unix::fs::symlink(to, sample.directory.path().join(from)).unwrap()
        };
        link("..data", "..2026_1");
        link("a.yaml", "..data/a.yaml");
        link("gone.yaml", "..data/gone.yaml");
        assert_eq!(sample.compile(), (found(&[("a", "1")]), 0));
    }
}
