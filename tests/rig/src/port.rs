//! Ports for servers that keep their address across restarts.

use std::net::TcpListener;

use rand::Rng;

/// A free port of the loopback interface.
///
/// The port is below the range for outgoing connections, so that no connection takes it before the
/// server listens.
pub fn free_port() -> u16 {
    let mut random = rand::rng();
    (0..1000)
        .map(|_| random.random_range(10_000..30_000))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of a thousand ports is free")
}
