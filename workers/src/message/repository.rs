//! Repository addresses in all forms that Git accepts: `https://host/id`, `ssh://git@host/id` and
//! `git@host:id`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tidings_rules::ResolvedProvider;
use url::Url;

use crate::http::invalid::Invalid;

/// The characters to escape in a path: all but slashes and unreserved characters.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// Where a repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// The URL of its host, without path and user info.
    pub root: Url,
    /// Its path on the host, decoded, without `.git`: `owner/name` or `group/subgroup/name`.
    pub id: String,
}

/// The repository that the Provider's address names.
///
/// SSH becomes https without the port, since the API has another port.
///
/// # Errors
/// The address is invalid. The error does not quote it, since it may hold a secret.
pub fn repository(provider: &ResolvedProvider) -> Result<Repository, Invalid> {
    if provider.address.is_empty() {
        return Err(Invalid::from(
            "no address: set spec.address to the URL of the Git repository",
        ));
    }
    parse(&provider.address).ok_or_else(|| {
        Invalid::from(
            "the address names no Git repository; write it as https://HOST/OWNER/NAME or \
             git@HOST:OWNER/NAME",
        )
    })
}

/// A text escaped for a path, except its slashes.
pub fn escaped(text: &str) -> String {
    utf8_percent_encode(text, IN_PATH).to_string()
}

impl Repository {
    /// The two parts of an id, for forges without deeper paths.
    ///
    /// # Errors
    /// The id has fewer or more parts.
    pub fn owner_and_name(&self) -> Result<(&str, &str), Invalid> {
        let parts = self
            .id
            .split_once('/')
            .filter(|(owner, name)| !owner.is_empty() && !name.is_empty() && !name.contains('/'));
        parts.ok_or_else(|| {
            Invalid(format!(
                "the address must name a repository as OWNER/NAME, but names {:?}",
                self.id
            ))
        })
    }

    /// The id, escaped for a path.
    pub fn path(&self) -> String {
        escaped(&self.id)
    }

    /// Host and port, for keys and errors.
    pub fn host(&self) -> &str {
        self.root
            .as_str()
            .trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or_default()
    }

    /// The URL of the host without the trailing slash.
    pub fn root(&self) -> &str {
        self.root.as_str().trim_end_matches('/')
    }
}

/// Parses a repository address in any form.
pub fn parse(address: &str) -> Option<Repository> {
    let url = if address.contains("://") {
        Url::parse(address).ok()?
    } else {
        scp_like(address)?
    };
    let host = url.host_str().filter(|host| !host.is_empty())?;
    let root = match (url.scheme(), url.port()) {
        ("ssh", _) => format!("https://{host}"),
        (scheme @ ("http" | "https"), None) => format!("{scheme}://{host}"),
        (scheme @ ("http" | "https"), Some(port)) => format!("{scheme}://{host}:{port}"),
        _ => return None,
    };
    let path = percent_decode_str(url.path()).decode_utf8().ok()?;
    let path = path.trim_matches('/');
    let id = path
        .strip_suffix(".git")
        .unwrap_or(path)
        .trim_end_matches('/');
    Some(Repository {
        root: Url::parse(&root).ok()?,
        id: id.to_owned(),
    })
    .filter(|repository| !repository.id.is_empty())
}

/// `git@host:path`, as `scp` and `git clone` accept it. A Windows drive such as `C:` is no host.
fn scp_like(address: &str) -> Option<Url> {
    let (login, path) = address.split_once(':')?;
    let host = login.rsplit_once('@').map_or(login, |(_, host)| host);
    if host.len() < 2 || address.contains('\\') || login.contains('/') {
        return None;
    }
    Url::parse(&format!("ssh://{host}/{}", path.trim_start_matches('/'))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_address_names_host_and_repository() {
        for (address, root, id) in [
            (
                "https://github.com/org/repo",
                "https://github.com",
                "org/repo",
            ),
            (
                "https://github.com/org/repo.git/",
                "https://github.com",
                "org/repo",
            ),
            (
                "http://gitea.local:3000/org/repo",
                "http://gitea.local:3000",
                "org/repo",
            ),
            (
                "https://user:pass@host/org/repo",
                "https://host",
                "org/repo",
            ),
            (
                "HTTPS://GitHub.com/Org/Repo",
                "https://github.com",
                "Org/Repo",
            ),
            ("https://host/a%20b/c", "https://host", "a b/c"),
            (
                "https://[::1]:8443/org/repo",
                "https://[::1]:8443",
                "org/repo",
            ),
            (
                "ssh://git@host:7999/proj/repo.git",
                "https://host",
                "proj/repo",
            ),
            (
                "git@gitlab.com:group/sub/project.git",
                "https://gitlab.com",
                "group/sub/project",
            ),
            ("host:/org/repo", "https://host", "org/repo"),
        ] {
            let got =
                parse(address).map(|repository| (repository.root().to_owned(), repository.id));
            assert_eq!(got, Some((root.to_owned(), id.to_owned())), "{address}");
        }
    }

    #[test]
    fn an_address_without_a_remote_repository_is_rejected() {
        for address in [
            "https://host",
            "https://ho st/x",
            "file:///srv/repo",
            "ftp://h/o/r",
            "/local/path",
            "org/repo",
            "C:\\repo",
        ] {
            assert_eq!(parse(address), None, "{address}");
        }
    }

    #[test]
    fn an_id_has_an_owner_and_a_name() {
        let of = |id: &str| Repository {
            root: Url::parse("https://host").unwrap(),
            id: id.to_owned(),
        };
        assert_eq!(of("org/repo").owner_and_name(), Ok(("org", "repo")));
        for id in ["repo", "group/sub/repo", "/repo"] {
            assert!(of(id).owner_and_name().is_err(), "{id}");
        }
    }
}
