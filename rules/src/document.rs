//! Parses YAML and JSON files into objects and records the line of each field.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned};

use crate::object::{Object, Origin};
use crate::problem::{Problem, Severity};
use crate::recognize::{Recognized, is_probably_rule, recognize};

/// The maximum number of YAML nodes in a file. Expanded aliases count, so that a small file cannot
/// exhaust the memory.
const MAX_NODES: usize = 1_000_000;
/// The maximum size of an object's fields in bytes. Each is kept with its path and line.
const MAX_OBJECT_BYTES: usize = 4 << 20;
/// What a field needs besides its path and text, in bytes.
const FIELD_BYTES: usize = 128;
/// The maximum number of nodes that aliases expand to.
const MAX_ALIASED_NODES: usize = 100_000;
/// The maximum depth of a document. CRDs, which are ignored, have about 40 levels.
const MAX_DEPTH: usize = 100;
/// The maximum depth of aliases within aliases.
const MAX_ALIAS_DEPTH: usize = 8;
/// The stack for reading a file, in bytes. A level takes up to 40 KiB without optimizations, and
/// the parser also recurses for keys that are not scalars. Unused parts take no memory.
const STACK: usize = 64 << 20;

/// The contents of a file.
#[derive(Default)]
pub struct Documents {
    /// The objects that are rules.
    pub objects: Vec<Object>,
    /// Problems of the file. If there are any, objects may be missing.
    pub problems: Vec<Problem>,
    /// What the objects take, in bytes. Aliases are expanded, so it may be far more than the file.
    pub bytes: usize,
    /// What they may take.
    max_bytes: usize,
    /// Whether objects are missing because of that.
    pub is_cut: bool,
}

/// Reads all documents of a file, including the items of Lists. Ignores kinds that are not rules.
/// Objects beyond `max_bytes` are problems.
pub fn read(file: &Arc<str>, text: &[u8], max_bytes: usize) -> Documents {
    stacker::grow(STACK, || read_all(file, text, max_bytes))
}

fn read_all(file: &Arc<str>, text: &[u8], max_bytes: usize) -> Documents {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MAX_NODES,
            max_events: 3 * MAX_NODES,
            max_documents: MAX_NODES,
            max_depth: MAX_DEPTH,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_ALIASED_NODES,
            max_replay_stack_depth: MAX_ALIAS_DEPTH,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        // A snippet may contain a secret.
        with_snippet: false,
    };
    let mut documents = Documents {
        max_bytes,
        ..Documents::default()
    };
    let mut reader = text;
    for document in serde_saphyr::read_with_options::<_, Spanned<Node>>(&mut reader, options) {
        match document {
            Ok(node) => documents.add(file, node, None),
            Err(error) => {
                let line = error.location().map(|location| location.line());
                documents.report(file, line, Severity::Error, reason(&error));
            }
        }
    }
    documents
}

impl Documents {
    /// A file that cannot be read.
    pub fn unread(problem: Problem) -> Self {
        Self {
            problems: vec![problem],
            ..Self::default()
        }
    }

    /// Adds a document, or the item of a list, with what it inherits from the list.
    fn add(&mut self, file: &Arc<str>, mut node: Spanned<Node>, list: Option<&List>) {
        let line = node.referenced.line();
        if let Some(List::Typed { api_version, kind }) = list {
            node.value.inherit("kind", kind, node.referenced);
            node.value
                .inherit("apiVersion", api_version, node.referenced);
        }
        let (api_version, kind) = (
            node.value.text("apiVersion").to_owned(),
            node.value.text("kind").to_owned(),
        );
        if kind.is_empty() || api_version.is_empty() {
            let is_item = list.is_some();
            let (severity, message) = match is_item || is_probably_rule(&api_version, &kind) {
                true => (Severity::Error, "apiVersion or kind is missing; add both"),
                false => (
                    Severity::Warning,
                    "ignored: apiVersion or kind is missing; add both",
                ),
            };
            return self.report(file, Some(line), severity, message.to_owned());
        }
        let recognized = recognize(&api_version, &kind);
        let is_kept = matches!(recognized, Recognized::Rule | Recognized::Mistake { .. });
        if is_kept && let Err(message) = self.reserve(&node.value) {
            return self.report(file, Some(line), Severity::Error, message);
        }
        match recognized {
            Recognized::Rule => self.objects.push(object(file, node)),
            Recognized::List => match node.value.into_items() {
                Some(items) => {
                    let list = List::new(api_version, &kind);
                    for item in items {
                        self.add(file, item, Some(&list));
                    }
                }
                // The name of another group's kind may just end in List.
                None if api_version != "v1" && !is_probably_rule(&api_version, "") => {}
                None => {
                    let message = format!("{kind} without items; set items to a list of objects");
                    self.report(file, Some(line), Severity::Error, message);
                }
            },
            Recognized::Other => {}
            Recognized::Mistake { field, message } => {
                let problem = object(file, node).problem(Severity::Error, field, message);
                self.problems.push(problem);
            }
        }
    }

    /// Adds the size of an object.
    fn reserve(&mut self, node: &Node) -> Result<(), String> {
        let bytes = node.bytes(0);
        if bytes > MAX_OBJECT_BYTES {
            return Err("the object has too many or too long fields; split it".to_owned());
        }
        if self.bytes + bytes > self.max_bytes {
            self.is_cut = true;
            let message = "the objects of the rules folder are too large, with their aliases \
                           expanded; remove some";
            return Err(message.to_owned());
        }
        self.bytes += bytes;
        Ok(())
    }

    fn report(&mut self, file: &Arc<str>, line: Option<u64>, severity: Severity, message: String) {
        self.problems.push(Problem {
            file: Some(file.to_string()),
            line,
            object: None,
            field: None,
            message,
            severity,
        });
    }
}

/// A list of objects.
enum List {
    /// A `List`, whose items have a kind of their own.
    Any,
    /// A list of one kind, such as `AlertList`. Its items may lack version and kind.
    Typed { api_version: String, kind: String },
}

impl List {
    fn new(api_version: String, kind: &str) -> Self {
        match kind.strip_suffix("List") {
            Some(kind) if !kind.is_empty() => Self::Typed {
                api_version,
                kind: kind.to_owned(),
            },
            _ => Self::Any,
        }
    }
}

/// The object of a document.
fn object(file: &Arc<str>, node: Spanned<Node>) -> Object {
    let mut lines = Vec::new();
    let line = node.referenced.line();
    let value = node.value.flatten("", line, &mut lines);
    let origin = Origin {
        file: Some(file.clone()),
        lines: lines.into_iter().collect(),
    };
    Object {
        value,
        origin: origin.into(),
    }
}

/// The reason without the quoted values, which may be secrets.
fn reason(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let first = text.lines().next().unwrap_or_default();
    format!("invalid YAML: {first}; correct it")
}

/// A YAML value with the line of each part.
enum Node {
    Leaf(Value),
    List(Vec<Spanned<Node>>),
    Map(Vec<(String, Spanned<Node>)>),
}

impl Node {
    /// The string value of a key; empty if there is none.
    fn text(&self, wanted: &str) -> &str {
        let Self::Map(entries) = self else {
            return "";
        };
        match entries
            .iter()
            .find(|(key, _)| key == wanted)
            .map(|(_, node)| &node.value)
        {
            Some(Self::Leaf(Value::String(text))) => text,
            _ => "",
        }
    }

    /// Adds a key that is missing or empty.
    fn inherit(&mut self, key: &str, value: &str, location: Location) {
        if !self.text(key).is_empty() {
            return;
        }
        if let Self::Map(entries) = self {
            entries.retain(|(name, _)| name != key);
            let leaf = Self::Leaf(Value::from(value));
            entries.push((key.to_owned(), Spanned::new(leaf, location, location)));
        }
    }

    /// The items of a Kubernetes List; `None` if there is no list of items.
    fn into_items(self) -> Option<Vec<Spanned<Self>>> {
        let Self::Map(entries) = self else {
            return None;
        };
        let (_, items) = entries.into_iter().find(|(key, _)| key == "items")?;
        match items.value {
            Self::List(items) => Some(items),
            Self::Leaf(Value::Null) => Some(Vec::new()),
            _ => None,
        }
    }

    /// The memory of the fields below a path of this length.
    fn bytes(&self, path: usize) -> usize {
        let own = path + FIELD_BYTES;
        match self {
            Self::Leaf(Value::String(text)) => own.saturating_add(text.len()),
            Self::Leaf(_) => own,
            Self::List(items) => items.iter().fold(own, |sum, item| {
                sum.saturating_add(item.value.bytes(path + 8))
            }),
            Self::Map(entries) => entries.iter().fold(own, |sum, (key, node)| {
                sum.saturating_add(node.value.bytes(path + key.len() + 1))
            }),
        }
    }

    /// Converts to JSON and records the line of each field.
    fn flatten(self, path: &str, line: u64, lines: &mut Vec<(String, u64)>) -> Value {
        lines.push((path.to_owned(), line));
        match self {
            Self::Leaf(value) => value,
            Self::List(items) => items
                .into_iter()
                .enumerate()
                .map(|(position, node)| {
                    let line = node.referenced.line();
                    node.value
                        .flatten(&format!("{path}[{position}]"), line, lines)
                })
                .collect(),
            Self::Map(entries) => {
                let mut map = Map::with_capacity(entries.len());
                for (key, node) in entries {
                    let inner = match path {
                        "" => key.clone(),
                        // The names contain dots.
                        "metadata.annotations" | "metadata.labels" => format!("{path}[{key}]"),
                        _ => format!("{path}.{key}"),
                    };
                    let line = node.referenced.line();
                    map.insert(key, node.value.flatten(&inner, line, lines));
                }
                Value::Object(map)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Leaf(
            Number::from_f64(value).map_or(Value::Null, Value::Number),
        ))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_text(text: &str) -> (Vec<String>, Vec<String>) {
        let documents = read(&Arc::from("a.yaml"), text.as_bytes(), usize::MAX);
        let objects = documents
            .objects
            .iter()
            .map(|object| object.identity().to_string())
            .collect();
        (
            objects,
            documents.problems.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn objects_whose_aliases_expand_beyond_the_limit_are_reported() {
        let fields: String = (0..40).map(|n| format!("  k{n}: *long\n")).collect();
        let text = "x".repeat(20_000);
        let object = format!("{SECRET}a\n  x: &long {text}\ndata:\n{fields}---\n{SECRET}b\n");
        let documents = |max| read(&Arc::from("a.yaml"), object.as_bytes(), max);
        let (all, few) = (documents(1 << 20), documents(100_000));
        assert_eq!((all.objects.len(), all.problems.len()), (2, 0));
        assert!(all.bytes > 40 * text.len() && !all.is_cut);
        assert_eq!((few.objects.len(), few.problems.len()), (1, 1));
        assert!(few.bytes <= 100_000 && few.is_cut);
        let huge = object.replace(&text, &"x".repeat(200_000));
        let huge = read(&Arc::from("a.yaml"), huge.as_bytes(), usize::MAX);
        assert_eq!((huge.objects.len(), huge.problems.len()), (1, 1));
    }

    const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: ";

    #[test]
    fn a_document_that_is_too_deep_is_an_error_and_does_not_overflow_the_stack() {
        let nested = |depth: usize| {
            let text = format!("a: {}1{}", "{a: ".repeat(depth), "}".repeat(depth));
            let read = move || read_text(&text).1.join("");
            let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(read);
            thread
                .expect("it starts")
                .join()
                .expect("it does not panic")
        };
        assert!(nested(90).contains("kind is missing"), "{}", nested(90));
        assert!(nested(100_000).contains("invalid YAML"));
    }

    #[test]
    fn documents_and_lists_are_read_and_other_kinds_are_ignored() {
        let list = "apiVersion: v1\nkind: List\nitems:\n\
                    - {apiVersion: v1, kind: ConfigMap, metadata: {name: c}}\n";
        let other = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n";
        let (objects, problems) = read_text(&format!(
            "---\n{SECRET}a\n---\n# nothing\n---\n{list}---\n{other}---\n{SECRET}b\n"
        ));
        assert_eq!(
            objects,
            [
                "Secret default/a",
                "ConfigMap default/c",
                "Secret default/b"
            ]
        );
        assert_eq!(problems, Vec::<String>::new());
    }

    #[test]
    fn every_field_has_its_line() {
        let text = format!("{SECRET}a\n---\n{SECRET}b\ndata:\n  list:\n  - x\n  - key: y\n");
        let documents = read(&Arc::from("a.yaml"), text.as_bytes(), usize::MAX);
        let origin = &documents.objects[1].origin;
        for (field, line) in [
            ("", 6),
            ("metadata.name", 9),
            ("data.list[0]", 12),
            ("data.list[1].key", 13),
            ("data.no", 11),
        ] {
            assert_eq!(origin.line(field), Some(line), "{field}");
        }
    }

    #[test]
    fn an_invalid_document_is_reported_with_its_line_and_without_values() {
        let text = format!(
            "{SECRET}a\n---\n\
             {SECRET}b\nstringData:\n  token: s3cret\n  token: s3cret\n---\n\
             {SECRET}c\n"
        );
        let (objects, problems) = read_text(&text);
        assert_eq!(objects, ["Secret default/a", "Secret default/c"]);
        assert!(
            problems.len() == 1 && problems[0].starts_with("a.yaml:12: invalid YAML"),
            "{problems:?}"
        );
        for text in [
            format!("{SECRET}a\n---\n{SECRET}b\nstringData: {{token: s3cret\n"),
            format!("{SECRET}a\ndata: \"s3cret"),
        ] {
            let (_, problems) = read_text(&text);
            assert!(
                problems.len() == 1 && !problems[0].contains("s3cret"),
                "{problems:?}"
            );
        }
    }

    #[test]
    fn a_document_without_a_kind_is_reported() {
        for text in ["replicas: 3\n", "- a\n", "text\n"] {
            assert!(
                read_text(text).1[0].contains("apiVersion or kind is missing"),
                "{text}"
            );
        }
        assert_eq!(read_text(""), (vec![], vec![]));
    }

    #[test]
    fn items_of_a_typed_list_have_its_version_and_kind() {
        let list = |kind: &str, item: &str| {
            let group = "notification.toolkit.fluxcd.io/v1beta3";
            read_text(&format!(
                "apiVersion: {group}\nkind: {kind}\nitems:\n- {item}\n"
            ))
        };
        let (objects, problems) = list("AlertList", "{metadata: {name: a}}");
        assert_eq!(
            (objects, problems.len()),
            (vec!["Alert default/a".into()], 0)
        );
        let (objects, _) = list("ProviderList", "{kind: Provider, metadata: {name: p}}");
        assert_eq!(objects, ["Provider default/p"]);
        let documents = read(
            &Arc::from("a.yaml"),
            b"apiVersion: v1\nkind: List\nitems:\n- {metadata: {name: a}}\n",
            usize::MAX,
        );
        assert!(documents.objects.is_empty());
        assert_eq!(documents.problems[0].severity, Severity::Error);
        let (objects, problems) =
            read_text("apiVersion: apps/v1\nkind: DeploymentList\nitems:\n- {metadata: {}}\n");
        assert_eq!((objects.len(), problems.len()), (0, 0));
    }

    #[test]
    fn json_with_tabs_is_read() {
        let text = concat!(
            "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Secret\",\n",
            "\t\"metadata\": {\"name\": \"\\ud83d\\ude00\"}\n}\n",
        );
        assert_eq!(read_text(text).0, ["Secret default/\u{1f600}"]);
    }

    #[test]
    fn an_object_with_too_many_or_too_long_fields_is_an_error() {
        let many: String = (0..40_000).map(|key| format!("  k{key}: v\n")).collect();
        let inner: String = (0..200).map(|key| format!("{key}: v, ")).collect();
        let (open, close) = (
            format!("{{{}: ", "k".repeat(1_000)).repeat(60),
            "}".repeat(60),
        );
        let long = format!("  x: {open}{{{inner}}}{close}\n");
        let few: String = (0..10_000).map(|key| format!("  k{key}: v\n")).collect();
        let read = |fields: &str| read_text(&format!("{SECRET}s\nstringData:\n{fields}"));
        for fields in [many, long] {
            let (objects, problems) = read(&fields);
            assert!(
                objects.is_empty() && problems[0].contains("too many"),
                "{problems:?}"
            );
        }
        assert_eq!(read(&few).1, Vec::<String>::new());
    }

    #[test]
    fn aliases_do_not_exhaust_the_memory() {
        let mut text = format!("{SECRET}a\nx0: &x0 [a,a,a,a,a,a,a,a,a,a]\n");
        for level in 1..30 {
            let alias = vec![format!("*x{}", level - 1); 10].join(",");
            text.push_str(&format!("x{level}: &x{level} [{alias}]\n"));
        }
        let (objects, problems) = read_text(&text);
        assert!(objects.is_empty() && problems.len() == 1, "{problems:?}");
    }

    /// A regular expression of texts with YAML syntax.
    const YAML: &str = concat!(
        "([a-zA-Z0-9:\\-\\n \\[\\]{}&*!|>'\",#%@`?.~\\\\\\t]",
        "|kind: |apiVersion: |- |---\\n|é){0,80}",
    );

    proptest! {
        #[test]
        fn no_text_causes_a_panic(text in YAML) {
            let _ = read(&Arc::from("a.yaml"), text.as_bytes(), usize::MAX);
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&Arc::from("a.yaml"), &bytes, usize::MAX);
        }
    }
}
