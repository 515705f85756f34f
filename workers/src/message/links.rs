//! Links in a message: to the commit at its forge, and to a dashboard.

use tidings_core::runtime::config::LinksSettings;
use tidings_rules::template::{Escape, Program};
use url::Url;

use crate::message::repository::{Repository, escaped};
use crate::message::template_context::TemplateContext;

/// The longest URL. Two of them fit into the shortest field for links of all services.
const LONGEST_URL: usize = 480;

/// The compiled patterns of the settings.
pub struct Patterns {
    /// The URL of the commit.
    pub commit: Option<Program>,
    /// The URL of the dashboard.
    pub dashboard: Option<Program>,
    /// The URL that commit statuses link to.
    pub commit_status: Option<Program>,
}

impl Patterns {
    /// Compiles the patterns.
    ///
    /// # Errors
    /// A pattern is invalid; the error names its key.
    pub fn new(settings: &LinksSettings) -> Result<Self, String> {
        let compile = |key: &str, pattern: &Option<String>| {
            let program = pattern
                .as_ref()
                .map(|pattern| Program::compile(pattern, Escape::Url));
            program
                .transpose()
                .map_err(|sentence| format!("links.{key}: {sentence}"))
        };
        Ok(Self {
            commit: compile("commit", &settings.commit)?,
            dashboard: compile("dashboard", &settings.dashboard)?,
            commit_status: compile("commit_status", &settings.commit_status)?,
        })
    }
}

/// The URL that a pattern gives; `None` if the event lacks a variable, or the result is no http or
/// https URL.
pub fn expand(pattern: Option<&Program>, context: &TemplateContext) -> Option<String> {
    checked(&pattern?.render(context).ok()?.text)
}

/// The page of a commit, if the repository's address shows which forge it is.
pub fn commit_page(repository: &Repository, commit: &str) -> Option<String> {
    let (root, path) = (repository.root(), repository.path());
    let host = repository.root.host_str()?;
    let is = |name: &str| {
        host.split('.')
            .any(|label| label == name || label.starts_with(&format!("{name}-")))
    };
    let parts: Vec<&str> = path.split('/').collect();
    let page = match parts.as_slice() {
        // ssh.dev.azure.com:v3/ORGANIZATION/PROJECT/NAME
        ["v3", organization, project, name] if host == "ssh.dev.azure.com" => {
            format!("https://dev.azure.com/{organization}/{project}/_git/{name}/commit/{commit}")
        }
        [.., "_git", _] => format!("{root}/{path}/commit/{commit}"),
        [context @ .., "scm", project, name] => {
            let context: String = context.iter().map(|part| format!("/{part}")).collect();
            format!("{root}{context}/projects/{project}/repos/{name}/commits/{commit}")
        }
        _ if host == "bitbucket.org" => format!("{root}/{path}/commits/{commit}"),
        [project, name] if is("bitbucket") || is("stash") => {
            format!(
                "{root}/projects/{}/repos/{name}/commits/{commit}",
                escaped(project)
            )
        }
        _ if is("gitlab") => format!("{root}/{path}/-/commit/{commit}"),
        _ if ["github", "gitea", "forgejo", "codeberg"]
            .into_iter()
            .any(is) =>
        {
            format!("{root}/{path}/commit/{commit}")
        }
        _ => return None,
    };
    checked(&page)
}

fn checked(text: &str) -> Option<String> {
    let url = Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))?;
    Some(String::from(url)).filter(|url| url.len() <= LONGEST_URL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::repository::parse;

    #[test]
    fn a_commit_has_a_page_at_every_forge() {
        for (address, page) in [
            (
                "https://github.com/acme/deploy",
                "https://github.com/acme/deploy/commit/c0",
            ),
            (
                "ssh://git@github.example.com/acme/deploy.git",
                "https://github.example.com/acme/deploy/commit/c0",
            ),
            (
                "git@gitlab.com:acme/sub/deploy.git",
                "https://gitlab.com/acme/sub/deploy/-/commit/c0",
            ),
            (
                "https://gitlab-eu.example.com:8443/a/b",
                "https://gitlab-eu.example.com:8443/a/b/-/commit/c0",
            ),
            (
                "https://bitbucket.org/acme/deploy",
                "https://bitbucket.org/acme/deploy/commits/c0",
            ),
            (
                "https://bbs.example.com/ctx/scm/ACME/deploy.git",
                "https://bbs.example.com/ctx/projects/ACME/repos/deploy/commits/c0",
            ),
            (
                "ssh://git@bitbucket.example.com:7999/acme/deploy.git",
                "https://bitbucket.example.com/projects/acme/repos/deploy/commits/c0",
            ),
            (
                "https://u:s3cret@codeberg.org/acme/deploy",
                "https://codeberg.org/acme/deploy/commit/c0",
            ),
            (
                "https://gitea.example.com:3000/acme/deploy",
                "https://gitea.example.com:3000/acme/deploy/commit/c0",
            ),
            (
                "https://dev.azure.com/org/my%20fleet/_git/deploy",
                "https://dev.azure.com/org/my%20fleet/_git/deploy/commit/c0",
            ),
            (
                "git@ssh.dev.azure.com:v3/org/fleet/deploy",
                "https://dev.azure.com/org/fleet/_git/deploy/commit/c0",
            ),
            (
                "https://org.visualstudio.com/fleet/_git/deploy",
                "https://org.visualstudio.com/fleet/_git/deploy/commit/c0",
            ),
        ] {
            assert_eq!(
                commit_page(&parse(address).unwrap(), "c0").as_deref(),
                Some(page),
                "{address}"
            );
        }
        for address in [
            "https://git.example.com/acme/deploy",
            "https://notgithub.example.com/a/b",
        ] {
            assert_eq!(
                commit_page(&parse(address).unwrap(), "c0"),
                None,
                "{address}"
            );
        }
    }

    #[test]
    fn a_url_that_is_not_http_or_https_is_no_link() {
        assert_eq!(checked("https://h/a b").as_deref(), Some("https://h/a%20b"));
        for text in [
            "javascript:alert(1)",
            "h/x",
            "",
            &format!("https://h/{}", "x".repeat(480)),
        ] {
            assert_eq!(checked(text), None, "{text}");
        }
    }

    #[test]
    fn the_error_of_a_pattern_names_its_key() {
        let settings = LinksSettings {
            dashboard: Some("https://h/{{ name".into()),
            ..LinksSettings::default()
        };
        assert!(
            Patterns::new(&settings)
                .is_err_and(|sentence| sentence.starts_with("links.dashboard: line 1: "))
        );
    }
}
