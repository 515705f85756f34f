//! Lists that a forge returns in pages.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::http::Response;

/// The most pages of statuses to read. A commit on GitHub has up to 1,000 statuses of a context.
pub const MOST_PAGES: u32 = 20;
/// The most pages of 100 comments to read. GitLab allows 5,000 on a merge request
/// (<https://docs.gitlab.com/administration/instance_limits/>).
pub const MOST_PAGES_OF_COMMENTS: u32 = 50;

/// The part of a query that selects a page; empty for the first one.
pub fn and_page(page: u32) -> String {
    match page {
        1 => String::new(),
        page => format!("&page={page}"),
    }
}

/// Whether a response says that another page follows (`Link: <…>; rel="next"`, RFC 8288).
///
/// The URL in the header is ignored, so that credentials are sent only to the known URL.
pub fn has_next(response: &Response) -> bool {
    response
        .header("link")
        .is_some_and(|link| link.contains("rel=\"next\"") || link.contains("rel=next"))
}

/// The entries of a page: a list of objects. Objects that `T` can't read are not ours; they are
/// ignored.
pub struct Entries<T>(pub Vec<T>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(list: D) -> Result<Self, D::Error> {
        let objects = Vec::<Map<String, Value>>::deserialize(list)?;
        let read = |object| serde_json::from_value(Value::Object(object)).ok();
        Ok(Self(objects.into_iter().filter_map(read).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample::{response, with_header};

    #[test]
    fn a_link_header_says_that_another_page_follows() {
        let links = |link| has_next(&with_header(response(200, "[]"), "link", link));
        assert!(links(
            "<https://h/a?page=2>; rel=\"next\", <https://h/a?page=9>; rel=\"last\""
        ));
        assert!(!links("<https://h/a?page=1>; rel=\"first\""));
        assert!(!has_next(&response(200, "[]")));
    }

    #[test]
    fn a_list_of_objects_is_read_without_those_of_others() {
        let read = |text: &str| serde_json::from_str::<Entries<Vec<(String, u8)>>>(text).is_ok();
        assert!(!read(r#"["a"]"#) && !read(r#"{"message":"sign in"}"#) && read("[]"));
        #[derive(Deserialize)]
        struct Entry {
            id: u64,
        }
        let list: Entries<Entry> = serde_json::from_str(r#"[{"id":null},{"id":7}]"#).unwrap();
        assert_eq!(list.0.iter().map(|entry| entry.id).collect::<Vec<_>>(), [7]);
    }
}
