//! The page `docs/reference/permissions.md`.

use super::User;
use crate::command::fleet::taps;

/// The beginning of the page.
const HEAD: &str = "<!-- Written by `make docs`. -->\n\n# Permissions\n\nWhat the credentials that \
     `tidings fleet` issues may do on the NATS server. `<CLUSTER>` is the encoded name of a \
     member's cluster, `<POOL>` that of a pool, `<NAME>` that of a worker or tap, and `<FILTER>` \
     the filter of a tap.\n";

/// The table as Markdown.
pub fn markdown() -> String {
    let mut text = HEAD.to_owned();
    let member = ("member", User::Member("CLUSTER".to_owned()));
    let worker = User::PoolWorker {
        name: "NAME".to_owned(),
        pool: "POOL".to_owned(),
    };
    let worker = ("worker of a pool", worker);
    for (name, user) in User::HUB.into_iter().chain([worker, member]) {
        text.push_str(&section(name, &user).replace("CLUSTER.", "<CLUSTER>."));
    }
    let text = text.replace("-CLUSTER-", "-<CLUSTER>-");
    let text = text
        .replace(".POOL.", ".<POOL>.")
        .replace(".POOL-", ".<POOL>-");
    let mut text = text.replace("_INBOX_NAME", "_INBOX_<NAME>");
    text.push_str(&taps::permissions::section());
    text
}

/// The section of one user.
pub fn section(name: &str, user: &User) -> String {
    let mut text = format!("\n## {name}\n\n| may publish to | in order to |\n|---|---|\n");
    for grant in user.publish() {
        let subjects: Vec<_> = grant
            .subjects
            .iter()
            .map(|subject| format!("`{subject}`"))
            .collect();
        text.push_str(&format!(
            "| {} | {} |\n",
            subjects.join("<br>"),
            grant.purpose
        ));
    }
    let subscribe: Vec<_> = user
        .subscribe()
        .iter()
        .map(|subject| format!("`{subject}`"))
        .collect();
    text.push_str(&format!(
        "\nIt may subscribe to {}.\n",
        subscribe.join(", ")
    ));
    text
}
