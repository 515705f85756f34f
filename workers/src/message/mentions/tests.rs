use proptest::prelude::*;

use super::*;
use crate::notifier::provider_type;
use crate::text::{ELLIPSIS, cut_chars};

fn filter(kind: &str) -> MentionFilter {
    MentionFilter::of(provider_type(kind).unwrap())
}

fn with_mentions() -> impl Iterator<Item = &'static ProviderType> {
    PROVIDERS
        .iter()
        .copied()
        .filter(|row| !row.mentions.forms.is_empty())
}

/// The text with a `|` where a mention is broken.
fn marked(kind: &str, text: &str) -> String {
    filter(kind).apply(text).replace(BREAK, "|")
}

#[test]
fn every_form_is_broken_in_every_case() {
    for row in with_mentions() {
        for form in row.mentions.forms {
            for example in [form.example.to_owned(), form.example.to_uppercase()] {
                let text = format!("({example})\n{example} {example}");
                let broken = filter(row.kind).apply(&text);
                let is_broken = form.pattern.contains("?m:") || !broken.contains(&example);
                assert!(is_broken, "{}: {broken}", row.kind);
                assert_eq!(broken.replace(BREAK, ""), text, "{}", row.kind);
            }
        }
    }
}

#[test]
fn the_syntax_of_each_vendor_is_known() {
    for (kind, text, expected) in [
        (
            "slack",
            "<!channel> <!here|here>",
            "<|!channel> <|!here|here>",
        ),
        ("slack", "<!subteam^S01|@sre>", "<|!subteam^S01|@sre>"),
        (
            "slack",
            "<@U012AB3CD> <#C012|x>",
            "<@|U012AB3CD> <|#C012|x>",
        ),
        ("slack", "@here @channel", "@|here @|channel"),
        ("discord", "@everyone x@here", "@|everyone x@|here"),
        (
            "discord",
            "<@1> <@!1> <@&1> <#1>",
            "<@|1> <@|!1> <@|&1> <|#1>",
        ),
        (
            "rocket",
            "@all (@here) _@alice_",
            "@|all (@|here) _@|alice_",
        ),
        (
            "msteams",
            "<at>Al</at> <AT id=1>",
            "<|at>Al<|/at> <|AT id=1>",
        ),
        (
            "googlechat",
            "<users/all> <users/1>",
            "<|users/all> <|users/1>",
        ),
        (
            "webex",
            "<@all> <@personEmail:a@b.c|A>",
            "<@|all> <@|personEmail:a@b.c|A>",
        ),
        ("lark", "<at id=all></at>", "<|at id=all><|/at>"),
        ("lark", "<at user_id=\"all\">", "<|at user_id=\"all\">"),
        ("matrix", "@room @al:example.org", "@|room @|al:example.org"),
        ("matrix", "x@room", "x@|room"),
        ("matrix", "matrix.to/#/%40al:h", "matrix.to/#/|%40al:h"),
        (
            "zulip",
            "@**all** @_**Al** @*sre*",
            "@|**all** @|_**Al** @|*sre*",
        ),
        ("zulip", "@*a @**all**", "@|*a @|**all**"),
        ("telegram", "@alice", "@|alice"),
        (
            "datadog",
            "@slack-ops @a@example.com",
            "@|slack-ops @|a@example.com",
        ),
        ("zoom", "<!all|all>", "<|!all|all>"),
        (
            "githubpullrequestcomment",
            "@org/team \\@al",
            "@|org/team \\@|al",
        ),
        (
            "githubpullrequestcomment",
            "&#64;al &#x40;al &commat;al",
            "&#64;|al &#x40;|al &commat;|al",
        ),
        (
            "githubpullrequestcomment",
            "@&#97;l @&#64;al",
            "@|&#97;l @|&#64;|al",
        ),
        (
            "gitlabmergerequestcomment",
            "@all\n/close\n /merge\r/lock\n/approve\u{b}x",
            "@|all\n/|close\n /|merge\r/|lock\n/|approve\u{b}x",
        ),
        ("giteapullrequestcomment", "[@al]", "[@|al]"),
    ] {
        assert_eq!(marked(kind, text), expected, "{kind}");
    }
}

#[test]
fn texts_that_mention_nobody_stay_as_they_are() {
    let text = "main@sha1:8f5d3c1e admin@allianz.example git@github.com:acme/fleet \
                https://user:pw@host/x a @ b @ <b>bold</b> <https://example.com|x> <!-- c --> \
                <attribute> <users> & < > /usr/bin/flux /etc @\n* item";
    for row in with_mentions() {
        assert_eq!(filter(row.kind).apply(text), text, "{}", row.kind);
    }
    for (kind, text) in [
        (
            "slack",
            "<!date^1392734382^{date}|x> <!doctype html> @alice",
        ),
        ("discord", "@alice <!date> <:emoji:1>"),
        ("matrix", "@alice #room:example.org"),
        ("zulip", "@alice #**general** **bold**"),
        ("msteams", "@alice @everyone"),
    ] {
        assert_eq!(filter(kind).apply(text), text, "{kind}");
    }
    for row in PROVIDERS.iter().filter(|row| row.mentions.forms.is_empty()) {
        let text = "@everyone <!channel>";
        assert_eq!(filter(row.kind).apply(text), text, "{}", row.kind);
    }
}

/// Pieces that mentions consist of.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "@",
        "<",
        "<@",
        "<!",
        "<#",
        ">",
        "*",
        "**",
        "_",
        "/",
        "&#64;",
        "&#x40;",
        "&",
        ";",
        "at",
        "</at>",
        "users/",
        "all",
        "here",
        "everyone",
        "channel",
        "room",
        "subteam^",
        "U01",
        "1",
        "!",
        "|",
        ":",
        ".",
        "-",
        " ",
        "\n",
        "x",
        "\u{e9}",
        "\\",
        "`",
        "personEmail:",
        "CLOSE",
        "matrix.to/#/%40",
        "\u{200b}",
        "\u{2026}",
        "spark-mention",
        "=",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_of_an_event_keeps_a_mention_also_when_it_is_cut_or_in_lower_case(
        text in pieces(), length in 1usize..80,
    ) {
        for row in with_mentions() {
            let filter = filter(row.kind);
            let broken = filter.apply(&text);
            prop_assert_eq!(filter.find(&broken), Vec::<&str>::new(), "{}", row.kind);
            let lower = broken.to_lowercase();
            prop_assert_eq!(filter.find(&lower), Vec::<&str>::new(), "{}", row.kind);
            // Nothing else is changed.
            prop_assert_eq!(broken.replace(BREAK, ""), text.replace(BREAK, ""), "{}", row.kind);
            let cut = cut_chars(&broken, length);
            // A tag that the cut ends is none.
            let left: Vec<&str> = filter.find(&cut);
            prop_assert!(left.iter().all(|left| left.contains(ELLIPSIS)), "{}: {cut}", row.kind);
        }
    }
}

fn event(message: &str, reason: &str) -> Event {
    Event {
        message: message.into(),
        reason: reason.into(),
        involved_object: Some(ObjectReference {
            api_version: "kustomize.toolkit.fluxcd.io/v1".into(),
            name: "@here".into(),
            ..Default::default()
        }),
        metadata: [
            ("event.toolkit.fluxcd.io/note", "@everyone"),
            ("event.toolkit.fluxcd.io/@here", "x"),
            ("kustomize.toolkit.fluxcd.io/revision", "@everyone"),
            ("event.toolkit.fluxcd.io/summary", "@everyone and others"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
        ..Default::default()
    }
}

fn merged() -> BTreeMap<String, String> {
    [
        ("note", "@everyone"),
        ("@here", "x"),
        ("revision", "@everyone"),
        ("summary", "@everyone"),
        ("oncall", "80351110224678912"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

#[test]
fn metadata_of_the_alert_stays_and_that_of_the_event_does_not() {
    let (event, metadata) = (event("@everyone", "r"), merged());
    let texts = EventTexts::new(
        provider_type("discord").unwrap(),
        &event,
        Cow::Borrowed(&metadata),
    );
    let shown: Vec<(&str, &str)> = texts
        .metadata
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    let expected = [
        ("@\u{200b}here", "x"),
        ("note", "@\u{200b}everyone"),
        ("oncall", "80351110224678912"),
        ("revision", "@\u{200b}everyone"),
        ("summary", "@everyone"),
    ];
    assert_eq!(shown, expected);
    assert_eq!(texts.event.message, "@\u{200b}everyone");
    assert_eq!(texts.object.name, "@\u{200b}here");
    assert!(texts.own.has_broken);
}

#[test]
fn an_event_without_mentions_is_not_copied() {
    let mut event = event("main@sha1:8f5d", "r");
    event.involved_object = None;
    let metadata = BTreeMap::from([("summary".to_owned(), "@everyone".to_owned())]);
    let texts = EventTexts::new(
        provider_type("discord").unwrap(),
        &event,
        Cow::Borrowed(&metadata),
    );
    assert!(matches!(
        (&texts.event, &texts.metadata, texts.own.has_broken),
        (Cow::Borrowed(_), Cow::Borrowed(_), false)
    ));
}

#[test]
fn a_template_mentions_only_whom_its_author_and_the_alert_mention() {
    let (event, metadata) = (event("x", "everyone"), merged());
    let texts = EventTexts::new(
        provider_type("discord").unwrap(),
        &event,
        Cow::Borrowed(&metadata),
    );
    for (source, rendered, expected) in [
        ("@here {{ event.message }}", "@here x", "@here x"),
        ("<@{{ event.reason }}>", "<@1>", "<@|1>"),
        (
            "<@{{ metadata.oncall }}>",
            "<@80351110224678912>",
            "<@80351110224678912>",
        ),
        (
            "<@{{ metadata['oncall'] }}>",
            "<@80351110224678912>",
            "<@80351110224678912>",
        ),
        ("<@{{ metadata.oncall }}>", "<@1>", "<@|1>"),
        ("{{ '<@7>' if event.severity }}", "<@7>", "<@7>"),
        ("{{ metadata.summary }} x", "@everyone x", "@everyone x"),
        ("@{{ event.reason }}", "@here", "@|here"),
        ("{{ a }}{{ b }}", "<@1>", "<@|1>"),
    ] {
        let only = texts.own.only(rendered.into(), source, &texts.metadata);
        assert_eq!(only.replace(BREAK, "|"), expected, "{source}");
    }
}
