//! Ports for servers that keep their address over a restart.

use std::net::TcpListener;

use rand::Rng;

/// A free port of the loopback interface.
///
/// It lies below the range of ports for outgoing connections, so that none of those takes it before
/// the server does.
pub fn free_port() -> u16 {
    let mut random = rand::rng();
    (0..1000)
        .map(|_| random.random_range(10_000..30_000))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of a thousand ports is free")
}
