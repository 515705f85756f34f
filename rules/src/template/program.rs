//! A template, compiled, and what comes of it for one event.

use std::fmt::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior};
use serde::Serialize;

use super::{filters, language};

/// The longest template, in bytes.
pub const LONGEST_SOURCE: usize = 16 << 10;
/// The longest text that a template gives, in bytes; what goes through `{% set %}…{% endset %}` counts too.
pub const LONGEST_TEXT: usize = 64 << 10;
/// The longest title, in characters.
const LONGEST_TITLE: usize = 256;
/// Instructions. Sane templates need some hundred.
const FUEL: u64 = 10_000;
/// minijinja looks templates up by name; each environment has one.
const NAME: &str = "template";

/// What is done to values that a template writes out; the template's own text stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Escape {
    /// Nothing.
    None,
    /// `&`, `<` and `>` become entities: what Slack asks for, and enough for HTML between tags.
    Entities,
    /// All but letters, digits and `-._~` are percent-encoded; a value that is not there is an error.
    Url,
}

/// What a template gives for an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The value of `title`, where the template sets it: one line, cut at 256 characters.
    pub title: Option<String>,
    /// The text, without white space around it; never empty.
    pub text: String,
}

/// A template that can be rendered.
///
/// # Guarantees
/// Rendering ends within a bounded number of steps, and takes a bounded amount of memory, whatever the template says.
pub struct Program {
    environment: Environment<'static>,
    escape: Escape,
}

impl Program {
    /// Compiles a template.
    ///
    /// # Errors
    /// A sentence with the line and what is wrong there.
    pub fn compile(source: &str, escape: Escape) -> Result<Self, String> {
        if source.len() > LONGEST_SOURCE {
            return Err(format!("has {} bytes; at most {LONGEST_SOURCE} are allowed", source.len()));
        }
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(|error| sentence(&error))?;
        language::check(source, syntax.clone())?;
        let mut environment = Environment::new();
        environment.set_syntax(syntax);
        environment.set_fuel(Some(FUEL));
        if escape != Escape::None {
            // So that what a block has escaped is not escaped again.
            environment.set_auto_escape_callback(|_| AutoEscape::Custom("own".into()));
        }
        if escape == Escape::Url {
            environment.set_undefined_behavior(UndefinedBehavior::Strict);
        }
        environment.set_formatter(move |output, state, value| write_counted(output, state, value, escape));
        filters::add(&mut environment, escape);
        environment.add_template_owned(NAME, source.to_owned()).map_err(|error| sentence(&error))?;
        Ok(Self { environment, escape })
    }

    /// Renders it with these names in scope.
    ///
    /// # Errors
    /// A sentence with the line and what went wrong there.
    pub fn render(&self, scope: &impl Serialize) -> Result<Rendered, String> {
        let template = self.environment.get_template(NAME).map_err(|error| sentence(&error))?;
        let mut written = Limited::new(LONGEST_TEXT);
        let captured = template
            .render_captured_to(Value::from(Serde(scope)), &mut written)
            .map_err(|error| if written.is_full { too_long() } else { sentence(&error) })?;
        let title = captured.state().lookup("title").map(|title| self.title(&title)).transpose()?;
        let text = written.into_text().trim().to_owned();
        if text.is_empty() {
            return Err("gives no text".to_owned());
        }
        Ok(Rendered { title: title.filter(|title| !title.is_empty()), text })
    }

    /// On one line.
    fn title(&self, value: &Value) -> Result<String, String> {
        if value.is_undefined() || value.is_none() {
            return Ok(String::new());
        }
        let mut text = Limited::new(LONGEST_TEXT);
        write!(text, "{value}").map_err(|_| too_long())?;
        let title = text.into_text().split_whitespace().collect::<Vec<_>>().join(" ");
        let title = match title.char_indices().nth(LONGEST_TITLE - 1) {
            Some((end, last)) if end + last.len_utf8() < title.len() => format!("{}…", &title[..end]),
            _ => title,
        };
        Ok(if value.is_safe() { title } else { self.escape.apply(&title) })
    }
}

impl Escape {
    /// The text with what is special in it escaped.
    pub fn apply(self, text: &str) -> String {
        match self {
            Self::None => text.to_owned(),
            Self::Entities => text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"),
            Self::Url => {
                let mut escaped = String::with_capacity(text.len());
                for byte in text.bytes() {
                    match byte {
                        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(byte)),
                        // Writing to a String does not fail.
                        _ => drop(write!(escaped, "%{byte:02X}")),
                    }
                }
                escaped
            }
        }
    }
}

/// So many bytes a rendering has written, also into blocks.
struct Written(usize);

fn write_counted(output: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value, escape: Escape) -> Result<(), Error> {
    if value.is_undefined() || value.is_none() {
        return if escape == Escape::Url { Err(Error::from(ErrorKind::UndefinedError)) } else { Ok(()) };
    }
    let before = state.get_extension::<Written>().map_or(0, |written| written.0);
    let mut text = Limited::new(LONGEST_TEXT - before);
    let full = |_: fmt::Error| Error::new(ErrorKind::WriteFailure, too_long());
    write!(text, "{value}").map_err(full)?;
    let text = text.into_text();
    let text = if value.is_safe() { text } else { escape.apply(&text) };
    let after = before + text.len();
    if after > LONGEST_TEXT {
        return Err(full(fmt::Error));
    }
    state.get_or_insert_extension(Written(0)).0 = after;
    output.write_str(&text).map_err(full)
}

fn too_long() -> String {
    format!("gives more than {LONGEST_TEXT} bytes")
}

/// An error of minijinja, in one line.
pub(super) fn sentence(error: &Error) -> String {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) if line > 0 => format!("line {line}: {detail}"),
        _ => detail,
    }
}

/// A text that refuses to grow beyond a limit.
pub(super) struct Limited {
    text: String,
    most: usize,
    is_full: bool,
}

impl Limited {
    pub(super) fn new(most: usize) -> Self {
        Self { text: String::new(), most, is_full: false }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

impl Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.is_full |= text.len() > self.most - self.text.len();
        if self.is_full {
            return Err(fmt::Error);
        }
        self.text.push_str(text);
        Ok(())
    }
}

/// minijinja writes whole characters.
impl std::io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = std::str::from_utf8(bytes).map_err(std::io::Error::other)?;
        self.write_str(text).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn render_with(source: &str, escape: Escape) -> Result<Rendered, String> {
        let scope = json!({
            "a": "<b> & c", "long": "m".repeat(16 << 10), "list": [1, 2, 3], "none": null,
            "event": {"message": "one\ntwo", "metadata": {"k": "v", "l": "w"}},
        });
        Program::compile(source, escape)?.render(&scope)
    }

    fn text(source: &str) -> Result<String, String> {
        render_with(source, Escape::None).map(|rendered| rendered.text)
    }

    #[test]
    fn blocks_leave_no_empty_lines_and_title_is_what_is_set() {
        let source = "{% set title %}\n  of {{ a }}\n{% endset %}\n{% for k, v in event.metadata|items %}\n- {{ k }}: {{ v }}\n{% endfor %}\nend";
        let rendered = render_with(source, Escape::None).unwrap();
        assert_eq!(rendered, Rendered { title: Some("of <b> & c".into()), text: "- k: v\n- l: w\nend".into() });
        assert_eq!(render_with("{% set title = none %}x", Escape::None).unwrap().title, None);
    }

    #[test]
    fn values_are_escaped_once_and_the_template_never() {
        let source = "{% set title = a %}{% set block %}<i>{{ a }}</i>{% endset %}<u>{{ block }} {{ a|safe }} {{ a|escape }}</u>";
        let rendered = render_with(source, Escape::Entities).unwrap();
        assert_eq!(rendered.text, "<u><i>&lt;b&gt; &amp; c</i> <b> & c &lt;b&gt; &amp; c</u>");
        assert_eq!(rendered.title.as_deref(), Some("&lt;b&gt; &amp; c"));
        assert_eq!(render_with("https://h/?a={{ a }}", Escape::Url).unwrap().text, "https://h/?a=%3Cb%3E%20%26%20c");
    }

    #[test]
    fn a_long_title_is_cut() {
        let title = |length: usize| {
            let source = format!("{{% set title = '{}' %}}x", "ä".repeat(length));
            render_with(&source, Escape::None).unwrap().title.unwrap()
        };
        assert_eq!(title(256), "ä".repeat(256));
        assert_eq!(title(257), format!("{}…", "ä".repeat(255)));
    }

    #[test]
    fn own_filters_do_what_jinjas_do() {
        for (source, expected) in [
            ("{{ list|join(', ') }}", "1, 2, 3"),
            ("{{ 'cab'|sort|join }}{{ list|sort(reverse=true)|list }}{{ b|list }}", "abc[3, 2, 1][]"),
            ("{{ event.message|lines|join('|') }}", "one|two"),
            ("{{ event.message|split('o')|length }}", "3"),
            ("{{ event.message|replace('one', '1')|first }}", "1"),
            ("{{ long|truncate(5) }}{{ a|truncate(7) }}", "mmmm…<b> & c"),
            ("{{ none }}{{ event.missing }}.", "."),
        ] {
            assert_eq!(text(source).as_deref(), Ok(expected), "{source}");
        }
    }

    #[test]
    fn whatever_runs_too_long_or_grows_too_large_is_stopped() {
        let endless = "{% for a in long %}{% for b in long %}{% endfor %}{% endfor %}x";
        assert!(text(endless).unwrap_err().contains("fuel"), "{:?}", text(endless));
        for source in [
            "{% for a in long|lower %}{{ long }}{% endfor %}",
            "{% set a %}{% for a in long %}{{ long }}{% endfor %}{% endset %}x",
            "{{ long|replace('m', long) }}",
            "{{ event.message|join(long) }}",
            "{% for a in list %}{% for a in list %}{% for a in list %}{{ long }}{% endfor %}{% endfor %}{% endfor %}",
        ] {
            assert!(text(source).unwrap_err().contains("gives more than 65536 bytes"), "{source}: {:?}", text(source));
        }
        let raw = format!("{{% for a in long %}}{}{{% endfor %}}", "r".repeat(10 << 10));
        assert_eq!(text(&raw).unwrap_err(), "gives more than 65536 bytes");
        assert!(text(&"x".repeat(LONGEST_SOURCE + 1)).unwrap_err().contains("at most 16384"));
        for filter in ["split('')", "list", "sort", "replace('m', '\n')|lines"] {
            assert!(text(&format!("{{{{ long|{filter} }}}}")).unwrap_err().contains("1000 parts"), "{filter}");
        }
    }

    /// Tests have threads with as much stack as workers have.
    #[test]
    fn the_deepest_template_that_is_taken_does_not_exhaust_the_stack() {
        let signs = [("", " or a"), ("", "|upper"), ("not ", ""), ("-", ""), ("", ".b"), ("", " if a"), ("(", ")"), ("[", "]")];
        for depth in [0, 40, 70, 100, 140, 149] {
            for (before, after) in signs {
                for length in [40, 80, 120, 250] {
                    let (begin, end) = ("{% if a %}".repeat(depth), "{% endif %}".repeat(depth));
                    let _ = text(&format!("{begin}{{{{ {}a{} }}}}{end}", before.repeat(length), after.repeat(length)));
                }
            }
        }
    }

    #[test]
    fn errors_name_the_line() {
        for (source, expected) in [
            ("\n{{ a", "line 2: "),
            ("{{ b.c }}", "line 1: "),
            ("{{ 1 + a }}", "line 1: "),
            (" \n {% if false %}x{% endif %}", "gives no text"),
            ("{{ a / 0 }}", "line 1: "),
        ] {
            assert!(text(source).unwrap_err().starts_with(expected), "{source}: {:?}", text(source));
        }
        assert!(render_with("{{ missing }}", Escape::Url).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn no_template_panics_or_runs_away(source in "\\PC{0,80}") {
            let _ = text(&source);
        }

        #[test]
        fn no_template_of_jinjas_own_words_panics_or_runs_away(
            words in proptest::collection::vec(prop_oneof![
                Just("{% for a in "), Just("long"), Just(" %}"), Just("{% endfor %}"), Just("{{ "), Just(" }}"), Just("{% set a = "),
                Just("{% set a %}"), Just("{% endset %}"), Just("a"), Just("list"), Just("|join"), Just("|replace(a, long)"),
                Just("|split('')"), Just("|list"), Just("|sort"), Just("[1:]"), Just("[a]"), Just(" ~ "), Just(" + "), Just("1"),
                Just(" / "), Just("0"), Just("event"), Just(".metadata"), Just("|items"), Just("|dictsort"), Just("|round(999)"),
                Just("|int"), Just("[::-1]"), Just("|truncate(-1)"), Just("{% if "), Just("{% endif %}"), Just(" in "), Just("|float"),
                Just("|abs"), Just(" // "), Just(" % "), Just("-9223372036854775808"), Just("loop"), Just(".index"),
            ], 0..24),
        ) {
            if let Ok(text) = text(&words.concat()) {
                prop_assert!(text.len() <= LONGEST_TEXT);
            }
        }
    }
}
