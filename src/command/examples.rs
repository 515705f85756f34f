//! The examples in the help of each command, and in its man page.

use clap::Command;

/// The examples of each command, by its words. A test parses them.
const EXAMPLES: &[(&[&str], &str)] = &[
    (
        &["up"],
        "tidings up --rules DIR
tidings up --rules DIR --listen :9090 --console",
    ),
    (
        &["ingest"],
        "tidings ingest --nats nats://nats:4222 --listen :9090
tidings ingest --edge --cluster prod --data DIR --nats tls://hub.example.com:4222",
    ),
    (
        &["router"],
        "tidings router --nats nats://nats:4222 --rules cluster",
    ),
    (
        &["worker"],
        "tidings worker --nats nats://nats:4222 --rules cluster
tidings worker --nats nats://nats:4222 --rules cluster --pool slow",
    ),
    (
        &["bridge"],
        "tidings bridge --name audit --url https://events.example.com/ --from all
tidings bridge --name all --create-stream",
    ),
    (
        &["test"],
        "tidings test --rules DIR --event event.json
tidings test --rules DIR --event event.json --labels team=shop --send",
    ),
    (
        &["check"],
        "tidings check --rules DIR
tidings check --rules cluster --strict",
    ),
    (
        &["tap"],
        "tidings tap
tidings tap --cluster prod --severity error --since 1h --no-follow --output json",
    ),
    (
        &["trace"],
        "tidings trace --event 3f2a9c1d
tidings trace --object Kustomization/apps/shop --since 2h --rules DIR
tidings trace --commit 8ba2d1c --output json",
    ),
    (
        &["status"],
        "tidings status
tidings status --output json --nats nats://nats:4222",
    ),
    (&["top"], "tidings top --interval 5s"),
    (
        &["deliveries"],
        "tidings deliveries list --provider apps/slack",
    ),
    (
        &["deliveries", "list"],
        "tidings deliveries list --provider apps/slack
tidings deliveries list --state ready --output json",
    ),
    (
        &["dead"],
        "tidings dead list
tidings dead replay --provider apps/slack --reason unauthorized",
    ),
    (
        &["dead", "list"],
        "tidings dead list --newer-than 12h
tidings dead list --provider apps/slack --output json",
    ),
    (&["dead", "show"], "tidings dead show 3f2a9c1d"),
    (
        &["dead", "replay"],
        "tidings dead replay 3f2a9c1d
tidings dead replay --provider apps/slack --reason unauthorized --dry-run",
    ),
    (
        &["dead", "drop"],
        "tidings dead drop 3f2a9c1d --yes
tidings dead drop --older-than 30d --dry-run",
    ),
    (
        &["replay"],
        "tidings replay --since 2h --alert apps/on-call --rules DIR          Show what it would do
tidings replay --since 2h --alert apps/on-call --rules DIR --yes    Replay it
tidings replay --missing --since 12h --rules DIR                    Replay lost deliveries",
    ),
    (
        &["audit"],
        "tidings audit
tidings audit --since 7d --output json",
    ),
    (
        &["providers"],
        "tidings providers
tidings providers example slack
tidings providers circuits",
    ),
    (
        &["providers", "example"],
        "tidings providers example slack >slack.yaml",
    ),
    (
        &["providers", "pause"],
        "tidings providers pause apps/slack --reason 'maintenance until 18:00'",
    ),
    (
        &["providers", "resume"],
        "tidings providers resume apps/slack",
    ),
    (
        &["providers", "circuits"],
        "tidings providers circuits --output json",
    ),
    (&["shadow"], "tidings shadow report --since 24h"),
    (
        &["shadow", "report"],
        "tidings shadow report --since 24h --samples 50
tidings shadow report --output json",
    ),
    (&["rules"], "tidings rules forget alert apps/on-call"),
    (
        &["rules", "forget"],
        "tidings rules forget alert apps/on-call --dry-run
tidings rules forget provider prod:apps/slack --yes",
    ),
    (
        &["fleet"],
        "tidings fleet init fleet --url tls://hub.example.com:4222
tidings fleet add prod
tidings fleet list",
    ),
    (
        &["fleet", "init"],
        "tidings fleet init fleet --listen 0.0.0.0:4222 --url tls://hub.example.com:4222",
    ),
    (
        &["fleet", "add"],
        "tidings fleet add prod --label env=prod --events-per-second 50",
    ),
    (
        &["fleet", "add-tap"],
        "tidings fleet add-tap security --filter 'events.*.*.*.error'
tidings fleet add-tap shop --cluster prod",
    ),
    (&["fleet", "list"], "tidings fleet list --output json"),
    (&["fleet", "rotate"], "tidings fleet rotate prod"),
    (&["fleet", "revoke"], "tidings fleet revoke prod"),
    (
        &["fleet", "remove"],
        "tidings fleet remove prod --dry-run
tidings fleet remove prod --yes",
    ),
    (
        &["fleet", "rename"],
        "tidings fleet rename prod prod-eu --rules DIR --yes
tidings fleet rename prod prod-eu --rules DIR --finish --yes",
    ),
    (
        &["fleet", "label"],
        "tidings fleet label prod env=prod tier-",
    ),
    (
        &["fleet", "set"],
        "tidings fleet set prod --events-per-second 100 --visible-to platform",
    ),
    (
        &["fleet", "add-worker"],
        "tidings fleet add-worker slow-1 --pool slow",
    ),
    (
        &["fleet", "remove-worker"],
        "tidings fleet remove-worker slow-1",
    ),
    (&["fleet", "update"], "tidings fleet update"),
    (&["fleet", "permissions"], "tidings fleet permissions"),
    (
        &["streams"],
        "tidings streams plan --clusters 50
tidings streams apply --dry-run",
    ),
    (
        &["streams", "plan"],
        "tidings streams plan --clusters 50 --events-per-second 0.5 --outage 8h",
    ),
    (
        &["streams", "apply"],
        "tidings streams apply --replicas 3 --dry-run",
    ),
    (
        &["streams", "restored"],
        "tidings streams restored --taken-at 2026-01-02T15:04:05Z",
    ),
    (
        &["streams", "recreate-consumer"],
        "tidings streams recreate-consumer --from-time 90m",
    ),
    (
        &["completions"],
        "tidings completions bash >/etc/bash_completion.d/tidings
tidings completions zsh >\"${fpath[1]}/_tidings\"
tidings completions fish >~/.config/fish/completions/tidings.fish",
    ),
    (
        &["man"],
        "tidings man | man -l -
tidings man --write /usr/local/share/man/man1",
    ),
    (
        &["crds"],
        "tidings crds | kubectl apply --server-side -f -
tidings crds --write crds",
    ),
];

/// Adds the examples to the help of each command.
pub fn add(mut command: Command) -> Command {
    for (words, examples) in EXAMPLES {
        command = add_to(command, words, examples);
    }
    command
}

fn add_to(command: Command, words: &[&str], examples: &str) -> Command {
    match words {
        [] => command.after_help(format!("Examples:\n{}", indented(examples))),
        [word, rest @ ..] => {
            command.mut_subcommand(*word, |command| add_to(command, rest, examples))
        }
    }
}

fn indented(examples: &str) -> String {
    let lines = examples.lines().map(|line| format!("  {line}"));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::cli;
    use super::*;

    /// The words of an example: without redirections, pipes and what it says beside.
    fn words(example: &str) -> Vec<String> {
        let example = example.split(['|', '>']).next().unwrap_or_default();
        let example = example.split("   ").next().unwrap_or_default();
        let mut words = Vec::new();
        for (index, part) in example.split('\'').enumerate() {
            match index % 2 {
                0 => words.extend(part.split_whitespace().map(str::to_owned)),
                _ => words.push(part.to_owned()),
            }
        }
        words
    }

    fn without_examples(command: &Command, path: &str, missing: &mut Vec<String>) {
        let help = command.get_after_help().map(ToString::to_string);
        if !help.unwrap_or_default().starts_with("Examples:") {
            missing.push(path.to_owned());
        }
        let shown = command
            .get_subcommands()
            .filter(|command| !command.is_hide_set());
        for command in shown {
            without_examples(command, &format!("{path} {}", command.get_name()), missing);
        }
    }

    #[test]
    fn every_command_has_examples_of_itself_that_can_be_parsed() {
        let mut missing = Vec::new();
        without_examples(&cli(), "tidings", &mut missing);
        assert_eq!(missing, [""; 0]);
        for (command, examples) in EXAMPLES {
            for example in examples.lines() {
                let words = words(example);
                assert_eq!(words[1..=command.len()], **command, "{example}");
                let parsed = cli().try_get_matches_from(&words);
                assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
            }
        }
    }

    /// A flag that a command takes and does nothing with is hidden, as a rule.
    fn hidden_flags(command: &Command, hidden: &mut Vec<String>) {
        let flags = command.get_arguments().filter(|flag| flag.is_hide_set());
        hidden.extend(flags.map(|flag| format!("{} {}", command.get_name(), flag.get_id())));
        let shown = command
            .get_subcommands()
            .filter(|command| !command.is_hide_set());
        shown.for_each(|command| hidden_flags(command, hidden));
    }

    #[test]
    fn no_command_takes_flags_that_it_hides() {
        let mut hidden = Vec::new();
        hidden_flags(&cli(), &mut hidden);
        assert_eq!(hidden, [""; 0]);
    }
}
