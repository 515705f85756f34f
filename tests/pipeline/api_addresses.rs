//! Forges whose API is elsewhere than the address says.

use tidings_rig::{Forge, Role, alert};

use crate::states::{COMMIT, post_all, reconciled, rig};

#[tokio::test]
async fn a_forge_below_a_path_is_called_at_its_api_address() {
    let (forge, rig) = (Forge::start().await, rig().await);
    rig.rules().put([
        forge.provider_below_a_path("github"),
        alert("commits", "forge"),
    ]);
    let up = rig.run(Role::up()).await;

    post_all(&up, [reconciled(COMMIT, 0, true)]).await;
    rig.drained().await;

    assert_eq!(forge.states(), ["success"]);
}
