//! Who may use the console, from the headers of a request.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::http::header::{HOST, HeaderName, ORIGIN};
use axum::http::{HeaderMap, Uri};
use tidings_ingest::authentication::{
    KubernetesReviewer, Refusal as TokenRefusal, Reviews, Tokens, User, bearer,
};

use super::permissions::{KubernetesAuthorizer, NoAnswer, Permissions, Verb};

/// The header in which browsers say where a request comes from.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Read everything that the console shows.
    View,
    /// Also change something.
    Operate,
}

impl Role {
    /// The role in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Operate => "operate",
        }
    }
}

/// Who sent a request. An extension of every request to the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The name of the token or of the user; `None` if no tokens are set.
    pub name: Option<Arc<str>>,
    /// What the caller may do in all namespaces.
    pub role: Role,
    /// A user of the Kubernetes API, who may do more in some namespaces.
    pub user: Option<Arc<User>>,
    /// Whether the caller sees only what is in namespaces where the user may see it.
    pub is_limited: bool,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `Host` is not a name of the console. A page whose name resolves to this address could read
    /// the answer otherwise (DNS rebinding).
    WrongHost,
    /// The request comes from a page of another site.
    CrossSite,
    /// There is no valid token.
    Unauthenticated,
    /// The token has not the role that an action needs.
    NotAllowed,
    /// The user may not do it in the namespace.
    NotInNamespace,
    /// The Kubernetes API cannot be asked.
    Unavailable,
}

impl Refusal {
    /// The number of causes.
    pub const COUNT: usize = 6;
}

impl From<NoAnswer> for Refusal {
    fn from(_: NoAnswer) -> Self {
        Self::Unavailable
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::WrongHost => {
                "the console does not answer for this Host; add the name to console.hosts"
            }
            Self::CrossSite => "the request comes from a page of another site",
            Self::Unauthenticated => "the request needs a valid bearer token",
            Self::NotAllowed => "an action needs a token of console.tokens.operate",
            Self::NotInNamespace => {
                "the account may not get, or for an action update, both alerts and providers in \
                 each namespace that this names; bind a Role that permits it"
            }
            Self::Unavailable => "the Kubernetes API cannot be asked; try again",
        })
    }
}

/// The names and tokens of the settings.
#[derive(Default)]
pub struct Access {
    /// Names beside `localhost` and IP addresses.
    pub hosts: Vec<String>,
    /// Tokens that may read.
    pub view: Option<Arc<ArcSwap<Tokens>>>,
    /// Tokens that may also change something.
    pub operate: Option<Arc<ArcSwap<Tokens>>>,
    /// Users of the Kubernetes API.
    pub kubernetes: Option<Arc<Kubernetes>>,
}

/// Users of the Kubernetes API, and what they may do there.
pub struct Kubernetes {
    /// Knows whom a token belongs to.
    pub reviews: Reviews<KubernetesReviewer>,
    /// Knows what a user may do.
    pub permissions: Permissions<KubernetesAuthorizer>,
}

impl Kubernetes {
    async fn caller(&self, token: &str) -> Result<Caller, Refusal> {
        let user = self.reviews.user_of(token).await;
        let user = user.map_err(|refusal| match refusal {
            TokenRefusal::Unavailable | TokenRefusal::Busy => Refusal::Unavailable,
            TokenRefusal::Missing | TokenRefusal::Unknown | TokenRefusal::NotAllowed(_) => {
                Refusal::Unauthenticated
            }
        })?;
        let sees_all = self.permissions.may_in_all(&user, Verb::Get).await?;
        let operates = sees_all && self.permissions.may_in_all(&user, Verb::Update).await?;
        Ok(Caller {
            name: Some(user.shown()),
            role: if operates { Role::Operate } else { Role::View },
            user: Some(user),
            is_limited: !sees_all,
        })
    }
}

impl Access {
    /// Checks that the request is for a name of the console. An IP address cannot be rebound.
    ///
    /// # Errors
    /// It is not, or not for one name only.
    pub fn check_host(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Refusal> {
        let host = single(headers, &HOST).flatten().ok_or(Refusal::WrongHost)?;
        let authority = uri.authority().map(axum::http::uri::Authority::as_str);
        let is_known = |host: &str| self.is_own_name(host);
        if is_known(host) && authority.is_none_or(is_known) {
            return Ok(());
        }
        Err(Refusal::WrongHost)
    }

    /// Checks who sent a request to the API.
    ///
    /// # Errors
    /// It comes from a page of another site, or has no valid token, or the Kubernetes API cannot be
    /// asked about it.
    pub async fn check(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        if !is_from_own_page(headers) {
            return Err(Refusal::CrossSite);
        }
        if self.view.is_none() && self.operate.is_none() && self.kubernetes.is_none() {
            return Ok(Caller {
                name: None,
                role: Role::View,
                user: None,
                is_limited: false,
            });
        }
        let token = bearer::token(headers).map_err(|_| Refusal::Unauthenticated)?;
        match (self.owner_of(token), &self.kubernetes) {
            (Some(caller), _) => Ok(caller),
            (None, Some(kubernetes)) => kubernetes.caller(token).await,
            (None, None) => Err(Refusal::Unauthenticated),
        }
    }

    /// The owner of a token of the settings.
    fn owner_of(&self, token: &str) -> Option<Caller> {
        // Both lists are searched, so that the time does not depend on which one a token is in.
        let name_in = |tokens: &Option<Arc<ArcSwap<Tokens>>>| {
            let tokens = tokens.as_ref()?;
            tokens.load().name_of(token)
        };
        let (view, operate) = (name_in(&self.view), name_in(&self.operate));
        let (name, role) = match (operate, view) {
            (Some(name), _) => (name, Role::Operate),
            (None, Some(name)) => (name, Role::View),
            (None, None) => return None,
        };
        Some(Caller {
            name: Some(name),
            role,
            user: None,
            is_limited: false,
        })
    }

    fn is_own_name(&self, authority: &str) -> bool {
        let Some(host) = without_port(authority) else {
            return false;
        };
        let literal = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        host.parse::<Ipv4Addr>().is_ok()
            || literal.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok())
            || host.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|own| host.eq_ignore_ascii_case(own))
    }
}

/// `None` if the header occurs twice; else its value, if there is one that is text.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Option<&'a str>> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().map(|value| value.to_str().unwrap_or("?"));
    values.next().is_none().then_some(value)
}

fn without_port(authority: &str) -> Option<&str> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (authority, ""),
    };
    let is_port = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    is_port.then_some(host)
}

/// Whether the headers, as far as there are any, say that a page of the console sent the request.
/// Programs other than browsers send neither.
fn is_from_own_page(headers: &HeaderMap) -> bool {
    let host = single(headers, &HOST).flatten().unwrap_or_default();
    let is_same = |origin: &str| {
        let own = origin.split_once("://").map(|(_, own)| own);
        own.is_some_and(|own| own.eq_ignore_ascii_case(host))
    };
    let from_origin = single(headers, &ORIGIN).is_some_and(|origin| origin.is_none_or(is_same));
    let is_own = |site: &str| matches!(site, "same-origin" | "none");
    let from_site = single(headers, &SEC_FETCH_SITE).is_some_and(|site| site.is_none_or(is_own));
    from_origin && from_site
}

#[cfg(test)]
mod tests;
