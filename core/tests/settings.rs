//! Settings from their layers.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tidings_core::runtime::config::{
    AddressSettings, Flag, LinksSettings, MemberRules, Role, RulesFrom, Settings, Sources,
};
use tidings_core::runtime::telemetry::LogFormat;

/// A folder with settings files, and the sources of the settings.
struct Layers {
    folder: TempDir,
    sources: Sources,
}

impl Layers {
    fn new() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
            sources: Sources::default(),
        }
    }

    fn with_file(mut self, yaml: &str) -> Self {
        self.write("tidings.yaml", yaml);
        self.sources.file = Some(self.path("tidings.yaml").into());
        self
    }

    fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.sources
            .environment
            .push((name.to_owned(), value.to_owned()));
        self
    }

    fn with_flag(mut self, name: &str, key: &str, value: &str) -> Self {
        self.sources.flags.push(Flag {
            name: name.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
        });
        self
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn settings(&self) -> Settings {
        Settings::load(&self.sources).unwrap()
    }

    /// The mistakes as users see them, without the name of the folder.
    fn mistakes(&self) -> Vec<String> {
        let mistakes = Settings::load(&self.sources).unwrap_err();
        mistakes
            .0
            .iter()
            .map(|mistake| mistake.to_string().replace(&self.path(""), ""))
            .collect()
    }
}

#[test]
fn defaults_apply_without_any_layer() {
    let settings = Layers::new().settings();
    assert_eq!(
        (
            settings.cluster.as_str(),
            settings.listen.to_string().as_str()
        ),
        ("default", "127.0.0.1:9090")
    );
    assert_eq!(
        (settings.data.as_path(), settings.shutdown_grace),
        (Path::new(".tidings"), Duration::from_secs(10))
    );
    assert_eq!(
        (settings.log.filter.as_str(), settings.log.format),
        ("info", LogFormat::Text)
    );
    assert_eq!((settings.nats.url, settings.rules.sources), (None, vec![]));
    assert_eq!(settings.ingest.dedupe_interval, Duration::from_secs(300));
    assert_eq!(
        (settings.ingest.labels, settings.ingest.label_kinds.len()),
        (None, 12)
    );
    let events = settings.ingest.kubernetes_events;
    assert_eq!(
        (events.watch, events.flux_objects, events.types),
        (false, false, vec!["Warning".to_owned()])
    );
    assert_eq!(
        (settings.worker.pools, settings.worker.concurrency),
        (vec!["default".to_owned()], 512)
    );
    assert_eq!(settings.links, LinksSettings::default());
}

#[test]
fn rules_come_from_the_folder_or_cluster_of_the_higher_layer() {
    let folder = Layers::new().with_file("rules: {dir: /etc/rules}");
    assert_eq!(
        folder.settings().rules.sources,
        [RulesFrom::Dir("/etc/rules".into())]
    );
    let cluster = folder.with_flag("--rules", "rules.from", "cluster");
    assert_eq!(cluster.settings().rules.sources, [RulesFrom::Cluster]);
    let back = Layers::new()
        .with_file("rules: {from: cluster}")
        .with_variable("TIDINGS_RULES__DIR", "cluster");
    assert_eq!(
        back.settings().rules.sources,
        [RulesFrom::Dir("cluster".into())],
        "a folder of that name"
    );
    let both = Layers::new().with_file("rules: {from: cluster, dir: /etc/rules}");
    assert_eq!(
        both.mistakes(),
        ["rules.from: set either rules.from or rules.dir, not both"]
    );
    let other = Layers::new().with_file("rules: {from: /etc/rules}");
    assert!(
        other.mistakes()[0].contains("cluster; for a folder set rules.dir"),
        "{:?}",
        other.mistakes()
    );
}

#[test]
fn several_sources_of_rules_replace_one_of_a_lower_layer() {
    let member = RulesFrom::Member(MemberRules {
        name: "eu".into(),
        kubeconfig: "/etc/eu.conf".into(),
        context: Some("admin".into()),
    });
    let several = Layers::new()
        .with_file("rules: {sources: [cluster, /etc/rules, \"cluster=eu:/etc/eu.conf#admin\"]}");
    assert_eq!(
        several.settings().rules.sources,
        [
            RulesFrom::Cluster,
            RulesFrom::Dir("/etc/rules".into()),
            member.clone(),
        ]
    );
    let one = several.with_flag("--rules", "rules.dir", "rules");
    assert_eq!(
        one.settings().rules.sources,
        [RulesFrom::Dir("rules".into())]
    );
    let variable = Layers::new()
        .with_file("rules: {from: cluster}")
        .with_variable(
            "TIDINGS_RULES__SOURCES",
            "rules,cluster=eu:/etc/eu.conf#admin",
        );
    assert_eq!(
        variable.settings().rules.sources,
        [RulesFrom::Dir("rules".into()), member]
    );
    let both = Layers::new().with_file("rules: {from: cluster, sources: [cluster]}");
    assert_eq!(
        both.mistakes(),
        ["rules.sources: set either rules.sources, or one of rules.from and rules.dir, not both"]
    );
    let own =
        Layers::new().with_file("{cluster: eu, rules: {sources: [\"cluster=eu:/etc/eu.conf\"]}}");
    let mistakes = own.mistakes();
    assert!(
        mistakes[0].contains("the hub's own cluster"),
        "{mistakes:?}"
    );
}

#[test]
fn every_link_pattern_has_a_key() {
    let layers = Layers::new()
        .with_file("links: {enabled: true, dashboard: 'https://d/{{ name }}'}")
        .with_variable("TIDINGS_LINKS__COMMIT_STATUS", "https://s/{{ name }}");
    let expected = LinksSettings {
        enabled: true,
        commit: None,
        dashboard: Some("https://d/{{ name }}".into()),
        commit_status: Some("https://s/{{ name }}".into()),
    };
    assert_eq!(layers.settings().links, expected);
}

#[test]
fn each_role_has_its_own_admin_port_unless_one_is_given() {
    let ports = |settings: &Settings| {
        [Role::Up, Role::Ingest, Role::Router, Role::Worker]
            .map(|role| settings.admin_for(role).port())
    };
    assert_eq!(ports(&Layers::new().settings()), [8080, 8080, 8081, 8082]);
    assert_eq!(
        ports(&Layers::new().with_file("admin: ':7'").settings()),
        [7; 4]
    );
}

#[test]
fn a_higher_layer_wins_key_by_key() {
    let layers = Layers::new()
        .with_file(
            "cluster: file\nnats: {url: 'file:1', storage_limit: 10GiB}\n\
             worker: {pools: [file], concurrency: 5}\n",
        )
        .with_variable("TIDINGS_NATS__URL", "env:1")
        .with_variable("TIDINGS_WORKER__POOLS", "env, other")
        .with_flag("--nats", "nats.url", "flag:1")
        .with_flag("--pool", "worker.pools", "a")
        .with_flag("--pool", "worker.pools", "b");
    let settings = layers.settings();
    assert_eq!(
        (settings.cluster.as_str(), settings.worker.concurrency),
        ("file", 5)
    );
    assert_eq!(
        (
            settings.nats.url.unwrap().to_string().as_str(),
            settings.nats.storage_limit
        ),
        ("nats://flag:1", Some(10 << 30))
    );
    assert_eq!(settings.worker.pools, ["a", "b"]);
    let without_flags = Layers {
        sources: Sources {
            flags: Vec::new(),
            ..layers.sources
        },
        ..layers
    };
    assert_eq!(without_flags.settings().worker.pools, ["env", "other"]);
}

#[test]
fn every_invalid_entry_of_a_list_is_reported() {
    let layers = Layers::new()
        .with_file(
            "ingest:\n  label_kinds: [Pod, pods]\n  kubernetes_events: \
             {severities: [BackOff=warn, Normal]}\n",
        )
        .with_flag("--event-types", "ingest.kubernetes_events.types", "Warning");
    assert_eq!(
        layers.mistakes(),
        [
            concat!(
                r#"ingest.label_kinds (file tidings.yaml): expected a kind with its "#,
                r#"group, such as Deployment.apps, apps/v1/Deployment or Pod, got "pods""#,
            ),
            concat!(
                r#"ingest.kubernetes_events.severities (file tidings.yaml): expected "#,
                r#"REASON=SEVERITY or TYPE=SEVERITY with trace, info, warn or error, such "#,
                r#"as BackOff=warn, got "Normal""#,
            ),
        ]
    );
}

#[test]
fn the_file_may_be_named_by_a_variable_and_may_be_empty() {
    let layers = Layers::new();
    layers.write("a.yaml", "cluster: eu-1");
    let named = layers.path("a.yaml");
    assert_eq!(
        layers
            .with_variable("TIDINGS_CONFIG", &named)
            .settings()
            .cluster,
        "eu-1"
    );
    assert_eq!(
        Layers::new().with_file("# nothing yet\n").settings(),
        Layers::new().settings()
    );
    assert_eq!(
        Layers::new().with_file("nats:\ncluster:\n").settings(),
        Layers::new().settings()
    );
}

#[test]
fn all_mistakes_are_reported_together_with_their_source() {
    let layers = Layers::new()
        .with_file("listen: 9090\nworker: {concurrency: 0, pool: [a]}\nrules: here\nclutser: x\n")
        .with_variable("TIDINGS_INGEST__DEDUPE_INTERVAL", "5")
        .with_variable("TIDINGS_NATS_URL", "a:1")
        .with_flag("--log-format", "log.format", "xml");
    assert_eq!(
        layers.mistakes(),
        [
            concat!(
                r#"listen (file tidings.yaml): expected an address and a port, such as "#,
                r#"127.0.0.1:9090 or :9090, got "9090""#,
            ),
            r#"log.format (flag --log-format): expected text or json, got "xml""#,
            concat!(
                r#"ingest.dedupe_interval (variable TIDINGS_INGEST__DEDUPE_INTERVAL): "#,
                r#"expected a duration above 0 with its unit, such as 30s or 5m, got "5""#,
            ),
            concat!(
                r#"worker.concurrency (file tidings.yaml): expected a whole number above "#,
                r#"0, such as 256, got "0""#,
            ),
            "clutser (file tidings.yaml): unknown key; did you mean cluster?",
            "nats_url (variable TIDINGS_NATS_URL): unknown key; did you mean nats.url?",
            "rules (file tidings.yaml): expected a section with keys, got a value",
            "worker.pool (file tidings.yaml): unknown key; did you mean worker.pools?",
        ]
    );
}

#[test]
fn an_unknown_key_that_is_like_no_other_is_answered_with_the_keys_of_its_section() {
    let mistakes = Layers::new()
        .with_file("nats: {seed: x}\nthreads: 4\nqueue: {size: 5}\n")
        .mistakes();
    let [section, unknown, top] = &mistakes[..] else {
        panic!("{mistakes:?}")
    };
    assert!(
        section.contains("expected one of nats.credentials, "),
        "{section}"
    );
    assert!(top.contains("expected one of admin, cluster, "), "{top}");
    assert!(
        unknown.contains("expected one of admin, cluster, console, "),
        "{unknown}"
    );
}

#[test]
fn networks_are_lists() {
    let layers = Layers::new()
        .with_file("worker: {addresses: {allow: [10.1.0.0/16, 127.0.0.1], loopback: false}}\n")
        .with_variable("TIDINGS_WORKER__ADDRESSES__DENY", "10.0.0.0/8,fd00::/8");
    let AddressSettings {
        allow,
        deny,
        loopback,
    } = layers.settings().worker.addresses;
    let shown =
        |networks: Vec<ipnet::IpNet>| networks.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        (shown(allow), shown(deny), loopback),
        (
            vec!["10.1.0.0/16".into(), "127.0.0.1/32".into()],
            vec!["10.0.0.0/8".into(), "fd00::/8".into()],
            false
        )
    );
    let mistakes = Layers::new()
        .with_file("worker: {addresses: {deny: [10.0.0.0/8, localhost]}}\n")
        .mistakes();
    let expected = concat!(
        r#"worker.addresses.deny (file tidings.yaml): expected a network or address, such "#,
        r#"as 10.0.0.0/8 or 10.1.2.3, got "localhost""#,
    );
    assert_eq!(mistakes, [expected]);
}

#[test]
fn an_unreadable_file_is_a_mistake() {
    let layers = Layers::new().with_flag("--log-format", "log.format", "xml");
    let missing = Layers {
        sources: Sources {
            file: Some(layers.path("none.yaml").into()),
            ..layers.sources
        },
        ..layers
    };
    let mistakes = missing.mistakes();
    assert!(
        mistakes[0].starts_with("file none.yaml cannot be read: ") && mistakes.len() == 2,
        "{mistakes:?}"
    );
    for yaml in ["hunter2", "- hunter2", "a: [hunter2", "a: 1\na: hunter2"] {
        let mistakes = Layers::new().with_file(yaml).mistakes();
        assert!(
            mistakes.len() == 1 && !mistakes[0].contains("hunter2"),
            "{yaml}: {mistakes:?}"
        );
    }
    let mistakes = Layers::new().with_file("cluster: a\nnats: {").mistakes();
    assert!(
        mistakes[0].starts_with("file tidings.yaml is not valid YAML: ")
            && mistakes[0].contains("line 3"),
        "{mistakes:?}"
    );
}

#[test]
fn secrets_are_given_by_value_or_file_and_the_higher_layer_wins() {
    let layers = Layers::new();
    layers.write("token", "from-file\n");
    let path = layers.path("token");
    let layers = layers.with_file("nats: {token: from-yaml}");
    assert_eq!(layers.settings().nats.token.unwrap().expose(), "from-yaml");
    let layers = layers.with_variable("TIDINGS_NATS__TOKEN_FILE", &path);
    assert_eq!(layers.settings().nats.token.unwrap().expose(), "from-file");
    let layers = layers.with_flag("--nats-token", "nats.token", "from-flag");
    assert_eq!(layers.settings().nats.token.unwrap().expose(), "from-flag");
}

#[test]
fn contradictory_credentials_are_mistakes() {
    for (yaml, mistake) in [
        (
            "{token: hunter2, token_file: /x}",
            "nats.token (file tidings.yaml): set either nats.token or nats.token_file, not both",
        ),
        (
            "{username: a}",
            "nats.password: required, because nats.username is set",
        ),
        (
            "{password: hunter2}",
            "nats.username: required, because nats.password is set",
        ),
        (
            "{tls: {key: a}}",
            "nats.tls.cert: required, because nats.tls.key is set",
        ),
        (
            "{credentials: a, token: hunter2}",
            "nats: set only one of nats.username, nats.token, nats.credentials and a login in \
             nats.url",
        ),
        (
            "{url: 'nats://me:hunter2@host', token: hunter2}",
            "nats: set only one of nats.username, nats.token, nats.credentials and a login in \
             nats.url",
        ),
        (
            "{url: 'http://a:hunter2@b'}",
            "nats.url (file tidings.yaml): expected addresses of NATS servers separated by commas, such as nats://host:4222",
        ),
        (
            "{username: a, password_file: ''}",
            "nats.password_file (file tidings.yaml): file \"\" cannot be read: No such file or \
             directory (os error 2)",
        ),
    ] {
        assert_eq!(
            Layers::new().with_file(&format!("nats: {yaml}")).mistakes(),
            [mistake],
            "{yaml}"
        );
    }
}

#[test]
fn a_login_in_the_url_is_used() {
    let nats = |url: &str| {
        Layers::new()
            .with_file(&format!("nats: {{url: '{url}'}}"))
            .settings()
            .nats
    };
    let by_password = nats("nats://a:1,nats://me:hunter%2F2@b:1");
    assert_eq!(
        (
            by_password.username.as_deref(),
            by_password.password.unwrap().expose()
        ),
        (Some("me"), "hunter/2")
    );
    assert!(
        by_password
            .url
            .unwrap()
            .addresses()
            .iter()
            .all(|address| !address.has_user_pass())
    );
    let by_token = nats("nats://hunter2@a:1");
    assert!(
        !serde_json::to_string(&by_token)
            .unwrap()
            .contains("hunter2")
            && !format!("{by_token:?}").contains("hunter2")
    );
    assert_eq!(
        (by_token.username, by_token.token.unwrap().expose()),
        (None, "hunter2")
    );
}

#[test]
fn secrets_are_never_printed() {
    let settings = Layers::new()
        .with_file("nats: {url: 'nats://a:1', username: me, password: hunter2}")
        .settings();
    let redacted = serde_json::to_string(&settings.redacted()).unwrap();
    assert!(
        !redacted.contains("hunter2") && !format!("{settings:?}").contains("hunter2"),
        "{redacted}"
    );
    for shown in [
        r#""url":"nats://a:1""#,
        r#""username":"me","password":"***","token":null"#,
        r#""dedupe_interval":"5m""#,
    ] {
        assert!(redacted.contains(shown), "{shown}: {redacted}");
    }
}

#[test]
fn variables_of_kubernetes_services_are_ignored() {
    let mut layers = Layers::new();
    for (name, value) in [
        ("TIDINGS_PORT", "tcp://10.0.0.1:80"),
        ("TIDINGS_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("TIDINGS_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("TIDINGS_PORT_80_TCP_PROTO", "tcp"),
        ("TIDINGS_INGEST_SERVICE_HOST", "10.0.0.1"),
        ("TIDINGS_INGEST_SERVICE_PORT_HTTP", "80"),
        ("HOME", "/"),
        ("TIDINGS_CLUSTER", ""),
    ] {
        layers = layers.with_variable(name, value);
    }
    assert_eq!(layers.settings(), Layers::new().settings());
    assert_eq!(
        Layers::new()
            .with_variable("TIDINGS_PORT", "80")
            .mistakes()
            .len(),
        1
    );
}
