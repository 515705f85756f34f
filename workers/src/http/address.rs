//! The address of a Provider as a URL.

use tidings_rules::ResolvedProvider;
use url::Url;

use crate::http::invalid::Invalid;

/// The Provider's address as an absolute http or https URL.
///
/// # Errors
/// The address is invalid. The error does not quote it, since it may be a secret.
pub fn http_url(provider: &ResolvedProvider) -> Result<Url, Invalid> {
    if provider.address.is_empty() {
        return Err(Invalid::from(
            "no address: set spec.address, or the key address in the Secret of spec.secretRef",
        ));
    }
    let url = Url::parse(&provider.address).map_err(|error| {
        Invalid(format!(
            "the address is not a URL ({error}); write it as https://HOST/PATH"
        ))
    })?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(Invalid::from(
            "the address must start with http:// or https:// and name a host",
        ));
    }
    Ok(url)
}

/// The URL with another path and without a query, for services whose users give only the host.
pub fn at_path(url: &Url, path: &str) -> Url {
    let mut url = url.clone();
    url.set_path(path);
    url.set_query(None);
    url.set_fragment(None);
    url
}
