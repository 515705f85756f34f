//! Keys and accounts in the folder of a fleet that are lost or damaged.

use std::fs;

use super::Fleet;
use super::client::Intruder;

#[tokio::test]
async fn a_worker_gets_no_credentials_of_another_account_than_the_hubs() {
    let fleet = Fleet::start().await;
    let _hub = fleet.hub().await;
    let key = fleet.dir.join("keys/hub.nk");
    let kept = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    let add = ["add-worker", "near", "--pool", "edge"];

    fleet.run(&add).await.assert_error_names(&["keys/hub.nk"]);

    assert!(!key.exists(), "no other key is created");
    assert!(!fleet.credentials("near").exists());
    fs::write(&key, kept).unwrap();
    let added = fleet.run(&add).await;
    assert_eq!(added.status, Some(0), "{added:?}");
    Intruder::connect(fleet.rig.url(), &fleet.credentials("near")).await;
}

#[tokio::test]
async fn credentials_without_the_key_of_their_account_are_not_rotated() {
    let fleet = Fleet::start().await;
    fleet.add("dev-1").await;
    let added = fleet.run(&["add-tap", "audit", "--cluster", "dev-1"]).await;
    assert_eq!(added.status, Some(0), "{added:?}");
    for name in ["dev-1", "audit"] {
        let file = format!("keys/member-{name}.nk");
        let key = fleet.dir.join(&file);
        let kept = fs::read(&key).unwrap();
        let issued = fs::read(fleet.credentials(name)).unwrap();
        fs::remove_file(&key).unwrap();
        // With another key, the former credentials would stay valid.
        for action in ["rotate", "revoke"] {
            let refused = fleet.run(&[action, name]).await;
            refused.assert_error_names(&[name, &file]);
            assert!(!key.exists(), "{name}");
        }
        assert_eq!(fs::read(fleet.credentials(name)).unwrap(), issued);
        fs::write(&key, kept).unwrap();
        let rotated = fleet.run(&["rotate", name]).await;
        assert_eq!(rotated.status, Some(0), "{rotated:?}");
    }
}

#[tokio::test]
async fn an_update_continues_after_a_failure_and_names_each() {
    let fleet = Fleet::start().await;
    for name in ["dev-1", "dev-2", "dev-3", "dev-4"] {
        fleet.add(name).await;
    }
    let added = fleet.run(&["add-tap", "audit", "--cluster", "dev-1"]).await;
    assert_eq!(added.status, Some(0), "{added:?}");
    let issued = |name: &str| fs::read(fleet.credentials(name)).unwrap();
    let before = ["dev-4", "audit", "router"].map(|name| (name, issued(name)));
    fs::remove_file(fleet.dir.join("keys/member-dev-1.nk")).unwrap();
    // What is revoked is in this file: without it, the account would revoke nothing any more.
    fs::remove_file(fleet.dir.join("members/dev-2.jwt")).unwrap();
    fs::write(fleet.dir.join("members/dev-3.jwt"), "damaged").unwrap();

    let updated = fleet.run(&["update"]).await;

    assert_ne!(updated.status, Some(0), "{updated:?}");
    for text in [
        "cluster dev-1",
        "keys/member-dev-1.nk",
        "cluster dev-2",
        "members/dev-2.jwt",
        "cluster dev-3",
        "members/dev-3.jwt",
        "3 users",
    ] {
        assert!(updated.stderr.contains(text), "{text}: {updated:?}");
    }
    assert!(!updated.stderr.contains("dev-4"), "{updated:?}");
    assert!(!fleet.dir.join("members/dev-2.jwt").exists());
    for (name, before) in before {
        let again = issued(name);
        // Tokens of the same second are equal.
        assert!(!again.is_empty() && again.len() == before.len(), "{name}");
        let (url, file) = (fleet.rig.url(), fleet.credentials(name));
        match name {
            "audit" => Intruder::of_tap(url, &file).await,
            _ => Intruder::connect(url, &file).await,
        };
    }
    let rotated = fleet.run(&["rotate", "dev-2"]).await;
    assert_eq!(rotated.status, Some(0), "{rotated:?}");
}
