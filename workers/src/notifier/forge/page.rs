//! Lists that come in pages.

use crate::http::Response;

/// No list of statuses is read further than this many pages; a context of a commit takes a thousand
/// on GitHub.
pub const MOST_PAGES: u32 = 20;
/// The same for comments, in pages of a hundred: GitLab takes 5,000 on a merge request
/// (<https://docs.gitlab.com/administration/instance_limits/>).
pub const MOST_PAGES_OF_COMMENTS: u32 = 50;

/// Whether an response says that another page follows (`Link: <…>; rel="next"`, RFC 8288).
///
/// Only the fact is taken from the header: where the next page is, the caller knows, and
/// credentials go nowhere else.
pub fn has_next(response: &Response) -> bool {
    response
        .header("link")
        .is_some_and(|link| link.contains("rel=\"next\"") || link.contains("rel=next"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample::{response, with_header};

    #[test]
    fn a_link_tells_that_another_page_follows() {
        let links = |link| has_next(&with_header(response(200, "[]"), "link", link));
        assert!(links(
            "<https://h/a?page=2>; rel=\"next\", <https://h/a?page=9>; rel=\"last\""
        ));
        assert!(!links("<https://h/a?page=1>; rel=\"first\""));
        assert!(!has_next(&response(200, "[]")));
    }
}
