//! Bearer tokens from a file or folder.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tidings_core::runtime::reload::{Contents, Reloading, read_file};

use super::bearer;

/// The largest file.
const MAX_FILE_BYTES: usize = 1 << 20;
/// The most tokens.
const MAX_TOKENS: usize = 1000;
/// The shortest token: 16 random characters cannot be guessed.
const MIN_TOKEN_BYTES: usize = 16;
/// The longest name in a line: no token is that short, so a line with the token first is refused.
const MAX_NAME_BYTES: usize = MIN_TOKEN_BYTES - 1;
/// The longest name of a file.
const MAX_FILE_NAME_BYTES: usize = 63;
const HOW_TO: &str = "write a random one, such as the output of `openssl rand -hex 32`";

/// A hash of a token.
pub(super) type TokenHash = [u8; 32];

/// The tokens of a file or folder: names by the hash of the token. How long a look-up takes
/// shows a sender something about hashes only.
#[derive(Debug, Default)]
pub struct Tokens(HashMap<TokenHash, Arc<str>>);

impl Tokens {
    /// From a file with a line `NAME TOKEN` for each token, or from a folder with a file for each
    /// token, named as the file. Files whose name begins with a dot are ignored, as Kubernetes uses
    /// them in mounted Secrets. A name in a line has at most 15 characters, so that it cannot be a
    /// token by mistake; a name of a file has at most 63. Errors name `setting`.
    ///
    /// # Errors
    /// The path cannot be read, or a token cannot be used.
    pub fn from_path(setting: &'static str, path: PathBuf) -> Result<Reloading<Self>, String> {
        let with_setting = move |problem: String| format!("{setting}: {problem}");
        Reloading::new(
            move || contents(&path).map_err(with_setting),
            move |contents: &Contents| Self::parse(contents).map_err(with_setting),
        )
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The name of a token, if it is one of these.
    pub fn name_of(&self, token: &str) -> Option<Arc<str>> {
        self.0.get(&hash(token)).cloned()
    }

    fn parse(contents: &Contents) -> Result<Self, String> {
        let mut tokens = Builder::default();
        for (name, content) in contents {
            let text = std::str::from_utf8(content).map_err(|_| format!("{name} is not text"))?;
            let found = match name.strip_prefix(FILE_OF_TOKEN) {
                Some(name) => vec![of_file(name, text)],
                None => lines(text)?,
            };
            for found in found {
                let at = found.at.clone();
                let added = tokens.add(found);
                added.map_err(|problem| format!("{at}: {problem}"))?;
            }
        }
        if tokens.tokens.len() > MAX_TOKENS {
            return Err(format!("there are more than {MAX_TOKENS} tokens"));
        }
        Ok(Self(tokens.tokens))
    }
}

/// The tokens that were found so far.
#[derive(Default)]
struct Builder {
    tokens: HashMap<TokenHash, Arc<str>>,
    names: BTreeSet<String>,
    /// Where each token is.
    places: HashMap<TokenHash, String>,
}

impl Builder {
    fn add(&mut self, Found { at, name, token }: Found<'_>) -> Result<(), String> {
        if let Some(problem) = problem_of_token(token) {
            return Err(problem);
        }
        if !self.names.insert(name.to_owned()) {
            return Err("another token has the same name; rename one".to_owned());
        }
        let hash = hash(token);
        match self.places.entry(hash) {
            // Which of the names its sender has could not be said.
            Entry::Occupied(other) => Err(format!(
                "it is the same token as that of {}; {HOW_TO}, or remove one of the names",
                other.get()
            )),
            Entry::Vacant(place) => {
                place.insert(at);
                self.tokens.insert(hash, Arc::from(name));
                Ok(())
            }
        }
    }
}

/// The prefix of the name of a content that is one token.
const FILE_OF_TOKEN: &str = "token ";

fn contents(path: &Path) -> Result<Contents, String> {
    if !path.is_dir() {
        let content = read_file(path, MAX_FILE_BYTES)?;
        return Ok(vec![("the file".to_owned(), content)]);
    }
    let unreadable = |error| format!("{} cannot be read: {error}", path.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let name = name.to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push(name);
        }
        if names.len() > MAX_TOKENS {
            return Err(format!(
                "{} has more than {MAX_TOKENS} files",
                path.display()
            ));
        }
    }
    names.sort_unstable();
    if let Some(index) = names
        .iter()
        .position(|name| !is_name(name, MAX_FILE_NAME_BYTES))
    {
        return Err(format!(
            "{}: the name of file {} in alphabetical order has more than {MAX_FILE_NAME_BYTES} \
             characters, or others than {NAME_CHARACTERS}; rename it",
            path.display(),
            index + 1
        ));
    }
    let read = |name: String| {
        let content = read_file(&path.join(&name), bearer::MAX_TOKEN_BYTES + 2)?;
        Ok((format!("{FILE_OF_TOKEN}{name}"), content))
    };
    names.into_iter().map(read).collect()
}

/// A token, and where it is. Errors about a line name its number only, because any part of a
/// mistaken line can be secret.
struct Found<'a> {
    at: String,
    name: &'a str,
    token: &'a str,
}

fn of_file<'a>(name: &'a str, text: &'a str) -> Found<'a> {
    Found {
        at: format!("token {name:?}"),
        name,
        token: text.trim(),
    }
}

/// The tokens of a file with lines. Empty lines and lines with `#` are ignored.
fn lines(text: &str) -> Result<Vec<Found<'_>>, String> {
    let numbered = text.lines().enumerate();
    let with_content = numbered
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let mut found = Vec::new();
    for (number, line) in with_content {
        let at = format!("line {number}");
        let (name, token) = line
            .split_once(char::is_whitespace)
            .ok_or_else(|| format!("{at}: expected NAME TOKEN, separated by a space"))?;
        if !is_name(name, MAX_NAME_BYTES) {
            return Err(format!(
                "{at}: expected NAME TOKEN in this order, where NAME has at \
                 most {MAX_NAME_BYTES} characters, of {NAME_CHARACTERS}; for longer names, use a \
                 folder with a file for each token"
            ));
        }
        let token = token.trim();
        found.push(Found { at, name, token });
    }
    Ok(found)
}

const NAME_CHARACTERS: &str = "letters, digits, `-`, `_` and `.`";

fn is_name(text: &str, most: usize) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=most).contains(&text.len()) && text.bytes().all(is_allowed)
}

fn problem_of_token(token: &str) -> Option<String> {
    if token.len() < MIN_TOKEN_BYTES {
        return Some(format!(
            "the token is shorter than {MIN_TOKEN_BYTES} characters; {HOW_TO}"
        ));
    }
    (!bearer::is_token(token)).then(|| {
        format!(
            "the token has characters that a bearer token cannot have, or is too long; {HOW_TO}"
        )
    })
}

pub(super) fn hash(token: &str) -> TokenHash {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "first-token-0123456789";
    const SECOND: &str = "second-token-0123456789";

    fn parsed(text: &str) -> Result<Tokens, String> {
        Tokens::parse(&vec![("the file".to_owned(), text.into())])
    }

    #[test]
    fn each_line_of_a_file_is_a_token_with_a_name() {
        let tokens = parsed(&format!("# senders\n\nci {FIRST}\n proxy\t {SECOND} \r\n")).unwrap();
        let name = |token| tokens.name_of(token).map(|name| name.to_string());
        assert_eq!(name(FIRST).as_deref(), Some("ci"));
        assert_eq!(name(SECOND).as_deref(), Some("proxy"));
        for unknown in ["", "ci", &FIRST[1..], "another-token-0123456789"] {
            assert_eq!(name(unknown), None, "{unknown}");
        }
        assert_eq!((tokens.count(), parsed("").unwrap().count()), (2, 0));
    }

    #[test]
    fn a_mistake_names_the_line_and_shows_no_part_of_it() {
        for (text, expected) in [
            ("s3cr3t-t0ken-0123456789", "line 1: expected NAME TOKEN"),
            (
                "\nci s3cr3t",
                "line 2: the token is shorter than 16 characters",
            ),
            (
                "ci s3cr3t-t0ken 0123456789",
                "line 1: the token has characters",
            ),
            (
                "ci s3cr3t-t0ken-0123456789\nci s3cr3t-t0ken-9876543210",
                "line 2: another token has the same name",
            ),
            (
                "ci s3cr3t-t0ken-0123456789\nproxy s3cr3t-t0ken-0123456789",
                "line 2: it is the same token as that of line 1",
            ),
            (
                "s3cr3t-t0ken-0123456789 ci",
                "line 1: expected NAME TOKEN in this order",
            ),
            (
                "s3cr3t-t0ken-01 ci",
                "line 1: the token is shorter than 16 characters",
            ),
            (
                "s3cr3t-t0ken-0123456789 notification-controller",
                "line 1: expected NAME TOKEN in this order",
            ),
        ] {
            let error = parsed(text).err().unwrap_or_default();
            assert!(error.contains(expected), "{error}");
            assert!(
                !error.contains("s3cr3t") && !error.contains("ci "),
                "{error}"
            );
        }
    }

    #[test]
    fn each_file_of_a_folder_is_a_token() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("ci", &format!("{FIRST}\n"));
        write("notification-controller", SECOND);
        write(".hidden", "short");
        fs::create_dir(folder.path().join("..data")).unwrap();
        let read = contents(folder.path()).unwrap();
        let tokens = Tokens::parse(&read).unwrap();
        assert_eq!(tokens.name_of(FIRST).as_deref(), Some("ci"));
        assert_eq!(
            tokens.name_of(SECOND).as_deref(),
            Some("notification-controller")
        );
        assert_eq!(tokens.count(), 2);
        write("proxy", FIRST);
        let error = Tokens::parse(&contents(folder.path()).unwrap()).err();
        let expected = "token \"proxy\": it is the same token as that of token \"ci\"";
        assert!(error.unwrap_or_default().contains(expected));
        fs::remove_file(folder.path().join("proxy")).unwrap();
        write("empty", "\n");
        let error = Tokens::parse(&contents(folder.path()).unwrap()).err();
        assert!(error.unwrap_or_default().contains("token \"empty\""));
        write(&"x".repeat(64), FIRST);
        let error = contents(folder.path()).err().unwrap_or_default();
        assert!(error.contains("rename it"), "{error}");
    }
}
