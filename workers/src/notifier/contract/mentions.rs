//! How texts of a service mention people.

/// The mentions of a service. Texts from events never mention anybody: a zero-width space is
/// written into each mention ([`crate::message::mentions`]).
#[derive(Clone, Copy, Debug)]
pub struct Mentions {
    /// The vendor's page about mentions, or why there are none. Not empty.
    pub source: &'static str,
    /// The forms of a mention; empty if the service notifies nobody because of a text.
    pub forms: &'static [Form],
}

/// One form of a mention.
///
/// A pattern ignores case, because some titles are in lower case. It has one group, after which the
/// zero-width space is written. It does not need what follows a name: a cut could remove that.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// An example, for the docs and the tests.
    pub example: &'static str,
    /// The pattern.
    pub pattern: &'static str,
    /// Whether it is a mention directly after an ASCII letter or digit, too.
    pub after_word: bool,
}

/// `@name`, unless it is within a word, such as an email address or `main@sha1:…`.
pub const AT_NAME: Form = Form {
    example: "@name",
    pattern: r"(@)[.-]*[A-Za-z0-9_][A-Za-z0-9_.-]*",
    after_word: false,
};

/// The tag `<at>` of Teams and Lark.
pub const AT_TAG: Form = Form {
    example: "<at id=all></at>",
    pattern: r"(<)/?at\b[^<>]*",
    after_word: true,
};

/// `@name` and `@org/team` in comments at forges. They look for mentions after Markdown, so the
/// characters may be entities.
pub const OF_FORGES: Form = Form {
    example: "@org/team",
    pattern: concat!(
        r"(@|&#0*64;|&#x0*40;|&commat;)",
        r"(?:[A-Za-z0-9_][A-Za-z0-9_./-]*|&#?[A-Za-z0-9]+;)"
    ),
    after_word: false,
};

impl Mentions {
    /// Those of types that send the event itself.
    pub const EVENT: Self = Self::none("programs read the event, which is sent unchanged");
    /// Those of commit statuses.
    pub const COMMIT_STATUS: Self = Self::none("a commit status notifies nobody by its text");
    /// A row states its mentions.
    pub const UNSTATED: Self = Self::none("");

    /// Those that the vendor's page describes.
    pub const fn of(source: &'static str, forms: &'static [Form]) -> Self {
        Self { source, forms }
    }

    /// No text notifies anybody, for this reason.
    pub const fn none(why: &'static str) -> Self {
        Self {
            source: why,
            forms: &[],
        }
    }
}
