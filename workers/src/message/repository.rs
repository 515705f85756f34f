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

/// The paths of APIs below the URL of a forge, which `spec.apiAddress` may contain.
const API_PATHS: &[&str] = &[
    "/api/v1",
    "/api/v3",
    "/api/v4",
    "/rest/api/latest",
    "/rest/api/1.0",
    "/2.0",
];

/// Where a repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// The URL of its forge, without user info: that of its host, or `spec.apiAddress` without the
    /// path of the API.
    pub root: Url,
    /// Its path on the forge, decoded, without `.git`: `owner/name` or `group/subgroup/name`.
    pub id: String,
    /// Whether the address was one of SSH.
    pub is_ssh: bool,
}

/// The repository that the Provider's address names, at the forge that `spec.apiAddress` names.
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
    let repository = parse(&provider.address).ok_or_else(|| {
        Invalid::from(
            "the address names no Git repository; write it as https://HOST/OWNER/NAME or \
             git@HOST:OWNER/NAME",
        )
    })?;
    Ok(match &provider.api_address {
        Some(api) => repository.at(forge_of(api)),
        None => repository,
    })
}

/// The URL of a forge with this API, without the path of the API and without a trailing slash.
pub fn forge_of(api: &Url) -> Url {
    let mut forge = api.clone();
    let path = api.path().trim_end_matches('/');
    let ending = API_PATHS
        .iter()
        .find_map(|ending| path.strip_suffix(ending));
    forge.set_path(ending.unwrap_or(path).trim_end_matches('/'));
    forge
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
                "the address must name a repository as OWNER/NAME, but names {:?}; if the forge is \
                 not at the root of its host, set spec.apiAddress",
                self.id
            ))
        })
    }

    /// The id, escaped for a path.
    pub fn path(&self) -> String {
        escaped(&self.id)
    }

    /// The repository at the forge of this URL. If its path starts with that of the forge, the rest
    /// is its id, unless too little is left. Paths of SSH never start so.
    fn at(self, forge: Url) -> Self {
        let path = percent_decode_str(forge.path()).decode_utf8_lossy();
        let rest = self
            .id
            .strip_prefix(path.trim_matches('/'))
            .and_then(|rest| rest.strip_prefix('/'))
            .filter(|rest| !self.is_ssh && rest.contains('/'));
        Self {
            id: rest.unwrap_or(&self.id).to_owned(),
            root: forge,
            ..self
        }
    }

    /// Host and port, for limits and errors.
    pub fn host(&self) -> &str {
        &self.root[url::Position::BeforeHost..url::Position::AfterPort]
    }

    /// Host, port and path of the forge, for keys.
    pub fn forge(&self) -> &str {
        self.root().split_once("://").map_or("", |(_, rest)| rest)
    }

    /// The URL of the forge without the trailing slash.
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
        is_ssh: url.scheme() == "ssh",
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
    fn the_path_of_the_api_address_is_not_part_of_the_id() {
        for (address, api, root, id) in [
            (
                "https://host/gitlab/org/repo",
                "https://host/gitlab",
                "https://host/gitlab",
                "org/repo",
            ),
            (
                "https://host/gitlab/org/sub/repo.git",
                "https://host/gitlab/api/v4/",
                "https://host/gitlab",
                "org/sub/repo",
            ),
            (
                "https://host/a/git%20lab/org/repo",
                "http://api.internal:8080/a/git%20lab/",
                "http://api.internal:8080/a/git%20lab",
                "org/repo",
            ),
            (
                "git@host:gitlab/repo",
                "https://host/gitlab",
                "https://host/gitlab",
                "gitlab/repo",
            ),
            (
                "https://host/gitlab/repo",
                "https://host/gitlab",
                "https://host/gitlab",
                "gitlab/repo",
            ),
            (
                "https://host/gitlab-org/repo",
                "https://host/gitlab/",
                "https://host/gitlab",
                "gitlab-org/repo",
            ),
            (
                "https://host/org/repo",
                "https://api.host/api/v1",
                "https://api.host",
                "org/repo",
            ),
        ] {
            let parsed = parse(address)
                .unwrap()
                .at(forge_of(&Url::parse(api).unwrap()));
            assert_eq!((parsed.root(), parsed.id.as_str()), (root, id), "{address}");
            assert_eq!(parsed.forge(), root.split_once("//").unwrap().1);
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
            is_ssh: false,
        };
        assert_eq!(of("org/repo").owner_and_name(), Ok(("org", "repo")));
        for id in ["repo", "group/sub/repo", "/repo"] {
            assert!(of(id).owner_and_name().is_err(), "{id}");
        }
    }
}
