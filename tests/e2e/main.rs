//! The chart on a real node: kubelet, containerd, Services and DNS. `make e2e` boots the node
//! (tools/e2e.sh) and runs these tests, which others skip.
//!
//! ```text
//!  post_steadily ──► Service ─► ingest ─► NATS ─► router ─► NATS ─► worker ──► Receiver
//!  Flux's recorder ──┘             pods of the chart, in a restricted namespace   on the host
//! ```

mod autoscaling;
mod cluster;
mod fleet;
mod load;
mod release;
mod single;
mod standard;
mod tls;
mod usage;

const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings");
