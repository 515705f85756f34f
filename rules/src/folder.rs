//! Rules from a folder of manifests. What was in force for an object stays in force while its file,
//! or it, is broken.

mod follow;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::check::{Options, check};
use crate::document::{self, Documents};
use crate::kind::Kinds;
use crate::last_good::LastGood;
use crate::object::{Identity, Object};
use crate::problem::{Problem, Severity};
use crate::snapshot::Rules;

pub use follow::follow;

/// No file of rules is larger; an API server takes less for one object.
const LARGEST_FILE_BYTES: u64 = 16 << 20;
/// No folder lies deeper: a link that leads back up ends here.
const DEEPEST: usize = 16;

/// Reads a folder once.
///
/// # Errors
/// Where the folder itself can't be read. What is wrong with files and objects is in
/// [`Rules::problems`].
pub fn load(path: &Path, kinds: Kinds, options: &Options) -> Result<Rules, Problem> {
    let mut folder = Folder::new(path, kinds, options.clone());
    let tree = folder.read()?;
    Ok(folder.compile(tree))
}

/// A folder that is read again and again.
pub struct Folder {
    path: PathBuf,
    kinds: Kinds,
    options: Options,
    /// What each file held when it could be read.
    files: BTreeMap<Arc<str>, File>,
    good: LastGood,
}

/// The files of a folder at one moment, by their path; a file that can't be read has its reason.
pub(crate) type Tree = BTreeMap<Arc<str>, Result<Vec<u8>, String>>;

/// One file.
struct File {
    content: Result<Vec<u8>, String>,
    documents: Documents,
    /// What it held before and may still hold, while it is broken.
    kept: Vec<Object>,
}

impl Folder {
    /// A folder that has not been read yet.
    pub fn new(path: &Path, kinds: Kinds, options: Options) -> Self {
        Self {
            path: path.to_owned(),
            kinds,
            options,
            files: BTreeMap::new(),
            good: LastGood::default(),
        }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads all files, whether they have changed or not.
    pub(crate) fn read(&self) -> Result<Tree, Problem> {
        let mut tree = Tree::new();
        walk(&self.path, 0, &mut tree).map_err(|error| Problem {
            file: Some(self.path.display().to_string()),
            line: None,
            object: None,
            field: None,
            sentence: format!(
                "the folder of rules can't be read ({error}); what was in force stays in force"
            ),
            severity: Severity::Error,
        })?;
        Ok(tree)
    }

    /// Whether a tree is the one that was compiled last.
    pub(crate) fn is_compiled(&self, tree: &Tree) -> bool {
        self.files.len() == tree.len()
            && tree.iter().all(|(path, content)| {
                self.files
                    .get(path)
                    .is_some_and(|file| file.content == *content)
            })
    }

    /// Compiles a tree; where an object or a file is broken, its last good state takes its place.
    pub(crate) fn compile(&mut self, tree: Tree) -> Rules {
        let mut earlier = std::mem::take(&mut self.files);
        for (path, content) in tree {
            let last = earlier.remove(&path);
            let file = match last {
                Some(last) if last.content == content => last,
                last => File::read(&path, content, last),
            };
            self.files.insert(path, file);
        }
        let objects = self.objects();
        let mut problems: Vec<_> = self
            .files
            .values()
            .flat_map(|file| &file.documents.problems)
            .cloned()
            .collect();
        let (mut checked, told) = check(&objects, self.kinds, &self.options);
        problems.extend(told);
        self.good.stand_in(&mut checked);
        Rules::new(checked, problems, &self.options)
    }

    /// What the files hold, and what broken ones held, unless it is elsewhere now.
    fn objects(&self) -> Vec<Object> {
        let mut objects: Vec<_> = self
            .files
            .values()
            .flat_map(|file| &file.documents.objects)
            .cloned()
            .collect();
        let mut found: HashSet<Identity> = objects.iter().map(Object::identity).collect();
        let kept = self
            .files
            .values()
            .flat_map(|file| &file.kept)
            .filter(|object| found.insert(object.identity()));
        objects.extend(kept.cloned());
        objects
    }
}

impl File {
    /// Reads a file; what it held before and holds no longer stays only while it is broken.
    fn read(path: &Arc<str>, content: Result<Vec<u8>, String>, last: Option<Self>) -> Self {
        let documents = match &content {
            Ok(bytes) => document::read(path, bytes),
            Err(reason) => Documents {
                objects: Vec::new(),
                problems: vec![unreadable(path, reason)],
            },
        };
        let is_broken = documents
            .problems
            .iter()
            .any(|problem| problem.severity == Severity::Error);
        let kept = match last.filter(|_| is_broken) {
            Some(last) => last
                .documents
                .objects
                .into_iter()
                .chain(last.kept)
                .collect(),
            None => Vec::new(),
        };
        Self {
            content,
            documents,
            kept,
        }
    }
}

fn unreadable(path: &str, reason: &str) -> Problem {
    Problem {
        file: Some(path.to_owned()),
        line: None,
        object: None,
        field: None,
        sentence: format!("can't be read ({reason}); what was in force from it stays in force"),
        severity: Severity::Error,
    }
}

/// Names that begin with a dot are left out: a mounted ConfigMap keeps its versions under such
/// names and links to them.
fn walk(folder: &Path, depth: usize, tree: &mut Tree) -> io::Result<()> {
    if depth > DEEPEST {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        // Follows links. What is gone by now, or leads nowhere, is not there.
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        if metadata.is_dir() {
            // With a part of the files unseen, nobody could tell what has been removed: then the
            // whole can't be read.
            match walk(&path, depth + 1, tree) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                walked => walked?,
            }
        } else if [".yaml", ".yml", ".json"]
            .iter()
            .any(|ending| name.ends_with(ending))
            && metadata.is_file()
        {
            match content(&path, metadata.len()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                content => {
                    drop(tree.insert(label(&path), content.map_err(|error| error.to_string())))
                }
            }
        }
    }
    Ok(())
}

fn content(path: &Path, length: u64) -> io::Result<Vec<u8>> {
    let mut content =
        Vec::with_capacity(usize::try_from(length.min(LARGEST_FILE_BYTES)).unwrap_or_default());
    fs::File::open(path)?
        .take(LARGEST_FILE_BYTES + 1)
        .read_to_end(&mut content)?;
    if content.len() as u64 > LARGEST_FILE_BYTES {
        return Err(io::Error::other(format!(
            "it is larger than {LARGEST_FILE_BYTES} bytes; split it"
        )));
    }
    Ok(content)
}

fn label(path: &Path) -> Arc<str> {
    path.to_string_lossy().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::{Family, Kind};

    const KINDS: Kinds = &[Kind {
        name: "slack",
        family: Family::Message,
    }];

    struct Sample {
        place: tempfile::TempDir,
        folder: Folder,
    }

    impl Sample {
        fn new() -> Self {
            let place = tempfile::tempdir().unwrap();
            let folder = Folder::new(place.path(), KINDS, Options::default());
            Self { place, folder }
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.place.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        /// Providers by name with their address, and how many problems there are.
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
            "---\napiVersion: notification.toolkit.fluxcd.io/v1beta3\nkind: Provider\nmetadata:\n  name: {name}\nspec:\n  \
             type: {kind}\n  address: \"{address}\"\n"
        )
    }

    fn found(providers: &[(&str, &str)]) -> Vec<(String, String)> {
        providers
            .iter()
            .map(|(name, address)| ((*name).to_owned(), (*address).to_owned()))
            .collect()
    }

    #[test]
    fn files_are_read_below_folders_and_hidden_ones_are_not() {
        let mut sample = Sample::new();
        sample.write("a.yaml", &provider("a", "slack", "1"));
        sample.write("below/b.yml", &provider("b", "slack", "1"));
        sample.write("..data/c.yaml", &provider("c", "slack", "1"));
        sample.write("d.txt", &provider("d", "slack", "1"));
        assert_eq!(sample.compile(), (found(&[("a", "1"), ("b", "1")]), 0));
    }

    #[test]
    fn what_was_in_force_stays_until_a_broken_object_is_mended_or_removed() {
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
            "refused: the last good one stays"
        );
        sample.write("a.yaml", &(provider("a", "slack", "3") + "---\nkind: [\n"));
        assert_eq!(
            sample.compile(),
            (found(&[("a", "3"), ("b", "2")]), 1),
            "broken: what can't be seen stays"
        );
        sample.write("a.yaml", &provider("a", "slack", "4"));
        assert_eq!(sample.compile(), (found(&[("a", "4")]), 0), "removed: gone");
        sample.write("a.yaml", &provider("b", "pigeon", "5"));
        assert_eq!(
            sample.compile(),
            (found(&[]), 1),
            "what was removed does not come back"
        );
    }

    #[test]
    fn a_file_that_moves_keeps_its_objects() {
        let mut sample = Sample::new();
        sample.write("a.yaml", &provider("a", "slack", "1"));
        sample.compile();
        sample.write("b.yaml", &provider("a", "slack", "2"));
        fs::remove_file(sample.place.path().join("a.yaml")).unwrap();
        assert_eq!(sample.compile(), (found(&[("a", "2")]), 0));
        sample.write("b.yaml", "kind: [\n");
        assert_eq!(sample.compile(), (found(&[("a", "2")]), 1));
        sample.write("b.yaml", "kind: {\n");
        assert_eq!(sample.compile(), (found(&[("a", "2")]), 1));
        sample.write("c.yaml", &provider("a", "slack", "3"));
        assert_eq!(
            sample.compile(),
            (found(&[("a", "3")]), 1),
            "what a broken file held gives way to what is seen"
        );
    }

    #[test]
    fn a_folder_that_is_not_there_is_told() {
        let place = tempfile::tempdir().unwrap();
        let problem = load(&place.path().join("no"), KINDS, &Options::default()).unwrap_err();
        assert!(
            problem
                .to_string()
                .contains("the folder of rules can't be read"),
            "{problem}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_mounted_config_map_is_read_once_and_a_link_to_above_ends() {
        let mut sample = Sample::new();
        sample.write("..2026_1/a.yaml", &provider("a", "slack", "1"));
        let link = |from: &str, to: &str| {
            std::os::unix::fs::symlink(to, sample.place.path().join(from)).unwrap()
        };
        link("..data", "..2026_1");
        link("a.yaml", "..data/a.yaml");
        link("gone.yaml", "..data/gone.yaml");
        assert_eq!(sample.compile(), (found(&[("a", "1")]), 0));
    }
}
