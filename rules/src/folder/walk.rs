//! Reads the files of a folder, within limits.
//!
//! Links are followed as long as their targets are in the folder, each directory once. So mounted
//! ConfigMaps work, whose files are links into a hidden folder, and folders that are links
//! themselves, as git-sync creates them.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, DirEntry};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Tree;

/// The maximum size of a file. An API server accepts less for one object.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// The maximum size of all files.
const MAX_TOTAL_BYTES: usize = 64 << 20;
/// The maximum number of files with rules.
const MAX_FILES: usize = 10_000;
/// The maximum number of entries of all kinds, which are only listed.
const MAX_ENTRIES: usize = 100_000;
/// The maximum depth of folders.
const MAX_DEPTH: usize = 16;
/// How often a folder is read again whose link changes while it is read.
const MAX_TRIES: usize = 3;

/// The limits of a folder. Tests use smaller ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub total_bytes: usize,
    pub files: usize,
    pub entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total_bytes: MAX_TOTAL_BYTES,
            files: MAX_FILES,
            entries: MAX_ENTRIES,
        }
    }
}

/// Why a folder cannot be read: the path, and a sentence with what to do.
#[derive(Debug)]
pub(super) struct WalkError {
    pub path: PathBuf,
    pub message: String,
}

/// Reads all files with rules. Ignores names that start with a dot, files that disappear meanwhile,
/// and broken links.
///
/// # Errors
/// A folder cannot be read, so that removed files cannot be detected, or a limit is exceeded.
pub(super) fn walk(folder: &Path, limits: Limits) -> Result<Tree, WalkError> {
    let unreadable = |error| unreadable(folder, &error);
    let mut root = fs::canonicalize(folder).map_err(unreadable)?;
    for _ in 0..MAX_TRIES {
        let mut walk = Walk::new(folder, &root, limits);
        let result = walk.run();
        // While a link to a new version replaces that to the old one, neither is read in part.
        let now = fs::canonicalize(folder).map_err(unreadable)?;
        if now == root {
            return result.map(|()| walk.tree);
        }
        root = now;
    }
    Err(WalkError {
        path: folder.to_owned(),
        message: "the target of the link changes all the time; let it rest for a second".to_owned(),
    })
}

struct Walk<'a> {
    folder: &'a Path,
    /// The folder without links.
    root: &'a Path,
    limits: Limits,
    tree: Tree,
    bytes: usize,
    entries: usize,
    /// Device and inode of each directory so far.
    visited: HashSet<(u64, u64)>,
    folders: VecDeque<Found>,
    /// Links to folders, which wait until all folders are read. So paths without links win.
    links: VecDeque<Found>,
}

/// A folder to read.
struct Found {
    path: PathBuf,
    /// The path as the user sees it.
    shown: PathBuf,
    depth: usize,
}

impl<'a> Walk<'a> {
    fn new(folder: &'a Path, root: &'a Path, limits: Limits) -> Self {
        Self {
            folder,
            root,
            limits,
            tree: Tree::new(),
            bytes: 0,
            entries: 0,
            visited: HashSet::new(),
            folders: VecDeque::from([Found {
                path: root.to_owned(),
                shown: folder.to_owned(),
                depth: 0,
            }]),
            links: VecDeque::new(),
        }
    }

    fn run(&mut self) -> Result<(), WalkError> {
        while let Some(found) = self.folders.pop_front().or_else(|| self.links.pop_front()) {
            match self.read(&found) {
                Err(Failure::Io(error))
                    if error.kind() == io::ErrorKind::NotFound && found.depth > 0 => {}
                Err(Failure::Io(error)) => return Err(unreadable(&found.shown, &error)),
                Err(Failure::Limit(error)) => return Err(error),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn read(&mut self, folder: &Found) -> Result<(), Failure> {
        let metadata = fs::metadata(&folder.path)?;
        if !self.visited.insert((metadata.dev(), metadata.ino())) {
            return Ok(());
        }
        if folder.depth > MAX_DEPTH {
            return Err(self.over(
                &folder.shown,
                format!("is more than {MAX_DEPTH} folders deep; move it up"),
            ));
        }
        let mut entries = Vec::new();
        for entry in fs::read_dir(&folder.path)? {
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(self.over(
                    &folder.shown,
                    format!(
                        "has the entry above the limit of {}; remove what is not needed",
                        self.limits.entries
                    ),
                ));
            }
            entries.push(entry?);
        }
        entries.sort_by_key(DirEntry::file_name);
        for entry in entries {
            self.visit(&entry, folder)?;
        }
        Ok(())
    }

    fn visit(&mut self, entry: &DirEntry, folder: &Found) -> Result<(), Failure> {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') {
            return Ok(());
        }
        let shown = folder.shown.join(entry.file_name());
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        let path = match is_link {
            true => fs::canonicalize(entry.path()),
            false => Ok(entry.path()),
        };
        let Ok((path, metadata)) = path.and_then(|path| Ok((path.clone(), fs::metadata(path)?)))
        else {
            return Ok(());
        };
        let endings = [".yaml", ".yml", ".json"];
        let is_file = metadata.is_file() && endings.iter().any(|ending| name.ends_with(ending));
        if !metadata.is_dir() && !is_file {
            return Ok(());
        }
        if !path.starts_with(self.root) {
            let message = format!(
                "it is a link to {}, outside of the rules folder {}; move the target into it",
                path.display(),
                self.root.display()
            );
            return self.add(&shown, Err(message));
        }
        if metadata.is_dir() {
            let depth = folder.depth + 1;
            let queue = if is_link {
                &mut self.links
            } else {
                &mut self.folders
            };
            queue.push_back(Found { path, shown, depth });
            return Ok(());
        }
        match content(&path, metadata.len()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            content => self.add(&shown, content.map_err(|error| error.to_string())),
        }
    }

    fn add(&mut self, shown: &Path, content: Result<Vec<u8>, String>) -> Result<(), Failure> {
        if self.tree.len() >= self.limits.files {
            return Err(self.over(
                shown,
                format!(
                    "is the file above the limit of {}; merge files, or remove those without \
                     rules",
                    self.limits.files
                ),
            ));
        }
        self.bytes += content.as_ref().map_or(0, Vec::len);
        if self.bytes > self.limits.total_bytes {
            return Err(self.over(
                shown,
                format!(
                    "exceeds the limit of {} bytes for all files; remove those without rules",
                    self.limits.total_bytes
                ),
            ));
        }
        drop(self.tree.insert(label(shown), content));
        Ok(())
    }

    fn over(&self, path: &Path, message: String) -> Failure {
        Failure::Limit(WalkError {
            path: path.to_owned(),
            message: format!(
                "{message}, or pass a smaller folder than {} with --rules",
                self.folder.display()
            ),
        })
    }
}

enum Failure {
    Io(io::Error),
    Limit(WalkError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn unreadable(path: &Path, error: &io::Error) -> WalkError {
    WalkError {
        path: path.to_owned(),
        message: format!(
            "{error}; check the path and its permissions, or pass another with \
             --rules"
        ),
    }
}

fn content(path: &Path, length: u64) -> io::Result<Vec<u8>> {
    let too_large = || {
        io::Error::other(format!(
            "the file is larger than {MAX_FILE_BYTES} bytes, split it"
        ))
    };
    if length > MAX_FILE_BYTES {
        return Err(too_large());
    }
    let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    fs::File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(too_large());
    }
    Ok(content)
}

fn label(path: &Path) -> Arc<str> {
    path.to_string_lossy().into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Sample(tempfile::TempDir);

    impl Sample {
        fn new(files: &[(&str, &str)]) -> Self {
            let sample = Self(tempfile::tempdir().unwrap());
            for (name, text) in files {
                let path = sample.path(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            sample
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn link(&self, name: &str, target: impl AsRef<Path>) {
            symlink(target, self.path(name)).unwrap();
        }

        fn walk(&self, folder: &str, limits: Limits) -> Result<Tree, WalkError> {
            walk(&self.path(folder), limits)
        }

        /// The files below a folder, each with whether it can be read.
        fn files(&self, folder: &str) -> Vec<(String, bool)> {
            let tree = self.walk(folder, Limits::default()).unwrap();
            let prefix = format!("{}/", self.path(folder).display());
            let name = |path: &str| path.strip_prefix(&prefix).unwrap().to_owned();
            tree.iter()
                .map(|(path, content)| (name(path), content.is_ok()))
                .collect()
        }
    }

    fn read(names: &[&str]) -> Vec<(String, bool)> {
        names
            .iter()
            .map(|name| ((*name).to_owned(), true))
            .collect()
    }

    #[test]
    fn links_to_the_folder_itself_are_followed_once() {
        let sample = Sample::new(&[("r/a.yaml", ""), ("r/below/b.yaml", "")]);
        for name in ["w", "x", "y", "z"] {
            sample.link(&format!("r/{name}"), ".");
            sample.link(&format!("r/below/{name}"), "..");
        }
        assert_eq!(sample.files("r"), read(&["a.yaml", "below/b.yaml"]));
    }

    #[test]
    fn a_folder_has_the_path_without_links() {
        let sample = Sample::new(&[("r/a/x.txt", ""), ("r/z/b.yaml", "")]);
        sample.link("r/a/link", "../z");
        sample.link("r/b", "z");
        assert_eq!(sample.files("r"), read(&["z/b.yaml"]));
    }

    #[test]
    fn only_targets_outside_of_the_folder_are_refused() {
        let sample = Sample::new(&[
            ("outside/a.yaml", ""),
            ("r-other/a.yaml", ""),
            ("r/..data/in.yaml", ""),
            ("r/good.yaml", ""),
            ("readme", ""),
        ]);
        sample.link("r/file.yaml", "../outside/a.yaml");
        sample.link("r/folder", "../outside");
        sample.link("r/root", "/");
        sample.link("r/sibling", "../r-other");
        sample.link("r/in.yaml", "..data/in.yaml");
        sample.link("r/README", "../readme");
        sample.link("r/broken.yaml", "../gone");
        sample.link("r/loop.yaml", "loop.yaml");
        let refused = ["file.yaml", "folder", "root", "sibling"].map(|name| (name.into(), false));
        let mut expected = read(&["good.yaml", "in.yaml"]);
        expected.extend(refused);
        expected.sort();
        assert_eq!(sample.files("r"), expected);
        let tree = sample.walk("r", Limits::default()).unwrap();
        let message = tree[&label(&sample.path("r/folder"))].clone().unwrap_err();
        assert!(
            message.contains("/outside, outside of the rules folder"),
            "{message}"
        );
    }

    #[test]
    fn a_folder_that_is_a_link_is_read_at_its_target() {
        let sample = Sample::new(&[
            ("git/.worktrees/1/a.yaml", ""),
            ("git/.worktrees/2/b.yaml", ""),
        ]);
        sample.link("git/current", ".worktrees/1");
        assert_eq!(sample.files("git/current"), read(&["a.yaml"]));
        assert_eq!(sample.files("git"), read(&["current/a.yaml"]));
        fs::remove_file(sample.path("git/current")).unwrap();
        sample.link("git/current", ".worktrees/2");
        assert_eq!(sample.files("git/current"), read(&["b.yaml"]));
    }

    #[test]
    fn each_limit_names_the_path_the_limit_and_the_fix() {
        let deep = format!("r/{}a.yaml", "d/".repeat(17));
        let sample = Sample::new(&[("r/a.yaml", "1234"), ("r/b/c.yaml", "1234")]);
        let exceeded = |limits: Limits, path: &str, limit: &str| {
            let error = sample.walk("r", limits).unwrap_err();
            assert_eq!(error.path, sample.path(path));
            let has = |text: &str| error.message.contains(text);
            assert!(
                has(limit) && has("; ") && has("--rules"),
                "{}",
                error.message
            );
        };
        let limits = Limits::default();
        sample.walk("r", limits).unwrap();
        exceeded(Limits { files: 1, ..limits }, "r/b/c.yaml", "limit of 1");
        exceeded(
            Limits {
                total_bytes: 7,
                ..limits
            },
            "r/b/c.yaml",
            "7 bytes",
        );
        exceeded(
            Limits {
                entries: 2,
                ..limits
            },
            "r/b",
            "limit of 2",
        );
        fs::create_dir_all(sample.path(&deep).parent().unwrap()).unwrap();
        exceeded(limits, &format!("r{}", "/d".repeat(17)), "16 folders");
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let sample = Sample::new(&[("a.yaml", "")]);
        let file = fs::File::create(sample.path("large.yaml")).unwrap();
        file.set_len(MAX_FILE_BYTES + 1).unwrap();
        let tree = sample.walk("", Limits::default()).unwrap();
        let contents: Vec<_> = tree.values().map(Result::is_ok).collect();
        assert_eq!(contents, [true, false]);
    }
}
