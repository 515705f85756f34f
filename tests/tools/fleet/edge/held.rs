//! A hub whose server accepts smaller messages than the edge.

use rustix::process::{Pid, Signal, kill_process};
use tidings_rig::eventually;

use super::{Site, numbered, post};

impl Site {
    /// Sets `max_payload` in the configuration of the hub's server.
    fn set_max_payload(&self, bytes: u32) {
        let file = self.fleet.dir.join("nats.conf");
        let text = std::fs::read_to_string(&file).unwrap();
        let lines = text
            .lines()
            .map(|line| match line.starts_with("max_payload") {
                true => format!("max_payload: {bytes}\n"),
                false => format!("{line}\n"),
            });
        let changed: String = lines.collect();
        assert_ne!(text, changed);
        std::fs::write(&file, changed).unwrap();
    }
}

#[tokio::test]
async fn an_event_that_is_too_large_for_the_hub_waits_until_the_hub_accepts_it() {
    let mut site = Site::new().await;
    let _router = site.router("5m").await;
    site.set_max_payload(128 << 10);
    site.fleet.rig.nats().terminate().await;
    site.fleet.rig.nats().restart().await;
    let edge = site.fleet.rig.run(site.edge()).await;
    let mut posted = post(&edge, numbered("before", 3)).await;
    let large = "x".repeat(200_000);
    posted.extend(post(&edge, [large]).await);
    posted.extend(post(&edge, numbered("after", 3)).await);

    let held = edge.logs("edge-event-held").await;
    assert_eq!(held.field("max_payload"), "131072");
    eventually("the edge warns, and four events wait", async || {
        let ready = edge.readiness().await;
        assert_eq!(ready.status, 200, "{ready:?}");
        let waiting = edge.metric("tidings_edge_events_waiting", "").await;
        (ready.body.contains("max_payload") && waiting == 4.0).then_some(())
    })
    .await;
    site.stores(&posted[..3]).await;

    site.set_max_payload(8 << 20);
    let server = i32::try_from(site.fleet.rig.nats_id()).unwrap();
    kill_process(Pid::from_raw(server).unwrap(), Signal::HUP).unwrap();
    site.stores(&posted).await;
    eventually("the edge does not warn", async || {
        let ready = edge.readiness().await;
        (!ready.body.contains("max_payload")).then_some(())
    })
    .await;
}
