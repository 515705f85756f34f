//! `docs/reference/permissions.md` is generated from the table that issues credentials.

use std::env::var_os;
use std::path::Path;

use crate::command::tidings;

#[tokio::test]
async fn the_command_line_reference_of_permissions_shows_what_credentials_permit() {
    let page = tidings(&["fleet", "permissions"]).await.lines().join("\n") + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/permissions.md");
    if var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, page).unwrap();
        return;
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/reference/permissions.md differs from the credentials: run `make docs`"
    );
}
